"""Which sound comes with the footage, as the container says; nothing of it is decoded."""

from __future__ import annotations

from typing import TypedDict

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

NOT_THE_SOUND = (
    Disposition.dub
    | Disposition.comment
    | Disposition.karaoke
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.clean_effects
    | Disposition.dependent
)


class AudioFacts(TypedDict):
    """Fields of `MediaFacts`; None: the container has the stream and does not say."""

    has_audio: bool
    audio_channels: int | None
    audio_sample_rate: int | None


def audio_facts(container: InputContainer) -> AudioFacts:
    """Of the audio stream that a player would choose: no commentary, the default, most channels."""
    streams = container.streams.audio
    if not streams:
        return AudioFacts(has_audio=False, audio_channels=0, audio_sample_rate=0)
    best = min(streams, key=_rank)
    return AudioFacts(
        has_audio=True,
        audio_channels=_channels(best) or None,
        audio_sample_rate=(best.codec_context and best.codec_context.sample_rate) or None,
    )


def _rank(stream: AudioStream) -> tuple[bool, bool, int, int]:
    return (
        bool(stream.disposition & NOT_THE_SOUND),
        not stream.disposition & Disposition.default,
        -_channels(stream),
        stream.index,
    )


def _channels(stream: AudioStream) -> int:
    """0 where no decoder knows the stream, or it does not say."""
    return stream.codec_context.channels if stream.codec_context is not None else 0
