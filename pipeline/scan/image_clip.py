"""A still image as a clip of one frame: nothing moves, and it is never too short."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from telecine.manifests.fingerprint import short_id
from telecine.manifests.schemas import Clip, Still
from telecine.manifests.specs import DatasetSpec, StillSpec
from telecine.pipeline.media.facts import Picture
from telecine.pipeline.media.geometry import fit_short_side
from telecine.pipeline.media.pixels import image_of, jpeg
from telecine.pipeline.scan.clips import Picked, stills_digest
from telecine.pipeline.scan.grid import Grid, middle, stride
from telecine.pipeline.scan.measure import (
    BLACK_LEVEL,
    look,
    measure_frames,
    summarise_frames,
    summarise_looks,
)


def image_clip(picture: Picture, source_id: str, spec: DatasetSpec) -> tuple[Clip, Still]:
    width, height = picture.facts.width, picture.facts.height
    picked = _small(picture, spec.scan.stills)
    grid = _grid(picture)
    rows = measure_frames(grid, grid, black_level=round(BLACK_LEVEL * 255))
    values = summarise_frames(rows, is_full_range=True)
    clip = Clip(
        clip_id=short_id("clip", source_id, 0, 1, spec.scan_fingerprint),
        source_id=source_id,
        scan_fingerprint=spec.scan_fingerprint,
        kind="image",
        shot=0,
        start_frame=0,
        num_frames=1,
        start_pts=0,
        end_pts=1,
        time_base_num=1,
        time_base_den=1,
        timing="ordinal",
        fps_num=1,
        fps_den=1,
        variable_rate=False,
        duration_seconds=0.0,
        width=width,
        height=height,
        num_stills=1,
        stills_digest=stills_digest([picked.jpeg]),
        camera_x=0.0,
        camera_y=0.0,
        subject_motion=0.0,
        **values,
        **summarise_looks([picked.look], width, height),
    )
    still = Still(
        clip_id=clip.clip_id,
        source_id=source_id,
        position=0,
        pts=0,
        seconds=0.0,
        width=picked.width,
        height=picked.height,
        jpeg=picked.jpeg,
    )
    return clip, still


def _small(picture: Picture, spec: StillSpec) -> Picked:
    size = fit_short_side(picture.facts.width, picture.facts.height, spec.short_side)
    image = Image.fromarray(picture.rgb)
    small = image.resize(size, Image.Resampling.BOX) if size != image.size else image
    return pick(np.asarray(small.convert("RGBX")), spec.quality)


def _grid(picture: Picture) -> Grid:
    height, width = picture.rgb.shape[:2]
    step = stride(width, height)
    few = picture.rgb[middle(height, step), middle(width, step)]
    planes = np.asarray(Image.fromarray(np.ascontiguousarray(few)).convert("YCbCr"))[None]
    return Grid(planes[..., 0], planes[..., 1], planes[..., 2])


def pick(pixels: npt.NDArray[np.uint8], quality: int) -> Picked:
    """A still of uint8 RGBX [h, w, 4], and what it looks like."""
    image = image_of(pixels)
    seen = look(pixels[..., :3], np.asarray(image.convert("L")))
    return Picked(jpeg(image, quality), image.width, image.height, seen)
