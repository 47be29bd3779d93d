"""Inputs that failed once: how many of each kind come out right in a dataset.

    telecine ingest ../shared/cases/media ../shared/footage --dataset DATASET
    python benchmarks/cases.py DATASET [--each]

Looks at the tables and stills alone, as a user would; a dataset of an older Telecine will do.
Figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

import telecine

RED, WHITE = (200, 30, 30), (255, 255, 255)
GREYS = tuple((v, v, v) for v in (73, 142, 189, 230))
Row = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What became of one file."""

    source: Row
    clips: list[Row]
    samples: list[Row]
    stills: list[bytes]  # JPEG, in order

    @property
    def is_scanned(self) -> bool:
        return bool(self.source["status"] == "scanned")

    @property
    def size(self) -> tuple[int, int]:
        return self.source["width"], self.source["height"]

    @property
    def frames(self) -> int:
        return int(self.source["num_frames"])

    @property
    def fps(self) -> float:
        return float(self.clips[0]["fps_num"] / self.clips[0]["fps_den"]) if self.clips else 0.0

    @property
    def encoded(self) -> int:
        return sum(int(s["encoded_frames"] + s["frames_left_out"]) for s in self.samples)

    @property
    def is_one_shot(self) -> bool:
        whole = self.source["frames_kept"] == self.source["num_frames"]
        return self.is_scanned and self.source["num_shots"] == 1 and bool(whole)

    def rejected(self, *reasons: str) -> bool:
        return self.source["reason"] in reasons

    def has_effective(self, fps: float) -> bool:
        found = [c["effective_fps"] for c in self.clips]
        return bool(found) and all(v is not None and abs(v - fps) < 0.5 for v in found)

    def colors(self, still: int, *places: tuple[float, float]) -> list[tuple[int, ...]]:
        """Means of 8 × 8 px around places given as shares of width and height."""
        picture = np.asarray(Image.open(io.BytesIO(self.stills[still])).convert("RGB"))
        height, width = picture.shape[:2]
        found = []
        for x, y in places:
            left, top = max(0, round(x * width) - 4), max(0, round(y * height) - 4)
            found.append(tuple(picture[top : top + 8, left : left + 8].mean((0, 1)).round()))
        return found

    def shows(self, color: Sequence[int], x: float, y: float, still: int = 0) -> bool:
        if not self.stills:
            return False
        (seen,) = self.colors(still, (x, y))
        return bool(np.abs(np.subtract(seen, color)).max() <= 6)

    def shows_greys(self, still: int = 0) -> bool:
        places = ((i + 0.5) / 4 for i in range(4))
        return all(self.shows(g, x, 0.3, still) for g, x in zip(GREYS, places, strict=True))


Check = Callable[[Found], bool]


def film(frames: int, size: tuple[int, int] | None = None) -> Check:
    return lambda f: f.is_scanned and f.frames == frames and size in (None, f.size)


def cadence(fps: float, frames: int) -> Check:
    def check(f: Found) -> bool:
        return abs(f.fps - fps) < 0.01 and f.encoded == frames == f.frames

    return check


def picture(f: Found) -> bool:
    return f.is_scanned and f.source["kind"] == "image"


def one_shot_of(fps: float) -> Check:
    return lambda f: f.is_one_shot and f.has_effective(fps)


def hole(f: Found) -> bool:
    said = any((s["frames_repeated"] or 0) > 100 for s in f.samples)
    return f.is_scanned and (len(f.clips) == 2 or said)


def dovi(f: Found) -> bool:
    """Refused, or not the violet that comes of reading it as what it is not."""
    if not f.is_scanned:
        return f.rejected("unsupported", "hdr")
    return bool(f.stills) and not f.shows((154, 30, 184), 0.75, 0.25)


def accounted(frames: int) -> Check:
    def check(f: Found) -> bool:
        kept = f.source["frames_kept"] + f.source["frames_dropped"]
        return f.is_scanned and f.frames == frames == kept

    return check


def damaged(frames: int) -> Check:
    return lambda f: f.is_scanned and sum(c["corrupt_frames"] or 0 for c in f.clips) == frames


BROKEN_EXIF = (
    "ascii_orientation.jpg", "bad_endian.jpg", "bad_header.jpg", "bad_type.jpg", "cut_exif.jpg",
    "double_exif.jpg", "empty_exif.jpg", "far_ifd.jpg", "orientation_0.jpg", "two_values.jpg",
    "xmp_only_6.jpg", "plain.jpg", "exif_prefix.png", "no_tiff.png", "empty_exif.png", "plain.png",
)  # fmt: skip

