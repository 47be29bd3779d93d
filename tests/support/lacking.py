"""Storage whose footage lacks frames at first, as a container's index may have it."""

from __future__ import annotations

from pathlib import Path

from telecine.infra.store.reader import ObjectReader
from telecine.infra.store.storage import ObjectInfo, Storage


class Lacking(Storage):
    """Opens `short` in place of a file, so many times; then what it is asked for."""

    def __init__(self, short: Path, times: int = 1) -> None:
        super().__init__()
        self._short, self._times = short, times
        self.opened = 0

    def open(self, info: ObjectInfo) -> ObjectReader:
        self.opened += 1
        return super().open(self.stat(str(self._short)) if self.opened <= self._times else info)
