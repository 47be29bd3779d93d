"""Score: a worker keeps the scorer loaded and makes embeddings and scores of a batch of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from telecine.encoders.hub import digest_of_file
from telecine.encoders.load import load_scorer
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.score.heads import load_head
from telecine.infra.errors import UsageError
from telecine.manifests.specs import ScoreSpec
from telecine.pipeline.catalog.scores import AESTHETIC, TEXT_SIMILARITY, similarity
from telecine.pipeline.catalog.stills import Stills

NO_STILLS = "its stills are not all in the table"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A score that a clip lacks."""

    name: str
    input_digest: str
    text: str  # that the clip is compared with; empty of what does not hang on the clip


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """One clip: its stills, or the embedding that there is of them."""

    clip_id: str
    stills_digest: str
    wanted: tuple[Wanted, ...]
    stills: Stills = ()
    embedding: bytes = b""


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of one task; the two keys are the task's."""

    clip_id: str
    stills_digest: str
    embedding: bytes = b""  # of the stills; empty where it was there already, or there is none
    detail: str = ""  # why there is none
    values: tuple[tuple[Wanted, float], ...] = ()


class ScoreWorker:
    """Lives in a worker process and keeps the scorer loaded: a batch in, results in its order."""

    def __init__(self, spec: ScoreSpec, runtime: ModelRuntime) -> None:
        self._spec = spec
        self._scorer = load_scorer(spec, runtime)
        self._fixed: dict[str, Callable[[npt.NDArray[np.float32]], float]] | None = None

    def __call__(self, batch: Sequence[ScoreTask]) -> list[Scored]:
        seen = [task for task in batch if not task.embedding]
        made = dict(zip((task.clip_id for task in seen), self._embed(seen), strict=True))
        embeddings = [made.get(task.clip_id, task.embedding) for task in batch]
        usable = [
            (task, np.frombuffer(e, "<f2").astype(np.float32))
            for task, e in zip(batch, embeddings, strict=True)
            if isinstance(e, bytes)
        ]
        values = dict(zip((task.clip_id for task, _ in usable), self._values(usable), strict=True))
        return [
            failed(task, embedding)
            if isinstance(embedding, str)
            else Scored(
                task.clip_id,
                task.stills_digest,
                embedding if task.clip_id in made else b"",
                values=values[task.clip_id],
            )
            for task, embedding in zip(batch, embeddings, strict=True)
        ]

    def _embed(self, tasks: Sequence[ScoreTask]) -> list[bytes | str]:
        """As stored, or why there is none."""
        shown = [task for task in tasks if task.stills]
        found = iter(self._scorer.embed([[jpeg for _, jpeg in t.stills] for t in shown]))
        made: list[bytes | str] = []
        for task in tasks:
            embedding = next(found) if task.stills else NO_STILLS
            stored = embedding if isinstance(embedding, str) else embedding.astype("<f2").tobytes()
            made.append(stored)
        return made

    def _values(
        self, clips: Sequence[tuple[ScoreTask, npt.NDArray[np.float32]]]
    ) -> list[tuple[tuple[Wanted, float], ...]]:
        texts = [w.text for task, _ in clips for w in task.wanted if w.name == TEXT_SIMILARITY]
        told = iter(self._scorer.embed_texts(texts)) if texts else iter(())
        fixed = self._compared() if any(task.wanted for task, _ in clips) else {}
        values = []
        for task, embedding in clips:
            values.append(
                tuple(
                    (w, float(next(told) @ embedding))
                    if w.name == TEXT_SIMILARITY
                    else (w, fixed[w.name](embedding))
                    for w in task.wanted
                )
            )
        return values

    def _compared(self) -> dict[str, Callable[[npt.NDArray[np.float32]], float]]:
        """What an embedding's scores are, for those that hang on nothing else of its clip."""
        if self._fixed is None:
            self._fixed = {}
            for name, text in self._spec.prompts.items():
                (direction,) = self._scorer.embed_texts([text])
                self._fixed[similarity(name)] = _linear(direction, 0.0)
            if self._spec.aesthetic:
                self._fixed[AESTHETIC] = _linear(*_head(self._spec, self._scorer.dimensions))
        return self._fixed


def _head(spec: ScoreSpec, dimensions: int) -> tuple[npt.NDArray[np.float32], float]:
    """Raises UsageError where another head lies there than the one that the spec names."""
    path = Path(str(spec.aesthetic))
    before, head, after = digest_of_file(path), load_head(path, dimensions), digest_of_file(path)
    if not before == after == spec.aesthetic_weights:
        raise UsageError(
            f"the head at {path} is not the one that aesthetic_score is made with: put that back, "
            "or name this one with --aesthetic"
        )
    return head


def _linear(
    weight: npt.NDArray[np.float32], bias: float
) -> Callable[[npt.NDArray[np.float32]], float]:
    return lambda embedding: float(weight @ embedding) + bias


def failed(task: ScoreTask, detail: str) -> Scored:
    return Scored(task.clip_id, task.stills_digest, detail=detail or "no result")
