"""browse: the numbers are those of the tables, every clip is on one page, and nothing else is
handed out than what the dataset is made of."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from urllib.parse import quote

import duckdb
import pytest

from telecine.infra.errors import UsageError
from telecine.manifests.queries import connect
from telecine.pipeline.browse.app import browse, listen
from telecine.pipeline.look.summary import summary
from tests.support.browsing import (
    NAME,
    SCRIPT,
    TEXT,
    Served,
    clips_where,
    dataset,
    made,
    one,
    plain_tables,
    served,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(dataset()) as found:
        yield found


@pytest.fixture(scope="module")
def tables() -> duckdb.DuckDBPyConnection:
    return plain_tables()


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────


def test_the_overview_has_the_numbers_of_inspect_and_of_the_tables(
    server: Served, tables: duckdb.DuckDBPyConnection
) -> None:
    answer = server.get("/")
    assert answer.status == 200
    shown = {
        unescape(name): value
        for name, value in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", answer.text)
    }
    opened = dataset()
    found = summary(connect(opened.tables), opened.uri, opened.spec)
    kept = next(sum(b.clips for b in build.buckets) for build in found.builds if build.current)
    assert shown["sources"] == f"{sum(s.sources for s in found.sources)}"
    assert shown["clips"] == f"{one(tables, 'SELECT count(*) FROM clips')}"
    assert shown["frames in clips"] == f"{one(tables, 'SELECT sum(num_frames) FROM clips')}"
    assert shown["clips in the current build"] == f"{kept}"
    # The funnel's parts add up, and each reason is named.
    rows = re.findall(r'<th scope="row">\s*(?:<a[^>]*>)?(.*?)(?:</a>)?\s*\n.*?<td>([\d,]+)<',
                      answer.text, re.DOTALL)  # fmt: skip
    counts = {name.strip(): int(count.replace(",", "")) for name, count in rows}
    rejected = one(tables, "SELECT count(*) FROM sources WHERE status = 'rejected'")
    assert sum(n for name, n in counts.items() if name.startswith("rejected: ")) == rejected > 0
    assert counts["scanned"] + rejected == one(tables, "SELECT count(*) FROM sources")
    assert counts["in clips"] == found.frames_kept
    assert counts["kept"] == kept


def test_charts_count_what_duckdb_counts(server: Served, tables: duckdb.DuckDBPyConnection) -> None:
    answer = server.get("/charts.json")
    assert answer.headers["content-type"] == "application/json"
    charts = answer.json()
    clips = one(tables, "SELECT count(*) FROM clips")
    assert charts["clips"] == clips
    names = {histogram["name"] for histogram in charts["histograms"]}
    assert {"motion", "sharpness", "black_share", "duration_seconds", "letterbox_top"} <= names
    for histogram in charts["histograms"]:
        assert sum(bar["clips"] for bar in histogram["bars"]) + histogram["without"] == clips
        for bar in histogram["bars"]:
            count = f"SELECT count(*) FROM clips WHERE {bar['where']}"
            assert one(tables, count) == bar["clips"], bar
    for color in charts["colors"]:
        count = f"SELECT count(*) FROM clips WHERE {color['where']}"
        assert one(tables, count) == color["clips"] > 0
    opened = dataset()
    found = summary(connect(opened.tables), opened.uri, opened.spec)
    buckets = next(build.buckets for build in found.builds if build.current)
    assert {(b.resolution, b.aspect, b.duration, b.clips, b.hours) for b in buckets} == {
        (c["resolution"], c["aspect"], c["duration"], c["clips"], c["hours"])
        for c in charts["cells"]
    }
    for cell in charts["cells"]:
        there = server.get(f"/clips?place={quote(cell['place'])}")
        assert len(there.clips()) == cell["clips"]
        assert "Of the current build" in there.text


def test_charts_of_some_clips_are_of_those_alone(
    server: Served, tables: duckdb.DuckDBPyConnection
) -> None:
    clause = "kind = 'video' AND caption IS NOT NULL"
    charts = server.get(f"/charts.json?where={quote(clause)}").json()
    assert charts["clips"] == one(tables, "SELECT count(*) FROM clips WHERE kind = 'video'")
    assert all(cell["duration"] != "image" for cell in charts["cells"])
    refused = server.get(f"/charts.json?where={quote('nonesuch > 1')}")
    assert refused.status == 400
    assert "nonesuch" in refused.json()["error"]


# ── clips ────────────────────────────────────────────────────────────────────────────────────────


def test_clips_are_those_that_the_clause_takes(
    server: Served, tables: duckdb.DuckDBPyConnection
) -> None:
    clause = "num_frames > 30 AND (uri LIKE '%.webm' OR kind = 'image')"
    rows = tables.sql(
        "SELECT clip_id FROM clips JOIN (SELECT source_id, uri FROM sources) USING (source_id) "
        "WHERE num_frames > 30 AND uri LIKE '%.webm' ORDER BY clip_id"
    ).fetchall()
    answer = server.get(clips_where(clause))
    assert answer.clips() == [clip_id for (clip_id,) in rows]
    assert f'value="{clause.replace(">", "&gt;").replace(chr(39), "&#39;")}"' in answer.text
    assert server.get(clips_where("false")).clips() == []


def test_a_wrong_clause_is_refused_in_duckdbs_words_with_the_columns_there_are(
    server: Served,
) -> None:
    answer = server.get(clips_where("nonesuch > 1"))
    assert answer.status == 400
    said = unescape(answer.text)
    assert 'Referenced column "nonesuch" not found' in said
    assert "clips have the columns clip_id" in said
    assert "caption_outcome" in said
    assert "in_build is of the current build" in unescape(
        server.get(clips_where("NOT in_build")).text
    )
    assert "nonesuch > 1" in said  # still there to be corrected
    for clause in (
        "1) UNION (SELECT 1",
        "true; DROP VIEW clips",
        "motion, kind",
        "caption::INT > 1",
    ):
        assert server.get(clips_where(clause)).status == 400, clause
    assert server.get(clips_where("true", sort="nonesuch")).status == 400
    assert server.get(clips_where("true", sort="dominant_colors")).status == 400
    assert server.get(clips_where("true", place="nowhere")).status == 400
    assert server.get(clips_where("true", size="0")).status == 400
    assert server.get(clips_where("true", size="100000")).status == 400
    outside = clips_where("uri IN (SELECT content FROM read_text('/etc/hostname'))")
    assert server.get(outside).status == 400
    assert len(server.get("/clips").clips()) > 1  # the views are still there


def test_pages_are_linked(server: Served) -> None:
    clause = {"sort": "motion", "order": "down"}
    whole = server.get(clips_where("true", **clause)).clips()
    first = server.get(clips_where("true", **clause, size="4"))
    second = server.get(first.link("next"))
    assert first.clips() + second.clips() == whole
    assert second.link("next") == first.link("prev") == ""
    assert server.get(second.link("prev")).clips() == first.clips()


def test_a_clip_has_every_fact_that_the_tables_have(
    server: Served, tables: duckdb.DuckDBPyConnection
) -> None:
    row = tables.sql("SELECT * FROM samples WHERE outcome = 'kept' ORDER BY clip_id LIMIT 1")
    sample = dict(zip(row.columns, row.fetchall()[0], strict=True))
    answer = server.get("/clips", sample["clip_id"])
    said = unescape(answer.text)
    for name in ("clips", "sources"):
        columns = tables.sql(f"FROM {name}").columns
        assert all(f'<th scope="row">{column}</th>' in answer.text for column in columns)
    assert sample["shard_path"] in said
    assert sample["latent_sha256"] in said
    for text in tables.sql(
        "SELECT text FROM captions WHERE clip_id = ?", params=[sample["clip_id"]]
    ).fetchall():
        assert text[0] in said
    assert "dct-" in said
    assert "eight" in said
    assert server.get("/clips/nonesuch").status == 404


# ── sources and builds ───────────────────────────────────────────────────────────────────────────


def test_rejected_sources_are_listed_with_their_reasons(
    server: Served, tables: duckdb.DuckDBPyConnection
) -> None:
    rows = tables.sql(
        "SELECT uri, reason, detail FROM sources WHERE status = 'rejected'"
    ).fetchall()
    said = unescape(server.get("/rejected").text)
    assert all(uri in said and reason in said and detail in said for uri, reason, detail in rows)
    assert rows[0][0] in unescape(server.get(f"/rejected?reason={rows[0][1]}").text)
    other = unescape(server.get("/rejected?reason=empty").text)
    assert rows[0][0] not in other
    assert server.get("/rejected?after=nonesuch").status == 400


def test_two_builds_are_compared(server: Served) -> None:
    answer = server.get("/builds?a=dct&b=eight")
    assert answer.status == 200
    assert "vae.fps: none → 8" in unescape(answer.text)
    assert server.get("/builds").status == 200
    refused = server.get("/builds?a=dct&b=nonesuch")
    assert refused.status == 400
    assert "there is no build" in refused.text


# ── what is hostile ──────────────────────────────────────────────────────────────────────────────


class Harmless(HTMLParser):
    """Fails where a page holds anything that runs, or leads or loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("style", "iframe", "object", "embed", "base", "svg:script")
        assert not any(name.startswith("on") or name == "style" for name in given), given
        if tag == "script":
            assert re.fullmatch(r"/static/[a-z./]+\.js", given["src"] or ""), given
        for name in ("href", "src", "action", "poster", "formaction", "xlink:href"):
            link = given.get(name) or "/"
            assert link[0] in "/?#", given
            assert not link.startswith("//"), given
        self.text += "".join(value or "" for value in given.values())

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_data(self, data: str) -> None:
        self.text += data


