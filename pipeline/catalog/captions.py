"""Which caption is in force: of each clip one text, and all that its sample says of captions.

    captions ─▶ of the captioner in force ────┐
             ─▶ of the second one of the mix ─┴▶ by clip_id: the first, the second, or none

A caption counts while it was made from the clip's present input. Its text is that of the first
speaker that has one; a clip of which the last speaker had nothing to say has an empty text, and
one that is still pending has no row.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass

import duckdb

from telecine.encoders.caption.interface import WITH_TEXT, Captioner, ClipFacts, Input
from telecine.encoders.load import load_captioner
from telecine.infra.text import literal, literals
from telecine.manifests.schemas import Caption, from_arrow
from telecine.manifests.specs import CaptionMixSpec, CaptionSpec, DatasetSpec

FACTS = tuple(field.name for field in dataclasses.fields(ClipFacts))
SPAN = ("start_pts", "end_pts", "time_base_num", "time_base_den")
MAX_ATTEMPTS = 3  # failed rows for one input, after which only `retry_failed` asks again


def inputs(uses: frozenset[Input]) -> str:
    """SQL: every current clip with what its captions are made from, and the digest of that."""
    named = ["stills_digest", *(FACTS if Input.FACTS in uses else ())]
    digested = (
        "to_json({" + ", ".join(f"{literal(name)}: clip.{name}" for name in named) + "})::VARCHAR"
    )
    uri, version = "''", "''"
    if Input.SIDECAR in uses:
        uri, version = "source.sidecar_uri", "source.sidecar_version"
    columns = ", ".join(f"clip.{name}" for name in (*SPAN, *FACTS))
    # Without a sidecar the digest is that of a captioner which knows of none.
    return f"""
        SELECT clip.clip_id, clip.stills_digest, clip.num_stills, {columns},
            source.start_pts AS source_start_pts,
            {uri} AS sidecar_uri, {version} AS sidecar_version,
            sha256({digested} || CASE {uri} WHEN '' THEN ''
                ELSE to_json([{uri}, {version}])::VARCHAR END) AS input_digest
        FROM current_clips AS clip JOIN current_sources AS source USING (source_id)
    """


_TEXTS = f"({literals(sorted(WITH_TEXT))})"


def by_speakers(captioner: Captioner) -> str:
    """SQL: the row was said by one of the captioner's speakers."""
    return f"captioner_fingerprint IN ({literals(s.fingerprint for s in captioner.speakers)})"


def usable(captioner: Captioner) -> str:
    """SQL: a caption that may be in force: it has a text, or nobody is left who could give one."""
    last = captioner.speakers[-1].fingerprint
    return f"outcome IN {_TEXTS} OR outcome <> 'failed' AND captioner_fingerprint = {literal(last)}"


def _preference(captioner: Captioner) -> str:
    """SQL: the lowest is in force."""
    order = literals(speaker.fingerprint for speaker in captioner.speakers)
    rank = f"list_position([{order}], captioner_fingerprint)"
    return f"(outcome NOT IN {_TEXTS}, {rank}, outcome, text)"


_SAID = """{captioner: captioner, captioner_fingerprint: captioner_fingerprint,
    outcome: outcome, text: text, windows: windows}"""


def captions_of(spec: CaptionSpec) -> str:
    """SQL: for each current clip with one its caption in force under a captioner, as `said`."""
    captioner = load_captioner(spec)
    there = f"""(
        FROM captions SEMI JOIN ({inputs(captioner.uses)}) USING (clip_id, input_digest)
        WHERE {by_speakers(captioner)} AND ({usable(captioner)})
    )"""
    several = f"(SELECT clip_id FROM {there} GROUP BY clip_id HAVING count(*) > 1)"
    # An aggregate holds the texts of all clips in memory: it is for the few with a choice.
    return f"""
        SELECT clip_id, {_SAID} AS said FROM {there} ANTI JOIN {several} USING (clip_id)
        UNION ALL
        SELECT clip_id, arg_min({_SAID}, {_preference(captioner)}) AS said
        FROM {there} SEMI JOIN {several} USING (clip_id) GROUP BY clip_id
    """


def ever_said(samples: str) -> str:
    """SQL: whatever anyone said of the clips of a table of samples, as `said`."""
    return f"""
        SELECT DISTINCT clip_id, {_SAID} AS said
        FROM captions SEMI JOIN {samples} USING (clip_id)
    """


