"""What a column of texts lacks: texts to encode, and tars to write. A pure function of the tables.

    live samples of a build ⋈ their texts = members       a text in force, or what the .txt holds
    distinct texts − text_embeddings of the encoder = lacking   ─▶ parts: ~256 texts each
    members by shard, with a digest of it − column_samples = tars to write

A text goes with those whose digests begin as its own: which texts are encoded together, and with it
the last bits of an embedding, hangs neither on workers nor on where an earlier run was killed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa

from telecine.infra.text import literal
from telecine.manifests.fingerprint import fingerprint
from telecine.manifests.index.columns import column_tar, part_path
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.captions import create_chosen_captions

PART_TEXTS = 256  # of a part, about
ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Target:
    """Which column, of which encoder, beside which build."""

    column: str
    encoder_fingerprint: str
    dimensions: int  # of an embedding; 0: texts alone
    build_id: str
    build: str


@dataclass(frozen=True, slots=True)
class PartJob:
    """Texts to encode together, and the tar their embeddings go into."""

    path: str
    encoder_fingerprint: str
    texts: tuple[tuple[str, str], ...]  # digest, text; by digest


@dataclass(frozen=True, slots=True)
class Member:
    """A sample of a column's tar: its text, and where its embedding lies."""

    clip_id: str
    text: str
    text_digest: str  # empty: it has no caption yet
    part: str  # path of the tar with its embedding; empty: it has none
    offset: int
    size_bytes: int
    sha256: str
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class ColumnJob:
    """A tar to write beside a shard."""

    column: str
    encoder_fingerprint: str
    shard_id: str
    digest: str
    members: tuple[Member, ...]  # in the shard's order

    @property
    def path(self) -> str:
        return column_tar(self.column, self.shard_id, self.digest)


# The text of a sample is that of its .txt; where captions are in a column, that in force. Captions
# that another one superseded are in their table still.
_TEXTS = """
CREATE OR REPLACE TEMP TABLE placed AS
SELECT clip_id, shard_id, shard_path, position, text_digest AS held
FROM live_samples WHERE build_id = $build_id AND outcome = 'kept';

CREATE OR REPLACE TEMP TABLE members AS
SELECT placed.*, text_digest, text FROM placed JOIN (
    SELECT DISTINCT text, sha256(text) AS text_digest FROM captions
    UNION SELECT '' AS text, sha256('') AS text_digest
) ON text_digest = held
UNION ALL
SELECT placed.*, text_digest, text FROM placed LEFT JOIN chosen_captions USING (clip_id)
WHERE held = '';

CREATE OR REPLACE TEMP TABLE encoded AS
SELECT * FROM text_embeddings
WHERE encoder_fingerprint = $encoder AND (path IN (SELECT path FROM there)
    OR outcome = 'failed' AND NOT $retry)
QUALIFY row_number() OVER (PARTITION BY text_digest ORDER BY outcome DESC, path) = 1;

CREATE OR REPLACE TEMP TABLE lacking AS
SELECT DISTINCT text_digest, text FROM (
    SELECT text_digest, text FROM members WHERE text IS NOT NULL
    UNION ALL SELECT sha256(''), ''
) ANTI JOIN encoded USING (text_digest) WHERE $embeds;
"""

_TARS = """
CREATE OR REPLACE TEMP TABLE tars AS
SELECT shard_id, any_value(shard_path) AS shard_path, count(*) AS members,
    sha256($encoder || string_agg(
        concat(clip_id, text_digest, CASE WHEN size_bytes > 0 THEN '+' ELSE '-' END),
        ' ' ORDER BY position
    )) AS digest
FROM members LEFT JOIN encoded USING (text_digest) GROUP BY shard_id;

CREATE OR REPLACE TEMP TABLE unwritten AS
FROM tars ANTI JOIN (
    SELECT DISTINCT shard_id, digest FROM column_samples
    WHERE column_name = $column AND path IN (SELECT path FROM there)
) USING (shard_id, digest);
"""


