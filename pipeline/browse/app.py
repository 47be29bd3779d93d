"""app: addresses and what answers them. It reads, and nothing else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterable

import duckdb
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from telecine.infra.errors import TelecineError
from telecine.manifests.dataset import Dataset
from telecine.pipeline.browse import media, pages
from telecine.pipeline.browse.guard import Guard
from telecine.pipeline.browse.latents import Films
from telecine.pipeline.browse.overview import charts_of, overview
from telecine.pipeline.browse.pages import Site
from telecine.pipeline.browse.render import STATIC
from telecine.pipeline.browse.snapshot import Snapshot, Watch
from telecine.pipeline.browse.still_files import StillFiles

ROUTES = (
    Route("/", pages.show_overview),
    Route("/charts.json", pages.show_charts),
    Route("/clips", pages.show_clips),
    Route("/clips/{clip_id}", pages.show_clip),
    Route("/rejected", pages.show_rejected),
    Route("/builds", pages.show_builds),
    Route("/stills/{clip_id}/{position:int}", media.send_still),
    Route("/footage/{source_id}", media.send_footage),
    Route("/decoded/{build_id}/{clip_id}", media.send_decoded),
    Route("/channels/{build_id}/{clip_id}", media.send_channels),
    Mount("/static", StaticFiles(directory=STATIC)),
)


def make_app(dataset: Dataset, names: Iterable[str] = ()) -> ASGIApp:
    """`names`: hosts it answers to; empty: any. Its end ends what is being asked."""
    shared = Site(Watch(dataset), Films(), StillFiles())

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        ahead = threading.Thread(target=_ahead, args=(shared.watch.snapshot,))
        ahead.start()
        yield
        shared.watch.snapshot.interrupt()
        shared.files.close()
        ahead.join()
        shared.films.close()

    app = Starlette(
        routes=ROUTES,
        exception_handlers={
            TelecineError: pages.show_error,
            duckdb.Error: pages.show_error,
            HTTPException: pages.show_error,
        },
        lifespan=lifespan,
    )
    app.state.site = shared
    return Guard(app, names)


def _ahead(snapshot: Snapshot) -> None:
    """What the first page shows, before it is asked for; whoever asks is told what is wrong."""
    with contextlib.suppress(TelecineError, duckdb.Error):
        overview(snapshot)
        charts_of(snapshot, "")
