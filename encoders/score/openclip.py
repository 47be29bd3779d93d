"""Pictures and texts in the one space of an open_clip model.

    JPEG ─threads─▶ the model's own preprocessing ─▶ [n, 3, H, W] ─▶ [n, d], of length 1
                                                        mean over a clip's stills ─▶ [d]
    text ─▶ pieces of whole sentences that fit ─▶ tokens ─▶ [n, d], of length 1
                                                        mean over a text's pieces ─▶ [d]

Means are not brought to length 1: a clip's · a text's is the mean of the cosine similarities of
stills and pieces, as in CLIPSIM (Wu et al. 2021, "GODIVA", arXiv:2104.14806).

How a still becomes the model's square is what the model's config says, since that is what it was
trained on and what published scores are made with. The CLIPs of OpenAI, LAION and DataComp say
`shortest`: the short side is fitted and the middle cut out, of a picture 16:9 the middle 56 %.
SigLIP's say `squash`: all of it, out of shape. Who wants the whole picture in shape writes
"resize_mode": "longest" (bars beside it) in a folder's preprocess_cfg: that makes it another model.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from telecine.encoders.score.files import Place, absolute, locate, weights_of
from telecine.encoders.score.load import WHOLE_GPU, Loaded, Still, load, read_still
from telecine.encoders.score.pieces import pieces
from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import JsonValue, fingerprint

if TYPE_CHECKING:
    import torch

    from telecine.encoders.device import Device

__all__ = ["OpenClip", "Vector", "absolute", "unit_rows", "weights_of"]

VERSION = 1  # rises when any embedding would come out differently
BATCH = 64  # stills, or pieces of text, at once
DECODERS = 8  # threads that prepare the next batch while a GPU has this one
CHARACTERS_PER_TOKEN = 16  # what has more is not asked whether it fits: garbage takes long
OPTIONS = {"captions": "--captioner", "scores": "--scorer"}  # where a model is chosen

Vector: TypeAlias = npt.NDArray[np.float32]
T = TypeVar("T")
R = TypeVar("R")


class OpenClip:
    """A model by what a spec calls it. Cheap to construct: weights are loaded when first needed.

    Not to be shared by threads.
    """

    name = "openclip"

    def __init__(
        self,
        named: str,
        dtype: str,
        *,
        weights: str | None = None,
        device: str = "cpu",
        batch: int | None = None,
        makes: str = "scores",
    ) -> None:
        """`weights` is the digest that the model must have; None: whatever it has."""
        self.named = named
        self.dtype = dtype
        self._pinned = weights
        self._device_name = device
        self._at_once = batch or BATCH  # falls where a GPU's memory does not take so many
        self._makes = makes

    @functools.cached_property
    def weights(self) -> str:
        return self._pinned or weights_of(self.named)

    def identity(self) -> dict[str, JsonValue]:
        return {
            "name": self.name,
            "version": VERSION,
            "weights": self.weights,  # and architecture, and preprocessing
            "dtype": self.dtype,
            "pooling": "mean-of-units",
        }

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    @functools.cached_property
    def dimensions(self) -> int:
        """Of an embedding. Raises UsageError where the model is not at hand."""
        return int(locate(self.named).architecture["embed_dim"])

    @functools.cached_property
    def device(self) -> Device:
        import torch

        from telecine.encoders.device import Device

        return Device(self._device_name, getattr(torch, self.dtype))

    @functools.cached_property
    def loaded(self) -> Loaded:
        loaded = load(self._checked_place(), self.device)
        self._checked_place()  # they may have been replaced while they were read
        return loaded

    def _checked_place(self) -> Place:
        place = locate(self.named)
        if place.digest() != self.weights:
            raise UsageError(
                f"the model at {self.named} is not the one that {self._makes} were made with: put "
                f"that one back, or use this one by naming it again, {OPTIONS[self._makes]} "
                f"{self.named}"
            )
        return place

    def embed(self, clips: Sequence[Sequence[bytes]]) -> list[Vector | str]:
        """Of each clip, from its stills' JPEG, float32 [d]: or why there is none."""
        rows = iter(self.over_stills([jpeg for clip in clips for jpeg in clip], self._seen))
        return [self._pooled([next(rows) for _ in clip]) for clip in clips]

    def embed_texts(self, texts: Sequence[str]) -> Vector:
        """float32 [n, d]; of an empty text, NaN."""
        split = [pieces(text, self._fits_context) for text in texts]
        with self._computing():
            read = self.in_parts([piece for some in split for piece in some], self._read)
        rows = iter(read)
        made = np.full((len(texts), self.dimensions), np.nan, np.float32)
        for number, some in enumerate(split):
            if some:
                made[number] = np.mean([next(rows) for _ in some], axis=0, dtype=np.float64)
        return made

    def over_stills(
        self, jpegs: Sequence[bytes], compute: Callable[[Sequence[Still]], Sequence[R]]
    ) -> list[R | str]:
        """What `compute` makes of each still, given in batches; or why it does not decode."""
        made: list[R | str] = []
        if not jpegs:
            return made
        batches = self._prepared(jpegs, self.loaded)
        with self._computing():
            for batch in batches:
                sound = [still for still in batch if isinstance(still, Still)]
                results = iter(self.in_parts(sound, compute))
                made += [still if isinstance(still, str) else next(results) for still in batch]
        return made

    def in_parts(
        self, items: Sequence[T], compute: Callable[[Sequence[T]], Sequence[R]]
    ) -> list[R]:
        """`compute` over the items, as many at once as a GPU's memory takes: halved until it does.

        Raises torch's OutOfMemoryError where it does not take one.
        """
        import torch

        made: list[R] = []
        while len(made) < len(items):
            part = items[len(made) : len(made) + self._at_once]
            try:
                made += compute(part)
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            # Outside of the handler, whose traceback holds on to what did not fit.
            self._at_once = len(part) // 2
            torch.cuda.empty_cache()
        return made

    def pixels(self, stills: Sequence[Still]) -> torch.Tensor:
        """[n, 3, H, W] on the device."""
        import torch

        return self.device.send(torch.stack([s.pixels for s in stills])).to(self.device.dtype)

    def _seen(self, stills: Sequence[Still]) -> list[Vector]:
        return unit_rows(self.loaded.net.encode_image(self.pixels(stills)))

    def _read(self, texts: Sequence[str]) -> list[Vector]:
        tokens = self.loaded.tokenizer(list(texts))
        return unit_rows(self.loaded.net.encode_text(tokens.to(self.device.torch)))

    def _fits_context(self, text: str) -> bool:
        context = self.loaded.tokenizer.context_length
        if len(text) > context * CHARACTERS_PER_TOKEN:
            return False
        # With room for more tokens, what lies beyond the context is what an empty text has there.
        ids, of_nothing = self.loaded.tokenizer([text, ""], context_length=context + 2)
        return bool((ids[context:] == of_nothing[context:]).all())

    def _pooled(self, rows: Sequence[Vector | str]) -> Vector | str:
        if not rows:
            return "it has no stills"
        for number, row in enumerate(rows, 1):
            if isinstance(row, str):
                return f"still {number} of {len(rows)}: {row}"
        mean: Vector = np.asarray(rows, np.float64).mean(axis=0).astype(np.float32)
        return mean if np.isfinite(mean).all() else f"its embedding is not finite in {self.dtype}"

    def _prepared(self, jpegs: Sequence[bytes], loaded: Loaded) -> Iterator[list[Still | str]]:
        """In batches, the next of which is prepared while this one is computed."""
        size = self._at_once
        ahead: deque[list[Future[Still | str]]] = deque()
        with ThreadPoolExecutor(DECODERS if self.device.cuda else 1) as pool:
            for start in range(0, len(jpegs), size):
                batch = jpegs[start : start + size]
                ahead.append(
                    [pool.submit(read_still, jpeg, loaded.preprocessing) for jpeg in batch]
                )
                if len(ahead) > 1:
                    yield [still.result() for still in ahead.popleft()]
            yield [still.result() for still in ahead.popleft()]

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        what = f"{self.named} and what it makes of one still or text"
        with self.device.computing(), self.device.fitting(what, WHOLE_GPU):
            yield


def unit_rows(features: torch.Tensor) -> list[Vector]:
    """[n, d] as n rows of length 1, in host memory."""
    import torch

    return list(torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy())
