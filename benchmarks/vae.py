"""How near making a shard comes to the bare VAE, and the bare VAE to the device.

    python benchmarks/vae.py [--device cuda] [--quick]

Random weights of the true sizes of Wan 2.1, Wan 2.2 and LTX-Video 0.9.0 at 480p, 720p and 1080p
on a GPU in bfloat16; on a CPU small models of the same classes at small sizes, in float32 and, as
the encoder does there, on one thread. For each it renders an H.264 file of drifting texture and
takes these in turns, ROUNDS times; printed are medians, and of the ratio the least and most too:

    pipeline   decode → encode → shard of some copies of the clip through one ShardWorker, with its
               threads, until the tar is in its place
    bare       the same frames in the same pieces through the same model: tensors that are in the
               device's memory already, their results left there
    decode     the clip's frames on one thread, nothing else

TFLOP (two per multiplication and addition) are those of the encoder at that size, counted by torch
on the meta device; the peak is that of a product of large square matrices in the same run.

On a GPU seconds are those on the clock. On a CPU they are CPU seconds of the whole process, since
whoever else has the cores would decide the ratio: on the clock of a busy machine it was 0.70 to
1.30 in twelve rounds. So there it says what decoding and writing cost beside the encoder, and
nothing of whether they overlap with it; tests/build/test_shard.py shows that they do.

Nobody has run it on a GPU yet. Two cores of a virtual AMD EPYC with other work beside it, a peak of
0.093 TFLOP/s on one thread, medians of five rounds:

    model    encoded      decode  pipeline     bare  ratio                GFLOP a frame  of the peak
    Wan 2.1  128×64       8016.0     83.02    84.58  0.98 (0.97 to 0.99)            0.2        0.137
    Wan 2.1  192×128      6111.6     17.00    17.24  0.98 (0.93 to 1.02)            0.5        0.085
    Wan 2.2  128×64       8543.8    203.98   222.55  0.93 (0.91 to 0.96)            0.1        0.213
    Wan 2.2  192×128      6049.1     65.31    67.12  0.97 (0.97 to 1.00)            0.3        0.205
    LTX      128×64       8910.8    239.00   362.04  0.66 (0.65 to 0.68)            0.1        0.149
    LTX      192×128      6301.8    125.09   190.44  0.65 (0.64 to 0.67)            0.2        0.234

LTX gave 0.95 and 0.96 in another run: its tensors come and go by the page, 84,000 page faults and a
quarter of its CPU time, or the allocator keeps them; which of the two it is depends on what the
process did before, and may differ between pipeline and bare. In user time alone it is 0.9.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from dct import FRAMES, h264, texture
from torch.utils.flop_counter import FlopCounterMode

from telecine.encoders.video.config import library_class
from telecine.encoders.video.diffusers import DiffusersEncoder
from telecine.infra.store.storage import Storage
from telecine.manifests.buckets import Bucket
from telecine.manifests.specs import DatasetSpec, VaeSpec
from telecine.pipeline.build.encode import ClipFrames
from telecine.pipeline.build.plan import Encoding, plan_encoding
from telecine.pipeline.build.sample import ChosenCaption
from telecine.pipeline.build.step import BLOCKS_AHEAD
from telecine.pipeline.build.worker import MemberJob, ShardJob, ShardWorker
from telecine.pipeline.scan.discover import Found, ScanTask
from telecine.pipeline.scan.worker import scan_source

ROUNDS = 5
SIZES = {
    "cuda": ((848, 480), (1280, 720), (1920, 1080)),
    "cpu": ((128, 64), (192, 128)),
}
MATRIX = {"cuda": 8192, "cpu": 2048}  # rows and columns of the product that is the peak
WAN22 = {
    "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12,
    "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48,
}  # fmt: skip
LTX_SMALL = {
    "block_out_channels": (16, 32, 64, 64), "decoder_block_out_channels": (16, 32, 64, 64),
    "layers_per_block": (1, 1, 1, 1, 1), "decoder_layers_per_block": (1, 1, 1, 1, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A class of the library, and its config where it is not the class's own default."""

    name: str
    class_name: str
    true: dict[str, Any]  # the size that is published
    small: dict[str, Any]


