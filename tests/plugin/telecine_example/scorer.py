"""tint: how red, green and blue a clip or a text is. `[score] scorer = "tint"`."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from telecine.encoders.kinds import RunsOn, ScorerKind
from telecine.manifests.fingerprint import JsonValue, fingerprint

COLORS = ("red", "green", "blue")


class Tint:
    """A `telecine.encoders.score.interface.Scorer`."""

    name = "tint"
    dimensions = len(COLORS)

    def identity(self) -> dict[str, JsonValue]:
        return {"name": self.name, "colors": COLORS}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    def embed(self, clips: Sequence[Sequence[bytes]]) -> list[npt.NDArray[np.float32] | str]:
        return [self._of_clip(stills) for stills in clips]

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        counts = [[text.lower().count(color) for color in COLORS] for text in texts]
        made = np.array(counts, np.float32).reshape(len(texts), len(COLORS))
        made[[not text.strip() for text in texts]] = np.nan
        return made

    def _of_clip(self, stills: Sequence[bytes]) -> npt.NDArray[np.float32] | str:
        if not stills:
            return "it has no stills"
        means = []
        for jpeg in stills:
            try:
                picture = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), np.float32)
            except (OSError, ValueError) as error:
                return f"a still does not decode: {error}"
            means.append(picture.mean(axis=(0, 1)) / 255)
        return np.mean(means, axis=0, dtype=np.float64).astype(np.float32)


SCORER = ScorerKind(make=lambda spec, runtime: Tint(), runs_on=RunsOn.CPU)
