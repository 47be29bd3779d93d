"""Where pixels lie: displayed size, orientation, the crop to the encoder's grid. Pure integers.

    coded ──square pixels──▶ square ──mirror, then turn──▶ displayed ──smaller──crop──▶ encoded

A crop is given in displayed pixels, because that is what a person and a table mean by x and y;
`to_square` says where its pixels lie before the turn: planes are cut first and turned after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 16  # times the bound of a still's short side


@dataclass(frozen=True)
class Crop:
    """A rectangle in pixels: left edge, top edge, width, height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is displayed: flipped left to right if `mirrored`, then turned."""

    rotation: int = 0  # counter-clockwise degrees: 0, 90, 180 or 270
    mirrored: bool = False

    @property
    def quarter_turns(self) -> int:
        return self.rotation // 90


# EXIF 2.32, tag 0x0112: what row 0 and column 0 of the stored picture are.
EXIF_ORIENTATIONS: dict[int, Orientation] = {
    1: Orientation(0, False),
    2: Orientation(0, True),
    3: Orientation(180, False),
    4: Orientation(180, True),
    5: Orientation(90, True),
    6: Orientation(270, False),
    7: Orientation(270, True),
    8: Orientation(90, False),
}


def matrix_orientation(a: int, b: int, c: int, d: int) -> Orientation:
    """Orientation of an ISO 14496-12 display matrix: x' = a·x + c·y, y' = b·x + d·y, y down.

    Angles between quarter turns go to the nearest; a singular matrix shows nothing, so it cannot be
    meant: it is taken for the identity.
    """
    determinant = a * d - b * c
    if determinant == 0:
        return Orientation()
    mirrored = determinant < 0
    if mirrored:  # M = turn · flip, so turn = M · flip
        a, b = -a, -b
    # A scaled turn; the sum of both diagonals also averages out rounding and shear.
    degrees = math.degrees(math.atan2(c - b, a + d))
    return Orientation(round(degrees / 90) % 4 * 90, mirrored)


def square_width(coded_width: int, sar: Fraction) -> int:
    """Width with square pixels at the same height: the nearest even number, at least 2.

    The height is kept because rows are what scan lines and fields are made of; the width is even so
    that 4:2:0 chroma stays whole. A picture that already has square pixels keeps its width, odd or
    not, and so does one whose nearest width is its own.
    """
    exact = coded_width * sar
    if sar <= 0 or abs(exact - coded_width) < 1:
        return coded_width
    return max(2, 2 * math.floor(exact / 2 + Fraction(1, 2)))


def display_size(
    coded_width: int, coded_height: int, sar: Fraction, rotation: int
) -> tuple[int, int]:
    """(width, height) of the displayed picture: square pixels, turned."""
    width = square_width(coded_width, sar)
    return (coded_height, width) if rotation in (90, 270) else (width, coded_height)


def reduced_size(width: int, height: int, short_side: int | None) -> tuple[int, int] | None:
    """(width, height) of a displayed picture that is made smaller: its short side is `short_side`.

    The other side keeps the aspect, to the nearest even number, so that 4:2:0 chroma stays whole.
    None where the picture is smaller: nothing is enlarged. `short_side` None: its own size.
    """
    short = min(width, height)
    if short_side is None or short == short_side:
        return width, height
    if short < short_side:
        return None

    def side(length: int) -> int:
        if length == short:
            return short_side
        return 2 * ((length * short_side + short) // (2 * short))

    return side(width), side(height)


def crop_to_grid(width: int, height: int, grid: int) -> Crop | None:
    """The largest centred crop on the grid; None where the picture is smaller than one step.

    Less than one step is lost per axis. Offsets are even, so that they lie on 4:2:0 chroma samples.
    """
    across, down = width // grid * grid, height // grid * grid
    if not across or not down:
        return None
    return Crop((width - across) // 4 * 2, (height - down) // 4 * 2, across, down)


def fit_short_side(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Size with the same shape whose short side is at most `short_side`; never enlarged.

    The long side is at most LONGEST times as long: JPEG ends at 65,500 px.
    """
    short, long = min(width, height), max(width, height)
    top, of = (short_side, short) if long <= LONGEST * short else (LONGEST * short_side, long)
    if of <= top:
        return width, height

    def scaled(side: int) -> int:
        return max(1, (2 * side * top + of) // (2 * of))

    return scaled(width), scaled(height)


def to_square(crop: Crop, width: int, height: int, orientation: Orientation) -> Crop:
    """Where a crop of the displayed picture lies in the square-pixel picture before the turn.

    `width` and `height` are the displayed picture's.
    """
    x, y, w, h = crop.x, crop.y, crop.width, crop.height
    for _ in range(orientation.quarter_turns):  # undo one counter-clockwise turn: turn clockwise
        x, y, w, h = height - y - h, x, h, w
        width, height = height, width
    if orientation.mirrored:
        x = width - x - w
    return Crop(x, y, w, h)
