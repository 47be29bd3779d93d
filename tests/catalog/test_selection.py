"""One language of conditions over clips: equal rows and equal words, whoever is asked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telecine.encoders.load import load_captioner, load_encoder, load_scorer
from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import Dataset, create_dataset, open_dataset
from telecine.manifests.queries import connect
from telecine.manifests.schemas import TABLES, Score, arrow_schema
from telecine.manifests.specs import CaptionSpec, DatasetSpec, ScoreSpec, SelectSpec
from telecine.pipeline.browse.charts import charts
from telecine.pipeline.browse.clip import clip_facts
from telecine.pipeline.browse.listing import Asked, clip_ids
from telecine.pipeline.browse.overview import fates
from telecine.pipeline.build.sample import _source_json
from telecine.pipeline.build.wanted import Target, make_plan
from telecine.pipeline.catalog.captions import inputs
from telecine.pipeline.catalog.columns import Column, columns
from telecine.pipeline.catalog.conditions import columns_named
from telecine.pipeline.catalog.dataset import create_dataset_view
from telecine.pipeline.catalog.scores import is_score, score_inputs, scores_used
from telecine.pipeline.catalog.selection import check_where, selected_or_none
from telecine.pipeline.cli.clip import as_values, clip_report
from telecine.pipeline.look.explain import explain
from telecine.pipeline.look.listing import listing, reading
from tests.support.rows import make_caption, make_clip, make_source

SPEC = DatasetSpec(
    caption=CaptionSpec(captioner="signal"),
    score=ScoreSpec(scorer="openclip:ViT-B-32@x", weights="w", prompts={"red": "something red"}),
)
TEXTS = ["A dog.", "it's -- a cat", None, 'in_build; "quoted" /* text', None, "A dog."]
CLIPS = [
    make_clip(
        clip_id=f"{n:032x}", source_id=f"s{n % 4}", kind="image", width=480 + n, height=480,
        motion=n / 10, shot=n % 3, dominant_colors=("red", "blue")[: n % 3],
    )
    for n in range(12)
]  # fmt: skip
SOURCES = [
    make_source(
        uri=f"/footage/it's {n}.mp4", source_id=f"s{n}", codec="h264" if n else "vp9",
        sidecar_uri="" if n % 2 else f"/footage/{n}.txt",
        has_audio=(True, False, None, True)[n], audio_channels=(2, 0, None, None)[n],
    )
    for n in range(4)
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve clips of four sources: some without a caption, some without a score."""
    root = str(tmp_path_factory.mktemp("selection") / "dataset")
    tables = create_dataset(root, Storage(), SPEC).tables
    tables.append("clips", CLIPS)
    tables.append("sources", SOURCES)
    captioner = load_captioner(SPEC.caption)
    digests = dict(
        connect(tables)
        .sql(f"SELECT clip_id, input_digest FROM ({inputs(captioner.uses)})")
        .fetchall()
    )
    tables.append(
        "captions",
        [
            make_caption(
                clip_id=clip.clip_id, captioner_fingerprint=captioner.fingerprint,
                input_digest=digests[clip.clip_id], text=text,
            )
            for clip, text in zip(CLIPS, TEXTS * 2, strict=True) if text
        ],
    )  # fmt: skip
    scorer = load_scorer(SPEC.score)
    rows = connect(tables).sql(score_inputs(SPEC, "similarity_red")).fetchall()
    tables.append(
        "scores",
        [
            Score(
                clip_id=clip_id, name="similarity_red", scorer_fingerprint=scorer.fingerprint,
                input_digest=digest, value=int(clip_id, 16) / 20,
            )
            for clip_id, digest, _ in rows if int(clip_id, 16) % 5
        ],
    )  # fmt: skip
    return open_dataset(root, Storage())