KINDS: dict[str, dict[str, Check]] = {
    "repeated frames": {
        "doubled_24.mp4": lambda f: f.is_one_shot,
        "doubled_24_in_60.mp4": one_shot_of(24),
        "doubled_15_in_60.mp4": one_shot_of(15),
    },
    "short runs": {
        "three.gif": accounted(3),
        "resize.webm": lambda f: (
            f.is_scanned and f.source["frames_kept"] + f.source["frames_dropped"] == f.frames
        ),
    },
    "two frame distances in turn": {
        "soft_telecine.mpg": cadence(24000 / 1001, 96),
        "soft_telecine.ts": cadence(24000 / 1001, 96),
        "cadence_24_on_60.mp4": cadence(24, 96),
        "cadence_30_on_75.mp4": cadence(30, 120),
    },
    "dropped ticks, holes": {
        "dropped.mp4": lambda f: (
            abs(f.fps - 30) < 0.01 and all(c["variable_rate"] for c in f.clips)
        ),
        "hole.mp4": hole,
    },
    "facts that change": {
        "color_switch.ts": lambda f: f.shows(RED, 0.2, 0.3) and f.shows(RED, 0.2, 0.3, -1),
        "hdr_late.ts": lambda f: f.shows_greys(-1),
        "interlace_late.ts": lambda f: (
            f.is_scanned and len(f.clips) >= 2 and (f.clips[-1]["combing"] or 0) < 0.05
        ),
    },
    "interlaced footage": {
        "interlaced.ts": lambda f: (
            f.encoded == 60 == f.frames and not any(c["variable_rate"] for c in f.clips)
        ),
        "field.mp4": lambda f: (
            f.rejected("unsupported") or (f.size == (320, 240) and abs(f.fps - 25) < 0.01)
        ),
    },
    "what the container says": {
        "hdr_colr.mp4": lambda f: f.shows_greys(),
        "hdr_colr.mkv": lambda f: f.shows_greys(),
        "dovi5.mp4": dovi,
        "video__hevc__dovi-p5.mp4": dovi,
        "crop.mkv": film(48, (320, 180)),
        "clap.mp4": film(48, (320, 180)),
        "rgb_limited.mp4": lambda f: f.shows(RED, 0.25, 0.25),
    },
    "unknown side data": {
        "exif.avif": picture,
        "exif_mjpeg.avi": film(36),
        "video__hevc__multiview.mp4": film(11),
    },
    "choice of the stream": {
        "cover.mp4": film(72, (320, 180)),
        "cover.mkv": film(72, (320, 180)),
        "gainmap_larger.avif": lambda f: f.size == (400, 300),
    },
    "pictures": {
        "tiles_late.avif": lambda f: f.rejected("unsupported") or f.size == (1024, 770),
        "test__resources__gradient_10bit.heic": lambda f: f.size == (64, 48),
        "icc_p3.avif": lambda f: f.shows((241, 30, 47), 0.25, 0.25),
        "hdr.png": lambda f: f.shows_greys(),
        "photo.dng": lambda f: f.rejected("unsupported"),
        "two_jpegs.jpg": picture,
        "dispose.gif": lambda f: f.is_scanned and f.shows(WHITE, 0.3, 0.37, -1),
        **dict.fromkeys(BROKEN_EXIF, picture),
    },
    "alpha": {
        "avi32.avi": lambda f: f.shows((255, 0, 0), 0.2, 0.2),
        "alpha_vp9.webm": lambda f: f.is_scanned and f.shows(WHITE, 0.75, 0.5),
        "alpha.heic": lambda f: f.is_scanned and not f.shows((10, 10, 60), 0.9, 0.9),
        "anim_alpha.avif": lambda f: f.frames == 30 and f.shows(WHITE, 0.75, 0.5),
    },
    "damage": {
        "late_key_vp9.webm": film(120),
        "broken_middle.webm": lambda f: f.frames == 180 and f.source["decode_errors"] > 0,
        "loss_h264.ts": damaged(10),
        "clean_h264.ts": damaged(0),
    },
}


def found_of(dataset: str, name: str) -> Found:
    def rows(query: str) -> list[Row]:
        quoted = name.replace("'", "''")
        return list(telecine.query(dataset, query.replace("NAME", f"'/{quoted}'")).to_pylist())

    source = "(SELECT source_id FROM current_sources WHERE ends_with(uri, NAME))"
    clips = rows(f"FROM current_clips WHERE source_id IN {source} ORDER BY start_frame")
    ids = f"(SELECT clip_id FROM current_clips WHERE source_id IN {source})"
    stills = rows(
        "SELECT jpeg FROM stills JOIN current_clips USING (clip_id) "
        f"WHERE clip_id IN {ids} ORDER BY start_frame, position"
    )
    (known,) = rows("FROM current_sources WHERE ends_with(uri, NAME)")
    samples = rows(f"FROM samples WHERE clip_id IN {ids} AND outcome = 'kept'")
    return Found(known, clips, samples, [row["jpeg"] for row in stills])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--each", action="store_true", help="say which are not right")
    given = parser.parse_args()
    totals = [0, 0]
    print(f"{'kind':<28} cases  right")
    for kind, checks in KINDS.items():
        wrong = [n for n, check in checks.items() if not check(found_of(given.dataset, n))]
        totals = [totals[0] + len(checks), totals[1] + len(checks) - len(wrong)]
        print(f"{kind:<28} {len(checks):5}  {len(checks) - len(wrong):5}")
        if given.each and wrong:
            print(f"{'':<28} not {', '.join(wrong)}")
    print(f"{'all':<28} {totals[0]:5}  {totals[1]:5}")


if __name__ == "__main__":
    main()
