"""ask: a batch of clips to a captioner in a worker process, and its replies back into rows.

CaptionTask ──▶ CaptionWorker (reads the sidecar, asks) ──▶ replies ──▶ accept ──▶ Caption
                                                                         │
                       wrong, missing or doubled keys: `failed` ◀────────┘
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from telecine.encoders.caption.interface import (
    WITH_TEXT,
    Captioner,
    CaptionReply,
    CaptionRequest,
    Input,
    Interrupted,
    Outcome,
    Sidecar,
    clean_text,
    reply,
)
from telecine.encoders.caption.sidecar import MAX_BYTES
from telecine.encoders.load import load_captioner
from telecine.encoders.runtime import DEFAULT_RUNTIME, ModelRuntime
from telecine.infra.bugs import bug
from telecine.infra.errors import Changed, StorageError, TelecineError, concerns_one_object
from telecine.infra.store.storage import Storage
from telecine.manifests.schemas import Caption, CaptionWindow
from telecine.manifests.specs import CaptionSpec

_log = logging.getLogger("telecine.caption")


@dataclass(frozen=True, slots=True)
class Partial:
    """What was answered before the captioner could go on no more, and why it could not."""

    replies: tuple[CaptionReply, ...]
    error: TelecineError


@dataclass(frozen=True, slots=True)
class CaptionTask:
    """One clip to caption. Whoever carries it out reads the sidecar."""

    request: CaptionRequest
    sidecar_uri: str = ""  # empty where there is none, or where it is not used
    sidecar_version: str = ""


class CaptionWorker:
    """Lives in a worker process and keeps the captioner loaded: a batch in, replies out."""

    def __init__(self, captioner: Captioner, storage: Storage) -> None:
        self._captioner = captioner
        self._storage = storage
        self._sidecars: dict[tuple[str, str], Sidecar | StorageError] = {}

    def __call__(self, batch: Sequence[CaptionTask]) -> list[CaptionReply] | Partial:
        keys = {(t.sidecar_uri, t.sidecar_version) for t in batch if t.sidecar_uri}
        # A source's clips mostly share a batch; the next one may begin with the rest of them.
        self._sidecars = {k: self._sidecars.get(k) or self._read(*k) for k in sorted(keys)}
        ready: list[CaptionRequest] = []
        replies: list[CaptionReply] = []
        for task in batch:
            if problem := self._problem(task):
                # Falling back on another speaker would settle for less because a store was down.
                speaker = self._captioner.speakers[0]
                replies.append(reply(task.request, speaker, Outcome.FAILED, detail=problem))
            else:
                ready.append(self._with_sidecar(task))
        try:
            return replies + self._ask(ready)
        except Interrupted as interrupted:
            return Partial((*replies, *interrupted.replies), interrupted.error)

    def _read(self, uri: str, version: str) -> Sidecar | StorageError:
        try:
            info = self._storage.stat(uri)
            if info.version != version:
                raise Changed(f"{uri!r} was replaced since it was discovered: run again")
            with self._storage.open(info) as file:
                # One byte more than a sidecar may have shows that it has too many.
                return Sidecar(uri.rpartition("/")[2], file.read(MAX_BYTES + 1) or b"")
        except StorageError as error:
            if not concerns_one_object(error):
                raise
            return error

    def _problem(self, task: CaptionTask) -> str:
        if Input.STILLS in self._captioner.uses and not task.request.stills:
            return "its stills are not all in the table"
        found = self._sidecars.get((task.sidecar_uri, task.sidecar_version))
        return str(found) if isinstance(found, StorageError) else ""

    def _with_sidecar(self, task: CaptionTask) -> CaptionRequest:
        found = self._sidecars.get((task.sidecar_uri, task.sidecar_version))
        sidecar = found if isinstance(found, Sidecar) else None
        return dataclasses.replace(task.request, sidecar=sidecar)

    def _ask(self, requests: list[CaptionRequest]) -> list[CaptionReply]:
        if not requests:
            return []
        try:
            return self._captioner.caption(requests)
        except (TelecineError, Interrupted):
            raise  # no other clip would fare better
        except Exception as error:  # a captioner is anybody's code; it costs the clip that does it
            if len(requests) > 1:
                return [answer for request in requests for answer in self._ask([request])]
            speaker = self._captioner.speakers[-1]
            return [reply(requests[0], speaker, Outcome.FAILED, detail=bug(error))]


def accept(
    captioner: Captioner,
    batch: Sequence[CaptionTask],
    replies: Sequence[CaptionReply],
    missing: str = "no reply",
) -> list[Caption]:
    """One row per task, in their order; `missing` says why a reply may not be there.

    A reply is taken only if it is the one that bears both keys of the task and names one of the
    captioner's speakers; otherwise the clip's row is `failed`. Replies to nobody are left out.
    """
    answers: dict[tuple[str, str], list[CaptionReply]] = defaultdict(list)
    for answer in replies:
        answers[answer.clip_id, answer.stills_digest].append(answer)
    rows = []
    for task in batch:
        request = task.request
        found = answers.pop((request.clip_id, request.stills_digest), [])
        rows.append(_row(request, _checked(captioner, request, found, missing)))
    if answers:
        _log.warning("%s answered about clips it was not asked about: %s",
                     captioner.name, sorted(answers))  # fmt: skip
    return rows


def _checked(
    captioner: Captioner, request: CaptionRequest, found: list[CaptionReply], missing: str
) -> CaptionReply:
    if len(found) == 1 and found[0].speaker in captioner.speakers:
        return found[0]
    detail = missing
    if len(found) > 1:
        detail = f"{len(found)} replies to one request"
    elif found:
        detail = f"a reply by {found[0].speaker}, whom nobody asked"
    return reply(request, captioner.speakers[-1], Outcome.FAILED, detail=detail)


def _row(request: CaptionRequest, answer: CaptionReply) -> Caption:
    outcome, text = answer.outcome, ""
    if outcome in WITH_TEXT:
        text = clean_text(answer.text)
        outcome = outcome if text else Outcome.EMPTY
    return Caption(
        clip_id=request.clip_id,
        captioner=answer.speaker.name,
        captioner_fingerprint=answer.speaker.fingerprint,
        input_digest=request.input_digest,
        outcome=outcome,
        text=text,
        text_key=text_key(text),
        windows=tuple(
            CaptionWindow(start_seconds=w.start_seconds, end_seconds=w.end_seconds, text=w.text)
            for w in answer.windows
            if text
        ),
        detail=clean_text(answer.detail),
    )


def text_key(text: str) -> int:
    """A number that equal texts share; 0 of none."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) >> 1 if text else 0


def make_caption_worker(
    spec: CaptionSpec, storage: Storage, runtime: ModelRuntime = DEFAULT_RUNTIME
) -> Callable[[], CaptionWorker]:
    """For the pool: the captioner is loaded in the process that uses it."""
    return lambda: CaptionWorker(load_captioner(spec, runtime), storage)