@functools.cache
def oracle() -> duckdb.DuckDBPyConnection:
    """What is known of each clip as one plain table, made without the catalogue."""
    rows = []
    sources = {source.source_id: source for source in SOURCES}
    for n, (clip, text) in enumerate(zip(CLIPS, TEXTS * 2, strict=True)):
        source = sources[clip.source_id]
        rows.append(
            dataclasses.asdict(clip)
            | {name: getattr(source, name) for name in ("uri", "codec", "sidecar_uri")}
            | {"caption": text, "caption_outcome": "ok" if text else None}
            | {"captioner": "signal" if text else None, "text_similarity": None}
            | {"similarity_red": n / 20 if n % 5 else None}
        )
    more = [pa.field(name, pa.string()) for name in
            ("uri", "codec", "sidecar_uri", "caption", "caption_outcome", "captioner")]  # fmt: skip
    more += [pa.field(name, pa.float64()) for name in ("text_similarity", "similarity_red")]
    schema = pa.schema([*arrow_schema(type(CLIPS[0])), *more])
    con = duckdb.connect()
    con.register("known", pa.Table.from_pylist(rows, schema=schema))
    return con


def with_where(dataset: Dataset, where: str) -> Dataset:
    spec = dataset.spec.model_copy(update={"select": SelectSpec(where=where)})
    return dataclasses.replace(dataset, spec=spec)


@functools.cache
def _connection(uri: str) -> duckdb.DuckDBPyConnection:
    return connect(open_dataset(uri, Storage()).tables)


def cursor(dataset: Dataset) -> duckdb.DuckDBPyConnection:
    """A connection of one's own to the tables, soon made."""
    found: duckdb.DuckDBPyConnection = _connection(dataset.uri).cursor()
    return found


def known_columns(dataset: Dataset) -> list[Column]:
    return _columns(dataset.uri)


@functools.cache
def _columns(uri: str) -> list[Column]:
    return columns(_connection(uri).cursor(), SPEC)


@pytest.mark.parametrize(
    ("where", "sources"),
    [
        ("has_audio", "s0 s3"), ("NOT has_audio", "s1"), ("audio_channels >= 2", "s0"),
        ("audio_channels IS NULL", "s2 s3"),
    ],
)  # fmt: skip
def test_sound_is_known_of_the_source_or_unknown(
    where: str, sources: str, dataset: Dataset
) -> None:
    found = set(inspected(dataset, where))
    assert found == {clip.clip_id for clip in CLIPS if clip.source_id in sources.split()}


# ── everyone who is asked ────────────────────────────────────────────────────────────────────────


def inspected(dataset: Dataset, where: str) -> list[str]:
    con = cursor(dataset)
    with reading(con, dataset.spec, "clips", where):
        rows = listing(con, dataset.spec, "clips", where, "clip_id", 0).fetchall()
    return sorted(clip_id for (clip_id,) in rows)


def browsed(dataset: Dataset, where: str) -> list[str]:
    """As the grid and the report have them."""
    con = cursor(dataset)
    asked = Asked(where=where, size=100, sort="motion")
    total, _, ids = clip_ids(con, dataset.spec, asked, known_columns(dataset))
    assert total == len(ids)
    return sorted(ids)


def captioned(dataset: Dataset, where: str) -> list[str]:
    """As caption --where and score --where mean them."""
    try:
        found = selected_or_none(cursor(dataset), dataset.spec, where)
    except UsageError as error:
        if "takes none of the clips" in str(error):
            return []
        raise
    assert found is not None
    return sorted(found["clip_id"].to_pylist())


def built(dataset: Dataset, where: str) -> list[str]:
    """As ingest and rebuild plan them; those without a caption wait, and are counted."""
    encoder = load_encoder(dataset.spec.vae)
    target = Target("b", "l", 0, retry=False, follows="")
    con = cursor(dataset)
    found = make_plan(con, with_where(dataset, where).spec, encoder, target)
    planned = sorted(m.clip_id for shard in found.plan.shards for m in shard.members)
    waiting = [c.clip_id for c, text in zip(CLIPS, TEXTS * 2, strict=True) if text is None]
    rows = con.sql("FROM selected_clips ORDER BY clip_id").fetchall()
    everything = [clip_id for (clip_id,) in rows]
    assert planned == [c for c in everything if c not in waiting]
    assert found.uncaptioned == len(everything) - len(planned)
    return everything


def explained(dataset: Dataset, where: str) -> list[str]:
    """Of the sources, and so of all their clips."""
    taken = []
    for source in SOURCES:
        found = explain(with_where(dataset, where), source.uri)
        for clip in found.clips:
            (step,) = [step for step in clip.steps if step.name == "selected"]
            if step.facts["error"]:
                raise UsageError(step.facts["error"])
            taken += [clip.clip_id] if step.state == "ok" else []
    return sorted(taken)


