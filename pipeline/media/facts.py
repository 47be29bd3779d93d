"""What an image, or each frame of a video, is said to be, and which colours that means.

Code points are those of ITU-T H.273, which every container and codec shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from telecine.pipeline.media.geometry import Orientation

MATRICES = {
    1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 8: "ycgco", 9: "bt2020",
}  # fmt: skip
PRIMARIES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
    10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213",
}  # fmt: skip
TRANSFERS = {16: "pq", 18: "hlg"}
UNTAGGED_MATRICES = (0, 2, 3)  # 0 is RGB: on YUV planes a writer that left the field alone
CHROMA_DERIVED = 12
LIMITED_RANGE, FULL_RANGE = 1, 2


@dataclass(frozen=True, kw_only=True)
class MediaFacts:
    """Columns of the same names in `telecine.manifests.schemas.Source`."""

    container: str
    codec: str
    profile: str = ""
    pixel_format: str
    bit_depth: int
    coded_width: int
    coded_height: int
    rotation_degrees: int = 0
    mirrored: bool = False
    sample_aspect_num: int = 1
    sample_aspect_den: int = 1
    color_matrix: str = "rgb"
    color_range: str = "full"
    color_transfer: str = "sdr"
    color_primaries: str = ""
    interlaced: bool = False
    header_fps_num: int = 0
    header_fps_den: int = 1
    header_num_frames: int = 0
    header_duration_seconds: float = 0.0
    num_video_streams: int = 0
    stream_index: int = 0
    has_audio: bool = False
    audio_channels: int | None = 0
    audio_sample_rate: int | None = 0
    width: int
    height: int

    @property
    def orientation(self) -> Orientation:
        return Orientation(self.rotation_degrees, self.mirrored)


@dataclass(frozen=True)
class Picture:
    """A still image as it is displayed: turned, flattened over white, sRGB."""

    facts: MediaFacts
    rgb: npt.NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True)
class Colors:
    """How stored values become light, after the defaults for what is not tagged."""

    matrix: str
    range: str
    transfer: str
    primaries: str  # as tagged, or empty


def read_colors(
    *,
    is_rgb: bool,
    is_gray: bool,
    is_full: bool,
    coded_height: int,
    tags: tuple[int, int, int, int],
) -> Colors | None:
    """Colours of a stream with (matrix, range, transfer, primaries) tags; None if not ours to read.

    Untagged YUV is BT.709 from 720 coded lines and BT.601 below (BT.2020 where the primaries or an
    HDR transfer say so), limited range. Untagged RGB and untagged grey are full range.
    """
    matrix_tag, range_tag, transfer_tag, primaries_tag = tags
    transfer = TRANSFERS.get(transfer_tag, "sdr")
    primaries = PRIMARIES.get(primaries_tag, "")
    if is_rgb:
        limited = range_tag == LIMITED_RANGE
        return Colors("rgb", "limited" if limited else "full", transfer, primaries)
    if matrix_tag in UNTAGGED_MATRICES:
        wide = primaries == "bt2020" or (transfer != "sdr" and not primaries)
        matrix = "bt2020" if wide else "bt709" if coded_height >= 720 else "bt601"
    elif matrix_tag == CHROMA_DERIVED:
        derived = {"": "bt709", "bt709": "bt709", "bt2020": "bt2020", "smpte432": "p3"}
        matrix = derived.get(primaries, "")
    else:
        matrix = MATRICES.get(matrix_tag, "")
    if not matrix:
        return None
    full = is_full or range_tag == FULL_RANGE or (is_gray and range_tag == 0)
    return Colors(matrix, "full" if full else "limited", transfer, primaries)
