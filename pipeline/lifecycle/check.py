"""verify: read every live shard of a build again and hold it against the tables.

    bytes of a tar ──▶ SHA-256 of all ──────────────▶ damaged, where it is not the manifest's
                  └──▶ headers, one after the other ─▶ key, shape, text, where the rows disagree

Each object is read once, a few MiB at a time, whatever its size. What is only in the store, named
by no row, is an orphan: garbage for `gc`, no fault of the build.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import groupby, zip_longest
from operator import attrgetter

import duckdb
import pyarrow as pa

from telecine.infra.cluster import STALL_SECONDS, Lost, Resources
from telecine.infra.errors import ClusterError, NoBucket, NotFound, Unreadable
from telecine.infra.prefetch import run_ahead
from telecine.infra.pulse import beat
from telecine.infra.store.storage import ObjectInfo, Storage, join
from telecine.manifests.queries import connect
from telecine.manifests.tar import (
    DTYPE,
    LATENT,
    SUFFIXES,
    TEXT,
    Found,
    described,
    is_track,
    read_members,
)
from telecine.pipeline.progress import Step
from telecine.pipeline.run import Run

CHUNK_BYTES = 8 * 2**20
ROWS_AT_ONCE = 10_000


class Kind(StrEnum):
    """What can be wrong with a shard. A closed set: reports and docs use these words."""

    MISSING = "missing"  # a row names it and the store does not have it
    DAMAGED = "damaged"  # its size or SHA-256 is not the manifest's, or it cannot be read
    KEY = "key"  # names, order or number of its members are not those of the rows
    SHAPE = "shape"  # a latent lies elsewhere, or has another shape or type
    FRAMES = "frames"  # what a row says of its frames does not add up to its clip's
    TEXT = "text"  # a caption is not the one whose digest the row has
    INDEX = "index"  # the index of its samples is missing, or is not what the rows say
    ORPHANED = "orphaned"  # no row names it: garbage


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    shard_path: str  # relative to the dataset
    kind: Kind
    detail: str
    clip_id: str = ""  # where it is of one sample


@dataclass(frozen=True, slots=True)
class Expected:
    """What a row says of one sample in its shard."""

    shard_path: str
    shard_sha256: str
    shard_bytes: int
    shard_samples: int
    position: int
    clip_id: str
    text_digest: str
    latent_offset: int
    latent_bytes: int
    latent_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShardCheck:
    """A shard to check: its samples in order, as the rows have them."""

    samples: tuple[Expected, ...]

    @property
    def path(self) -> str:
        return self.samples[0].shard_path

    @property
    def size_bytes(self) -> int:
        return self.samples[0].shard_bytes


# ── one shard ────────────────────────────────────────────────────────────────────────────────────


class VerifyWorker:
    """Checks one shard at a time. Holds two chunks of it at most."""

    def __init__(self, dataset: str, storage: Storage) -> None:
        self._dataset = dataset
        self._storage = storage

    def __call__(self, check: ShardCheck) -> list[Finding]:
        uri, first = join(self._dataset, check.path), check.samples[0]
        try:
            info = self._storage.find(uri)
            if info is None:
                return [Finding(check.path, Kind.MISSING, "no such object")]
            if info.size_bytes != first.shard_bytes:
                detail = f"{info.size_bytes:,} bytes instead of {first.shard_bytes:,}"
                return [Finding(check.path, Kind.DAMAGED, detail)]
            chunks = run_ahead(_chunks(self._storage, info), 1, "read")
            with closing(chunks):
                sha256, members = read_members(chunks)
        except NoBucket:
            raise
        except NotFound:  # since it was asked for
            return [Finding(check.path, Kind.MISSING, "no such object")]
        except Unreadable as error:
            return [Finding(check.path, Kind.DAMAGED, str(error))]
        if sha256 != first.shard_sha256:
            detail = f"SHA-256 {sha256} instead of {first.shard_sha256}"
            return [Finding(check.path, Kind.DAMAGED, detail)]
        return list(compare(check, members))


def _chunks(storage: Storage, info: ObjectInfo) -> Generator[bytes, None, None]:
    for start in range(0, info.size_bytes, CHUNK_BYTES):
        length = min(CHUNK_BYTES, info.size_bytes - start)
        yield storage.read_range(info.uri, start, length)
        beat()


def compare(check: ShardCheck, members: list[Found]) -> Iterator[Finding]:
    """Where a tar whose bytes are the manifest's is not what the rows say of it."""
    path, rows = check.path, check.samples
    said = {(r.shard_sha256, r.shard_bytes, r.shard_samples) for r in rows}
    if len(said) > 1 or said.pop()[2] != len(rows) or [r.position for r in rows] != [
        *range(len(rows))
    ]:  # fmt: skip
        yield Finding(path, Kind.KEY, f"its {len(rows)} rows disagree on digest, number or order")
    expected = [
        f"{row.clip_id}.{suffix}"
        for row in rows
        for suffix in SUFFIXES
        if suffix != TEXT or row.text_digest  # else captions are in a column
    ]
    known = {row.clip_id for row in rows}
    # Which tracks a sample has is said in its JSON alone; they are under the tar's digest.
    names = [m.name for m in members if not (is_track(m.name) and m.name.split(".")[0] in known)]
    for place, (there, name) in enumerate(zip_longest(names, expected)):
        if there != name:
            detail = f"member {place} is {there or 'absent'}, the rows have {name or 'none'}"
            yield Finding(path, Kind.KEY, detail, (name or there or "").split(".")[0])
            break
    by_name = {member.name: member for member in members}
    for row in rows:
        latent, text = by_name.get(f"{row.clip_id}.{LATENT}"), by_name.get(f"{row.clip_id}.{TEXT}")
        if latent is not None:
            found = f"{latent.array} in {latent.size} bytes from {latent.offset}"
            wanted = f"{described(row.latent_shape, DTYPE)} in {row.latent_bytes} bytes from "
            wanted += str(row.latent_offset)
            if found != wanted:
                yield Finding(path, Kind.SHAPE, f"{found} instead of {wanted}", row.clip_id)
        if text is not None and text.sha256 != row.text_digest:
            detail = f"SHA-256 of its text is {text.sha256} instead of {row.text_digest}"
            yield Finding(path, Kind.TEXT, detail, row.clip_id)