EVERYONE: list[Callable[[Dataset, str], list[str]]] = [inspected, browsed, captioned, built]


def checked(dataset: Dataset, where: str) -> int:
    """As ingest and rebuild do before anything else."""
    return check_where(cursor(dataset), dataset.spec, where)


def charted(dataset: Dataset, where: str) -> int:
    con, spec = cursor(dataset), dataset.spec
    return charts(con, spec, known_columns(dataset), where).clips


def in_funnel(dataset: Dataset, where: str) -> int:
    found = fates(cursor(dataset), with_where(dataset, where).spec, 1)
    return sum(part.count for part in found if part.name != "not selected")


# ── conditions that may be asked ─────────────────────────────────────────────────────────────────

NUMBERS = ["motion", "Motion", '"motion"', "clips.width", "shot", "similarity_red", '"SHOT"',
           "text_similarity", "width - height"]  # fmt: skip
STRINGS = ["kind", "uri", "codec", "caption", "captioner", "caption_outcome", "clips.caption",
           "sidecar_uri", '"caption"', "lower(uri)"]  # fmt: skip
SAID = ["A dog.", "it's", "--", "/*", "in_build", "text_similarity > 0 --", "(SELECT 1)", "", "%'"]
REMARKS = ["", " -- caption IS NULL", " /* OR random() < 2 */", "\n-- )\n", " /* similarity_red */"]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


