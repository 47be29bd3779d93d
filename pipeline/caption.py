"""caption: stills, measured facts and sidecars of the clips that have no caption yet → `captions`.

    current clips ─┬─ settled under this captioner and this input ─▶ nothing to do
                   └─ pending ─▶ CaptionTask ─▶ worker (ask.py) ─▶ Caption

The input of a caption is named by a digest of the stills, and, where the captioner uses them, of
the measured facts and the sidecar's version. So a changed sidecar or measure makes a new caption,
and nothing else does. A clip is settled when a row for its present input has a text, or comes from
the captioner's last speaker and did not fail, or is the third failure: until then each run asks
once more (`retry_failed` asks whatever the count). A later text beats any failure.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from encoders.captioner import (
    WITH_TEXT,
    Captioner,
    CaptionRequest,
    ClipFacts,
    Input,
)
from encoders.load import load_captioner
from infra.ray import Cluster, Lost, Resources
from manifests.dataset import Dataset
from manifests.queries import connect
from manifests.schemas import Caption
from manifests.specs import CaptionSpec
from manifests.tables import Tables
from pipeline.ask import CaptionTask, accept, make_caption_worker
from pipeline.commit import Commits
from pipeline.progress import Step

MAX_ATTEMPTS = 3  # failed rows for one input, after which only `retry_failed` asks again
BATCH_CLIPS = 512
BATCH_CLIPS_WITH_STILLS = 32  # of at most 64 stills of some 15 kB
LOOKUP_STILLS = 16_384  # rows of `stills` whose clips are looked up by one query

FACTS = tuple(field.name for field in dataclasses.fields(ClipFacts))
_SPAN = ("start_pts", "end_pts", "time_base_num", "time_base_den")


@dataclass
class CaptionOutcome:
    """What a run got of a captioner."""

    captioner: str  # as the spec names it
    outcomes: dict[str, int] = field(default_factory=dict)  # captions by outcome: ok, empty, ...
    chosen: bool = False  # it is the one in force since this run
    clips: int = 0  # current clips ...
    with_text: int = 0  # ... of which so many have a text now

    def add(self, captions: Iterable[Caption]) -> None:
        for caption in captions:
            self.outcomes[caption.outcome] = self.outcomes.get(caption.outcome, 0) + 1


def caption_clips(
    dataset: Dataset,
    cluster: Cluster,
    resources: Resources,
    commit_seconds: float,
    console: Console,
    *,
    retry_failed: bool = False,
) -> CaptionOutcome:
    """Ask once about every pending clip and commit what comes back, as it comes."""
    outcome = CaptionOutcome(dataset.spec.caption.captioner)
    captioner = load_captioner(dataset.spec.caption.captioner)
    total = count_pending(dataset.tables, captioner, retry_failed=retry_failed)
    batches = pending(dataset.tables, captioner, retry_failed=retry_failed)
    make_worker = make_caption_worker(dataset.spec.caption, dataset.storage)
    commits = Commits(dataset.tables, ["captions"], commit_seconds)
    with commits, Step(console, "caption", "clips", total, total) as step:
        for end in cluster.run(batches, make_worker, resources=resources):
            if isinstance(end, Lost):
                rows = accept(captioner, end.item, [], missing=end.detail)
            else:
                rows = accept(captioner, end.item, end.result)
            outcome.add(rows)
            commits.add("captions", rows)
            commits.flush_if_due()
            step.advance(done=len(rows), weight=len(rows))
    with connect(dataset.tables) as con:
        create_chosen_captions(con, dataset.spec.caption)
        query = "SELECT (SELECT count(*) FROM current_clips), count(*) FROM chosen_captions"
        ((outcome.clips, outcome.with_text),) = con.sql(f"{query} WHERE text <> ''").fetchall()
    return outcome


# ── which clips ──────────────────────────────────────────────────────────────────────────────────


def count_pending(tables: Tables, captioner: Captioner, *, retry_failed: bool = False) -> int:
    query = f"SELECT count(*) FROM ({_pending(captioner, retry_failed)})"
    ((count,),) = connect(tables).sql(query).fetchall()
    return int(count)


def pending(
    tables: Tables,
    captioner: Captioner,
    *,
    batch_clips: int | None = None,
    retry_failed: bool = False,
) -> Iterator[list[CaptionTask]]:
    """Batches of the clips that were pending when the first one was asked for.

    Commits made meanwhile change nothing of it, so a clip that fails is not asked about twice.
    A clip of a captioner that uses stills comes with them, or without any if they are incomplete.
    """
    query = _pending(captioner, retry_failed)
    if Input.STILLS in captioner.uses:
        tasks, size = _with_stills(tables, query), BATCH_CLIPS_WITH_STILLS
    else:
        tasks, size = _without_stills(tables, query), BATCH_CLIPS
    while batch := list(itertools.islice(tasks, batch_clips or size)):
        yield batch


def _inputs(uses: frozenset[Input]) -> str:
    """SQL: every current clip with what its captions are made from, and the digest of that."""
    named = ["stills_digest", *(FACTS if Input.FACTS in uses else ())]
    digested = "to_json({" + ", ".join(f"'{name}': clip.{name}" for name in named) + "})::VARCHAR"
    uri, version = "''", "''"
    if Input.SIDECAR in uses:
        uri, version = "source.sidecar_uri", "source.sidecar_version"
    columns = ", ".join(f"clip.{name}" for name in (*_SPAN, *FACTS))
    # Without a sidecar the digest is that of a captioner which knows of none.
    return f"""
        SELECT clip.clip_id, clip.stills_digest, clip.num_stills, {columns},
            source.start_pts AS source_start_pts,
            {uri} AS sidecar_uri, {version} AS sidecar_version,
            sha256({digested} || CASE {uri} WHEN '' THEN ''
                ELSE to_json([{uri}, {version}])::VARCHAR END) AS input_digest
        FROM current_clips AS clip JOIN current_sources AS source USING (source_id)
    """


def _pending(captioner: Captioner, retry_failed: bool) -> str:
    limit = "" if retry_failed else f"OR count_if(outcome = 'failed') >= {MAX_ATTEMPTS}"
    return f"""
        FROM ({_inputs(captioner.uses)}) ANTI JOIN (
            SELECT clip_id, input_digest FROM captions
            WHERE captioner_fingerprint IN {_speakers(captioner)}
            GROUP BY clip_id, input_digest
            HAVING bool_or({_usable(captioner)}) {limit}
        ) USING (clip_id, input_digest)
    """


def _quoted(words: Iterable[str]) -> str:
    """Hashes and outcomes: they hold no quote."""
    return ", ".join(f"'{word}'" for word in words)


_TEXTS = f"({_quoted(sorted(WITH_TEXT))})"


def _speakers(captioner: Captioner) -> str:
    return f"({_quoted(speaker.fingerprint for speaker in captioner.speakers)})"


def _rank(captioner: Captioner) -> str:
    order = _quoted(speaker.fingerprint for speaker in captioner.speakers)
    return f"list_position([{order}], captioner_fingerprint)"


def _usable(captioner: Captioner) -> str:
    """SQL: a caption that may be in force: it has a text, or nobody is left who could give one."""
    last = captioner.speakers[-1].fingerprint
    return f"outcome IN {_TEXTS} OR outcome <> 'failed' AND captioner_fingerprint = '{last}'"


def create_chosen_captions(con: duckdb.DuckDBPyConnection, spec: CaptionSpec) -> None:
    """Make the view `chosen_captions`: for each current clip the caption in force under the spec.

    Columns clip_id, captioner, captioner_fingerprint, outcome, text, text_digest. It is the text
    of the first speaker that has one for the clip's present input. A clip of which the last
    speaker had nothing to say has an empty text; one that is still pending has no row.
    """
    captioner = load_captioner(spec.captioner)
    con.execute(f"""
        CREATE OR REPLACE TEMP VIEW chosen_captions AS
        SELECT clip_id, said.*, sha256(said.text) AS text_digest FROM (
            SELECT clip_id, arg_min(
                {{captioner: captioner, captioner_fingerprint: captioner_fingerprint,
                  outcome: outcome, text: text}},
                (outcome NOT IN {_TEXTS}, {_rank(captioner)}, outcome, text)
            ) AS said
            FROM captions SEMI JOIN ({_inputs(captioner.uses)}) USING (clip_id, input_digest)
            WHERE captioner_fingerprint IN {_speakers(captioner)} AND ({_usable(captioner)})
            GROUP BY clip_id
        )
    """)


# ── tasks, with their stills ─────────────────────────────────────────────────────────────────────


def _without_stills(tables: Tables, query: str) -> Iterator[CaptionTask]:
    # A connection of its own: an open result blocks it.
    reader = connect(tables).sql(query).to_arrow_reader(8192)
    for rows in reader:
        yield from map(_task, rows.to_pylist())


def _with_stills(tables: Tables, query: str) -> Iterator[CaptionTask]:
    """In the order in which the stills lie, so that each of their files is read once.

    Holds the stills of the clips begun and not complete: a clip's stills are committed together.
    """
    con = connect(tables)
    begun: dict[str, dict[int, tuple[float, bytes]]] = defaultdict(dict)
    for fragments in _fragments(tables):
        rows = _wanted(con, query, fragments)
        for still in _stills(fragments, list(rows)):
            row, parts = rows[still["clip_id"]], begun[still["clip_id"]]
            parts[still["position"]] = still["seconds"], still["jpeg"]
            if len(parts) == row["num_stills"]:
                del begun[still["clip_id"]]
                yield _task(row, tuple(parts[i] for i in sorted(parts)))
    missing = con.sql(f"FROM ({query}) ANTI JOIN stills USING (clip_id)").to_arrow_table()
    incomplete = _rows_of(con, query, list(begun))
    yield from map(_task, [*missing.to_pylist(), *incomplete.values()])


def _fragments(tables: Tables) -> Iterator[list[Any]]:
    """The files of `stills`, small ones together."""
    together: list[Any] = []
    count = 0
    for fragment in tables.dataset("stills").get_fragments():
        together.append(fragment)
        count += fragment.count_rows()
        if count >= LOOKUP_STILLS:
            yield together
            together, count = [], 0
    if together:
        yield together


def _wanted(
    con: duckdb.DuckDBPyConnection, query: str, fragments: list[Any]
) -> dict[str, dict[str, Any]]:
    columns = [f.to_table(columns=["clip_id"])["clip_id"].to_pylist() for f in fragments]
    return _rows_of(con, query, sorted({clip_id for column in columns for clip_id in column}))


def _rows_of(
    con: duckdb.DuckDBPyConnection, query: str, clip_ids: list[str]
) -> dict[str, dict[str, Any]]:
    con.register("asked", pa.table({"clip_id": pa.array(clip_ids, pa.string())}))
    found = con.sql(f"FROM ({query}) SEMI JOIN asked USING (clip_id)").to_arrow_table()
    return {row["clip_id"]: row for row in found.to_pylist()}


def _stills(fragments: list[Any], clip_ids: list[str]) -> Iterator[dict[str, Any]]:
    columns = ["clip_id", "position", "seconds", "jpeg"]
    wanted = pc.field("clip_id").isin(pa.array(clip_ids, pa.string()))
    for fragment in fragments:
        for rows in fragment.to_batches(columns=columns, filter=wanted, batch_size=256):
            yield from rows.to_pylist()


def _task(row: dict[str, Any], stills: tuple[tuple[float, bytes], ...] = ()) -> CaptionTask:
    def seconds(pts: int) -> float:
        ticks = pts - row["source_start_pts"]
        return float(ticks * row["time_base_num"] / row["time_base_den"])

    facts = {name: row[name] for name in FACTS}
    facts["dominant_colors"] = tuple(facts["dominant_colors"])
    start = seconds(row["start_pts"])
    request = CaptionRequest(
        clip_id=row["clip_id"],
        stills_digest=row["stills_digest"],
        input_digest=row["input_digest"],
        facts=ClipFacts(**facts),
        start_seconds=start,
        end_seconds=start if row["kind"] == "image" else seconds(row["end_pts"]),
        stills=stills,
    )
    return CaptionTask(request, row["sidecar_uri"], row["sidecar_version"])