# ── a build ──────────────────────────────────────────────────────────────────────────────────────


def count_live(
    con: duckdb.DuckDBPyConnection, build_id: str, paths: Iterable[str] | None = None
) -> Counter[str]:
    """Shards, samples and bytes that are live, in all or in the shards of these paths."""
    ((shards, samples, size),) = con.sql(
        f"""
        SELECT count(*), sum(samples), sum(size) FROM (
            SELECT count(*) AS samples, any_value(shard_bytes) AS size {_LIVE} GROUP BY shard_path
        )
        """,
        params=_asked(build_id, paths),
    ).fetchall()
    return Counter(shards=int(shards), samples=int(samples or 0), bytes=int(size or 0))


def _asked(build_id: str, paths: Iterable[str] | None) -> dict[str, object]:
    return {"build_id": build_id, "all": paths is None, "paths": sorted(paths or ())}


_LIVE = """
FROM live_samples WHERE build_id = $build_id AND outcome = 'kept'
AND ($all OR shard_path IN (SELECT unnest($paths::VARCHAR[])))
"""


def check_shards(
    run: Run, build_id: str, paths: Iterable[str] | None = None
) -> tuple[Counter[str], list[Finding]]:
    """Every live shard of the build, or those of these paths: counts, and findings in order."""
    dataset = run.dataset
    con = connect(dataset.tables)
    asked = _asked(build_id, paths)
    counts = count_live(con, build_id, paths)
    findings = [Finding(path, Kind.FRAMES, *said) for path, *said in _miscounted(con, asked)]
    with Step(run.progress, "verify", "shards", counts["shards"], counts["bytes"]) as step:
        for end in run.cluster.run(
            _checks(con, asked),
            partial(VerifyWorker, dataset.uri, dataset.storage),
            resources=Resources(cpus=1),
            stall_seconds=lambda _: STALL_SECONDS,
        ):
            if isinstance(end, Lost):
                raise ClusterError(
                    f"{end.item.path} could not be checked: {end.detail}. Check the store and the "
                    "workers' memory, then run again"
                )
            findings += end.result
            step.advance(weight=end.item.size_bytes)
    return counts, sorted(findings)


def _miscounted(
    con: duckdb.DuckDBPyConnection, asked: dict[str, object]
) -> list[tuple[str, str, str]]:
    """shard_path, detail and clip_id of samples whose frames are lost or doubled unsaid.

    Those that an older version made say nothing of frames that are picked by time.
    """
    query = f"""
    WITH live AS (SELECT * {_LIVE} AND frames_resampled_away IS NOT NULL),
    native AS (
        SELECT clip_id, any_value(num_frames) AS num_frames FROM clips
        SEMI JOIN live USING (clip_id) GROUP BY clip_id
    )
    SELECT shard_path, format(
        '{{}} frames - {{}} resampled away + {{}} repeated are not {{}} encoded + {{}} left out',
        num_frames, frames_resampled_away, frames_repeated, encoded_frames, frames_left_out
    ), clip_id
    FROM live JOIN native USING (clip_id)
    WHERE num_frames - frames_resampled_away + frames_repeated
        <> encoded_frames + frames_left_out
    """
    found: list[tuple[str, str, str]] = con.sql(query, params=asked).fetchall()
    return found


def _checks(con: duckdb.DuckDBPyConnection, asked: dict[str, object]) -> Iterator[ShardCheck]:
    columns = ", ".join(Expected.__slots__)
    query = f"SELECT {columns} {_LIVE} ORDER BY shard_path, position, clip_id"
    batches = con.sql(query, params=asked).to_arrow_reader(ROWS_AT_ONCE)
    for _, samples in groupby(_rows(batches), attrgetter("shard_path")):
        yield ShardCheck(tuple(samples))


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[Expected]:
    for batch in batches:
        for row in batch.to_pylist():
            yield Expected(**row | {"latent_shape": tuple(row["latent_shape"])})
