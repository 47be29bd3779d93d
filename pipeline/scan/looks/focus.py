"""Focus: how wide the strongest edges of a frame are, in pixels of its native resolution.

Seen through a Gaussian of a, an edge blurred by one of σ has the gradient

    g(a) = step / sqrt(2π (σ² + a²)),    so that    R = g(a) / g(b) = sqrt((σ² + b²) / (σ² + a²))

tells σ, whatever the step is and whatever the picture shows: σ² + a² = (b² - a²) / (R² - 1). That
is Zhuo and Sim, Defocus map estimation from a single image (Pattern Recognition 44, 2011), with
both gradients taken through a Gaussian, which bounds noise. What is told is sqrt(σ² + a²) with a
of 1 px: 1 at an ideal edge, 1.4 where σ = 1, 2.2 where σ = 2; less than 1 at thin lines and where
a picture was sharpened.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FINE, COARSE = 1.0, 2.5  # px: a and b
MARGIN = 8  # px of a tile's rim that the coarse one reaches beyond
INNER = np.s_[:, 1:-1, 1:-1]  # of gradients: what has neighbours
STRONG = 0.5  # of the tile's steepest edge
MIN_GRADIENT = 2.0  # 8-bit levels per px, above that of noise
MIN_EDGES = 10  # px of edges in a tile


def edge_width(tiles: Floats) -> float | None:
    """Median over float32 tiles [n, side, side] of the median over their edges; None without any.

    Edges are the steepest places along the gradient: those within half of a tile's steepest.
    """
    if not len(tiles):
        return None
    level = tiles - tiles.mean(axis=(1, 2), keepdims=True)
    across, down = _gradient(level, FINE)
    fine = across * across + down * down
    across_coarse, down_coarse = _gradient(level, COARSE)
    coarse = across_coarse * across_coarse + down_coarse * down_coarse
    crest = _crests(fine, (np.abs(across) >= np.abs(down))[INNER])
    fine, coarse = fine[INNER], coarse[INNER]
    steepest = np.where(crest, fine, 0).max(axis=(1, 2), keepdims=True)
    crest &= fine >= np.maximum(STRONG**2 * steepest, MIN_GRADIENT**2)
    widths = [
        _median(ratio)
        for edges, a, b in zip(crest, fine, coarse, strict=True)
        if len(ratio := a[edges] / np.maximum(b[edges], 1e-6)) >= MIN_EDGES
    ]
    if not widths:
        return None
    return float(np.sqrt((COARSE**2 - FINE**2) / max(float(np.median(widths)) - 1, 1e-3)))


def _crests(square: Floats, steep_across: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where, but for the rim, the gradient is largest among its neighbours across the edge."""
    here = square[INNER]
    across = (here >= square[:, 1:-1, :-2]) & (here > square[:, 1:-1, 2:])
    down = (here >= square[:, :-2, 1:-1]) & (here > square[:, 2:, 1:-1])
    return np.asarray(np.where(steep_across, across, down))


def _median(values: Floats) -> float:
    ranked, count = np.sort(values), len(values)  # faster than NumPy's of few
    return float(ranked[(count - 1) // 2] + ranked[count // 2]) / 2


def _gradient(tiles: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Across and down, through a Gaussian, levels per px, all but for MARGIN - 1 px of the rim."""
    smooth, slope = _filters(tiles.shape[-1], sigma)
    return np.asarray(smooth @ tiles @ slope.T), np.asarray(slope @ tiles @ smooth.T)


@cache
def _filters(side: int, sigma: float) -> tuple[Floats, Floats]:
    """A Gaussian and its derivative as matrices over a line of `side` samples."""
    apart = np.arange(side)[None, :] - np.arange(side)[:, None]
    bell = np.exp(-(apart**2) / (2 * sigma**2)) * (np.abs(apart) <= 4 * sigma)
    reach = np.arange(-int(4 * sigma), int(4 * sigma) + 1)
    taps = np.exp(-(reach**2) / (2 * sigma**2))
    smooth = bell / taps.sum()
    slope = apart * bell / (reach**2 * taps).sum()
    seen = slice(MARGIN - 1, side - MARGIN + 1)
    return smooth[seen].astype(np.float32), slope[seen].astype(np.float32)
