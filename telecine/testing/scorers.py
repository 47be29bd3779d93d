"""What every scorer promises (`telecine.encoders.score.interface.Scorer`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from telecine.encoders.score.interface import Scorer
from telecine.testing.checks import check_identity
from telecine.testing.media import jpeg

Make: TypeAlias = Callable[[], Scorer]
Vector: TypeAlias = npt.NDArray[np.float32]


class ScorerContract:
    """Derive a class from it, named Test…, with a fixture `make`."""

    tolerance = 1e-5  # how far apart an embedding may lie that is made beside others

    def test_a_clip_has_an_embedding_or_a_reason_why_not(self, make: Make) -> None:
        scorer, whole = make(), jpeg(0)
        clips = [[whole], [], [whole, b"no JPEG"], [jpeg(1), jpeg(2)], [whole[: len(whole) // 2]]]
        made = scorer.embed(clips)
        assert len(made) == len(clips)
        for place, embedding in enumerate(made):
            if place in (0, 3):
                assert not isinstance(embedding, str), embedding
                assert embedding.dtype == np.float32
                assert embedding.shape == (scorer.dimensions,)
                assert np.isfinite(embedding).all()
            elif place != 4:  # what some decoders make the best of
                assert isinstance(embedding, str), "a clip that cannot be seen has no embedding"
                assert embedding, "whoever has none says why"
        assert scorer.embed([]) == []

    def test_what_stands_beside_a_clip_changes_nothing(self, make: Make) -> None:
        clips = [[jpeg(seed), jpeg(seed + 1)] for seed in range(3)]
        scorer = make()
        together = vectors(scorer.embed(clips[::-1]))[::-1]
        alone = np.stack([vectors(make().embed([clip]))[0] for clip in clips])
        np.testing.assert_allclose(together, alone, atol=self.tolerance)

    def test_stills_tell(self, make: Make) -> None:
        one, other = vectors(make().embed([[jpeg(0)], [jpeg(5)]]))
        assert np.abs(one - other).max() > self.tolerance

    def test_texts_lie_where_clips_do(self, make: Make) -> None:
        scorer = make()
        made = scorer.embed_texts(["a red dog", "", " \n", "A man talks. " * 200])
        assert made.dtype == np.float32
        assert made.shape == (4, scorer.dimensions)
        assert np.isnan(made[1:3]).all(), "an empty text has no embedding"
        assert np.isfinite(made[[0, 3]]).all(), "a long text has one"
        assert scorer.embed_texts([]).shape == (0, scorer.dimensions)
        np.testing.assert_allclose(
            scorer.embed_texts(["a red dog"])[0], made[0], atol=self.tolerance
        )

    def test_the_fingerprint_is_that_of_the_identity(self, make: Make) -> None:
        scorer = make()
        check_identity(scorer, make())
        assert scorer.name == scorer.identity()["name"]


def vectors(made: Sequence[Vector | str]) -> Vector:
    """The embeddings, none of which may be a failure."""
    assert not [each for each in made if isinstance(each, str)]
    return np.stack([each for each in made if not isinstance(each, str)])
