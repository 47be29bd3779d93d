"""pages: what each address shows. Every page is a function of the newest snapshot and its address.

/                   overview: funnel, heat map, histograms
/charts.json        the charts of the clips that ?where= and ?place= take
/clips              a grid of them, in the order of a column, a page at a time
/clips/ID           one of them
/rejected           sources that were rejected
/builds             the builds, and two of them compared
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import duckdb
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from telecine.infra.errors import NotFound, StorageError, TelecineError, UsageError
from telecine.infra.text import json_value
from telecine.manifests.builds import builds, find_build
from telecine.manifests.tables import words
from telecine.pipeline.browse.clip import clip_facts
from telecine.pipeline.browse.latents import Films
from telecine.pipeline.browse.listing import MOST, SIZE, Asked, Page, clips_page, rejected_page
from telecine.pipeline.browse.overview import charts_of, overview
from telecine.pipeline.browse.render import link, render
from telecine.pipeline.browse.snapshot import Snapshot, Watch
from telecine.pipeline.browse.stills import StillFiles, Stills
from telecine.pipeline.lifecycle.changes import told
from telecine.pipeline.look.diff import diff


@dataclass(frozen=True)
class Site:
    """What the pages share."""

    watch: Watch
    films: Films
    files: StillFiles  # that hold stills


def site(request: Request) -> Site:
    found: Site = request.app.state.site
    return found


def stills_of(request: Request, snapshot: Snapshot) -> Stills:
    files = site(request).files
    return snapshot.once.get("stills", lambda: Stills(snapshot, files))


def _page(
    request: Request, template: str, snapshot: Snapshot, code: int = 200, **values: Any
) -> Response:
    text = render(
        template,
        uri=snapshot.dataset.uri,
        taken=time.strftime("%H:%M:%S", time.localtime(snapshot.taken)),
        trouble=site(request).watch.trouble,
        **values,
    )
    return HTMLResponse(text, code, {"Cache-Control": "no-store"})


# ── overview ─────────────────────────────────────────────────────────────────────────────────────


def show_overview(request: Request) -> Response:
    snapshot = site(request).watch.look()
    return _page(
        request, "overview.html", snapshot, found=overview(snapshot), charts=link("/charts.json")
    )


def show_charts(request: Request) -> Response:
    """JSON; of what is refused the words."""
    given = request.query_params
    try:
        found = charts_of(
            site(request).watch.snapshot, given.get("where", ""), given.get("place", "")
        )
    except UsageError as error:
        return JSONResponse({"error": str(error)}, 400)
    return JSONResponse(json_value(dataclasses.asdict(found)))


# ── clips ────────────────────────────────────────────────────────────────────────────────────────


def show_clips(request: Request) -> Response:
    snapshot = site(request).watch.look()
    there = snapshot.columns
    page, refusal = Page([], 0, 0), ""
    given = request.query_params
    asked = Asked(where=given.get("where", ""), place=given.get("place", ""))
    try:
        asked = _asked(request)
        with snapshot.asking() as con:
            page = clips_page(con, snapshot.spec, asked, there)
    except UsageError as error:
        refusal = str(error)
    stills_of(request, snapshot).expect(row["clip_id"] for row in page.rows)
    return _page(
        request, "clips.html", snapshot, 400 if refusal else 200,
        page=page, asked=asked, columns=there, refusal=refusal,
        charts=link("/charts.json", where=asked.where, place=asked.place),
        back=_beside(asked, before=page.rows[0]["clip_id"]) if page.has_before else "",
        on=_beside(asked, after=page.rows[-1]["clip_id"]) if page.has_after and page.rows else "",
    )  # fmt: skip


def _asked(request: Request) -> Asked:
    given = request.query_params
    size = given.get("size", "") or str(SIZE)
    if not size.isdecimal() or len(size) > 4:
        raise UsageError(f"size={size!r}: a page has 1 to {MOST} clips")
    return Asked(
        where=given.get("where", ""),
        place=given.get("place", ""),
        sort=given.get("sort", "") or "clip_id",
        descending=given.get("order", "") == "down",
        size=int(size),
        after=given.get("after", ""),
        before=given.get("before", ""),
    )


def _beside(asked: Asked, **beside: str) -> str:
    return link(
        "/clips",
        where=asked.where,
        place=asked.place,
        sort="" if asked.sort == "clip_id" else asked.sort,
        order="down" if asked.descending else "",
        size="" if asked.size == SIZE else asked.size,
        **beside,
    )


def show_clip(request: Request) -> Response:
    snapshot = site(request).watch.look()
    clip_id = request.path_params["clip_id"]
    stills_of(request, snapshot).expect([clip_id])
    with snapshot.asking() as con:
        found = clip_facts(con, snapshot.spec, clip_id)
    given = request.query_params
    build, chosen = given.get("build", ""), found.build(given.get("build", ""))
    if build and chosen is None:
        raise NotFound(f"there is no build {build!r} that has clip {clip_id!r}")
    return _page(
        request, "clip.html", snapshot, found=found, clip_id=clip_id, chosen=chosen,
        decode=given.get("decode", ""),
    )  # fmt: skip


# ── sources and builds ───────────────────────────────────────────────────────────────────────────


def show_rejected(request: Request) -> Response:
    snapshot = site(request).watch.look()
    given = request.query_params
    reason = given.get("reason", "")
    with snapshot.asking() as con:
        page = rejected_page(con, reason, given.get("after", ""), given.get("before", ""))
        reasons = con.sql(
            "SELECT reason, count(*) FROM current_sources WHERE status = 'rejected' "
            "GROUP BY reason ORDER BY count(*) DESC, reason"
        ).fetchall()
    rows = page.rows
    return _page(
        request, "rejected.html", snapshot, page=page, reasons=reasons, reason=reason,
        back=link("/rejected", reason=reason, before=rows[0]["source_id"])
        if page.has_before else "",
        on=link("/rejected", reason=reason, after=rows[-1]["source_id"])
        if page.has_after and rows else "",
    )  # fmt: skip


def show_builds(request: Request) -> Response:
    snapshot = site(request).watch.look()
    a, b = (request.query_params.get(name, "") for name in "ab")
    found, refusal = None, ""
    with snapshot.asking() as con:
        there = builds(con)
        if a and b:
            try:
                found = diff(con, find_build(con, a), find_build(con, b))
            except UsageError as error:
                refusal = str(error)
    return _page(
        request, "builds.html", snapshot, 400 if refusal else 200,
        builds=there, a=a, b=b, found=found, refusal=refusal,
        changes=told(found.changes) if found else [],
        reports={r.build_id: r for r in overview(snapshot).summary.builds},
    )  # fmt: skip


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


def show_error(request: Request, error: Exception) -> Response:
    """What is refused or not to be had, in its own words; anything else is a fault of ours."""
    status = status_of(error)
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse(_words(error), status)
    return _page(
        request, "error.html", site(request).watch.snapshot, status,
        status=status, title=HTTPStatus(status).phrase.lower(), message=_words(error),
    )  # fmt: skip


def _words(error: Exception) -> str:
    return error.detail if isinstance(error, HTTPException) else words(error)


def status_of(error: Exception) -> int:
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, StorageError | TelecineError | duckdb.Error):
        return 502
    return int(getattr(error, "status_code", 500))
