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
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from telecine.pipeline.media.color import color_map
from telecine.pipeline.scan.grid import Grid
from telecine.pipeline.scan.second_opinion import SecondOpinion, pictures
from telecine.pipeline.scan.segment import CutDetector

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests score what is found here
from tests.support.shots import Labelled, compare, cuts_of, rates, read_labelled, read_truth, shown

VARIANTS = {
    "native": "k1", "x2": "k2", "x3": "k3", "x4": "k4", "24 in 60": "24in60", "15 in 60": "15in60",
}  # fmt: skip
Detector = Callable[[Labelled, Grid], list[int]]


def repeated(grid: Grid, places: npt.NDArray[np.int64]) -> Grid:
    """The variant; a frame that shows what the one before did differs by a little noise."""
    rng = np.random.default_rng(0)
    again = np.append(False, places[1:] == places[:-1])

    def noisy(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        values = plane[places].astype(np.int16)
        values[again] += rng.choice([-1, 0, 1], values[again].shape, p=[0.1, 0.8, 0.1])
        return values.clip(0, 255).astype(np.uint8)

    return Grid(noisy(grid.luma), noisy(grid.cb), noisy(grid.cr))


# ── detectors ────────────────────────────────────────────────────────────────────────────────────


def adaptive(film: Labelled, grid: Grid) -> list[int]:
    return cuts_of(CutDetector(film.is_full_range), grid)


def others() -> Iterator[tuple[str, Detector]]:
    """Those that are installed. They see the grid as small RGB pictures."""
    try:
        from telecine.encoders.shots.transnet import TransNetV2

        network = TransNetV2("cpu")
    except Exception as error:
        print(f"without TransNetV2: {error}")
    else:
        for name, everywhere in (("transnetv2", False), ("transnetv2:all", True)):

            def asked(film: Labelled, grid: Grid, everywhere: bool = everywhere) -> list[int]:
                colors = color_map(film.facts.color_matrix, film.facts.color_range)
                first = CutDetector(film.is_full_range)
                return cuts_of(SecondOpinion(first, network, colors, everywhere), grid)

            yield name, asked
    try:
        from scenedetect import AdaptiveDetector, FrameTimecode
    except ImportError as error:
        print(f"without PySceneDetect: {error}")
        return

    def scenes(film: Labelled, grid: Grid) -> list[int]:
        colors = color_map(film.facts.color_matrix, film.facts.color_range)
        detector, found = AdaptiveDetector(min_scene_len=1), []
        for i, picture in enumerate(pictures(grid, colors)[..., ::-1]):
            at = FrameTimecode(i, fps=25.0)
            found += detector.process_frame(at, np.ascontiguousarray(picture))
        return [cut.frame_num for cut in found]

    yield "PySceneDetect", scenes


@dataclass(frozen=True)
class Score:
    """Of one detector over one variant of all films."""

    f1: float
    cpu_seconds: float


def judge(detect: Detector, films: list[Labelled], variant: str, each: bool) -> Score:
    total, seconds = np.zeros(3, int), 0.0
    for film in films:
        places = shown(VARIANTS[variant], len(film.grid), film.rate)
        grid = repeated(film.grid, places)
        began = time.process_time()
        found = detect(film, grid)
        seconds += time.process_time() - began
        counts = compare(found, film.truth.seen_through(places))
        if each and any(counts[1:]):
            print(f"    {film.name}: {counts[1]} false, {counts[2]} missed")
        total += counts
    return Score(rates(*(int(n) for n in total))[2], seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("footage", type=Path)
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--each", action="store_true", help="name the films with errors")
    given = parser.parse_args()
    truths = read_truth(given.footage)
    films = [read_labelled(given.footage / name, truth) for name, truth in truths.items()]
    detectors: list[tuple[str, Detector]] = [("adaptive", adaptive)]
    if given.others:
        detectors += others()
    print(f"{len(films)} films, {sum(len(f.truth.cuts) for f in films)} cuts")
    print(f"{'':<16}" + "".join(f"{v:>10}" for v in VARIANTS) + "   CPU s, native")
    for name, detect in detectors:
        # The network needs some 20 ms a frame on a core: it sees the films as they are.
        variants = ["native"] if name.startswith("transnetv2") else list(VARIANTS)
        scores = [judge(detect, films, variant, given.each) for variant in variants]
        line = "".join(f"{score.f1:>10.3f}" for score in scores)
        print(f"{name:<16}{line:<60}{scores[0].cpu_seconds:>16.1f}", flush=True)


if __name__ == "__main__":
    main()
