"""Labelled footage: its true cuts, its grids with pictures repeated, and how many are found."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.media.facts import MediaFacts
from telecine.pipeline.media.open import Video, open_media
from telecine.pipeline.scan.grid import Grid
from telecine.pipeline.scan.second_opinion import SecondOpinion
from telecine.pipeline.scan.segment import CutDetector
from telecine.pipeline.scan.worker import Sampler

TOLERANCE = 1  # frames
# The list counts frames of this file's first stream; the scan reads the larger one, at 29.97 fps.
OTHER_STREAM = {"torchcodec__nasa_13013.mp4": {202: 240, 127: 150, 151: 181}}
GRADUAL = ("dissolve", "fade")  # transitions without one true frame: count neither way


@dataclass
class Truth:
    """The hard cuts of one file, and the spans in which a detection counts neither way.

    Other spans (`NO cuts`, `single shot`, `NOT a cut`, pans) only name what must not be found:
    a detection inside them is false like any other, and files that have nothing else still count.
    """

    cuts: list[int] = field(default_factory=list)
    ignored: list[tuple[int, int]] = field(default_factory=list)

    def seen_through(self, shown: np.ndarray) -> Truth:
        """In frames of a file whose frame i shows frame shown[i] of this one."""
        ends = [np.searchsorted(shown, (a, b + 1)) for a, b in self.ignored]
        return Truth(
            [int(np.searchsorted(shown, cut)) for cut in self.cuts],
            [(int(a), int(b) - 1) for a, b in ends],
        )


@dataclass(frozen=True)
class Labelled:
    """One file, decoded: every frame's grid, what its header says, and its truth."""

    name: str
    grid: Grid
    facts: MediaFacts
    truth: Truth

    @property
    def is_full_range(self) -> bool:
        return self.facts.color_range == "full"

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.facts.header_fps_num / max(1, self.facts.header_fps_den) or 25.0


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_truth(footage: Path) -> dict[str, Truth]:
    truth: dict[str, Truth] = {}
    for row in read_csv(footage / "cuts.csv"):
        frame = place(row, "frame_index_of_first_frame_of_new_shot")
        truth.setdefault(row["file"], Truth()).cuts.append(frame)
    for row in read_csv(footage / "gradual_and_nocuts.csv"):
        of_file = truth.setdefault(row["file"], Truth())
        if any(kind in row["kind"] for kind in GRADUAL):
            of_file.ignored.append((place(row, "start_frame"), place(row, "end_frame")))
    return truth


def place(row: dict[str, str], column: str) -> int:
    frame = int(row[column])
    return OTHER_STREAM.get(row["file"], {}).get(frame, frame)


def read_labelled(path: Path, truth: Truth) -> Labelled:
    spec, parts, sampler = DatasetSpec(), [], None
    with path.open("rb") as file:
        video = open_media(file, spec.scan, spec.pixels)
        assert isinstance(video, Video)
        with video:
            for frame in video.frames():
                sampler = sampler or Sampler(frame, video.facts)
                parts.append(sampler.empty(1))
                sampler.sample(frame, parts[-1], 0)
            facts = video.facts
    planes = [np.concatenate([getattr(part, name) for part in parts]) for name in PLANES]
    return Labelled(path.name, Grid(*planes), facts, truth)


PLANES = ("luma", "cb", "cr")


def shown(variant: str, count: int, rate: float) -> np.ndarray:
    """The frame that each frame of a variant shows: k2 shows each twice, 24in60 2, 3, 2, 3 times.

    15in60 leaves pictures out, down to 15 a second, and shows each of the others four times.
    """
    if variant == "15in60":
        kept = np.floor(np.arange(0, count, max(1.0, rate / 15)) + 1e-6).astype(np.int64)
        return np.repeat(kept, 4)
    times = np.array({"24in60": (2, 3)}.get(variant) or (int(variant[1:]),))
    return np.repeat(np.arange(count), np.resize(times, count))


def find_cuts(labelled: Labelled, frames: np.ndarray) -> list[int]:
    grid = Grid(*(getattr(labelled.grid, name)[frames] for name in PLANES))
    return cuts_of(CutDetector(labelled.is_full_range), grid)


def cuts_of(detector: CutDetector | SecondOpinion, grid: Grid) -> list[int]:
    """In chunks, as a scan does it."""
    cuts: list[int] = []
    for start in range(0, len(grid), 32):
        cuts += detector.push(grid[start : start + 32])
    return cuts + detector.finish()


def compare(found: Sequence[int], truth: Truth) -> tuple[int, int, int]:
    """True, false and missed cuts. A true cut is found once; a second detection of it is false."""
    missing, false = list(truth.cuts), 0
    for cut in found:
        match = next((t for t in missing if abs(t - cut) <= TOLERANCE), None)
        if match is not None:
            missing.remove(match)
        elif not any(a - TOLERANCE <= cut <= b + TOLERANCE for a, b in truth.ignored):
            false += 1
    return len(truth.cuts) - len(missing), false, len(missing)


def rates(true: int, false: int, missed: int) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    precision = true / (true + false) if true + false else 1.0
    recall = true / (true + missed) if true + missed else 1.0
    return precision, recall, 2 * true / (2 * true + false + missed) if true else 1.0 - bool(false)
