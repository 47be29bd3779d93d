"""Of several streams the film is taken: neither its cover, nor its slides, nor a thumbnail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import pytest
from av.stream import Disposition

from tests.support.cases import case
from tests.support.movies import frame_of, open_video, random_planes


@dataclass(frozen=True)
class Track:
    side: int  # px, square
    frames: int
    disposition: Disposition = Disposition.default
    codec: str = "libx264"


FILM = Track(64, 40)


def write_tracks(path: Path, tracks: Sequence[Track]) -> Path:
    """Tracks side by side, interleaved by time."""
    with av.open(str(path), "w") as container:
        streams = []
        for track in tracks:
            fast = {"preset": "ultrafast"} if track.codec == "libx264" else {}
            stream = container.add_stream(track.codec, rate=25, options=fast)
            stream.width = stream.height = track.side
            stream.pix_fmt = "yuvj420p" if track.codec == "mjpeg" else "yuv420p"
            stream.disposition = track.disposition
            streams.append(stream)
        for k in range(max(track.frames for track in tracks)):
            for track, stream in zip(tracks, streams, strict=True):
                if k < track.frames:
                    planes = random_planes(k, track.side, track.side)
                    frame = frame_of(planes, "yuv420p").reformat(format=stream.pix_fmt)
                    frame.pts = k
                    container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("film_first", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        Track(128, 1, Disposition(0), "mjpeg"),
        Track(128, 1, Disposition.default, "libx264"),
        Track(128, 18, Disposition.default, "libx264"),
    ],
    ids=["cover", "one picture", "slides"],
)
def test_few_pictures_are_no_film(
    tmp_path: Path, container: str, film_first: bool, other: Track
) -> None:
    if container == "ts" and other.codec == "mjpeg":
        pytest.skip("a transport stream has no Motion JPEG")
    tracks = [FILM, other] if film_first else [other, FILM]
    path = write_tracks(tmp_path / f"a.{container}", tracks)
    with open_video(path) as video:
        assert video.facts.width == FILM.side
        assert sum(1 for _ in video.frames()) == FILM.frames


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_what_the_container_prefers_is_taken_before_what_is_larger(
    tmp_path: Path, container: str
) -> None:
    other = Track(128, 40, Disposition(0))
    for tracks in ([FILM, other], [other, FILM]):
        with open_video(write_tracks(tmp_path / f"a.{container}", tracks)) as video:
            assert video.facts.width == FILM.side


def test_two_pictures_are_more_than_one(tmp_path: Path) -> None:
    tracks = [Track(128, 1), Track(64, 2)]
    with open_video(write_tracks(tmp_path / "a.mkv", tracks)) as video:
        assert video.facts.width == 64


def test_of_streams_alike_the_largest_is_taken(tmp_path: Path) -> None:
    with open_video(write_tracks(tmp_path / "a.mkv", [FILM, Track(128, 40)])) as video:
        assert video.facts.width == 128


@pytest.mark.parametrize("name", ["cover.mp4", "cover.mkv"])
def test_case_a_cover_larger_than_its_film(name: str) -> None:
    with open_video(case(name)) as video:
        assert (video.facts.width, video.facts.height) == (320, 180)
        assert sum(1 for _ in video.frames()) == 72
