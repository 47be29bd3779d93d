"""report: the overview and a sample of clips as one file that needs no server and no network.

Style, scripts and stills lie in the file itself. Its own policy lets nothing else in, and no script
run but those whose digests it names; what people wrote is text and stays text.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from markupsafe import Markup

from telecine.infra.errors import UsageError
from telecine.infra.store.output import check_file, writing
from telecine.infra.text import counted, size
from telecine.manifests.dataset import Dataset
from telecine.pipeline.browse.listing import MOST, Asked, clips_page
from telecine.pipeline.browse.overview import charts_of, overview
from telecine.pipeline.browse.render import STATIC, render
from telecine.pipeline.browse.snapshot import Snapshot
from telecine.pipeline.browse.stills import CLIPS_AT_ONCE, Jpegs, read_stills

STILLS = 6  # of a clip, at most


def report(
    dataset: Dataset, output: Path, *, where: str = "", clips: int = 24, overwrite: bool = False
) -> str:
    """Write the file, whole or not at all; returns what to say of it.

    Two reports of the same tables are the same bytes. Raises UsageError where the clause is none,
    or the file is there already and may not be replaced.
    """
    if not 0 <= clips <= MOST:
        raise UsageError(f"--clips {clips}: a report shows 0 to {MOST} clips")
    check_file(output, "-o", dataset=dataset.uri, overwrite=overwrite)
    snapshot = Snapshot(dataset)
    shown, total = _clips(snapshot, where, clips)
    text = _render(snapshot, where, shown, total)
    with writing(output) as file:
        written = file.write(text.encode())
    return f"{output}: {counted(total, 'clip')}, {len(shown):,} of them shown, {size(written)}"


def _clips(
    snapshot: Snapshot, where: str, clips: int
) -> tuple[list[tuple[dict[str, Any], list[str]]], int]:
    """Each with its stills as data URIs; and how many there are."""
    asked = Asked(where=where, size=max(clips, 1))
    with snapshot.asking() as con:
        page = clips_page(con, snapshot.spec, asked, snapshot.columns)
    rows = page.rows[:clips]
    shown = []
    for some in _batches(rows):
        found = read_stills(snapshot, [row["clip_id"] for row in some])
        shown += [(row, _data_uris(found[row["clip_id"]])) for row in some]
    return shown, page.total


def _batches(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    left = iter(rows)
    while some := list(islice(left, CLIPS_AT_ONCE)):
        yield some


def _data_uris(jpegs: Jpegs) -> list[str]:
    """Evenly spaced, the first and the last one among them."""
    stills = list(jpegs.values())
    if len(stills) > STILLS:
        stills = [stills[n * (len(stills) - 1) // (STILLS - 1)] for n in range(STILLS)]
    return [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in stills]


def _render(
    snapshot: Snapshot, where: str, clips: list[tuple[dict[str, Any], list[str]]], total: int
) -> str:
    style = _ours("style.css")
    scripts = [_ours(name) for name in ("echarts/echarts.min.js", "charts.js", "grid.js")]
    echarts, charts_js, grid_js = scripts
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {' '.join(map(_digest, scripts))}; base-uri 'none'; form-action 'none'"
    )
    return render(
        "report.html",
        uri=snapshot.dataset.uri,
        versions=snapshot.versions,
        found=overview(snapshot),
        charts=dataclasses.asdict(charts_of(snapshot, where)),
        where=where,
        clips=clips,
        total=total,
        policy=policy,
        style=style,
        echarts=echarts,
        charts_js=charts_js,
        grid_js=grid_js,
    )


def _ours(name: str) -> Markup:
    """A file that comes with the program, as it stands: none holds what would end its element."""
    text = (STATIC / name).read_text(encoding="utf-8")
    return Markup(text.replace("\r\n", "\n"))


def _digest(text: str) -> str:
    """As a policy names what may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
