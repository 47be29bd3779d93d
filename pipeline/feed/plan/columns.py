"""The columns of an index that planning looks at, as arrays over the mapped file."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telecine.infra.errors import UsageError
from telecine.manifests.index.samples import SampleIndex


class Columns:
    def __init__(self, index: SampleIndex) -> None:
        self._rows = index.rows
        self._facts = index.facts
        self.size: int = index.rows.num_rows

    @cached_property
    def shapes(self) -> npt.NDArray[np.int32]:
        """[n, 4]: C, T', H', W' of each sample."""
        values = self._column("shape").flatten().to_numpy()
        shapes: npt.NDArray[np.int32] = values.reshape(-1, 4)
        return shapes

    @cached_property
    def shards(self) -> npt.NDArray[np.int32]:
        """[n]: number of the shard of each sample."""
        return self._codes("shard")

    @cached_property
    def images(self) -> npt.NDArray[np.bool_]:
        """[n]: whether it is an image."""
        rates: npt.NDArray[np.int32] = self._column("fps_num").to_numpy()
        return np.equal(rates, 0)

    @cached_property
    def buckets(self) -> npt.NDArray[np.int32]:
        """[n]: number of each sample's bucket in `bucket_names`."""
        return self._codes("bucket")

    @property
    def bucket_names(self) -> list[str]:
        names: list[str] = self._column("bucket").dictionary.to_pylist()
        return names

    def clip_ids(self) -> pa.Array:
        return self._column("clip_id")

    def frame_tokens(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Tokens of one latent frame of some samples: H'·W' ÷ patch²."""
        sides = self.shapes[rows, 2:].astype(np.int64)
        patch = self._facts.patch
        if (sides % patch).any():
            row = int(rows[(sides % patch).any(axis=-1)][0])
            raise UsageError(
                f"sample {self.clip_ids()[row]} of build {self._facts.build} is "
                f"{tuple(self.shapes[row].tolist())}, not whole patches of {patch} × {patch}: "
                "telecine rebuild cuts clips to the patch that the spec names"
            )
        tokens: npt.NDArray[np.int64] = sides.prod(axis=-1) // patch**2
        return tokens

    def _codes(self, name: str) -> npt.NDArray[np.int32]:
        codes: npt.NDArray[np.int32] = self._column(name).indices.to_numpy()
        return codes

    def _column(self, name: str) -> Any:
        column = self._rows[name]
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
