"""Hard cuts over labelled footage, within a frame: native, and with every picture repeated.

    python benchmarks/shots.py FOOTAGE             (a folder of real footage with cuts.csv)
    python benchmarks/shots.py FOOTAGE --others    PySceneDetect's AdaptiveDetector and TransNetV2
                                                   beside it, where they are installed: minutes
    native    frames as they are
    x2 x3 x4  each picture two, three, four times
    24 in 60  2, 3, 2, 3, ... times; 15 in 60: 15 pictures a second of it, four times each

Repeats carry the noise of coding. Dissolves and fades count neither way; they are told by spans
(transition) and by gradual_share. Figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from telecine.encoders.frames import ColorMap
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.media.color import color_map
from telecine.pipeline.media.open import Video, open_media
from telecine.pipeline.scan.grid import Grid
from telecine.pipeline.scan.second_opinion import SecondOpinion, pictures
from telecine.pipeline.scan.segment import CutDetector
from telecine.pipeline.scan.worker import Sampler

TOLERANCE = 1  # frames
GRADUAL = ("dissolve", "fade")
# The labels of this one are of its other video stream.
RELABELLED = {"torchcodec__nasa_13013.mp4": {202: 240, 127: 150, 151: 181}}
VARIANTS = ("native", "x2", "x3", "x4", "24 in 60", "15 in 60")
CHUNK = 32
Places = npt.NDArray[np.int64]


@dataclass
class Film:
    """The sparse grid of every frame, and what is known of its cuts."""

    name: str
    cuts: list[int] = field(default_factory=list)  # first frames of new shots
    ignored: list[tuple[int, int]] = field(default_factory=list)  # gradual transitions, both ends
    grid: Grid | None = None
    colors: ColorMap | None = None
    is_full_range: bool = False
    fps: float = 25.0


@dataclass
class Tally:
    """Of one detector over one variant of all films."""

    true: int = 0
    false: int = 0
    missed: int = 0
    cpu_seconds: float = 0.0

    @property
    def f1(self) -> float:
        return 2 * self.true / max(1, 2 * self.true + self.false + self.missed)


def labelled(footage: Path) -> dict[str, Film]:
    films: dict[str, Film] = {}

    def place(row: dict[str, str], column: str) -> int:
        frame = int(row[column])
        return RELABELLED.get(row["file"], {}).get(frame, frame)

    for row in _rows(footage / "cuts.csv"):
        film = films.setdefault(row["file"], Film(row["file"]))
        film.cuts.append(place(row, "frame_index_of_first_frame_of_new_shot"))
    for row in _rows(footage / "gradual_and_nocuts.csv"):
        film = films.setdefault(row["file"], Film(row["file"]))
        if any(kind in row["kind"] for kind in GRADUAL):
            film.ignored.append((place(row, "start_frame"), place(row, "end_frame")))
    return films


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def decode(path: Path, film: Film) -> None:
    spec, grids = DatasetSpec(), []
    with path.open("rb") as file:
        video = open_media(file, spec.scan, spec.pixels)
        assert isinstance(video, Video)
        with video:
            sampler = None
            for frame in video.frames():
                sampler = sampler or Sampler(frame, video.facts)
                one = sampler.empty(1)
                sampler.sample(frame, one, 0)
                grids.append(one)
        facts = video.facts
    film.grid = Grid(
        *(np.concatenate([getattr(g, p) for g in grids]) for p in ("luma", "cb", "cr"))
    )
    film.colors = color_map(facts.color_matrix, facts.color_range)
    film.is_full_range = facts.color_range == "full"
    film.fps = facts.header_fps_num / facts.header_fps_den or 25.0


# ── variants ─────────────────────────────────────────────────────────────────────────────────────


def shown(variant: str, count: int, fps: float) -> Places:
    """Which frame of the film each frame of the variant shows."""
    every = np.arange(count)
    if variant == "native":
        return every
    if variant == "24 in 60":
        return every.repeat(np.where(every % 2 == 0, 2, 3))
    if variant == "15 in 60":
        return np.arange(0, count, max(1.0, fps / 15)).astype(np.int64).repeat(4)
    return every.repeat(int(variant[1:]))


def repeated(grid: Grid, places: Places) -> Grid:
    """The variant; a frame that shows what the one before did differs by a little noise."""
    rng = np.random.default_rng(0)
    again = np.append(False, places[1:] == places[:-1])

    def noisy(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        values = plane[places].astype(np.int16)
        values[again] += rng.choice([-1, 0, 1], values[again].shape, p=[0.1, 0.8, 0.1])
        return values.clip(0, 255).astype(np.uint8)

    return Grid(noisy(grid.luma), noisy(grid.cb), noisy(grid.cr))


def moved(places: Places, frame: int) -> int:
    """Where a variant first shows a frame, or what comes after it."""
    return int(np.searchsorted(places, frame))


# ── detectors ────────────────────────────────────────────────────────────────────────────────────


Detector = Callable[[Film, Grid], list[int]]


def adaptive(film: Film, grid: Grid) -> list[int]:
    return _run(CutDetector(film.is_full_range), grid)


def _run(detector: CutDetector | SecondOpinion, grid: Grid) -> list[int]:
    found: list[int] = []
    for start in range(0, len(grid), CHUNK):
        found += detector.push(grid[start : start + CHUNK])
    return found + detector.finish()


def others() -> Iterator[tuple[str, Detector]]:
    """Those that are installed. They see the grid as small RGB pictures."""
    try:
        from telecine.encoders.shots.transnet import TransNetV2

        network = TransNetV2("cpu")
    except Exception as error:
        print(f"without TransNetV2: {error}")
    else:
        for name, everywhere in (("transnetv2", False), ("transnetv2:all", True)):

            def asked(film: Film, grid: Grid, everywhere: bool = everywhere) -> list[int]:
                assert film.colors is not None
                first = CutDetector(film.is_full_range)
                return _run(SecondOpinion(first, network, film.colors, everywhere), grid)

            yield name, asked
    try:
        from scenedetect import AdaptiveDetector, FrameTimecode
    except ImportError as error:
        print(f"without PySceneDetect: {error}")
        return

    def scenes(film: Film, grid: Grid) -> list[int]:
        assert film.colors is not None
        detector, found = AdaptiveDetector(min_scene_len=1), []
        for i, picture in enumerate(pictures(grid, film.colors)[..., ::-1]):
            at = FrameTimecode(i, fps=25.0)
            found += detector.process_frame(at, np.ascontiguousarray(picture))
        return [cut.frame_num for cut in found]

    yield "PySceneDetect", scenes


def compare(
    found: list[int], cuts: list[int], ignored: list[tuple[int, int]]
) -> tuple[int, int, int]:
    """True, false and missed cuts. A true cut is found once; a second detection of it is false."""
    missing, false = list(cuts), 0
    for cut in found:
        match = next((t for t in missing if abs(t - cut) <= TOLERANCE), None)
        if match is not None:
            missing.remove(match)
        elif not any(a - TOLERANCE <= cut <= b + TOLERANCE for a, b in ignored):
            false += 1
    return len(cuts) - len(missing), false, len(missing)


def judge(detect: Detector, films: list[Film], variant: str, each: bool) -> Tally:
    tally = Tally()
    for film in films:
        assert film.grid is not None
        places = shown(variant, len(film.grid), film.fps)
        grid = film.grid if variant == "native" else repeated(film.grid, places)
        ignored = [(moved(places, a), moved(places, b + 1) - 1) for a, b in film.ignored]
        began = time.process_time()
        found = detect(film, grid)
        tally.cpu_seconds += time.process_time() - began
        cuts = [moved(places, cut) for cut in film.cuts]
        true, false, missed = compare(found, cuts, ignored)
        if each and false + missed:
            print(f"    {film.name}: {false} false, {missed} missed")
        tally.true, tally.false = tally.true + true, tally.false + false
        tally.missed += missed
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("footage", type=Path)
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--each", action="store_true", help="name the films with errors")
    given = parser.parse_args()
    films = list(labelled(given.footage).values())
    for film in films:
        decode(given.footage / film.name, film)
    detectors: list[tuple[str, Detector]] = [("adaptive", adaptive)]
    if given.others:
        detectors += others()
    print(f"{len(films)} films, {sum(len(f.cuts) for f in films)} cuts")
    print(f"{'':<16}" + "".join(f"{v:>10}" for v in VARIANTS) + "   CPU s, native")
    for name, detect in detectors:
        # The network needs some 20 ms a frame on a core: it sees the films as they are.
        variants = VARIANTS[:1] if name.startswith("transnetv2") else VARIANTS
        tallies = [judge(detect, films, variant, given.each) for variant in variants]
        line = "".join(f"{tally.f1:>10.3f}" for tally in tallies)
        print(f"{name:<16}{line:<60}{tallies[0].cpu_seconds:>16.1f}", flush=True)


if __name__ == "__main__":
    main()