numbers = st.builds(
    lambda column, sign, value: f"{column} {sign} {value}",
    st.sampled_from(NUMBERS),
    st.sampled_from(["=", "<>", "<", ">=", "IS DISTINCT FROM", "+ 1 >", "% 2 ="]),
    st.sampled_from(["0", "1", "0.3", "NULL", "481"]),
)
strings = st.builds(
    lambda column, sign, value: f"{column} {sign} {quoted(value)}",
    st.sampled_from(STRINGS),
    st.sampled_from(["=", "<>", "LIKE", "NOT LIKE", "ILIKE", "SIMILAR TO", "< "]),
    st.sampled_from([text.replace("(", "").replace("*", "") for text in SAID]),
)
nulls = st.builds(
    lambda column, sign: f"{column} {sign}",
    st.sampled_from([*NUMBERS, *STRINGS]),
    st.sampled_from(["IS NULL", "IS NOT NULL", "IN (NULL)", "= coalesce(NULL, NULL)"]),
)
others = st.sampled_from(
    [
        "true", "NULL", "NOT NULL", "contains(caption, 'dog')",
        "list_contains(dominant_colors, 'red')",
        "list_filter(dominant_colors, lambda c: c <> 'red') = []", "length(caption) > 6",
        "regexp_matches(uri, '[01]')", "width BETWEEN 482 AND 485", "codec IN ('vp9', 'x')",
        "CASE WHEN caption IS NULL THEN shot = 1 ELSE shot = 2 END", "'x' || codec = 'xvp9'",
        "try_cast(caption AS INTEGER) IS NULL", "clips.motion * 10 = shot",
    ]
)  # fmt: skip
leaves = st.one_of(numbers, strings, nulls, others)
conditions = st.builds(
    lambda text, remark: text + remark,
    st.recursive(
        leaves,
        lambda inner: (
            st.builds(
                lambda a, sign, b: f"({a}) {sign} ({b})",
                inner,
                st.sampled_from(["AND", "OR"]),
                inner,
            )
            | st.builds(lambda a: f"NOT ({a})", inner)
        ),
        max_leaves=4,
    ),
    st.sampled_from(REMARKS),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(where=conditions)
def test_everyone_takes_the_clips_that_it_is_true_of(where: str, dataset: Dataset) -> None:
    query = f"SELECT clip_id FROM known AS clips WHERE (\n{where}\n) ORDER BY clip_id"
    expected = [clip_id for (clip_id,) in oracle().sql(query).fetchall()]
    for ask in EVERYONE:
        assert ask(dataset, where) == expected, ask.__name__
    assert checked(dataset, where) == len(expected)


@pytest.mark.parametrize(
    "where",
    ["caption IS NULL AND motion < 0.5", "similarity_red > 0.2",
     "uri LIKE '%it''s 1%' OR codec = 'vp9' -- )"],
)  # fmt: skip
def test_explain_charts_and_funnel_mean_what_the_others_take(where: str, dataset: Dataset) -> None:
    found = inspected(dataset, where)
    assert explained(dataset, where) == found
    assert charted(dataset, where) == in_funnel(dataset, where) == len(found)


# ── and those that may not ───────────────────────────────────────────────────────────────────────

REFUSED = {
    "a query within it": [
        "(SELECT count(*) FROM clips) > 0",
        "clip_id IN (SELECT clip_id FROM current_clips LIMIT 1)",
        "EXISTS (FROM read_text('/etc/hostname'))",
        "motion > ALL (SELECT motion FROM clips)",
        "'red' = ANY(dominant_colors)",
    ],
    "is not the same at every run": [
        "random() < 2", "motion > 0 AND today() > DATE '2020-01-01'", "current_date IS NOT NULL",
        "now() > '2020-01-01'", "uuid() <> ''", "ago(INTERVAL 1 DAY) IS NOT NULL",
        "system.main.random() < 2", "list_filter([1], lambda x: random() < 2) = [1]",
        "current_setting('threads') > 1", "version() = 'v1'", "get_block_size('memory') > 0",
    ],
    "hangs on the machine": [
        "'2020-01-01'::timestamp with time zone IS NULL",
        "'2020-01-01'::TIMESTAMPTZ < '2020-01-02'::TIMESTAMPTZ"],
    "must name each column": ["COLUMNS(*) IS NOT NULL", "#1 = 'x'", "clips IS NOT NULL", "*"],
    "there is a parameter in it": ["motion > $1", "motion > ?", "clip_id = $key"],
    "aggregates": ["sum(motion) > 1", "count(*) > 1"],
    "window functions": ["row_number() OVER () < 3"],
    "Parser Error": ["motion >", "motion > 1;", "motion, kind", "true) OR (true", "/* x", "-- x",
                     "true; DROP TABLE clips", "motion > 0 ORDER BY 1", "true UNION SELECT 1"],
    "not found": ["colour = 'red'", "samples.shard_path = ''", "nosuchcolumn IS NULL"],
    "does not exist": ["nosuchfunction(motion)"],
    "of the current build and not of the clip itself": [
        "in_build", "NOT in_build AND motion > 0", "bucket_resolution = 480",
        "drop_reason IS NULL", "shard_path <> ''",
    ],
    "Conversion Error": ["caption::INTEGER > 3", "uri::DATE IS NOT NULL"],
}  # fmt: skip


def words(ask: Callable[[Dataset, str], Any], dataset: Dataset, where: str) -> str:
    with pytest.raises(UsageError) as refusal:
        ask(dataset, where)
    return str(refusal.value)


@pytest.mark.parametrize(("why", "where"), [(why, w) for why in REFUSED for w in REFUSED[why]])
def test_what_may_not_be_asked_is_refused_with_the_reason(
    why: str, where: str, dataset: Dataset
) -> None:
    said = words(checked, dataset, where)
    assert said.startswith(f"cannot select clips where {where!r}: ")
    assert why in said
    assert "\nclips have the columns clip_id, source_id" in said
    assert "LINE" not in said


@pytest.mark.parametrize("where", [REFUSED[why][0] for why in REFUSED])
def test_everyone_refuses_in_the_same_words(where: str, dataset: Dataset) -> None:
    said = words(checked, dataset, where)
    for ask in EVERYONE:
        assert words(ask, dataset, where) == said, ask.__name__


@pytest.mark.parametrize("where", [REFUSED[why][-1] for why in REFUSED])
def test_explain_charts_and_funnel_refuse_in_them_too(where: str, dataset: Dataset) -> None:
    said = words(inspected, dataset, where)
    assert words(charted, dataset, where) == words(in_funnel, dataset, where) == said
    first = said.splitlines()[0]
    assert first == f"cannot select clips where {where!r}: {words(explained, dataset, where)}"


@pytest.mark.parametrize("where", ["", " ", "\n\t"])
def test_a_blank_condition_takes_all(where: str, dataset: Dataset) -> None:
    every = [clip.clip_id for clip in CLIPS]
    assert [ask(dataset, where) for ask in (inspected, browsed, built)] == [every] * 3
    assert selected_or_none(cursor(dataset), dataset.spec, where) is None


# ── what a condition hangs on ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("motion > 0.2 -- text_similarity", {"motion"}),
        ("kind = 'text_similarity > 0' /* caption */", {"kind"}),
        ("TEXT_SIMILARITY > 0.2", {"text_similarity"}),
        ('"similarity_red" < 1 AND Clips.Caption IS NULL', {"similarity_red", "clips", "caption"}),
        ("my_text_similarity > 0", {"my_text_similarity"}),
        ("struct_pack(caption := 1).caption = 1", set()),
        (" ", set()),
        (None, set()),
    ],
)
def test_which_columns_a_condition_names(where: str | None, named: set[str]) -> None:
    assert columns_named(where) == named