PAGES = ("/", "/clips", "/rejected", "/builds", "/builds?a=dct&b=eight", "/nonesuch")


def test_what_people_wrote_is_text(server: Served, tables: duckdb.DuckDBPyConnection) -> None:
    hostile = quote(f"caption = '{TEXT}'")
    ids = [row[0] for row in tables.sql("SELECT clip_id FROM clips").fetchall()]
    paths = [
        *PAGES,
        *(f"/clips/{clip_id}" for clip_id in ids),
        f"/clips?where={hostile}",
        f"/clips?where={quote(SCRIPT)}",
        f"/clips?sort={quote(SCRIPT)}",
        f"/clips?after={quote(SCRIPT)}",
        f"/clips/{quote(SCRIPT, safe='')}",
        f"/rejected?reason={quote(SCRIPT)}",
        f"/builds?a={quote(SCRIPT)}&b={quote(TEXT)}",
    ]
    seen = ""
    for path in paths:
        answer = server.get(path)
        assert answer.headers["content-type"] == "text/html; charset=utf-8", path
        assert "\u202e" not in answer.text  # shown as what it is: it would turn the text around
        page = Harmless()
        page.feed(answer.text)
        seen += page.text
    assert TEXT in seen
    assert NAME.replace("\u202e", "\\u202e") in seen
    charts = server.get(f"/charts.json?where={hostile}")
    assert charts.headers["content-type"] == "application/json"


