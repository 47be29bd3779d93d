"""What a pack costs the model: tokens alone do not say, as attention grows with their square.

Multiplications of one block of a transformer of width d for a sample of n tokens, its MLP four
times as wide (QKV and output 4nd², MLP 8nd², QKᵀ and AV 2n²d), divided by 2d:

    cost(n) = n² + 6·d·n                  of a pack: the sum over its samples

At n = 6d (18,432 of width 3,072) half of the work is attention. Text, cross-attention and what
else a model has for each token is of the second term's kind, and moves where the halves meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def cost(tokens: npt.NDArray[Any], width: int) -> npt.NDArray[np.float64]:
    """Of samples of so many tokens, in units of 2·width multiplications a block."""
    n = tokens.astype(np.float64)
    return n * (n + 6.0 * width)
