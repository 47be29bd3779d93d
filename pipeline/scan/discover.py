"""Discover: what objects are there. (Which are news to a dataset: pipeline/scan/compare.py.)

Ten million objects are ordinary: they stay in an Arrow table, and DuckDB does the joining.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from telecine.infra.errors import AccessDenied, BadCredentials, UsageError
from telecine.infra.store.disk import PART_PREFIX
from telecine.infra.store.storage import ObjectInfo, Storage, absolute, is_s3, join
from telecine.manifests.fingerprint import short_id
from telecine.pipeline.side.formats import FORMATS
from telecine.pipeline.side.lerobot import INFO, MAX_INFO_BYTES, info_of

SIDECARS = ("json", "txt", "srt")  # the first of these that is there is the sidecar
_DROPPINGS = (".DS_Store", ".localized", "Thumbs.db", "desktop.ini")  # what file managers leave
BATCH_ROWS = 2**16

_LISTED = pa.schema(
    [("uri", pa.string()), ("version", pa.string()), ("size_bytes", pa.int64()),
     ("named", pa.bool_())]
)  # fmt: skip


def source_id(uri: str, version: str) -> str:
    """Names one version of one object."""
    return short_id("source", uri, version)


@dataclass(frozen=True, slots=True)
class Found:
    """One object under the roots, with the files beside it (empty if there are none)."""

    uri: str
    version: str
    size_bytes: int
    sidecar_uri: str = ""
    sidecar_version: str = ""
    tracks_uri: str = ""
    tracks_version: str = ""

    @property
    def source_id(self) -> str:
        return source_id(self.uri, self.version)

    @property
    def info(self) -> ObjectInfo:
        return ObjectInfo(self.uri, self.size_bytes, self.version)


@dataclass(frozen=True, slots=True)
class ScanTask:
    """An object to scan, and the revision its row will have."""

    found: Found
    revision: int
    tries: int = 0  # scans of this version before, the machine's fault perhaps that they failed


@dataclass(frozen=True)
class LeftOut:
    """What lies under the roots and is not taken for footage, where a user might wonder."""

    datasets: tuple[str, ...] = ()  # folders: they hold what Telecine made
    unnamable: tuple[str, ...] = ()  # names that are not UTF-8, which no table can hold

    def lines(self) -> Iterator[str]:
        """Each with its reason, in words."""
        for folder in self.datasets:
            yield f"left out {folder!r}: a dataset"
        for uri in self.unnamable:
            yield f"left out {uri!r}: the name is not UTF-8; rename it to ingest it"


@dataclass(frozen=True)
class Listing:
    """Every object under the roots once, in URI order, as the columns of Found."""

    objects: pa.Table
    left_out: LeftOut = LeftOut()

    def __len__(self) -> int:
        return int(self.objects.num_rows)

    def __iter__(self) -> Iterator[Found]:
        return (Found(**row) for row in rows_of(self.objects))


def discover(storage: Storage, roots: Sequence[str], exclude: Sequence[str] = ()) -> Listing:
    """List the roots: files, folders, s3://bucket/prefix. `exclude` are folders to leave out.

    - `a.json`, `a.txt`, `a.srt` beside `a.mp4` (or `a.mp4.json`, ..., which go first) are its
      sidecar, one of them, and no sources. So is `a.tracks.parquet`, `.csv`, `.jsonl` or `.npz`
      its track file. Beside no footage they are objects like any other: content decides.
    - Folder markers, file managers' droppings (`.DS_Store`, `._x`, `Thumbs.db`) and half-written
      files are left out, unless a root names them. Other names with a leading dot are taken.
    - A folder with a telecine.toml and tables/ is a dataset, not footage.
    - Of a LeRobotDataset v3 root (meta/info.json says so) the videos are footage; the rest is
      their track file.
    """
    unnamable: list[str] = []
    batches = _batches(_under(storage, [absolute(root) for root in roots], unnamable))
    with duckdb_over(listed=pa.Table.from_batches(batches, _LISTED)) as con:
        con.execute(_ONCE, {"droppings": list(_DROPPINGS), "part": PART_PREFIX})
        con.unregister("listed")
        datasets = tuple(row[0] for row in con.execute(_DATASETS).fetchall())
        left_out = [join(absolute(folder), "") for folder in exclude] + list(datasets)
        con.execute("CREATE TABLE left_out AS SELECT unnest(?::VARCHAR[]) AS folder", [left_out])
        con.execute(
            "CREATE TABLE lerobot AS SELECT unnest(?::VARCHAR[]) AS root",
            [_lerobot_roots(storage, con)],
        )
        con.execute(_LEROBOT, {"info": INFO})
        objects = con.sql(_WITH_SIDECARS, params=_BESIDE).to_arrow_table()
    return Listing(objects, LeftOut(datasets, tuple(unnamable)))


def refuse_within(roots: Sequence[str], dataset: str) -> None:
    """Raises UsageError where a root is the dataset, or lies in it: it would find its own tars."""
    for root in map(absolute, roots):
        if is_s3(root) or is_s3(dataset):
            within = join(root, "").startswith(join(dataset, ""))
        else:
            within = Path(root).resolve().is_relative_to(Path(dataset).resolve())
        if within:
            raise UsageError(
                f"the source {root} lies in the dataset {dataset}: "
                "keep footage and dataset in folders of their own"
            )


_ONCE = """
CREATE TABLE once AS
SELECT uri, any_value(version ORDER BY version) AS version, any_value(size_bytes ORDER BY version)
    AS size_bytes, split_part(uri, '/', -1) AS name
