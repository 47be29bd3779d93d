"""serve: `telecine browse`. One process, on this machine alone unless told otherwise."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from contextlib import closing

import uvicorn

from telecine.infra.errors import UsageError
from telecine.manifests.dataset import Dataset
from telecine.pipeline.browse.app import make_app
from telecine.pipeline.browse.guard import LOOPBACK_NAMES, is_loopback

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
