"""media: pictures and film by id, for the pages and for players.

/stills/CLIP/POSITION     a JPEG of the table
/footage/SOURCE           the source itself, in ranges
/decoded/BUILD/CLIP       what its latents decode to, .mp4 or .png
/channels/BUILD/CLIP      a picture of its latents' channels
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from telecine.infra.errors import NotFound
from telecine.pipeline.browse.latents import channels_png, find_sample
from telecine.pipeline.browse.pages import site, stills_of
from telecine.pipeline.browse.ranges import find_footage, footage_response

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
