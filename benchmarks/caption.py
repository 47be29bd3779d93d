"""How near captioning comes to the bare model.

    python benchmarks/caption.py [--device cuda] [--quick]

Random weights in the true sizes of Qwen2.5-VL-7B-Instruct and coca_ViT-L-14 on a GPU in bfloat16;
on a CPU small models of the same classes, in float32 on one thread. For each it takes these in
turns, some rounds of them; printed are medians, and of the ratio the least and most too:

    pipeline   clips as the caption step hands them to a worker, JPEG stills and all, through
               CaptionWorker until their rows are there
    bare       the same batches of the same windows through the same model: tensors that are in the
               device's memory already, their tokens left there

No token ends an answer of the vision-language model, so that each has all of its tokens; its
tokenizer has bytes for words, which makes the prompt some 300 tokens longer than its own would be.
CoCa says of each still what its random weights have it say, up to COCA_TOKENS, the same in both.

On a GPU seconds are those on the clock. On a CPU they are CPU seconds of the whole process, since
whoever else has the cores would decide the ratio: so there it says what reading stills, preparing
and telling costs beside these small models, and nothing of whether it overlaps with them;
tests/encoders/caption/test_vlm.py shows that it does.

Not run on a GPU yet. Two cores of a virtual x86-64 machine with other work beside it,
6 clips with 60 stills of 342×192 and answers of 24 tokens, clips per CPU second, medians of five
rounds:

    model            pipeline     bare  ratio
    Qwen2.5-VL-7B       0.720    0.742  0.97 (0.94 to 1.03)
    coca_ViT-L-14       1.075    1.105  0.95 (0.91 to 0.98)

With --quick (3 clips, two rounds) they were 0.96 and 1.00. CoCa's pipeline also embeds the
sentences among which it chooses, as the bare model does not.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from telecine.encoders.caption import coca
from telecine.encoders.caption.describer import ModelCaptioner
from telecine.encoders.caption.interface import CaptionRequest, ClipFacts
from telecine.encoders.caption.vlm.files import library
from telecine.encoders.caption.vlm.generate import voice
from telecine.encoders.caption.vlm.inputs import Inputs
from telecine.encoders.caption.vlm.load import Loaded
from telecine.encoders.caption.vlm.vlm import Vlm
from telecine.encoders.device import Device
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.score.names import library as open_clip_library
from telecine.infra.store.storage import Storage
from telecine.manifests.specs import CaptionSpec
from telecine.pipeline.caption.step import BATCH_CLIPS_WITH_STILLS
from telecine.pipeline.caption.worker import CaptionTask, CaptionWorker, accept

SECONDS = (3, 5, 8, 10, 14, 20)  # clips, of one still a second; those above 10 make two windows
FACTS = ClipFacts(
    kind="video", duration_seconds=0.0, width=1280, height=720, camera_x=0.0, camera_y=0.0,
    subject_motion=0.0, change=0.0, brightness=0.5, contrast=0.1, saturation=0.2,
    dominant_colors=(),
)  # fmt: skip
COCA_TOKENS = 20  # what it has learnt to say of a still is seldom longer
PINNED = "0" * 64  # of weights that lie nowhere


@dataclass(frozen=True)
class Scale:
    """What is run on a kind of device."""

    still: tuple[int, int]  # px
    clips: int
    tokens: int  # of an answer of the vision-language model
    rounds: int
    dtype: str


SCALES = {
    "cuda": Scale((683, 384), BATCH_CLIPS_WITH_STILLS, 160, 3, "bfloat16"),
    "cpu": Scale((342, 192), 6, 24, 5, "float32"),
}

# As published with Qwen2.5-VL-7B-Instruct; small: the same with fewer and narrower layers.
QWEN = {
    "cuda": (
        {
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
            "max_position_embeddings": 128000, "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6
            },
        },
        {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "out_hidden_size": 3584, "tokens_per_second": 2,
        },
    ),
    "cpu": (
        {
            "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8,
            "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 8192,
            "rope_parameters": {
                "rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6
            },
        },
        {
            "depth": 8, "hidden_size": 320, "intermediate_size": 880, "num_heads": 8,
            "out_hidden_size": 512, "fullatt_block_indexes": [3, 7], "tokens_per_second": 2,
        },
    ),
}  # fmt: skip
COCA_SMALL: dict[str, Any] = {
    "embed_dim": 256,
    "vision_cfg": {
        "image_size": 224, "layers": 6, "width": 384, "patch_size": 14, "attentional_pool": True,
        "attn_pooler_heads": 8, "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 76, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 3,
        "embed_cls": True, "output_tokens": True,
    },
    "multimodal_cfg": {
        "context_length": 76, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 3,
        "attn_pooler_heads": 4,
    },
    "custom_text": True,
}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """One model on one device."""

    name: str
    captioner: ModelCaptioner
    device: Device
    tasks: Sequence[CaptionTask]
    bare: Callable[[], None]

    @property
    def clips(self) -> int:
        return len(self.tasks)

    def pipeline(self) -> None:
        replies = CaptionWorker(self.captioner, Storage())(self.tasks)
        rows = accept(self.captioner, self.tasks, replies)
        failed = [row.detail for row in rows if row.outcome == "failed"]
        assert len(rows) == self.clips, len(rows)
        assert not failed, failed


# ── clips ────────────────────────────────────────────────────────────────────────────────────────


def jpeg(number: int, size: tuple[int, int]) -> bytes:
    """Soft shapes with some grain, about as large as a still of footage."""
    random = np.random.default_rng(number)
    shapes = random.integers(0, 255, (9, 16, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(shapes).resize(size, Image.Resampling.BICUBIC), np.int16)
    grainy = np.clip(soft + random.normal(0, 5, soft.shape).astype(np.int16), 0, 255)
    file = io.BytesIO()
    Image.fromarray(grainy.astype(np.uint8)).save(file, "JPEG", quality=87)
    return file.getvalue()


def task(number: int, seconds: int, size: tuple[int, int]) -> CaptionTask:
    stills = tuple((i + 0.5, jpeg(100 * number + i, size)) for i in range(seconds))
    return CaptionTask(
        CaptionRequest(
            clip_id=f"{number:032x}", stills_digest="", input_digest="",
            facts=dataclasses.replace(FACTS, duration_seconds=seconds), start_seconds=0.0,
            end_seconds=seconds, stills=stills,
        )
    )  # fmt: skip


# ── Qwen2.5-VL ───────────────────────────────────────────────────────────────────────────────────


def qwen_processor() -> Any:
    """The published one's settings, and bytes for words."""
    transformers = library()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    special = [f"<|{name}|>" for name in ("vision_start", "vision_end", "image_pad", "video_pad")]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *special]})
    tokenizer.padding_side = "left"
    size = {"shortest_edge": 3136, "longest_edge": 12845056}
    return transformers.Qwen2_5_VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size), tokenizer,
        transformers.Qwen2VLVideoProcessor(size=size),
        chat_template=(
            "{% for message in messages %}<|im_start|>{{ message.role }}\n"
            "{% for part in message.content %}{% if part.type == 'video' %}"
            "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
            "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
        ),
    )  # fmt: skip


