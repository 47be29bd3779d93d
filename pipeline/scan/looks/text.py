"""Text: lines of burnt-in writing, found by their strokes and told from foliage, fences and grass.

    rows  ─ ─ ─ ─ ─ ─ ─ ─    quiet: no strokes
          ▌▌▐ ▌ ▐▌▐ ▌▌ ▐     strokes of one level, many along the row, at most some 30 rows high
          ─ ─ ─ ─ ─ ─ ─ ─    quiet

A stroke is what a horizontal top-hat leaves: thin, and lighter (or darker) than what lies on both
sides; writing is where many of them stand in a row, as in the detectors of text that come before a
reader (Chen and Yuille 2004; Epshtein, Ofek and Wexler 2010, Stroke width transform). Burnt-in
writing has one level, which nature has not, and stands in two stills at least. Precision comes
first: letters that are faint, slanted, very large, or as many as fill a page, are not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

CELL = 8  # px across of a still at half its size
WINDOW = 8  # cells of a line of text that are judged at a time
STEP = 2  # cells from one window to the next
WIDEST = 9  # px of a stroke
LEVELS = 40  # that it stands out by
NEAR = 14  # levels from the most common one that a stroke may have
DENSE, QUIET = 0.12, 0.03  # share of strokes in a line's rows at least, and beside it at most
HEIGHTS = (5, 28)  # rows of a line
GUARD = 2  # rows beside it that hold a quiet one, and a quarter of its own
STARTS = 3.0  # strokes along a row of a window, at least
MAX_SPREAD, TOP_SPREAD = 26.0, 9.0  # standard deviation of strokes' levels: all, the upper half
GAP = 16  # levels from the ground to the strokes, at least
NEAR_STROKES = 0.1  # of the ground that may be nearer than that
UNEVEN = 0.25  # standard deviation of the distance between strokes, of its mean, at least
SAME = 0.6  # of a row's strokes, the most that stand in all of the middle rows
MIN_PIXELS = 40  # of strokes in a window
MIN_STILLS = 2


def text_share(stills: Sequence[Pixels]) -> float | None:
    """Share of the picture in lines of text, mean over stills, 0..1; luma at half size [h, w].

    Only what is text in two stills counts, at the same place. None of fewer, or too small ones.
    """
    if len(stills) < MIN_STILLS or stills[0].shape[1] < WINDOW * CELL:
        return None
    found = np.zeros((len(stills), stills[0].shape[0], stills[0].shape[1] // CELL), np.bool_)
    for place, still in enumerate(stills):
        if place > len(stills) - MIN_STILLS and not found.any():
            break  # too few are left
        found[place] = text_lines(still)
    found &= found.sum(axis=0) >= MIN_STILLS
    return float(found.mean())


def text_lines(luma: Pixels) -> Mask:
    """[h, w // CELL]: where lines of light or dark text are in one still."""
    found = np.zeros((luma.shape[0], luma.shape[1] // CELL), np.bool_)
    for picture in (luma, 255 - luma):
        strokes = _of_one_level(_top_hat(picture) >= LEVELS, picture)
        for rows, column in _bands(strokes):
            part = rows, slice(column * CELL, (column + WINDOW) * CELL)
            if _is_writing(strokes[part], picture[part]):
                found[rows, column : column + WINDOW] = True
    return found


def _bands(strokes: Mask) -> Iterator[tuple[slice, int]]:
    """Rows and first cell of windows that are dense with strokes, and quiet above and below."""
    height, cells = strokes.shape[0], strokes.shape[1] // CELL
    per_cell = np.bitwise_count(np.packbits(strokes[:, : cells * CELL], axis=1))
    sums = np.zeros((height, cells + 1), np.int16)
    np.cumsum(per_cell, axis=1, out=sums[:, 1:])
    share = (sums[:, WINDOW::STEP] - sums[:, :-WINDOW:STEP]).T / np.float32(WINDOW * CELL)
    dense = np.pad(share >= DENSE, ((0, 0), (1, 1))).astype(np.int8)
    turns = np.diff(dense, axis=1)
    begins, ends = np.argwhere(turns == 1), np.argwhere(turns == -1)[:, 1]
    for (window, top), bottom in zip(begins, ends, strict=True):
        rows = bottom - top
        guard = GUARD + rows // 4
        if not HEIGHTS[0] <= rows <= HEIGHTS[1] or top < GUARD or bottom > height - GUARD:
            continue
        above, below = share[window, max(0, top - guard) : top], share[window, bottom:][:guard]
        if above.min() <= QUIET and below.min() <= QUIET:
            yield slice(top, bottom), int(window) * STEP


def _is_writing(strokes: Mask, picture: Pixels) -> bool:
    """Many strokes along the rows, in each quarter of the window, of one level above the ground.

    They stand unevenly, and not all of them upright through all rows, as those of fences, windows
    and grids do.
    """
    rows = len(strokes)
    rise = np.argwhere(strokes[:, 1:] & ~strokes[:, :-1])
    starts = len(rise)
    quarters = strokes.reshape(rows, 4, -1).any(axis=(0, 2))
    levels = picture[strokes]
    if starts < STARTS * rows or not quarters.all() or len(levels) < MIN_PIXELS:
        return False
    inner = strokes[rows // 4 : rows - rows // 4]
    if np.count_nonzero(inner.all(axis=0)) > SAME * np.count_nonzero(inner) / len(inner):
        return False
    apart = np.diff(rise[:, 1])[np.diff(rise[:, 0]) == 0]  # from stroke to stroke of one row
    if apart.std() < UNEVEN * apart.mean():
        return False
    upper = np.partition(levels, len(levels) // 2)[len(levels) // 2 :]
    if levels.std() > MAX_SPREAD or upper.std() > TOP_SPREAD:
        return False
    above = np.count_nonzero(picture[~strokes] > np.median(upper) - GAP)
    return bool(above <= NEAR_STROKES * (strokes.size - len(levels)))


def _of_one_level(strokes: Mask, picture: Pixels) -> Mask:
    """Those of the most common level: writing has one, and what lies behind it many."""
    counts = np.bincount(picture[strokes], minlength=256)
    level = int(np.convolve(counts, np.ones(2 * NEAR + 1), "same").argmax())
    return strokes & (picture >= max(0, level - NEAR)) & (picture <= min(255, level + NEAR))


def _top_hat(picture: Pixels) -> Pixels:
    """What an opening with a horizontal line of WIDEST px takes away."""
    opened = _slide(_slide(picture, np.minimum), np.maximum)
    return picture - opened


def _slide(picture: Pixels, extreme: np.ufunc) -> Pixels:
    """The least or largest of each WIDEST px of a row, by doubling."""
    reach = WIDEST // 2
    line, width = np.empty((len(picture), picture.shape[1] + 2 * reach), np.uint8), 1
    line[:, reach:-reach] = picture
    line[:, :reach], line[:, -reach:] = picture[:, :1], picture[:, -1:]
    while 2 * width <= WIDEST:
        line = extreme(line[:, :-width], line[:, width:])
        width *= 2
    rest = WIDEST - width
    return np.asarray(extreme(line[:, :-rest], line[:, rest:]) if rest else line)