FROM listed GROUP BY uri
HAVING bool_or(named) OR NOT (
    (ends_with(uri, '/') AND max(size_bytes) = 0)
    OR name IN (SELECT unnest($droppings)) OR starts_with(name, '._') OR starts_with(name, $part)
)
"""

_DATASETS = """
SELECT left(uri, -length('telecine.toml')) AS folder FROM once
WHERE name = 'telecine.toml'
AND EXISTS (SELECT 1 FROM once inner_ WHERE starts_with(inner_.uri, folder || 'tables/'))
ORDER BY folder
"""

# Either kind of file has a stem of its own: a.tracks.csv is of a, or of a.mp4.
_BESIDE = {"order": list(SIDECARS), "tracks": list(FORMATS)}
_WITH_SIDECARS = r"""
WITH named AS (
    SELECT *, regexp_replace(uri, '\.[^./]*$', '') AS stem,
        lower(regexp_extract(name, '\.([^.]*)$', 1)) AS suffix,
        if(regexp_matches(name, '.\.tracks\.[^.]*$') AND list_contains($tracks, suffix),
            'track', 'caption') AS kind
    FROM once WHERE NOT EXISTS (SELECT 1 FROM left_out WHERE starts_with(uri, folder))
    AND uri NOT IN (SELECT uri FROM of_lerobot WHERE NOT is_video)
), kept AS (
    SELECT * EXCLUDE (stem), if(kind = 'track', left(stem, -length('.tracks')), stem) AS stem,
        list_position(if(kind = 'track', $tracks, $order), suffix) AS rank
    FROM named
), beside AS (
    SELECT f.uri, s.uri AS other, s.version AS other_version, 0 AS far, s.rank, s.kind
    FROM kept f JOIN kept s ON s.stem = f.uri WHERE s.rank > 0 AND f.rank IS NULL
    UNION ALL
    SELECT f.uri, s.uri, s.version, 1, s.rank, s.kind
    FROM kept f JOIN kept s ON s.stem = f.stem WHERE s.rank > 0 AND f.rank IS NULL
), nearest AS (
    FROM beside QUALIFY row_number() OVER (PARTITION BY uri, kind ORDER BY far, rank, other) = 1
), captions AS (
    SELECT uri, other AS sidecar_uri, other_version AS sidecar_version FROM nearest
    WHERE kind = 'caption'
), tracks AS (
    SELECT uri, other AS tracks_uri, other_version AS tracks_version FROM nearest
    WHERE kind = 'track'
    UNION ALL SELECT uri, tracks_uri, tracks_version FROM of_lerobot WHERE is_video
)
SELECT uri, version, size_bytes, coalesce(sidecar_uri, '') AS sidecar_uri,
    coalesce(sidecar_version, '') AS sidecar_version, coalesce(tracks_uri, '') AS tracks_uri,
    coalesce(tracks_version, '') AS tracks_version