def qwen_model(device: Device, tokenizer: Any) -> Any:
    """Random weights, made where they are used."""
    transformers = library()
    text, vision = QWEN[device.torch.type]
    ids = tokenizer.convert_tokens_to_ids
    config = transformers.Qwen2_5_VLConfig(
        text_config={**text, "bos_token_id": None, "eos_token_id": None}, vision_config=vision,
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    torch.manual_seed(0)
    with device.torch:
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=device.dtype)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=text["vocab_size"], pad_token_id=ids("<|endoftext|>")
    )
    return model.eval().requires_grad_(False)


def qwen(scale: Scale, device: Device, tasks: Sequence[CaptionTask], _folder: Path) -> Bench:
    spec = CaptionSpec(
        captioner="vlm:nowhere", weights=PINNED, dtype=scale.dtype, max_tokens=scale.tokens
    )
    describer = Vlm(spec, ModelRuntime(device=device.torch.type))
    processor = qwen_processor()
    model = qwen_model(device, processor.tokenizer)
    settings = voice(model, processor.tokenizer, scale.tokens, 0.0)
    model.generation_config = settings.config
    inputs = Inputs(processor, device.dtype)
    describer.__dict__["_loaded"] = Loaded(model, processor.tokenizer, inputs, settings, device)
    captioner = ModelCaptioner(describer, spec)
    views = [view for task in tasks for view in captioner._views(task.request)]
    ready = [
        {name: value.to(device.torch) for name, value in each.tensors.items()}
        for batch in describer._batches(views)
        for each in inputs.prepare(batch).ready
    ]

    def bare() -> None:
        with device.computing():
            for tensors in ready:
                said = model.generate(**tensors, generation_config=settings.config)
                assert said.shape[1] == tensors["input_ids"].shape[1] + scale.tokens
        synchronize(device)

    return Bench("Qwen2.5-VL-7B", captioner, device, tasks, bare)


