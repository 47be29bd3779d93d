"""A square that moves, and where it is: in a picture, and in the latents made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from telecine.encoders.load import load_encoder
from telecine.manifests.specs import DatasetSpec
from tests.support.movies import Planes

SIZE, WIDTH, HEIGHT = 24, 160, 144
SPEED = 3  # px a native frame


def square(x: int) -> Planes:
    luma = np.full((HEIGHT, WIDTH), 60, np.uint8)
    luma[48 : 48 + SIZE, x : x + SIZE] = 220
    grey = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    return luma, grey, grey


def seen(sample: dict[str, Any]) -> np.ndarray:
    """Its left edge in each of the frames that a sample's latents hold, px of the source."""
    encoder = load_encoder(DatasetSpec().vae)
    frames = np.concatenate(list(encoder.decode(sample["latent.npy"])))
    light = frames.astype(np.float64).mean(axis=-1)
    rows = light[:, 52 : 48 + SIZE - 4]
    dark = rows.min(axis=(1, 2), keepdims=True)
    weights = (rows > dark + (rows.max(axis=(1, 2), keepdims=True) - dark) / 2).sum(axis=1)
    columns = np.arange(weights.shape[1]) + sample["json"]["crop"]["x"]
    return np.asarray((weights * columns).sum(axis=1) / weights.sum(axis=1) - (SIZE - 1) / 2)


def off(sample: dict[str, Any], shift: int = 0) -> float:
    """Mean distance of the track `place` from the pictures, `shift` frames on, px."""
    place = sample["place.npy"][:, 0]
    count = len(place) - shift
    return float(np.abs(place[:count] - seen(sample)[shift:]).mean())
