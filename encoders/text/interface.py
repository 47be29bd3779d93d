"""What makes embeddings of texts: a vector for each token, as a diffusion transformer attends to.

EmbedSpec ─▶ load_text_encoder ─▶ TextEncoder     texts ─▶ [L, D] each, L its own tokens

An embedding has no padding: who wants it, pads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from telecine.manifests.fingerprint import JsonValue, fingerprint


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text's embedding: its real tokens alone, no padding."""

    embedding: npt.NDArray[np.float16]  # [L, D], finite
    truncated: bool  # it has more tokens than are encoded


class TextEncoder(Protocol):
    """Cheap to construct: a model is loaded by the first `encode`."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int:
        """D. 0: it encodes nothing. Raises UsageError where the model is not at hand."""

    def identity(self) -> dict[str, JsonValue]:
        """Everything that changes an embedding."""

    @property
    def fingerprint(self) -> str:
        """`telecine.manifests.fingerprint.fingerprint(self.identity())`"""

    def encode(self, texts: Sequence[str]) -> list[EncodedText | str]:
        """Of each text its embedding, or why there is none. The same texts give the same bytes.

        An empty text has one as well: a model is trained with it as the null prompt. Raises a
        TelecineError where no other text would fare better.
        """


class NoTextEncoder:
    """Makes a column of texts alone."""

    name = "none"
    dimensions = 0

    def identity(self) -> dict[str, JsonValue]:
        return {"name": self.name, "version": 1}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    def encode(self, texts: Sequence[str]) -> list[EncodedText | str]:
        return ["the encoder none makes no embeddings"] * len(texts)
