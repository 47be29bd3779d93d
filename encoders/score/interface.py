"""What scores are made with: an embedding of clips and texts, and a linear head over it.

    ScoreSpec ─▶ load_scorer ─▶ Scorer    clips ─▶ [d] each     texts ─▶ [n, d]
              └▶ heads.load_head          [d] ─▶ one number, on the head's own scale

A scorer's fingerprint is that of its embeddings: of the model, how it is shown pictures and texts,
and how they are pooled. What these are compared with, and where lines are drawn, has digests of
its own in the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from telecine.manifests.fingerprint import JsonValue


class Scorer(Protocol):
    """Embeds clips and texts. Cheap to construct: a model is loaded by the first `embed`."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int:
        """Of an embedding. Raises UsageError where the model is not at hand."""

    def identity(self) -> dict[str, JsonValue]:
        """Everything that changes an embedding."""

    @property
    def fingerprint(self) -> str:
        """`telecine.manifests.fingerprint.fingerprint(self.identity())`"""

    def embed(self, clips: Sequence[Sequence[bytes]]) -> list[npt.NDArray[np.float32] | str]:
        """Of each clip, from its stills' JPEG, float32 [d]: or why there is none.

        Raises a TelecineError where no other clip would fare better.
        """

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [n, d]; of an empty text, NaN."""