MODELS = (
    Model("Wan 2.1", "AutoencoderKLWan", {}, {"base_dim": 8, "num_res_blocks": 1}),
    Model("Wan 2.2", "AutoencoderKLWan", {"base_dim": 160, **WAN22},
          {**WAN22, "base_dim": 12, "decoder_base_dim": 12, "num_res_blocks": 1}),
    Model("LTX", "AutoencoderKLLTXVideo", {}, LTX_SMALL),
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """One model at one size, on one device."""

    worker: ShardWorker
    member: MemberJob
    members: int  # copies of the clip in the shard

    @property
    def encoder(self) -> DiffusersEncoder:
        encoder = self.worker._encoder
        assert isinstance(encoder, DiffusersEncoder)
        return encoder

    @property
    def encoding(self) -> Encoding:
        encoding = plan_encoding(self.member.clip, self.encoder, self.worker._spec.vae)
        assert encoding is not None
        return encoding

    def pipeline(self) -> int:
        clips = [
            dataclasses.replace(self.member.clip, clip_id=f"{n:032x}") for n in range(self.members)
        ]
        members = tuple(dataclasses.replace(self.member, clip=clip) for clip in clips)
        bucket = Bucket(480, "16x9", "2s")
        receipt = self.worker(ShardJob("b", "b", 0, "s", bucket, members))
        assert all(sample.outcome == "kept" for sample in receipt.samples), receipt.samples
        return receipt.frames_encoded

    def bare(self, pieces: dict[int, torch.Tensor]) -> int:
        """`pieces`: what is pushed, by its number of frames."""
        encoder, frames = self.encoder, self.encoding.frames
        with encoder._device.computing():
            for _ in range(self.members):
                stream = encoder._streaming.open(encoder._vae, frames)
                for size in encoder.block_sizes(frames):
                    stream.push(pieces[size])
        synchronize(encoder._device.torch)
        return frames * self.members

    def decode(self) -> int:
        frames = ClipFrames(
            self.member.clip,
            self.member.source,
            self.encoding,
            self.encoder,
            pixels=self.worker._spec.pixels,
            storage=Storage(),
            ahead=0,
        )
        return sum(block.shape[0] for block in frames.blocks)

    def pieces(self) -> dict[int, torch.Tensor]:
        crop, device = self.encoding.crop, self.encoder._device
        sizes = set(self.encoder.block_sizes(self.encoding.frames))
        shapes = {size: (1, 3, size, crop.height, crop.width) for size in sizes}
        made = {size: torch.rand(shape) * 2 - 1 for size, shape in shapes.items()}
        return {size: each.to(device.torch, device.dtype) for size, each in made.items()}

    def flop(self) -> float:
        """Per frame, of the whole clip."""
        encoder, encoding = self.encoder, self.encoding
        with torch.device("meta"):
            vae = library_class(encoder._config.class_name).from_config(encoder._vae.config).eval()
        pieces = {size: piece.to("meta", torch.float32) for size, piece in self.pieces().items()}
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            stream = encoder._streaming.open(vae, encoding.frames)
            for size in encoder.block_sizes(encoding.frames):
                stream.push(pieces[size])
        return counter.get_total_flops() / encoding.frames


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def per_second(clock: Callable[[], float], *works: Callable[[], int]) -> list[list[float]]:
    """Frames per second of each in every round, taken in turns after a first that is not timed."""
    rates: list[list[float]] = [[] for _ in works]
    for timed, (work, into) in itertools.product(range(1 + ROUNDS), zip(works, rates, strict=True)):
        began = clock()
        frames = work()
        if timed:
            into.append(frames / (clock() - began))
    return rates


def peak(encoder: DiffusersEncoder, clock: Callable[[], float]) -> float:
    """FLOP per second of a large product, best of ten."""
    device = encoder._device
    side = MATRIX[device.torch.type]
    a, b = (torch.rand((side, side), device=device.torch).to(device.dtype) for _ in range(2))
    best = 0.0
    with device.computing():
        for _ in range(10):
            synchronize(device.torch)
            began = clock()
            a @ b
            synchronize(device.torch)
            best = max(best, 2 * side**3 / (clock() - began))
    return best


def save(model: Model, folder: Path, small: bool, dtype: torch.dtype) -> Path:
    torch.manual_seed(0)
    path = folder / f"{model.name} {'small' if small else 'true'}"
    config = model.small if small else model.true
    vae = library_class(model.class_name)(**config)
    torch.nn.Module.to(vae, dtype)  # the library's own warns, for models that are not ours
    vae.save_pretrained(path)
    return path


def render(folder: Path, width: int, height: int) -> MemberJob:
    """A file of one clip, scanned."""
    path = folder / f"{width}x{height}.mp4"
    path.write_bytes(h264(texture(width, height)))
    info = Storage().stat(str(path))
    found = Found(info.uri, info.version, info.size_bytes)
    scanned = scan_source(ScanTask(found, 0), Storage(), DatasetSpec())
    (clip,) = scanned.clips
    return MemberJob(clip, scanned.source, ChosenCaption("none", "", "", ""), None)


def benches(folder: Path, device: str, members: int, quick: bool) -> Iterator[tuple[str, Bench]]:
    sizes = SIZES[device][:1] if quick else SIZES[device]
    clips = [render(folder, width, height) for width, height in sizes]
    dtype, small = ("bfloat16", False) if device == "cuda" else ("float32", True)
    ahead = BLOCKS_AHEAD
    for model in MODELS:
        path = save(model, folder, small, getattr(torch, dtype))
        vae = VaeSpec(encoder=f"diffusers:{path}", dtype=dtype)
        worker = ShardWorker(
            str(folder / "dataset"), DatasetSpec(vae=vae), Storage(), ahead, device
        )
        for clip in clips:
            yield model.name, Bench(worker, clip, members)


def main() -> None:
    parser = argparse.ArgumentParser(description="pipeline ÷ bare VAE, and the share of the peak")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=SIZES, default=found)
    parser.add_argument(
        "--quick", action="store_true", help="the smallest size alone, with two clips"
    )
    given = parser.parse_args()
    cuda = given.device == "cuda"
    where = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    print(f"{where}, {os.cpu_count()} cores, torch {torch.__version__}, ", end="")
    print("true sizes, bfloat16" if cuda else "SMALL models at small sizes, float32, one thread")
    members = 4 if cuda and not given.quick else 2
    unit = "second" if cuda else "CPU second"
    clock = time.perf_counter if cuda else time.process_time
    print(f"{members} clips of {FRAMES} frames in a shard; frames per {unit}")
    print("model    encoded      decode  pipeline     bare  ratio                ", end="")
    print("GFLOP a frame   of the peak")
    with tempfile.TemporaryDirectory() as folder:
        top = 0.0
        for name, bench in benches(Path(folder), given.device, members, given.quick):
            encoder = bench.encoder
            top = top or peak(encoder, clock)
            bare = partial(bench.bare, bench.pieces())
            rates = per_second(clock, bench.pipeline, bare, bench.decode)
            pipeline, alone, decoded = map(median, rates)
            ratios = [a / b for a, b in zip(*rates[:2], strict=True)]
            crop, flop = bench.encoding.crop, bench.flop()
            size = f"{crop.width}×{crop.height}"
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(
                f"{name:<8} {size:<10} {decoded:8.1f} {pipeline:9.2f} {alone:8.2f}  "
                f"{spread:<20} {flop / 1e9:13.1f} {pipeline * flop / top:13.3f}",
                flush=True,
            )
        print(f"peak: {top / 1e12:.3g} TFLOP/s")


if __name__ == "__main__":
    main()
