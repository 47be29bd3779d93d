"""Models of plug-ins, as their authors made them but for one thing: what they are called.

    identity  {…the model's own, "plugin": {"distribution": "telecine-echo", "version": "1.2"}}

So what another version of a plug-in makes is not taken for what this one made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from telecine.encoders.caption.interface import (
    Captioner,
    CaptionReply,
    CaptionRequest,
    Input,
    Interrupted,
    Speaker,
)
from telecine.encoders.frames import FrameBlock, Latents, Pixels
from telecine.encoders.score.interface import Scorer
from telecine.encoders.text.interface import EncodedText, TextEncoder
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.plugins import Plugin
from telecine.manifests.fingerprint import JsonValue, fingerprint


def _identity(own: Mapping[str, JsonValue], plugin: Plugin) -> dict[str, JsonValue]:
    return {**own, "plugin": {**plugin.identity()}}


class _Model(Protocol):
    def identity(self) -> dict[str, JsonValue]: ...


Made = TypeVar("Made", bound=_Model)


class _Called(Generic[Made]):
    """What all of them have: the model, and what it is called."""

    def __init__(self, made: Made, plugin: Plugin) -> None:
        self._made, self._plugin = made, plugin

    def identity(self) -> dict[str, JsonValue]:
        return _identity(self._made.identity(), self._plugin)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())


class PluginCaptioner(_Called[Captioner]):
    """A `Captioner` whose speakers are called by the plug-in too."""

    def __init__(self, made: Captioner, plugin: Plugin) -> None:
        super().__init__(made, plugin)
        self._called = {speaker: self._renamed(speaker) for speaker in made.speakers}

    @property
    def name(self) -> str:
        return self._made.name

    @property
    def uses(self) -> frozenset[Input]:
        return self._made.uses

    @property
    def speakers(self) -> tuple[Speaker, ...]:
        return tuple(self._called.values())

    def caption(self, requests: Sequence[CaptionRequest]) -> list[CaptionReply]:
        try:
            return self._told(self._made.caption(requests))
        except Interrupted as interrupted:
            replies = self._told(interrupted.replies)
            raise Interrupted(interrupted.error, replies) from interrupted

    def _told(self, replies: Iterable[CaptionReply]) -> list[CaptionReply]:
        # One by a speaker whom it does not have is left as it is, and noticed where it arrives.
        return [replace(r, speaker=self._called.get(r.speaker, r.speaker)) for r in replies]

    def _renamed(self, speaker: Speaker) -> Speaker:
        if speaker.fingerprint == self._made.fingerprint:
            return Speaker(speaker.name, self.fingerprint)
        called = _identity({"speaker": speaker.fingerprint}, self._plugin)
        return Speaker(speaker.name, fingerprint(called))


class PluginScorer(_Called[Scorer]):
    """A `Scorer`."""

    @property
    def name(self) -> str:
        return self._made.name

    @property
    def dimensions(self) -> int:
        return self._made.dimensions

    def embed(self, clips: Sequence[Sequence[bytes]]) -> list[npt.NDArray[np.float32] | str]:
        return self._made.embed(clips)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self._made.embed_texts(texts)


class PluginTextEncoder(_Called[TextEncoder]):
    """A `TextEncoder`."""

    @property
    def name(self) -> str:
        return self._made.name

    @property
    def dimensions(self) -> int:
        return self._made.dimensions

    def encode(self, texts: Sequence[str]) -> list[EncodedText | str]:
        return self._made.encode(texts)


class PluginEncoder(_Called[VideoEncoder]):
    """A `VideoEncoder`."""

    @property
    def temporal_stride(self) -> int:
        return self._made.temporal_stride

    @property
    def spatial_stride(self) -> int:
        return self._made.spatial_stride

    @property
    def channels(self) -> int:
        return self._made.channels

    @property
    def causal(self) -> bool:
        return self._made.causal

    @property
    def latents_mean(self) -> tuple[float, ...]:
        return self._made.latents_mean

    @property
    def latents_std(self) -> tuple[float, ...]:
        return self._made.latents_std

    @property
    def normalised(self) -> bool:
        return self._made.normalised

    @property
    def posterior(self) -> str:
        return self._made.posterior

    @property
    def seconds_per_pixel(self) -> float:
        return self._made.seconds_per_pixel

    def valid_frames(self, available: int) -> int:
        return self._made.valid_frames(available)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        return self._made.latent_shape(frames, height, width)

    def block_sizes(self, frames: int) -> Iterator[int]:
        return self._made.block_sizes(frames)

    def encode(self, blocks: Iterable[FrameBlock], frames: int, seed: int = 0) -> Latents:
        return self._made.encode(blocks, frames, seed)

    def decode(self, latents: Latents) -> Iterator[Pixels]:
        return self._made.decode(latents)
