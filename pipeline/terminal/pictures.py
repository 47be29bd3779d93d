"""Stills drawn in the terminal, side by side, with their times under them.

    what the environment says      drawn as
    kitty, ghostty                 kitty graphics protocol
    iTerm2, WezTerm, mintty        iTerm2 inline image
    24-bit or 256 colours          half blocks: ▀ in two colours is two pixels
    no terminal, NO_COLOR, fewer   nothing; nor where Pillow, which opens stills, is not installed

Nothing is asked of the terminal: one that does not answer would block. In tmux and screen pictures
do not pass, so half blocks are drawn there.
"""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from rich.color import Color, ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

from telecine.pipeline.scan.stills import evenly
from telecine.pipeline.terminal.text import write

if TYPE_CHECKING:
    from PIL import Image

MOST = 5  # stills in the row
NARROWEST, WIDEST, TALLEST = 18, 40, 18  # cells of one still
GAP = 2  # cells between two
CELL = (10, 20)  # px of a cell where a picture is sent; the terminal scales it to its own cells
CHUNK = 4096  # bytes of base64 in one kitty command


class Drawing(StrEnum):
    KITTY = "kitty"
    ITERM2 = "iterm2"
    BLOCKS = "blocks"
    NOTHING = "nothing"


def drawing(console: Console, environment: Mapping[str, str]) -> Drawing:
    """What the terminal can show, by what its environment says."""
    if not console.is_terminal or console.is_dumb_terminal or environment.get("NO_COLOR"):
        return Drawing.NOTHING
    if importlib.util.find_spec("PIL") is None:
        return Drawing.NOTHING
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if not (environment.get("TMUX") or term.startswith(("tmux", "screen"))):
        kitty = term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty"
        if program in ("iTerm.app", "WezTerm", "mintty"):
            return Drawing.ITERM2
        if kitty or environment.get("KITTY_WINDOW_ID"):
            return Drawing.KITTY
    return Drawing.BLOCKS if console.color_system in ("truecolor", "256") else Drawing.NOTHING


@dataclass(frozen=True, slots=True)
class Shown:
    """A still to draw."""

    seconds: float  # since the clip's first frame
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """Cells of a row of stills of one size."""

    columns: int  # of one still
    rows: int
    places: tuple[int, ...]  # which of the stills, in order

    @property
    def width(self) -> int:
        return len(self.places) * (self.columns + GAP) - GAP


def layout(count: int, size: tuple[int, int], width: int) -> Layout:
    """As many of `count` stills of `size` px as fit `width` cells, a cell twice as high as wide."""
    fit = max(1, (width + GAP) // (NARROWEST + GAP))
    number = min(count, fit, MOST)
    columns = max(1, min(WIDEST, (width + GAP) // max(number, 1) - GAP))
    aspect = size[0] / size[1]
    columns = max(1, min(columns, round(2 * TALLEST * aspect)))
    rows = max(1, min(TALLEST, round(columns / aspect / 2)))
    return Layout(columns, rows, tuple(evenly(number, count)))


def draw(stills: Sequence[Shown], console: Console, environment: Mapping[str, str]) -> None:
    """A row of some of the stills, where the terminal shows pictures at all."""
    how = drawing(console, environment)
    if how is Drawing.NOTHING or not stills:
        return
    pictures = [_decoded(still.jpeg) for still in stills]
    size = next((picture.size for picture in pictures if picture is not None), (16, 9))
    plan = layout(len(stills), size, console.width)
    cell = (1, 2) if how is Drawing.BLOCKS else CELL
    strip = _strip([pictures[place] for place in plan.places], plan, cell)
    if how is Drawing.BLOCKS:
        colors = ColorSystem.TRUECOLOR if console.color_system == "truecolor" else _OF_256
        for line in _blocks(strip, colors):
            console.print(line, no_wrap=True, overflow="crop", crop=True)
    else:
        sent = _kitty if how is Drawing.KITTY else _iterm2
        write(console, sent(_png(strip), plan))
    console.print(Text(_times(stills, pictures, plan)), no_wrap=True, overflow="crop")


def _decoded(jpeg: bytes) -> Image.Image | None:
    """RGB; None where it is damaged."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(jpeg), formats=["JPEG"]).convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None


def _strip(
    pictures: Sequence[Image.Image | None], plan: Layout, cell: tuple[int, int]
) -> Image.Image:
    """The row as one RGBA picture, clear between the stills and where one is damaged."""
    from PIL import Image

    step, height = (plan.columns + GAP) * cell[0], plan.rows * cell[1]
    strip = Image.new("RGBA", (plan.width * cell[0], height))
    for number, picture in enumerate(pictures):
        if picture is not None:
            scaled = picture.resize((plan.columns * cell[0], height), Image.Resampling.LANCZOS)
            strip.paste(scaled, (number * step, 0))
    return strip


_OF_256 = ColorSystem.EIGHT_BIT


def _blocks(strip: Image.Image, colors: ColorSystem) -> Iterator[Text]:
    """A line for each two rows of pixels."""
    pixels: list[list[list[int]]] = np.asarray(strip).tolist()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        line = Text()
        for (*above, opaque), (*below, _) in zip(upper, lower, strict=True):
            two = [Color.from_rgb(*pixel).downgrade(colors) for pixel in (above, below)]
            style = Style(color=two[0], bgcolor=two[1])
            line.append("▀" if opaque else " ", style if opaque else None)
        yield line


def _times(stills: Sequence[Shown], pictures: Sequence[Image.Image | None], plan: Layout) -> str:
    said = [
        f"{stills[place].seconds:.2f} s" + ("" if pictures[place] else " damaged")
        for place in plan.places
    ]
    return "".join(f"{text:<{plan.columns + GAP}}" for text in said).rstrip()


# ── pictures as they are ─────────────────────────────────────────────────────────────────────────


def _png(strip: Image.Image) -> bytes:
    file = io.BytesIO()
    strip.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _kitty(png: bytes, plan: Layout) -> str:
    """Transmit and show; q=2: the terminal is to answer nothing."""
    data = base64.b64encode(png).decode()
    parts = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    keys = f"a=T,f=100,q=2,c={plan.width},r={plan.rows},"
    return "".join(
        f"\x1b_G{keys if not number else ''}m={int(part is not parts[-1])};{part}\x1b\\"
        for number, part in enumerate(parts)
    )


def _iterm2(png: bytes, plan: Layout) -> str:
    keys = f"inline=1;size={len(png)};width={plan.width};height={plan.rows};preserveAspectRatio=0"
    return f"\x1b]1337;File={keys}:{base64.b64encode(png).decode()}\x07"
