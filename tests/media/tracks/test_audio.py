"""What is said of the sound that comes with footage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.support.movies import read_facts

NONE, COMMENT, DEFAULT = Disposition(0), Disposition.comment, Disposition.default


@dataclass(frozen=True)
class Sound:
    rate: int = 48000
    layout: str = "stereo"
    disposition: Disposition = NONE
    codec: str = "pcm_s16le"


def write(path: Path, sounds: Sequence[Sound]) -> Path:
    """A short film, and a tenth of a second of silence of each sound."""
    with av.open(str(path), "w") as container:
        film: Any = container.add_stream("mpeg4", rate=10)
        film.width = film.height = 64
        streams: list[Any] = []
        for sound in sounds:
            stream = container.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
            stream.disposition = sound.disposition
            streams.append(stream)
        for shade in range(3):
            picture = np.full((64, 64, 3), 40 * shade, np.uint8)
            container.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(film.encode())
        for sound, stream in zip(sounds, streams, strict=True):
            channels = len(av.AudioLayout(sound.layout).channels)
            silence = np.zeros((1, channels * sound.rate // 10), np.int16)
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout=sound.layout)
            frame.sample_rate = sound.rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("sounds", "channels", "rate"),
    [
        ([Sound()], 2, 48000),
        ([Sound(8000, "mono")], 1, 8000),
        ([Sound(44100, "mono"), Sound(48000, "5.1")], 6, 48000),
        ([Sound(44100, "mono", DEFAULT), Sound(48000, "5.1")], 1, 44100),
        ([Sound(22050, "stereo", DEFAULT | COMMENT), Sound(48000, "mono")], 1, 48000),
        ([Sound(22050, "mono", COMMENT)], 1, 22050),
        ([Sound(44100), Sound(48000)], 2, 44100),
    ],
)
def test_the_sound_that_a_player_would_choose(
    sounds: list[Sound], channels: int, rate: int, tmp_path: Path
) -> None:
    facts = read_facts(write(tmp_path / "film.mkv", sounds))
    assert (facts.has_audio, facts.audio_channels, facts.audio_sample_rate) == (
        True, channels, rate,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["film.mkv", "film.mov", "film.avi"])
def test_a_silent_film_has_none(name: str, tmp_path: Path) -> None:
    facts = read_facts(write(tmp_path / name, []))
    assert (facts.has_audio, facts.audio_channels, facts.audio_sample_rate) == (False, 0, 0)


@pytest.mark.parametrize("name", ["film.mov", "film.avi", "film.nut"])
def test_other_containers_say_it_too(name: str, tmp_path: Path) -> None:
    facts = read_facts(write(tmp_path / name, [Sound(44100, "mono")]))
    assert (facts.has_audio, facts.audio_channels, facts.audio_sample_rate) == (True, 1, 44100)


def test_a_stream_that_no_decoder_knows_is_sound_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "film.mkv", [Sound()])
    whole = path.read_bytes()
    assert b"A_PCM/INT/LIT" in whole
    path.write_bytes(whole.replace(b"A_PCM/INT/LIT", b"A_UNKNOWN/LIT"))
    facts = read_facts(path)
    assert facts.has_audio
    assert facts.audio_channels in (2, None)