def test_every_answer_has_a_policy(server: Served) -> None:
    for path in (*PAGES, "/charts.json", "/static/style.css", "/footage/x", "/stills/x/0"):
        headers = server.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_only_reads(server: Served, method: str) -> None:
    answer = server.get("/", method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    head = server.get("/", method="HEAD")
    assert (head.status, head.body) == (200, b"")


def test_it_answers_to_the_names_of_this_machine_alone(server: Served) -> None:
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8042"):
        assert server.get("/static/style.css", Host=host).status == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", ""):
        assert server.get("/static/style.css", Host=host).status in (400, 403), host
    for site in ("cross-site", "same-site"):
        there = server.get("/static/style.css", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")
        assert there.status == 403
        followed = server.get("/clips", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")
        assert followed.status == 200


def test_elsewhere_it_answers_to_any_name() -> None:
    with served(dataset(), names=frozenset()) as server:
        assert server.get("/static/style.css", Host="machine.example:80").status == 200


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_a_port_in_use_and_a_host_elsewhere_are_refused() -> None:

    opened = dataset()
    with listen("127.0.0.1", 0) as taken, pytest.raises(UsageError, match="in use: choose another"):
        browse(opened, "127.0.0.1", taken.getsockname()[1], print)
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0)


PROGRAM = """
import sys
import typer
from telecine.pipeline.cli import main as cli
from telecine.pipeline.cli.browse import browse
app = typer.Typer(pretty_exceptions_enable=False)
cli.app = app
app.command()(browse)
app.command()(cli.inspect)
cli.main()
"""


def test_it_says_where_and_stops_when_interrupted() -> None:
    import signal
    import urllib.request

    command = [sys.executable, "-c", PROGRAM, "browse", str(made() / "dataset"), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in said
