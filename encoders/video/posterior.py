"""From what a VAE's encoder gives to what is stored: mean, sample or moments, normalised or raw.

    parameters [1, P, t', H', W'] of latent frames start .. start + t'
    mean       the C means
    sample     mean + exp(logvar / 2) · noise, drawn by NumPy's Philox with the seed as its key and
               the latent frame in its counter: neither how many frames come at once nor the kind
               of CPU or GPU changes it
    moments    the C means, then the C log variances
    normalised (mean - μ) / σ, and logvar - 2 ln σ

All of it is float32, on the device of the parameters.
"""

from __future__ import annotations

import numpy as np
import torch

from telecine.encoders.video.config import VaeConfig

LOGVAR = (-30.0, 20.0)  # what diffusers' own posterior clamps it to


class Constants:
    """μ and σ of a model, [C, n, 1, 1]; those of a latent frame beyond n are the last."""

    def __init__(self, config: VaeConfig, normalise: bool, device: torch.device) -> None:
        def shaped(values: tuple[float, ...]) -> torch.Tensor:
            tensor = torch.tensor(values, dtype=torch.float32, device=device)
            return tensor.view(config.channels, -1, 1, 1)

        self._mean, self._std = shaped(config.latents_mean), shaped(config.latents_std)
        if not normalise:
            self._mean, self._std = torch.zeros_like(self._mean), torch.ones_like(self._std)

    def of(self, start: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(μ, σ) of `count` latent frames from `start` on, each [C, count, 1, 1]."""
        frames = torch.arange(start, start + count, device=self._mean.device)
        frames = frames.clamp(max=self._mean.shape[1] - 1)
        return self._mean[:, frames], self._std[:, frames]

    def raw(self, latents: torch.Tensor) -> torch.Tensor:
        """Means as stored, [C, T', H', W'], as the model's decoder takes them."""
        mean, std = self.of(0, latents.shape[1])
        return latents * std + mean


class Posterior:
    """Of one clip: gives its latent frames in their order."""

    def __init__(self, kind: str, constants: Constants, channels: int, seed: int) -> None:
        self._kind, self._constants, self._channels = kind, constants, channels
        self._seed = seed
        self._done = 0

    def __call__(self, parameters: torch.Tensor) -> torch.Tensor:
        """[1, P, t', H', W'] → float32 [C, t', H', W'] (2C of moments)."""
        moments = parameters[0].float()
        latents = moments[: self._channels]
        start = self._done
        mean, std = self._constants.of(start, latents.shape[1])
        self._done += latents.shape[1]
        if self._kind == "mean":
            return (latents - mean) / std
        logvar = moments[self._channels :].clamp(*LOGVAR)
        if self._kind == "moments":
            return torch.cat([(latents - mean) / std, logvar - 2 * std.log()])
        return (latents + (logvar / 2).exp() * self._noise(latents, start) - mean) / std

    def _noise(self, like: torch.Tensor, start: int) -> torch.Tensor:
        channels, frames, height, width = like.shape
        noise = torch.empty((channels, frames, height, width), pin_memory=like.is_cuda)
        for frame in range(frames):
            # The highest of four words: the drawing counts up the lowest.
            drawn = np.random.Philox(key=self._seed, counter=[0, 0, 0, start + frame])
            normal = np.random.Generator(drawn).standard_normal
            noise[:, frame] = torch.from_numpy(normal((channels, height, width), np.float32))
        return noise.to(like.device, non_blocking=True)