# ── CoCa ─────────────────────────────────────────────────────────────────────────────────────────


def coca_folder(device: Device, folder: Path) -> Path:
    from safetensors.torch import save_file

    open_clip = open_clip_library()
    architecture = COCA_SMALL
    if device.cuda:
        architecture = open_clip.get_model_config("coca_ViT-L-14")
    given = {key: value for key, value in architecture.items() if key != "custom_text"}
    torch.manual_seed(0)
    net = open_clip.CoCa(**given)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": architecture}))
    save_file(net.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def coca_bench(scale: Scale, device: Device, tasks: Sequence[CaptionTask], folder: Path) -> Bench:
    spec = CaptionSpec(
        captioner=f"openclip:{coca_folder(device, folder)}",
        dtype=scale.dtype,
        max_tokens=COCA_TOKENS,
    )
    captioner = coca.load_coca(spec, ModelRuntime(device=device.torch.type))
    describer = captioner._describer
    assert isinstance(describer, coca.CocaDescriber)
    model = describer._model
    net, tokenizer = describer._decoder()
    views = [view for task in tasks for view in captioner._views(task.request)]
    stills = [jpeg for view in views for _, jpeg in view.stills]
    with device.computing():
        batches = model.over_stills(
            stills, lambda some: [model.pixels(some)] + [None] * (len(some) - 1)
        )
    ready = [batch for batch in batches if isinstance(batch, torch.Tensor)]

    def bare() -> None:
        with device.computing():
            for pixels in ready:
                pictures = net(pixels)["image_embs"]
                coca.spoken(
                    net, pictures, start=tokenizer.sot_token_id, end=tokenizer.eot_token_id,
                    limit=COCA_TOKENS, choose=coca._chooser(0.0, []),
                )  # fmt: skip
        synchronize(device)

    return Bench("coca_ViT-L-14", captioner, device, tasks, bare)


# ── the two against each other ───────────────────────────────────────────────────────────────────


def synchronize(device: Device) -> None:
    if device.cuda:
        torch.cuda.synchronize(device.torch)


def seconds(bench: Bench, rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """Of pipeline and bare model in every round, in turns after a first that is not timed."""
    took: list[list[float]] = [[], []]
    works = (bench.pipeline, bench.bare)
    for timed, (work, into) in itertools.product(range(1 + rounds), zip(works, took, strict=True)):
        began = clock()
        work()
        if timed:
            into.append(clock() - began)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description="captioning ÷ the bare model")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=SCALES, default=found)
    parser.add_argument("--quick", action="store_true", help="fewer clips, two rounds")
    given = parser.parse_args()
    cuda, scale = given.device == "cuda", SCALES[given.device]
    if given.quick:
        scale = dataclasses.replace(scale, clips=max(scale.clips // 4, 3), rounds=2)
    device = Device(given.device, getattr(torch, scale.dtype))
    where = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    print(f"{where}, {os.cpu_count()} cores, torch {torch.__version__}, ", end="")
    print("true sizes, bfloat16" if cuda else "SMALL models, float32, one thread")
    durations = itertools.islice(itertools.cycle(SECONDS), scale.clips)
    tasks = [task(number, each, scale.still) for number, each in enumerate(durations)]
    stills = sum(len(each.request.stills) for each in tasks)
    width, height = scale.still
    print(f"{len(tasks)} clips with {stills} stills of {width}×{height}; ", end="")
    print(f"answers of {scale.tokens} tokens, CoCa's {COCA_TOKENS}; ", end="")
    print(f"clips per {'second' if cuda else 'CPU second'}")
    print("model            pipeline     bare  ratio")
    clock = time.perf_counter if cuda else time.process_time
    for make in (qwen, coca_bench):
        with tempfile.TemporaryDirectory() as folder:
            bench = make(scale, device, tasks, Path(folder))
            pipeline, bare = seconds(bench, scale.rounds, clock)
            ratios = [b / p for p, b in zip(pipeline, bare, strict=True)]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            rates = [bench.clips / median(each) for each in (pipeline, bare)]
            print(f"{bench.name:<15} {rates[0]:9.3f} {rates[1]:8.3f}  {spread}", flush=True)
            del bench


if __name__ == "__main__":
    main()