def create_lacking(
    con: duckdb.DuckDBPyConnection,
    spec: DatasetSpec,
    target: Target,
    there: Collection[str],
    *,
    retry: bool = False,
) -> None:
    """Make the tables `members`, `encoded` and `lacking`; `there` are paths of what is stored."""
    create_chosen_captions(con, spec)
    con.register("there", pa.table({"path": pa.array(sorted(there), pa.string())}))
    _execute(
        con,
        _TEXTS,
        build_id=target.build_id,
        encoder=target.encoder_fingerprint,
        embeds=target.dimensions > 0,
        retry=retry,
    )


def create_tars(con: duckdb.DuckDBPyConnection, target: Target) -> None:
    """Make the tables `tars` and `unwritten`, after `create_lacking`."""
    _execute(con, _TARS, encoder=target.encoder_fingerprint, column=target.column)


def _execute(con: duckdb.DuckDBPyConnection, statements: str, **known: Any) -> None:
    for statement in statements.split(";\n\n"):
        con.execute(statement, {k: v for k, v in known.items() if f"${k}" in statement})


def count(con: duckdb.DuckDBPyConnection, what: str) -> int:
    ((number,),) = con.sql(f"SELECT count(*) FROM {what}").fetchall()
    return int(number)


def part_jobs(con: duckdb.DuckDBPyConnection, target: Target) -> Iterator[PartJob]:
    """The lacking texts, those together whose digests begin with the same bits."""
    bits = part_bits(count(con, "(SELECT DISTINCT text_digest FROM members)"))
    query = f"""
        SELECT ('0x' || left(text_digest, 8))::BIGINT >> {32 - bits} AS part, text_digest, text
        FROM lacking ORDER BY part, text_digest
    """
    reader = con.sql(query).to_arrow_reader(ROWS_AT_ONCE)
    rows = (row for batch in reader for row in batch.to_pylist())
    for _, group in groupby(rows, lambda row: row["part"]):
        texts = tuple((row["text_digest"], row["text"]) for row in group)
        yield part_job(target, texts)


def part_job(target: Target, texts: tuple[tuple[str, str], ...]) -> PartJob:
    named = fingerprint([target.encoder_fingerprint, [digest for digest, _ in texts]])
    return PartJob(part_path(target.column, named), target.encoder_fingerprint, texts)


def part_bits(texts: int) -> int:
    """By how many bits of their digests so many texts fall into parts of about PART_TEXTS."""
    return max(math.ceil(math.log2(max(texts, 1) / PART_TEXTS)), 0)


def column_jobs(con: duckdb.DuckDBPyConnection, target: Target) -> Iterator[ColumnJob]:
    """The tars that are not written, in the order of the build's shards."""
    query = """
        SELECT shard_path, shard_id, digest, clip_id, coalesce(text, '') AS text,
            coalesce(text_digest, '') AS text_digest, coalesce(path, '') AS path,
            coalesce("offset", 0) AS "offset", coalesce(size_bytes, 0) AS size_bytes,
            coalesce(sha256, '') AS sha256, coalesce(tokens, 0) AS tokens,
            coalesce(truncated, false) AS truncated
        FROM members JOIN (SELECT shard_id, digest FROM unwritten) USING (shard_id)
        LEFT JOIN encoded USING (text_digest) ORDER BY shard_path, position
    """
    reader = con.sql(query).to_arrow_reader(ROWS_AT_ONCE)
    rows = (row for batch in reader for row in batch.to_pylist())
    for (shard_id, digest), group in groupby(rows, lambda row: (row["shard_id"], row["digest"])):
        members = tuple(_member(row) for row in group)
        yield ColumnJob(target.column, target.encoder_fingerprint, shard_id, digest, members)


def _member(row: dict[str, Any]) -> Member:
    return Member(
        row["clip_id"],
        row["text"],
        row["text_digest"],
        row["path"],
        row["offset"],
        row["size_bytes"],
        row["sha256"],
        row["tokens"],
        row["truncated"],
    )


def written_rows(con: duckdb.DuckDBPyConnection, target: Target) -> pa.Table:
    """`column_samples` of the column as it is to be, in the order of the build's samples."""
    return con.sql(f"""
        SELECT * FROM (
            SELECT DISTINCT * FROM column_samples WHERE column_name = {literal(target.column)}
        ) JOIN (SELECT shard_id, digest, shard_path FROM tars) USING (shard_id, digest)
        ORDER BY shard_path, position
    """).to_arrow_table()