FROM kept LEFT JOIN captions USING (uri) LEFT JOIN tracks USING (uri)
WHERE uri NOT IN (SELECT other FROM beside)
ORDER BY uri
"""

# All that a LeRobot root says of its videos is their track file, of one version.
_LEROBOT = """
CREATE TABLE of_lerobot AS
WITH inside AS (
    SELECT root, uri, version, starts_with(uri, root || 'videos/') AS is_video
    FROM once JOIN lerobot ON starts_with(uri, root)
), said AS (
    SELECT root, sha256(string_agg(uri || ' ' || version, chr(10) ORDER BY uri)) AS digest
    FROM inside WHERE starts_with(uri, root || 'meta/') OR starts_with(uri, root || 'data/')
    GROUP BY root
)
SELECT uri, is_video, root || $info AS tracks_uri, digest AS tracks_version
FROM inside JOIN said USING (root)
"""


def _lerobot_roots(storage: Storage, con: duckdb.DuckDBPyConnection) -> list[str]:
    """Folders with a meta/info.json that is of LeRobotDataset v3."""
    ends = "SELECT uri FROM once WHERE ends_with(uri, ?) AND size_bytes <= ? ORDER BY uri"
    named = con.execute(ends, [f"/{INFO}", MAX_INFO_BYTES]).fetchall()
    return [uri.removesuffix(INFO) for (uri,) in named if info_of(storage.read_bytes(uri))]


def _under(storage: Storage, roots: list[str], unnamable: list[str]) -> Iterator[tuple[Any, ...]]:
    for root in roots:
        for info in storage.list(root):
            named = info.uri == root
            if not _is_text(info.uri):
                unnamable.append(info.uri)
                continue
            yield info.uri, info.version, info.size_bytes, named
            for beside in _beside(storage, root) if named else ():
                yield beside.uri, beside.version, beside.size_bytes, False


def _beside(storage: Storage, uri: str) -> Iterator[ObjectInfo]:
    """The caption and track files of an object that was named by itself."""
    folder, _, name = uri.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if extension.lower() in SIDECARS:
        return
    kinds = (*SIDECARS, *(f"tracks.{kind}" for kind in FORMATS))
    for base, kind in itertools.product({name, stem if dot else name}, kinds):
        try:
            found = storage.find(f"{folder}/{base}.{kind}")
        except BadCredentials:
            raise
        except AccessDenied:  # what a store says of what is not there, where listing is forbidden
            found = None
        if found:
            yield found


def _is_text(uri: str) -> bool:
    try:
        uri.encode()
    except UnicodeEncodeError:
        return False
    return True


def _batches(rows: Iterator[tuple[Any, ...]]) -> Iterator[pa.RecordBatch]:
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        columns = zip(*batch, strict=True)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _LISTED, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=_LISTED)


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows one by one, a batch of them in Python at a time."""
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        yield from batch.to_pylist()


def duckdb_over(**relations: Any) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with Arrow tables or datasets under the names given, and no others."""
    con = duckdb.connect(":memory:", config={"temp_directory": tempfile.gettempdir()})
    con.execute("SET memory_limit = '2GB'")  # beyond that it spills
    con.execute("SET python_enable_replacements = false")
    for name, relation in relations.items():
        con.register(name, relation)
    return con
