"""A vision-language model of the transformers library as a `Describer`: windows in, texts out.

vlm_files      where it lies, and the digest of its files
vlm_load       model and processor, held against what is needed of them
vlm_inputs     views → batches, with the model's own processor
vlm_generate   batches → tokens → texts

    sorted by cost, cut into batches    0       1       2       3
    a thread: JPEG, resize, tokens      [0][1]  [2]     [3]
    the model                              [  0   ][  1   ][  2   ][  3   ]
"""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from telecine.encoders.caption.describer import MAX_TOKENS, ModelCaptioner
from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.encoders.caption.vlm.files import locate, weights_digest
from telecine.encoders.caption.vlm.inputs import VERSION as INPUTS
from telecine.encoders.caption.vlm.inputs import Inputs, Prepared, Ready, cost
from telecine.encoders.caption.windows import View
from telecine.encoders.runtime import ModelRuntime
from telecine.infra.errors import OutOfDeviceMemory, UsageError
from telecine.manifests.fingerprint import JsonValue
from telecine.manifests.specs import CaptionSpec

if TYPE_CHECKING:
    from telecine.encoders.caption.vlm.load import Loaded

__all__ = ["Vlm", "load_vlm", "locate", "weights_of"]

VERSION = 1  # rises when other tokens would be generated of the same inputs, or read otherwise
BATCH = {"cuda": 8, "cpu": 2}  # views at once
_WHOLE_GPU = "give the captioner a whole GPU (--gpus 1)"
_LESS = f"{_WHOLE_GPU}, or set [caption] frames, window_seconds or max_tokens smaller"

Asked = list[tuple[int, View]]  # with their places


def load_vlm(spec: CaptionSpec, runtime: ModelRuntime) -> ModelCaptioner:
    """The captioner `vlm:FOLDER` or `vlm:HUB_ID[@revision]`. Looks at no file."""
    return ModelCaptioner(Vlm(spec, runtime), spec)


def weights_of(captioner: str) -> str:
    """SHA-256 of the files of `vlm:...`, which are fetched where they are not here.

    Raises UsageError where there are none to be had.
    """
    return weights_digest(locate(captioner.partition(":")[2]))


class Vlm:
    """`Describer`. One call at a time: not to be shared by threads."""

    name = "vlm"

    def __init__(self, spec: CaptionSpec, runtime: ModelRuntime) -> None:
        self._spec = spec
        self._device = runtime.device
        kind = runtime.device.partition(":")[0]
        self._batch = runtime.batch or BATCH.get(kind, BATCH["cpu"])

    def identity(self) -> dict[str, JsonValue]:
        return {
            "kind": "transformers",
            "weights": self._weights,
            "dtype": self._spec.dtype,
            "inputs": INPUTS,
            "version": VERSION,
        }

    @functools.cached_property
    def _weights(self) -> str:
        return self._spec.weights or weights_of(self._spec.captioner)

    def describe(self, views: Sequence[View]) -> list[Said]:
        said: dict[int, Said] = {}
        loaded = self._loaded
        with ThreadPoolExecutor(1, "prepare") as ahead:
            for prepared in _one_ahead(ahead, loaded.inputs, self._batches(views)):
                self._answer(prepared, views, said)
        return [said[place] for place in range(len(views))]

    def _batches(self, views: Sequence[View]) -> Iterator[Asked]:
        """All of one kind (no still, one, several), and near one another in cost."""
        asked = sorted(enumerate(views), key=lambda each: cost(each[1]))
        for _, some in itertools.groupby(asked, key=lambda each: min(len(each[1].stills), 2)):
            while batch := list(itertools.islice(some, self._batch)):
                yield batch

    def _answer(self, prepared: Prepared, views: Sequence[View], said: dict[int, Said]) -> None:
        for place, why in prepared.refused.items():
            said[place] = Said(Outcome.FAILED, "", why)
        for ready in prepared.ready:
            answers = self._generate(ready, views)
            if answers is not None:
                said.update(zip(ready.places, answers, strict=True))
                continue
            gc.collect()  # the error's frames hold tensors
            self._batch = half = len(ready.places) // 2  # of what is still to come as well
            for some in (ready.places[:half], ready.places[half:]):
                again = self._loaded.inputs.prepare([(place, views[place]) for place in some])
                self._answer(again, views, said)

    def _generate(self, ready: Ready, views: Sequence[View]) -> list[Said] | None:
        """None where a batch of several is too much for the device.

        Raises OutOfDeviceMemory where a single view is.
        """
        from telecine.encoders.caption.vlm.generate import answer, speak

        loaded, shown = self._loaded, [views[place] for place in ready.places]
        device, what = loaded.device, f"a window of {len(shown[0].stills)} stills"
        try:
            with device.computing(), device.fitting(what, _LESS):
                said = speak(loaded.model, ready.tensors, loaded.voice, shown)
        except OutOfDeviceMemory:
            if len(shown) == 1:
                raise
            return None
        return [
            Said(Outcome.FAILED, "", f"the model gives NaN or infinity in {self._spec.dtype}")
            if ids is None
            else answer(ids, loaded.tokenizer, loaded.voice, thinking=ready.thinking)
            for ids in said
        ]

    @functools.cached_property
    def _loaded(self) -> Loaded:
        import torch

        from telecine.encoders.caption.vlm.load import load
        from telecine.encoders.device import Device

        spec = self._spec
        device = Device(self._device, getattr(torch, spec.dtype))
        folder = locate(spec.captioner.partition(":")[2])
        self._check_weights(folder)
        with device.fitting(f"the weights in {folder}", _WHOLE_GPU):
            loaded = load(folder, device, spec.max_tokens or MAX_TOKENS, spec.temperature)
        self._check_weights(folder)  # they may have been replaced while they were read
        return loaded

    def _check_weights(self, folder: Path) -> None:
        found = weights_digest(folder)
        if found != self._weights:
            raise UsageError(
                f"{self._spec.captioner}: another model lies in {folder} now ({found[:12]} instead "
                f"of {self._weights[:12]}): name it again with --captioner, for captions of its "
                "own, or put the old one back"
            )


def _one_ahead(
    ahead: ThreadPoolExecutor, inputs: Inputs, batches: Iterator[Asked]
) -> Iterator[Prepared]:
    """Each batch when it is ready, with the next one begun."""
    coming: Future[Prepared] | None = None
    for batch in batches:
        following = ahead.submit(inputs.prepare, batch)
        if coming is not None:
            yield coming.result()
        coming = following
    if coming is not None:
        yield coming.result()
