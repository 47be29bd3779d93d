"""Addresses and what answers them, and the server of `telecine browse`. It reads, and nothing else.

One process, on this machine alone unless told otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import closing

import duckdb
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from telecine.infra.errors import TelecineError, UsageError
from telecine.manifests.dataset import Dataset
from telecine.pipeline.browse import media, pages
from telecine.pipeline.browse.guard import LOOPBACK_NAMES, Guard, is_loopback
from telecine.pipeline.browse.latents import Films
from telecine.pipeline.browse.overview import charts_of, overview
from telecine.pipeline.browse.pages import Site
from telecine.pipeline.browse.render import STATIC
from telecine.pipeline.browse.snapshot import Snapshot, Watch
from telecine.pipeline.browse.stills import StillFiles

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


# ── the server ────────────────────────────────────────────────────────────────────────────────────


PORT = 8042

_log = logging.getLogger("telecine.browse")


def browse(dataset: Dataset, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the dataset's pages until interrupted; says where. Port 0 is any that is free.

    Raises UsageError where the port is in use, or the host is none of this machine's.
    """
    with closing(listen(host, port)) as server:
        address, number = server.getsockname()[:2]
        names = LOOPBACK_NAMES | {host.lower()} if is_loopback(address) else frozenset[str]()
        if not names:
            _log.warning(
                f"warning: {host} can be reached from other machines: whoever reaches it sees the "
                "dataset and its footage, and nobody is asked for a password"
            )
        app = make_app(dataset, names)
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{number}/"
        say(f"{url}  (Ctrl-C stops)")
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        _Server(config).run(sockets=[server])


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Whoever is cut off in the middle of a film is no error."""
        logger = logging.getLogger("uvicorn.error")
        before, logger.disabled = logger.disabled, True
        try:
            await super().shutdown(sockets)
        finally:
            logger.disabled = before


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections. Raises UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} of {host} is in use: choose another with --port, or 0 for any"
            ) from error
        why = str(error.strerror).partition(" (while")[0]
        raise UsageError(f"cannot listen on {host} port {port}: {why}") from error
