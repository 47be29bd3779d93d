"""report: one file that holds all it shows, in which nothing runs but its own scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from telecine.infra.errors import UsageError
from telecine.manifests.queries import connect
from telecine.pipeline.browse.report import STILLS, report
from telecine.pipeline.look.summary import summary
from tests.support.browsing import NAME, SCRIPT, TEXT, dataset, one, plain_tables


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    said = report(dataset(), path)
    assert said.startswith(f"{path}: ")
    return path


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.code: list[tuple[str, dict[str, str | None], str]] = []
        self.text = ""
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag in ("script", "style") and self.cdata_elem == tag:
            self.code.append((tag, attributes, data))
        else:
            self.text += data

    def numbers(self) -> Any:
        (data,) = (code for _, given, code in self.code if given.get("id") == "charts-data")
        return json.loads(data)


def test_it_has_the_numbers_of_inspect(file: Path) -> None:
    parsed = Parsed(file.read_text(encoding="utf-8"))
    opened = dataset()
    found = summary(connect(opened.tables), opened.uri, opened.spec)
    charts = parsed.numbers()
    assert charts["clips"] == sum(c.clips for c in found.clips)
    (build,) = (build for build in found.builds if build.current)
    assert sum(cell["clips"] for cell in charts["cells"]) == sum(b.clips for b in build.buckets)
    for reason, sources in found.rejected.items():
        assert re.search(rf"rejected: {reason}\s+{sources} ", " ".join(parsed.text.split()))
    con = plain_tables()
    for histogram in charts["histograms"]:
        for bar in histogram["bars"]:
            assert one(con, f"SELECT count(*) FROM clips WHERE {bar['where']}") == bar["clips"]


def test_clips_are_those_with_the_lowest_ids_and_their_own_stills(tmp_path: Path) -> None:
    con = plain_tables()
    path = tmp_path / "few.html"
    report(dataset(), path, where="kind = 'video'", clips=2)
    text = path.read_text(encoding="utf-8")
    query = "SELECT clip_id FROM clips WHERE kind = 'video' ORDER BY clip_id LIMIT 2"
    chosen = [clip_id for (clip_id,) in con.sql(query).fetchall()]
    assert re.findall(r"<code>([0-9a-f]{32})</code>", text) == chosen
    stills = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', text)
    there = {
        row[0]
        for row in con.sql(
            "SELECT jpeg FROM stills WHERE list_contains(?, clip_id)", params=[chosen]
        ).fetchall()
    }
    given = [base64.b64decode(still) for still in stills]
    assert set(given) <= there
    assert 2 <= len(given) <= 2 * STILLS
    assert Parsed(text).numbers()["clips"] == one(
        con, "SELECT count(*) FROM clips WHERE kind = 'video'"
    )


def test_two_reports_of_the_same_tables_are_the_same_bytes(file: Path, tmp_path: Path) -> None:
    report(dataset(), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == file.read_bytes()


def test_it_needs_nothing_and_runs_nothing_else(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    parsed = Parsed(text)
    for tag, given in parsed.elements:
        assert not any(name.startswith("on") or name == "style" for name in given), given
        assert tag not in ("iframe", "object", "embed", "base", "link", "form")
        for name in ("href", "src", "action", "poster", "srcset"):
            link = given.get(name) or "#"
            assert link.startswith(("#", "data:image/jpeg;base64,")), link
    policies = [
        given["content"] or ""
        for tag, given in parsed.elements
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]
    runs = [code for code in parsed.code if code[1].get("type") != "application/json"]
    assert [tag for tag, _, _ in runs] == ["style", "script", "script", "script"]
    for _, _, code in runs:
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policies[0]
        assert TEXT not in code
    assert parsed.comments == []


def test_what_people_wrote_is_text(file: Path, tmp_path: Path) -> None:
    text = file.read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert TEXT in parsed.text
    assert NAME.replace("\u202e", "\\u202e") in parsed.text
    assert SCRIPT not in text
    clause = f"caption = '{TEXT}'"
    report(dataset(), tmp_path / "hostile.html", where=clause)
    hostile = (tmp_path / "hostile.html").read_text(encoding="utf-8")
    assert SCRIPT not in hostile
    again = Parsed(hostile)
    assert again.numbers()["where"] == clause
    assert again.numbers()["clips"] >= 1
    assert again.comments == []


def test_a_file_that_is_there_stays_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        report(dataset(), path)
    assert path.read_text() == "mine"
    with pytest.raises(UsageError, match="nonesuch"):
        report(dataset(), path, where="nonesuch > 1", overwrite=True)
    assert path.read_text() == "mine"
    with pytest.raises(UsageError, match="there is no folder"):
        report(dataset(), tmp_path / "nowhere" / "report.html")
    spec = Path(dataset().uri) / "telecine.toml"
    with pytest.raises(UsageError, match="lies in the dataset"):
        report(dataset(), spec, overwrite=True)
    with pytest.raises(UsageError, match="this is a folder"):
        report(dataset(), tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="0 to 200 clips"):
        report(dataset(), tmp_path / "many.html", clips=201)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html"]


def test_the_command_writes_it(tmp_path: Path) -> None:
    import typer

    from telecine.pipeline.cli.browse import report as command

    app = typer.Typer()
    app.command()(command)
    path = tmp_path / "report.html"
    words = [dataset().uri, "-o", str(path), "--where", "kind = 'image'", "--clips", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "1 of them shown" in done.output
    assert "Apache ECharts" in unescape(path.read_text(encoding="utf-8"))
