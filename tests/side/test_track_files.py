"""Track files: four formats say the same; what is no track is refused with why."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from telecine.pipeline.side.formats import FORMATS, UnusableTrack, read_track


def parquet(columns: dict[str, list[object]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def csv(columns: dict[str, list[object]]) -> bytes:
    out = io.BytesIO()
    pa.csv.write_csv(pa.table(columns), out)
    return out.getvalue()


def jsonl(columns: dict[str, list[object]]) -> bytes:
    rows = zip(*columns.values(), strict=True)
    return "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows).encode()


def npz(columns: dict[str, list[object]]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **{name: np.array(values) for name, values in columns.items()})  # type: ignore[arg-type]
    return out.getvalue()


WRITE: dict[str, Callable[[dict[str, list[object]]], bytes]] = {
    "parquet": parquet,
    "csv": csv,
    "jsonl": jsonl,
    "npz": npz,
}


def test_every_format_is_written_here() -> None:
    assert set(WRITE) == set(FORMATS)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_columns_asked_for_in_their_order(kind: str) -> None:
    columns = {"timestamp": [0.0, 0.5, 1.25], "x": [1, 2, 3], "unused": [9, 9, 9], "y": [0.5, 0, 1]}
    found = read_track(f"a.tracks.{kind}", WRITE[kind](columns), ("y", "x"), 0.04)
    assert found.times.tolist() == [0, 0.5, 1.25]
    assert found.values.tolist() == [[0.5, 1], [0, 2], [1, 3]]
    assert found.unit == 1


@pytest.mark.parametrize("kind", [k for k in FORMATS if k != "csv"])
def test_lists_of_numbers(kind: str) -> None:
    columns = {"frame": [0, 1], "action": [[1.0, 2.0], [3.0, 4.0]]}
    found = read_track(f"a.tracks.{kind}", WRITE[kind](columns), ("action",), 0.04)
    assert found.values.tolist() == [[1, 2], [3, 4]]
    assert found.unit == 0.04


GOOD: dict[str, list[object]] = {"timestamp": [0.0, 0.5, 1.0], "x": [1.0, 2.0, 3.0]}
BAD: dict[str, tuple[dict[str, list[object]], str]] = {
    "nan": (GOOD | {"x": [1.0, float("nan"), 3.0]}, "`x` is NaN or infinite in 1 rows.*row 1"),
    "inf": (GOOD | {"x": [1.0, 2.0, float("inf")]}, "`x` is NaN or infinite"),
    "falling": (GOOD | {"timestamp": [0.0, 1.0, 0.5]}, "must rise, and row 2"),
    "repeated": (GOOD | {"timestamp": [0.0, 0.5, 0.5]}, "must rise, and row 2"),
    "no clock": ({"x": [1.0], "time": [0.0]}, "no column `timestamp` or `frame`; there is"),
    "no column": ({"timestamp": [0.0], "y": [0.0]}, "no column `x`; there is `timestamp`, `y`"),
    "words": (GOOD | {"x": ["up", "down", "up"]}, "`x` is"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_track(kind: str, case: str) -> None:
    columns, said = BAD[case]
    with pytest.raises(UnusableTrack, match=said):
        read_track(f"a.tracks.{kind}", WRITE[kind](columns), ("x",), 0.04)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("data", [b"", b"\0" * 300, b"{]", b"PK\x03\x04 cut short"])
def test_what_is_no_such_file(kind: str, data: bytes) -> None:
    with pytest.raises(UnusableTrack, match=rf"^a.tracks.{kind}: "):
        read_track(f"a.tracks.{kind}", data, ("x",), 0.04)


def test_empty_values_and_uneven_lists() -> None:
    with pytest.raises(UnusableTrack, match="1 empty values"):
        read_track("a.tracks.parquet", parquet(GOOD | {"x": [1.0, None, 2.0]}), ("x",), 0.04)
    with pytest.raises(UnusableTrack, match="unequal lengths"):
        read_track("a.tracks.parquet", parquet(GOOD | {"x": [[1], [1, 2], [3]]}), ("x",), 0.04)


def test_numbers_that_would_fill_the_memory_are_refused_unread() -> None:
    honest = npz({"timestamp": [0.0], "x": [0.0]})
    entry = honest.index(b"PK\x01\x02") + 24  # of the archive's directory: the size unpacked
    bomb = honest[:entry] + struct.pack("<I", 2**31) + honest[entry + 4 :]
    with pytest.raises(UnusableTrack, match="more than"):
        read_track("a.tracks.npz", bomb, ("x",), 0.04)


def test_a_small_file_of_equal_numbers_is_refused_unread() -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**22, np.int8)), 2**12)
    rows = pa.table({"timestamp": np.arange(2.0**10), "x": lists})
    out = io.BytesIO()
    with pq.ParquetWriter(out, rows.schema) as writer:
        for _ in range(2**27 // 2**22):
            writer.write_table(rows)
    assert len(out.getvalue()) < 2**20
    with pytest.raises(UnusableTrack, match="numbers, more than"):
        read_track("a.tracks.parquet", out.getvalue(), ("x",), 0.04)


def test_too_many_columns() -> None:
    names = ",".join(f"c{n}" for n in range(5000))
    with pytest.raises(UnusableTrack, match="5002 columns"):
        read_track("a.tracks.csv", f"timestamp,x,{names}\n".encode(), ("x",), 0.04)


def test_keys_of_later_lines_make_no_columns() -> None:
    lines = "\n".join(f'{{"timestamp": {n}, "x": 1, "k{n}": 1}}' for n in range(1000)).encode()
    assert len(read_track("a.tracks.jsonl", lines, ("x",), 0.04).times) == 1000
    with pytest.raises(UnusableTrack, match=r"there is `timestamp`, `x`, `k0`$"):
        read_track("a.tracks.jsonl", lines, ("y",), 0.04)


def test_json_that_is_too_deep() -> None:
    deep = b'{"timestamp": 0, "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    with pytest.raises(UnusableTrack, match="that can be read"):
        read_track("a.tracks.jsonl", deep, ("x",), 0.04)
