"""EXIF: which way up a picture is. Whatever else lies in it, and however broken, costs nothing."""

from __future__ import annotations

from telecine.pipeline.media.geometry import EXIF_ORIENTATIONS, Orientation

_PREFIX = b"Exif\0\0"
_ORDERS = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION, _SHORT = 0x0112, 3
_ENTRY_BYTES = 12


def exif_orientation(exif: bytes) -> Orientation:
    """Of a TIFF structure (EXIF 2.32, tag 0x0112), with its `Exif` prefix or without.

    As browsers read it: one SHORT of 1 to 8 in the first directory. Anything else is upright.
    """
    while exif.startswith(_PREFIX):
        exif = exif[len(_PREFIX) :]
    order = _ORDERS.get(exif[:4])
    if order is None:
        return Orientation()

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], "little" if order == "little" else "big")

    directory = number(4, 4)
    first = directory + 2
    within = max(0, len(exif) - first) // _ENTRY_BYTES
    for k in range(min(number(directory, 2), within)):
        at = first + k * _ENTRY_BYTES
        if number(at, 2) == _ORIENTATION:
            meant = number(at + 2, 2) == _SHORT and number(at + 4, 4) == 1
            return EXIF_ORIENTATIONS.get(number(at + 8, 2) if meant else 1, Orientation())
    return Orientation()
