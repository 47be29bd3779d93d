"""Logos of known size over pictures that move, and pictures without one that stand or move."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from telecine.pipeline.media.pixels import half_luma
from telecine.pipeline.scan.looks.overlays import logo_share
from tests.support.pictures import gaussian, leaves, levels

HEIGHT, WIDTH = 160, 256
SCENERY = gaussian(leaves(HEIGHT + 100, WIDTH + 200, 1, least=2), 0.5)
LOGO = leaves(24, 48, 7, least=2)


def pan(stills: int = 5, across: int = 37, down: int = 13) -> list[np.ndarray]:
    return [
        SCENERY[down * i : down * i + HEIGHT, across * i : across * i + WIDTH].copy()
        for i in range(stills)
    ]


def with_logo(
    still: np.ndarray, opacity: float = 1.0, top: int = 12, left: int = 160
) -> np.ndarray:
    part = still[top : top + 24, left : left + 48]
    part[:] = opacity * LOGO + (1 - opacity) * part
    return still


@pytest.mark.parametrize("opacity", [1.0, 0.85])
@pytest.mark.parametrize("stills", [3, 5])
def test_a_logo_is_as_large_as_it_is(stills: int, opacity: float) -> None:
    found = logo_share([levels(with_logo(still, opacity)) for still in pan(stills)])
    assert found == pytest.approx(24 * 48 / (HEIGHT * WIDTH), rel=0.5)


def test_what_moves_has_no_logo() -> None:
    assert logo_share([levels(still) for still in pan()]) == 0
    assert logo_share([levels(leaves(HEIGHT, WIDTH, seed)) for seed in range(3)]) == 0


def test_a_horizon_under_a_pan_is_no_logo() -> None:
    stills = [levels(np.where(np.mgrid[:HEIGHT, :WIDTH][0] > 60, 30, still)) for still in pan()]
    assert logo_share(stills) in (0, None)


@pytest.mark.parametrize("light", [0, 30])
def test_a_camera_that_stands_cannot_tell(light: float) -> None:
    still = pan(1)[0]
    assert logo_share([levels(0.7 * still + light * i) for i in range(4)]) is None
    moving = [still.copy() for _ in range(4)]
    for i, one in enumerate(moving):  # most of the picture is covered by what moves
        one[:, 20 * i : 20 * i + 130] = SCENERY[60 + 7 * i :][:HEIGHT, 90:220]
    assert logo_share([levels(one) for one in moving]) is None


def test_few_or_small_stills_cannot_tell() -> None:
    assert logo_share([levels(with_logo(still)) for still in pan(2)]) is None
    assert logo_share([np.zeros((20, 60), np.uint8)] * 4) is None


@pytest.mark.parametrize("size", [(120, 90), (121, 91), (1, 1)])
def test_half_of_a_still(size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, (90, 90, 90)).save(file, "JPEG", quality=87)
    half = half_luma(file.getvalue())
    assert half.shape == (-(-size[1] // 2), -(-size[0] // 2))
    assert abs(int(half.mean()) - 90) <= 1