def test_which_names_are_scores() -> None:
    assert is_score("text_similarity")
    assert is_score("similarity_red")
    assert not is_score("my_text_similarity")


@pytest.mark.parametrize(
    ("where", "prompts"),
    [
        ("similarity_red > 0", {"red": "something red"}),
        ("text_similarity > 0 -- similarity_red", {}),
        ("motion > 0 -- similarity_red", None),
        ("caption = 'similarity_red'", None),
    ],
)
def test_a_build_hangs_on_the_scores_that_its_selection_names(
    where: str, prompts: dict[str, str] | None
) -> None:
    used = scores_used(SPEC.model_copy(update={"select": SelectSpec(where=where)}))
    assert (None if used is None else used.prompts) == prompts


def test_a_plan_is_a_function_of_the_versions_that_it_pins(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Captions and sources that come later change no plan of the versions before them."""
    opened = create_dataset(str(tmp_path / "d"), Storage(), SPEC)
    tables = opened.tables
    for name in ("clips", "sources", "captions", "scores"):
        tables.append(name, dataset.tables.rows(TABLES[name]))
    pinned = {name: tables.version(name) for name in ("clips", "sources", "captions", "scores")}
    where = "caption ILIKE '%dog%' AND uri NOT LIKE '%2%'"
    before = selected_ids(connect(tables, pinned), where)
    said: Any = dataset.tables.rows(TABLES["captions"])[0]
    other = next(c.clip_id for c in CLIPS if c.clip_id not in before)
    tables.append("captions", [dataclasses.replace(said, clip_id=other)])
    tables.append("sources", [dataclasses.replace(SOURCES[0], uri="/2", revision=1)])
    assert selected_ids(connect(tables, pinned), where) == before


def selected_ids(con: duckdb.DuckDBPyConnection, where: str) -> list[str]:
    found = selected_or_none(con, SPEC, where)
    assert found is not None
    return sorted(found["clip_id"].to_pylist())


def test_a_span_is_told_on_the_clock_of_its_source(tmp_path: Path) -> None:
    """Of footage whose stamps do not begin at 0: by rows, the view, `inspect clip` and browse."""
    opened = create_dataset(str(tmp_path / "d"), Storage(), SPEC)
    clip = make_clip(start_pts=36_000_007, end_pts=36_090_007, time_base_den=90_000)
    opened.tables.append("clips", [clip])
    opened.tables.append("sources", [make_source(start_pts=36_000_000, time_base_den=90_000)])
    expected = (36_000_007 / 90_000, 36_090_007 / 90_000)
    assert (clip.start_seconds, clip.end_seconds) == expected
    con = connect(opened.tables)
    create_dataset_view(con, SPEC)
    assert con.sql("SELECT start_seconds, end_seconds FROM dataset").fetchall() == [expected]
    shown = as_values(clip_report(opened, clip.clip_id))["span"]
    assert (shown["start_seconds"], shown["end_seconds"]) == expected
    page = clip_facts(connect(opened.tables), SPEC, clip.clip_id)
    assert (page.start_seconds, page.end_seconds) == expected
    told = _source_json(clip, make_source())  # of a sample's JSON
    assert (told["start_seconds"], told["end_seconds"]) == expected
