"""Pictures and film by id, for the pages and for players.

/stills/CLIP/POSITION     a JPEG of the table
/footage/SOURCE           the source itself, in ranges
/decoded/BUILD/CLIP       what its latents decode to, .mp4 or .png
/channels/BUILD/CLIP      a picture of its latents' channels

A source is named by its source_id and looked up among the scanned ones: no path ever comes from a
request, and what was rejected (a key, a letter that lay beside the footage) is not handed out.
Bytes go through as they are, a piece at a time (RFC 9110, section 14).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from telecine.infra.errors import NotFound
from telecine.infra.store.storage import ObjectInfo, ObjectReader, Storage
from telecine.manifests.schemas import Source, from_arrow
from telecine.pipeline.browse.latents import channels_png, find_sample
from telecine.pipeline.browse.pages import site, stills_of
from telecine.pipeline.browse.snapshot import Snapshot

# A still is what its clip's id says, latents what their digest says: they never change.
FOR_GOOD = {"Cache-Control": "private, max-age=86400, immutable"}


def send_still(request: Request) -> Response:
    clip_id, position = request.path_params["clip_id"], request.path_params["position"]
    jpeg = stills_of(request, site(request).watch.snapshot).get(clip_id, position)
    if jpeg is None:
        raise NotFound(f"there is no still {position} of clip {clip_id!r}")
    return Response(jpeg, headers=FOR_GOOD, media_type="image/jpeg")


async def send_footage(request: Request) -> Response:
    snapshot = site(request).watch.snapshot
    found = await run_in_threadpool(find_footage, snapshot, request.path_params["source_id"])
    return await footage_response(request, snapshot.dataset.storage, found)


def send_decoded(request: Request) -> Response:
    """Takes as long as decoding does, the first time."""
    named = request.path_params
    here = site(request)
    path = here.films.get(here.watch.snapshot, named["build_id"], named["clip_id"])
    media_type = "image/png" if path.suffix == ".png" else "video/mp4"
    return FileResponse(path, headers={"Cache-Control": "private"}, media_type=media_type)


def send_channels(request: Request) -> Response:
    snapshot = site(request).watch.snapshot
    named = request.path_params
    sample = find_sample(snapshot, named["build_id"], named["clip_id"])
    return Response(
        channels_png(snapshot.dataset, sample), headers=FOR_GOOD, media_type="image/png"
    )


# ── a source's own bytes ──────────────────────────────────────────────────────────────────────────


PIECE_BYTES = 256 * 2**10

# By what the scan found inside, never by name: nothing that a browser would run or lay out.
_VIDEO = {
    "webm": "video/webm",
    "matroska": "video/x-matroska",
    "mp4": "video/mp4",
    "ogg": "video/ogg",
    "mpegts": "video/mp2t",
    "mpeg": "video/mpeg",
    "avi": "video/x-msvideo",
    "flv": "video/x-flv",
}
_IMAGE = {"mjpeg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "gif": "image/gif",
          "webp": "image/webp", "av1": "image/avif", "avif": "image/avif"}  # fmt: skip
OTHER = "application/octet-stream"


class Unsatisfiable(Exception):
    """The range begins after the end."""


@dataclass(frozen=True, slots=True)
class Footage:
    """A source that may be handed out."""

    info: ObjectInfo
    kind: str
    media_type: str


def find_footage(snapshot: Snapshot, source_id: str) -> Footage:
    """Raises NotFound where there is no such source, or it was rejected."""
    query = "SELECT * FROM sources WHERE source_id = ? AND status = 'scanned' LIMIT 1"
    with snapshot.asking(hurry=True) as con:
        found = from_arrow(con.sql(query, params=[source_id]).to_arrow_table(), Source)
    if not found:
        raise NotFound(f"there is no source {source_id!r} among those that were scanned")
    (source,) = found
    info = ObjectInfo(source.uri, source.size_bytes, source.version)
    return Footage(info, source.kind, media_type(source))


def media_type(source: Source) -> str:
    if source.kind == "image":
        named = {source.codec.lower(), source.container.lower()}
        return next((_IMAGE[name] for name in _IMAGE if name in named), OTHER)
    names = source.container.lower().split(",")
    if "webm" in names and source.codec in ("vp8", "vp9", "av1", "libdav1d"):
        return _VIDEO["webm"]
    return next((_VIDEO[name] for name in _VIDEO if name in names), OTHER)


_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None: all of it.

    What is no range of bytes, or more than one, is answered with the whole, as it may be. Raises
    Unsatisfiable.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or found.group(1) == found.group(2) == "":
        return None
    first, last = found.groups()
    if not first:  # the last so many
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise Unsatisfiable
    return start, stop


async def footage_response(request: Request, storage: Storage, footage: Footage) -> Response:
    """200, 206 or 416. Raises StorageError where the object is gone or another by now."""
    size = footage.info.size_bytes
    etag = f'"{_token(footage.info.version)}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": "private, no-cache"}
    asked = request.headers.get("range")
    if request.headers.get("if-range", etag) != etag:
        asked = None
    try:
        part = parse_range(asked, size)
    except Unsatisfiable:
        headers["Content-Range"] = f"bytes */{size}"
        return Response(status_code=416, headers=headers)
    start, stop = part or (0, size)
    headers["Content-Length"] = str(stop - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 206 if part else 200
    reader = await anyio.to_thread.run_sync(storage.open, footage.info)
    if request.method == "HEAD" or start == stop:
        reader.close()
        return Response(status_code=status, headers=headers, media_type=footage.media_type)
    with contextlib.ExitStack() as opened:
        opened.callback(reader.close)
        first = await anyio.to_thread.run_sync(_read, reader, start, stop)
        opened.pop_all()
    pieces = _pieces(reader, start, stop, first)
    return StreamingResponse(pieces, status, headers, media_type=footage.media_type)


def _token(version: str) -> str:
    return re.sub(r"[^!#-~]", "", version)


def _read(reader: ObjectReader, start: int, stop: int) -> bytes:
    reader.seek(start)
    return reader.read(min(PIECE_BYTES, stop - start))


async def _pieces(
    reader: ObjectReader, start: int, stop: int, first: bytes
) -> AsyncIterator[bytes]:
    """Until the end, or until the browser has heard enough."""
    try:
        piece = first
        while piece:
            yield piece
            start += len(piece)
            piece = b""
            if start < stop:
                piece = await anyio.to_thread.run_sync(_read, reader, start, stop)
    finally:
        reader.close()
