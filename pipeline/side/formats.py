"""Track files: `x.tracks.parquet`, `.csv`, `.jsonl` or `.npz` beside `x.mp4`. Files are hostile.

One row a moment, by a column `timestamp` (seconds from the source's first frame) or `frame` (its
number in the source, from 0), which must rise; the other columns are numbers, or lists of equally
many numbers (which become that many). What is not so refuses the file, never the footage.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from telecine.pipeline.side.align import Numbers, Rows

FORMATS = ("parquet", "csv", "jsonl", "npz")  # the first of these that is there is the track file
MAX_BYTES = 256 * 2**20  # of a track file: 200 Hz × 12 numbers over six hours is 400 MB as text
MAX_NUMBERS = 2**27  # values that are held, of the columns asked for: 1 GiB
MAX_COLUMNS = 4096
MAX_LINE = 2**20  # bytes of a line of JSON, as pyarrow's reader has it
TIMES = ("timestamp", "frame")


_UNREADABLE = (
    pa.ArrowException,
    OSError,
    ValueError,
    KeyError,
    RecursionError,
    zipfile.BadZipFile,
)


class UnusableTrack(Exception):
    """The file cannot be used; the message says what is wrong, what was expected, what to do."""


def read_track(name: str, data: bytes, columns: Sequence[str], frame_seconds: float) -> Rows:
    """The columns asked for of a track file, from its bytes; `name` ends in its format.

    `frame_seconds` is how long a frame lasts where rows are counted by frame. Raises UnusableTrack.
    """
    suffix = name.rpartition(".")[2].lower()
    if len(data) > MAX_BYTES:
        raise UnusableTrack(
            f"{name}: {len(data)} bytes, more than {MAX_BYTES}: split the footage, or leave out "
            "columns that no track needs"
        )
    read: dict[str, Callable[[bytes, Sequence[str]], pa.Table]] = {
        "parquet": _parquet,
        "csv": _csv,
        "jsonl": _jsonl,
        "npz": _npz,
    }
    try:
        table = read[suffix](data, columns)
    except UnusableTrack as error:
        raise UnusableTrack(f"{name}: {error}") from error
    except _UNREADABLE as error:
        said = " ".join(str(error).split())[:300]
        raise UnusableTrack(f"{name}: no {suffix} file that can be read: {said}") from error
    try:
        return rows_of_table(table, columns, frame_seconds)
    except UnusableTrack as error:
        raise UnusableTrack(f"{name}: {error}") from error


def rows_of_table(table: pa.Table, columns: Sequence[str], frame_seconds: float) -> Rows:
    """The rows of a table with a column of times. Raises UnusableTrack."""
    clock = next((t for t in TIMES if t in table.column_names), None)
    if clock is None:
        raise UnusableTrack(_no_column("timestamp", table.column_names, "or `frame`"))
    if not table.num_rows:
        raise UnusableTrack("it has no rows")
    times = _numbers(table, clock)[:, 0]
    values = np.concatenate([_numbers(table, name) for name in columns], axis=1)
    steps = np.diff(times)
    if (steps <= 0).any():
        row = int(np.flatnonzero(steps <= 0)[0]) + 1
        raise UnusableTrack(
            f"`{clock}` must rise, and row {row} has {times[row]!r} after {times[row - 1]!r}: sort "
            "the rows, and keep one of each moment"
        )
    if clock == "timestamp":
        return Rows(times, values)
    return Rows(times, values, frame_seconds, by_time=False)


def _numbers(table: pa.Table, name: str) -> Numbers:
    """A column as float64 [rows, numbers]."""
    if name not in table.column_names:
        raise UnusableTrack(_no_column(name, table.column_names))
    column = table.column(name).combine_chunks()
    kind = column.type
    width = 1
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            raise UnusableTrack(
                f"`{name}` has lists of unequal lengths: {sorted(map(str, lengths))}"
            )
        width, column = lengths[0], pc.list_flatten(column)
        kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise UnusableTrack(f"`{name}` is of type {kind}; numbers were expected")
    _bound(len(column))
    if column.null_count:
        raise UnusableTrack(f"`{name}` has {column.null_count} empty values: leave out such rows")
    numbers = np.asarray(column.cast(pa.float64(), safe=False)).reshape(-1, width)
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(bad):
        raise UnusableTrack(
            f"`{name}` is NaN or infinite in {len(bad)} rows, the first is row {bad[0]} (from 0): "
            "leave out such rows"
        )
    return numbers


def _no_column(name: str, names: Sequence[str], other: str = "") -> str:
    there = ", ".join(f"`{n}`" for n in list(names)[:20]) or "none"
    return f"there is no column `{name}` {other}".rstrip() + f"; there is {there}"


def _bound(numbers: int) -> None:
    if numbers > MAX_NUMBERS:
        raise UnusableTrack(f"{numbers} numbers, more than {MAX_NUMBERS}: split the footage")


# ── formats ──────────────────────────────────────────────────────────────────────────────────────


def _parquet(data: bytes, columns: Sequence[str]) -> pa.Table:
    file = pq.ParquetFile(io.BytesIO(data))
    names = file.schema_arrow.names
    _bound(file.metadata.num_rows)
    asked = [n for n in names if n in columns or n in TIMES]
    groups = (file.metadata.row_group(n) for n in range(file.metadata.num_row_groups))
    parts = [group.column(n) for group in groups for n in range(file.metadata.num_columns)]
    read = [part for part in parts if part.path_in_schema.partition(".list")[0] in asked]
    # Equal numbers take no room in the file; words take more than a number's.
    _bound(sum(max(part.num_values, part.total_uncompressed_size // 4) for part in read))
    # What is not read is named all the same, for whoever asked for something else.
    table = file.read(columns=asked, use_threads=False)
    return _with_names(table, names)


def _with_names(table: pa.Table, names: Sequence[str]) -> pa.Table:
    for name in names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows))
    return table


def _csv(data: bytes, columns: Sequence[str]) -> pa.Table:
    rows = data.count(b"\n") + 1
    _bound(rows * (len(columns) + 1))
    if (width := data.partition(b"\n")[0].count(b",") + 1) > MAX_COLUMNS:
        raise UnusableTrack(f"{width} columns, more than {MAX_COLUMNS}")
    options = pa.csv.ReadOptions(use_threads=False)
    convert = pa.csv.ConvertOptions(null_values=[""])
    return pa.csv.read_csv(io.BytesIO(data), read_options=options, convert_options=convert)


def _jsonl(data: bytes, columns: Sequence[str]) -> pa.Table:
    """By the keys of the first line: a key that each line has anew would be a column each."""
    _bound((data.count(b"\n") + 1) * (len(columns) + 1))
    first = json.loads(data.lstrip()[:MAX_LINE].partition(b"\n")[0])
    if not isinstance(first, dict):
        raise UnusableTrack("its first line is no object of columns")
    asked = [name for name in first if name in columns or name in TIMES]
    table = pa.json.read_json(
        io.BytesIO(data),
        read_options=pa.json.ReadOptions(use_threads=False),
        parse_options=pa.json.ParseOptions(
            explicit_schema=pa.schema([(name, _kind(first[name])) for name in asked]),
            unexpected_field_behavior="ignore",
        ),
    )
    return _with_names(table, list(first)[:MAX_COLUMNS])


def _kind(value: object) -> pa.DataType:
    """Of a column with such values in JSON."""
    if isinstance(value, list):
        return pa.list_(_kind(value[0] if value else None))
    if isinstance(value, bool):
        return pa.bool_()
    return pa.string() if isinstance(value, str) else pa.float64()


def _npz(data: bytes, columns: Sequence[str]) -> pa.Table:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _bound(sum(entry.file_size for entry in archive.infolist()) // 8)
    arrays: dict[str, pa.Array] = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        for name in file.files:
            if name in columns or name in TIMES:
                arrays[name] = _arrow(name, file[name])
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise UnusableTrack(f"arrays of unequal lengths: {lengths}")
        return _with_names(pa.table(arrays), file.files)


def _arrow(name: str, array: np.ndarray) -> pa.Array:
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
        raise UnusableTrack(
            f"`{name}` is {array.dtype} of shape {array.shape}; numbers [rows] or [rows, numbers] "
            "were expected"
        )
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    return flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
