"""Colour arithmetic: matrices of YCbCr, and light of HDR and wide-gamut footage brought to BT.709.

    R'G'B' ──EOTF──▶ light ──tone map──▶ ──primaries──▶ BT.709 light ──clip, BT.1886⁻¹──▶ 8 bit

Sources: ITU-T H.273 (matrices), SMPTE ST 2084 and BT.2100 (PQ, HLG), BT.2390-10 section 5.4 (EETF),
BT.2408 (HDR reference white, 203 nit), BT.1886 (SDR display, gamma 2.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from telecine.encoders.frames import ColorMap, Pixels

Floats = npt.NDArray[np.float32]

IDENTITY = ColorMap((1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, 0))

# Luma weights of red and blue
LUMA = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
    "p3": (0.228975, 0.079287),
}

# CIE 1931 chromaticities of red, green, blue; the white is D65
_D65 = (0.3127, 0.3290)
CHROMATICITIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}

PEAK_NITS = 1000.0  # of the source: HLG's nominal display, and what most PQ footage is graded on
WHITE_NITS = 203.0  # of the target: HDR reference white becomes SDR white
HLG_GAMMA = 1.2  # BT.2100 system gamma at 1000 nit
PQ_NITS = 10000.0
STEPS = 1 << 14  # of the lookup tables: sixteen per 10-bit code, four per 12-bit code


def color_map(matrix: str, color_range: str) -> ColorMap:
    """Planes of 8 bits to full-range RGB, primaries unchanged."""
    if matrix == "rgb" and color_range == "full":
        return IDENTITY
    black, luma, chroma = (16, 255 / 219, 255 / 224) if color_range == "limited" else (0, 1.0, 1.0)
    if matrix == "rgb":
        return ColorMap((luma, 0, 0, 0, luma, 0, 0, 0, luma), (-luma * black,) * 3)
    if matrix == "ycgco":
        rows = np.array([[1, -1, 1], [1, 1, 0], [1, -1, -1]], np.float64)
    else:
        kr, kb = LUMA[matrix]
        kg = 1 - kr - kb
        rows = np.array(
            [
                [1, 0, 2 * (1 - kr)],
                [1, -2 * kb * (1 - kb) / kg, -2 * kr * (1 - kr) / kg],
                [1, 2 * (1 - kb), 0],
            ]
        )
    rows = rows * (luma, chroma, chroma)
    offset = -rows @ (black, 128, 128)
    return ColorMap(
        tuple(rows.ravel().tolist()), (offset[0].item(), offset[1].item(), offset[2].item())
    )


def pq_to_nits(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ST 2084 EOTF: 0..1 to cd/m²."""
    root = np.clip(signal, 0, 1) ** (32 / 2523)
    light = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
    return np.asarray(PQ_NITS * light ** (8192 / 1305))


def nits_to_pq(nits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ST 2084 inverse EOTF: cd/m² to 0..1."""
    power = (np.maximum(nits, 0) / PQ_NITS) ** (1305 / 8192)
    return np.asarray(((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))


def hlg_to_scene(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """BT.2100 HLG inverse OETF: 0..1 to scene light, 0..1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    bright = (np.exp((np.maximum(signal, 0.5) - c) / a) + b) / 12
    return np.asarray(np.where(signal <= 0.5, signal**2 / 3, bright))


def tone_map(nits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """BT.2390 EETF from black..PEAK_NITS to black..WHITE_NITS; brighter light gives WHITE_NITS.

    Up to about 90 nit nothing changes; from there a Hermite spline in PQ space bends to the white.
    """
    peak, white = nits_to_pq(np.array(PEAK_NITS)), nits_to_pq(np.array(WHITE_NITS))
    top = white / peak
    knee = 1.5 * top - 0.5
    e = np.minimum(nits_to_pq(nits) / peak, 1)
    t = (e - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * top
    )
    return pq_to_nits(np.where(e < knee, e, spline) * peak)


@cache
def primaries_matrix(source: str) -> npt.NDArray[np.float64]:
    """Linear RGB of `source` primaries to linear BT.709 RGB, 3×3 (SMPTE RP 177)."""
    return np.asarray(np.linalg.inv(_to_xyz("bt709")) @ _to_xyz(source))


def _to_xyz(primaries: str) -> npt.NDArray[np.float64]:
    def xyz(x: float, y: float) -> list[float]:
        return [x / y, 1.0, (1 - x - y) / y]

    columns = np.array([xyz(*point) for point in CHROMATICITIES[primaries]]).T
    return np.asarray(columns * np.linalg.solve(columns, np.array(xyz(*_D65))))


@dataclass(frozen=True)
class _Tables:
    light: Floats  # signal index → light, 1 is the SDR white
    gain: Floats  # fourth root of light / PQ_NITS, as an index → factor
    code: Pixels  # square root of light, as an index → 8-bit value


@cache
def _tables(transfer: str) -> _Tables:
    steps = np.arange(STEPS) / (STEPS - 1)
    light = {
        "pq": lambda: pq_to_nits(steps) / WHITE_NITS,
        "hlg": lambda: hlg_to_scene(steps),
        "sdr": lambda: steps**2.4,
    }[transfer]()
    nits = PQ_NITS * steps**4
    gain = np.ones(STEPS)
    gain[1:] = tone_map(nits[1:]) / nits[1:]
    code = np.rint(255 * steps ** (2 / 2.4))
    return _Tables(light.astype(np.float32), gain.astype(np.float32), code.astype(np.uint8))


def to_sdr(signal: Floats, transfer: str, primaries: str) -> Pixels:
    """R'G'B' [3, N] of 0..1 as stored, to BT.709 8-bit [3, N].

    The tone map acts on the largest of R, G, B and scales all three alike: hue stays, and no
    channel can leave the target's range, as it would if luminance were mapped.
    """
    tables = _tables(transfer)
    light = tables.light.take(_index(signal), mode="clip")
    if transfer == "hlg":  # OOTF: display light = peak · Yˢ^(γ-1) · scene light
        luma = _luminance(primaries) @ light
        light *= np.float32(PEAK_NITS / WHITE_NITS) * luma ** np.float32(HLG_GAMMA - 1)
    if transfer != "sdr":
        largest = light.max(axis=0)
        largest *= np.float32(WHITE_NITS / PQ_NITS)
        light *= tables.gain.take(_index(np.sqrt(np.sqrt(largest))), mode="clip")
    if primaries != "bt709":
        light = primaries_matrix(primaries).astype(np.float32) @ light
    np.clip(light, 0, 1, out=light)
    return np.asarray(tables.code.take(_index(np.sqrt(light, out=light)), mode="clip"))


@cache
def _luminance(primaries: str) -> Floats:
    return np.asarray(_to_xyz(primaries)[1], np.float32)


def _index(unit: Floats) -> npt.NDArray[np.intp]:
    scaled = np.clip(unit, 0, 1)
    scaled *= np.float32(STEPS - 1)
    scaled += np.float32(0.5)
    return scaled.astype(np.intp)
