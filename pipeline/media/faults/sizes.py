"""Sizes that are refused before memory is taken for them."""

from __future__ import annotations

from telecine.infra.errors import MediaError, Reason


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises MediaError TOO_LARGE."""
    if width * height > max_pixels:
        raise MediaError(Reason.TOO_LARGE, f"{width} x {height} px; at most {max_pixels} px")


def check_picture_size(width: int, height: int, max_pixels: int) -> None:
    """Of a still, whose header has the last word. Raises MediaError: TOO_LARGE, CORRUPT."""
    if width < 1 or height < 1:
        raise MediaError(Reason.CORRUPT, f"{width} x {height} px is no picture")
    check_size(width, height, max_pixels)