def create_chosen_captions(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> None:
    """Make the view `chosen_captions`: for each current clip the text in force under the spec.

    Columns clip_id, captioner, captioner_fingerprint, outcome, text, text_digest; captions, a JSON
    array of what each captioner of the mix said; and captions_digest, of all of these.
    """
    second = captions_of(spec.caption_mix.second) if spec.caption_mix.second else None
    chosen = mixed(captions_of(spec.caption), second, spec.caption_mix)
    con.execute(f"CREATE OR REPLACE TEMP VIEW chosen_captions AS {chosen}")


def create_sample_captions(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> None:
    """Make the view `sample_captions`: what a build's samples under the spec say of captions.

    The columns of `chosen_captions`, as it is. Where captions are in a column, they are empty, and
    every current clip has its row: none waits.
    """
    create_chosen_captions(con, spec)
    said = "SELECT * FROM chosen_captions"
    if spec.shards.captions == "column":
        empty = ("captioner", "captioner_fingerprint", "outcome", "text", "text_digest")
        columns = ", ".join(f"'' AS {name}" for name in (*empty, "captions_digest"))
        said = f"SELECT clip_id, {columns}, '[]' AS captions FROM current_clips"
    con.execute(f"CREATE OR REPLACE TEMP VIEW sample_captions AS {said}")


def mixed(first: str, second: str | None, mix: CaptionMixSpec) -> str:
    """SQL of the columns of `chosen_captions`, from what two captioners said: `clip_id, said`.

    A clip's turn is a number in 0..1 from its id alone: as a share grows, clips only join it. Where
    the second captioner has no text for a clip whose turn it is, the first one's is taken.
    """
    no_text = "{captioner: 'none', captioner_fingerprint: '', outcome: 'ok', text: '', windows: []}"
    both = f"SELECT clip_id, first.said AS first, NULL AS second FROM ({first}) AS first"
    theirs = "false"
    if second is not None:
        both = f"""
            SELECT clip_id, first.said AS first, second.said AS second
            FROM ({first}) AS first LEFT JOIN ({second}) AS second USING (clip_id)
        """
        theirs = f"turn < {mix.none_share + mix.second_share!r} AND second.text <> ''"
    listed = (
        "[first]" if second is None else "list_filter([first, second], lambda s: s IS NOT NULL)"
    )
    second_text = "first" if second is None else "second"
    return f"""
        SELECT clip_id, chosen.captioner, chosen.captioner_fingerprint, chosen.outcome, chosen.text,
            sha256(chosen.text) AS text_digest, captions,
            sha256(to_json([chosen.captioner, chosen.captioner_fingerprint, chosen.text, captions])
                ::VARCHAR) AS captions_digest
        FROM (
            SELECT clip_id, to_json({listed})::VARCHAR AS captions,
                CASE WHEN turn < {mix.none_share!r} THEN {no_text}
                WHEN {theirs} THEN {second_text} ELSE first END AS chosen
            FROM (SELECT *, {TURN} AS turn FROM ({both}))
        )
    """


# 52 bits of a hash as a number in 0..1.
TURN = "('0x' || left(sha256('caption_mix ' || clip_id), 13))::BIGINT / 4503599627370496.0"


# ── of some clips, row by row ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Said:
    """A caption, and what it is good for under a spec."""

    caption: Caption
    asked: bool  # one of the mix's captioners said it ...
    present: bool  # ... of what the clip is now
    in_force: bool  # it is that captioner's word on the clip
    chosen: bool  # the mix takes its text for the clip's sample


@dataclass(frozen=True, slots=True)
class Chosen:
    """The text that the clip's next sample gets; of the captioner `none` an empty one."""

    captioner: str
    outcome: str
    text: str
    captions_digest: str


def captions_said(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec
) -> tuple[dict[str, Chosen], dict[str, tuple[Said, ...]]]:
    """By clip: the text in force, and all that was said of it, what is in force first.

    Of equal rows (a retry that was told the same) one is marked. Made for few clips: reads all rows
    that the tables have. Makes the view `chosen_captions`.
    """
    create_chosen_captions(con, spec)
    columns = "clip_id, captioner, outcome, text, captions_digest, captioner_fingerprint"
    rows = con.sql(f"SELECT {columns} FROM chosen_captions").fetchall()
    chosen = {clip_id: Chosen(*rest) for clip_id, *rest, _ in rows}
    taken = {(clip_id, speaker, outcome, text) for clip_id, _, outcome, text, _, speaker in rows}
    asked, present, in_force = _standing(con, spec)
    found: dict[str, list[Said]] = defaultdict(list)
    captions = con.sql("FROM captions ORDER BY ALL").to_arrow_table()
    for row in from_arrow(captions, Caption):
        speaker = row.captioner_fingerprint
        here = (row.clip_id, row.input_digest, speaker) in present
        word = (row.clip_id, speaker, row.outcome, row.text)
        heard = here and word in in_force
        in_force -= {word} if heard else set()
        found[row.clip_id].append(Said(row, speaker in asked, here, heard, heard and word in taken))
    return chosen, {
        clip_id: tuple(
            sorted(said, key=lambda s: (not s.chosen, not s.in_force, not s.present, not s.asked))
        )
        for clip_id, said in found.items()
    }


def _standing(
    con: duckdb.DuckDBPyConnection, spec: DatasetSpec
) -> tuple[set[str], set[tuple[str, str, str]], set[tuple[str, ...]]]:
    """Speakers of the mix; clips as they are now with each; and what each captioner's word is."""
    asked, present, in_force = set[str](), set[tuple[str, str, str]](), set[tuple[str, ...]]()
    for one in filter(None, (spec.caption, spec.caption_mix.second)):
        captioner = load_captioner(one)
        names = {speaker.fingerprint for speaker in captioner.speakers}
        asked |= names
        keys = con.sql(f"SELECT clip_id, input_digest FROM ({inputs(captioner.uses)})")
        present |= {(*key, name) for key in keys.fetchall() for name in names}
        rows = con.sql(
            "SELECT clip_id, said.captioner_fingerprint, said.outcome, said.text "
            f"FROM ({captions_of(one)})"
        )
        in_force |= set(rows.fetchall())
    return asked, present, in_force
