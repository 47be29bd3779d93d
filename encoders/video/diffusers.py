"""A video VAE of the diffusers library as a `VideoEncoder`.

weights     where it lies, and the digest of its weights     made at once: the identity
config      strides, channels, constants                     made at once
model       the loaded model, probed                         at the first clip
families    what only its class knows: streams, quirks, how it decodes
device      planes → pixels on the device, latents back
posterior   parameters → what is stored
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from telecine.encoders.device import Device, Landing, picture
from telecine.encoders.frames import FrameBlock, Latents, Pixels, checked
from telecine.encoders.hub import read_json
from telecine.encoders.video.config import VaeConfig, library_class, read_config
from telecine.encoders.video.families.registry import family_of, streaming_for
from telecine.encoders.video.model import load
from telecine.encoders.video.posterior import Constants, Posterior
from telecine.encoders.video.tiles import tiled
from telecine.encoders.video.weights import CONFIG, locate, read_buffers, weights_digest
from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import JsonValue, fingerprint
from telecine.manifests.specs import VaeSpec

VERSION = 1  # rises when this code would make other latents of the same model and frames
_WHOLE_GPU = "give the encoder a whole GPU (--gpus 1)"
_LESS = f"set [vae] tile, or window where the model has one, smaller; or {_WHOLE_GPU}"
_DECODE = "to decode on the CPU, which is slow, set CUDA_VISIBLE_DEVICES to nothing"
CONSTANTS = ("latents_mean", "latents_std")


class DiffusersEncoder:
    """`VideoEncoder` over a folder or hub id. One clip at a time: not to be shared by threads."""

    def __init__(self, spec: VaeSpec, device: str = "cpu") -> None:
        """Reads the config and hashes the weights; loads no model.

        Raises UsageError where there is no such VAE, it is not supported, the spec asks of it what
        it cannot do, or there is no such device.
        """
        library_class("ModelMixin")  # said before a download that would be for nothing
        self._spec = spec
        self._folder = locate(spec.encoder.partition(":")[2])
        self._config, self._weights = _read(self._folder)
        if spec.posterior != "mean" and not self._config.family.gaussian:
            raise UsageError(
                f"[vae] posterior = {spec.posterior!r}: {self._config.class_name} has no log "
                "variance, only a mean; set posterior = 'mean'"
            )
        whole = streaming_for(self._config.family, self._config.full, spec)
        side = self._config.spatial_stride
        self._whole = whole  # pictures; what the model is held against
        self._streaming = tiled(whole, spec.tile, spec.tile_overlap, side) if spec.tile else whole
        pixels = torch.float32 if self._config.family.fine_pixels else None
        self._device = Device(device, getattr(torch, spec.dtype), pixels)

    @property
    def temporal_stride(self) -> int:
        return self._config.temporal_stride

    @property
    def spatial_stride(self) -> int:
        return self._config.spatial_stride

    @property
    def channels(self) -> int:
        return self._config.channels

    @property
    def causal(self) -> bool:
        return self._config.causal

    @property
    def latents_mean(self) -> tuple[float, ...]:
        return self._config.latents_mean

    @property
    def latents_std(self) -> tuple[float, ...]:
        return self._config.latents_std

    @property
    def normalised(self) -> bool:
        return self._spec.normalise

    @property
    def posterior(self) -> str:
        return self._spec.posterior

    @property
    def seconds_per_pixel(self) -> float:
        return 1e-5 if self._device.cuda else 1e-3

    def identity(self) -> dict[str, JsonValue]:
        spec, config = self._spec, self._config
        return {
            "name": config.family.name,
            "version": VERSION,
            "class": config.class_name,
            "weights": self._weights,
            "config": config.encoding,
            "dtype": spec.dtype,
            "posterior": spec.posterior,
            "normalise": spec.normalise,
            "latents_mean": list(config.latents_mean),
            "latents_std": list(config.latents_std),
            "scale": config.family.scale,  # the deviation that normalised latents are meant to have
            "constants": "last-stays",  # those per latent frame, beyond the last that is given
            "streaming": self._streaming.identity(),  # windows and tiles
            "pixels": "bt709-8bit[-1,1]",
            "stored": "float16",
        }

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    def valid_frames(self, available: int) -> int:
        chunk = self._config.chunk
        return 1 + (available - 1) // chunk * chunk if available > 0 else 0

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        self._check_frames(frames)
        side = self.spatial_stride
        if height < side or width < side or height % side or width % side:
            raise ValueError(f"a {width}×{height} picture: both must be multiples of {side}")
        channels = self.channels * (2 if self.posterior == "moments" else 1)
        return channels, 1 + (frames - 1) // self.temporal_stride, height // side, width // side

    def block_sizes(self, frames: int) -> Iterator[int]:
        self._check_frames(frames)
        return self._streaming.chunks(frames)

    def encode(self, blocks: Iterable[FrameBlock], frames: int, seed: int = 0) -> Latents:
        arriving = checked(blocks, self.block_sizes(frames))
        first = next(arriving)
        _, height, width = first.shape
        latents = np.empty(self.latent_shape(frames, height, width), np.float16)
        vae = self._vae
        what = f"{width}×{height}, {max(self.block_sizes(frames))} frames at once,"
        with self._device.computing(), self._device.fitting(what, _LESS):
            stream = self._streaming.open(vae, frames)
            posterior = Posterior(self.posterior, self._constants, self.channels, seed)
            landing = Landing(self._device, latents)
            landing.land(posterior(stream.push(self._device.pixels(first))))
            del first  # it need not live as long as the clip
            for block in arriving:
                landing.land(posterior(stream.push(self._device.pixels(block))))
            landing.finish()
        return latents

    def decode(self, latents: Latents) -> Iterator[Pixels]:
        """Of moments, the means. Raises ValueError unless `latents` has the shape of stored ones.

        Classes that do not decode in pieces hold the clip in the device's memory.
        """
        expected = self.channels * (2 if self.posterior == "moments" else 1)
        if latents.ndim != 4 or latents.shape[0] != expected or 0 in latents.shape:
            raise ValueError(f"latents {latents.shape}: expected ({expected}, T', H', W')")
        return self._decoded(latents[: self.channels])

    def _decoded(self, latents: Latents) -> Iterator[Pixels]:
        vae = self._vae
        fitting = functools.partial(
            self._device.fitting, f"latents {latents.shape} and their pixels", _DECODE
        )
        with self._device.computing(), fitting():
            stored = torch.from_numpy(latents.astype(np.float32)).to(self._device.torch)
            raw = self._constants.raw(stored)[None].to(self._device.dtype)
            pieces = self._config.family.decode(vae, raw)
        while True:
            # Entered for each piece: between them the reader computes in its own way.
            with self._device.computing(), fitting():
                piece = next(pieces, None)
                if piece is None:
                    return
                block = picture(piece)
            yield block

    @functools.cached_property
    def _vae(self) -> Any:
        with self._device.fitting(f"the weights in {self._folder}", _WHOLE_GPU):
            vae = load(self._folder, self._config, self._device, self._whole)
        # They may have been replaced while an encoder that knew the old ones waited for a clip.
        if _read(self._folder) != (self._config, self._weights):
            raise UsageError(
                f"the VAE in {self._folder} is not what it was when the run began: its weights or "
                "config were replaced; run again, for a build of the new ones, or put the old back"
            )
        return vae

    @functools.cached_property
    def _constants(self) -> Constants:
        return Constants(self._config, self._spec.normalise, self._device.torch)

    def _check_frames(self, frames: int) -> None:
        if frames < 1 or self.valid_frames(frames) != frames:
            chunk = self._config.chunk
            raise ValueError(
                f"{frames} frames: the {self._config.family.name} encoder takes 1 + {chunk}k, as "
                f"1, {1 + chunk}, {1 + 2 * chunk}"
            )


def _read(folder: Path) -> tuple[VaeConfig, str]:
    """The config, and the digest of the weights."""
    config = read_json(folder / CONFIG)
    family = family_of(str(config.get("_class_name")))
    buffers = read_buffers(folder, CONSTANTS) if family.buffers else None
    return read_config(config, buffers), weights_digest(folder)
