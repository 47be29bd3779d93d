"""A small diffusion transformer over packed spacetime patches, and rectified flow to train it.

Large enough to learn a handful of clips by heart on a CPU, which is what it is for: `telecine
overfit` proves with it that a feed's packs train a model of the kind that they are made for.

    noisy patches [S, F] + positions [S, 3] ──▶ blocks of 128, each: self-attention within a sample
    caption's words ──▶ cross-attention         (cu_seqlens), cross-attention to its caption, MLP
    t of the sample ──▶ adaLN                   ──▶ the patches without noise [S, F]

Positions enter twice: as 3-D RoPE, which says how far apart two patches are, and as absolute
sines and cosines. Without those the palette of a clip is learned and its places are not (0.28 of
the Gaussian floor and 8 to 19 dB, against 0.09 and 14 to 40 dB).

    x_t = (1 - t) x + t ε,  v = ε - x        rectified flow: Liu et al. 2022, arXiv:2209.03003
    t = sigmoid(n), n ~ N(0, 1), per sample  logit-normal: Esser et al. 2024, arXiv:2403.03206
    blocks with adaLN-zero                   DiT: Peebles & Xie 2022, arXiv:2212.09748
    loss on v of a prediction of x           Li & He 2025, arXiv:2511.13720
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_T = 0.05  # below it the loss on v of a prediction of x is clipped: it divides by t
WORDS = 96  # of a caption, the rest is not read
KINDS_OF_WORDS = 2048  # a word's embedding is chosen by its hash


@dataclass(frozen=True)
class Sizes:
    """Of the model: 1.5 million parameters as they stand here."""

    features: int  # numbers of a patch
    width: int = 128
    blocks: int = 3
    heads: int = 4


@dataclass(frozen=True)
class Packed:
    """What the model is told about a sequence beside its patches."""

    positions: Tensor  # int [S, 3]: t, h, w in patches
    cu_seqlens: tuple[int, ...]  # n + 1: where each sample begins, and the end
    text: Tensor  # int64 [n, L]: words of the captions, 0 where there is none

    def lengths(self) -> Tensor:
        """Patches of each sample [n]"""
        ends = torch.tensor(self.cu_seqlens, device=self.positions.device)
        return ends[1:] - ends[:-1]

    def spread(self, of_samples: Tensor) -> Tensor:
        """[n, …] of the samples as [S, …] of their patches."""
        return of_samples.repeat_interleave(self.lengths(), 0, output_size=self.cu_seqlens[-1])


def words(captions: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """int64 [n, L]: the captions' words by their hashes, in pieces of 8 bytes; 0 fills up."""
    rows = [_words(caption)[:WORDS] for caption in captions]
    longest = max([1, *map(len, rows)])
    filled = [row + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(filled, dtype=torch.int64, device=device)


def _words(caption: str) -> list[int]:
    pieces = [
        word.encode()[at : at + 8]
        for word in caption.split()
        for at in range(0, len(word.encode()), 8)
    ]
    return [1 + zlib.crc32(piece) % (KINDS_OF_WORDS - 1) for piece in pieces]


class SmallDit(nn.Module):
    """Predicts the patches without their noise."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.sizes = sizes
        self.into = nn.Linear(sizes.features, width)
        self.place = nn.Linear(width, width)
        self.words = nn.Embedding(KINDS_OF_WORDS, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.pooled = nn.Linear(width, width)
        self.blocks = nn.ModuleList(_Block(width, sizes.heads) for _ in range(sizes.blocks))
        self.last = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, 2 * sizes.features)
        nn.init.normal_(self.words.weight, std=0.5)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, noisy: Tensor, t: Tensor, packed: Packed) -> Tensor:
        """[S, F] of noisy patches [S, F] and each sample's t [n] in [0, 1]."""
        width = self.sizes.width
        angles = _angles(packed.positions, width // self.sizes.heads)
        x = self.into(noisy) + self.place(_absolute(packed.positions, width))
        text = self.words(packed.text)
        text = text + _waves(torch.arange(text.shape[1], device=text.device), width, 1e3)
        condition = self.time(_waves(t * 1000, width)) + self.pooled(text.mean(1))
        condition = functional.silu(condition)
        for block in self.blocks:
            x = block(x, condition, text, angles, packed)
        scale, shift = packed.spread(self.last(condition)).chunk(2, -1)
        out = self.out(functional.layer_norm(x, (width,)) * (1 + scale) + shift)
        mean, log_variance = out.chunk(2, -1)
        return wiener(noisy, packed.spread(t)[:, None], mean, log_variance.clamp(-12, 4).exp())


def wiener(noisy: Tensor, t: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """The best x̂ of x_t where x is known to lie about a mean with a variance.

    mean + gain · (x_t - (1 - t) mean), gain = (1 - t) σ² / ((1 - t)² σ² + t²)
    """
    rest = 1 - t
    gain = rest * variance / (rest.square() * variance + t.square())
    return mean + gain * (noisy - rest * mean)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.asked = nn.Linear(width, width)
        self.told = nn.Linear(width, 2 * width)
        self.heard = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.adapt = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.adapt.weight)
        nn.init.zeros_(self.adapt.bias)

    def forward(
        self, x: Tensor, condition: Tensor, text: Tensor, angles: Tensor, packed: Packed
    ) -> Tensor:
        width = (x.shape[-1],)
        scale, shift, gate, scale2, shift2, gate2 = packed.spread(self.adapt(condition)).chunk(
            6, -1
        )
        normal = functional.layer_norm(x, width) * (1 + scale) + shift
        x = x + (1 + gate) * self._self_attention(normal, angles, packed.cu_seqlens)
        x = x + self._cross_attention(functional.layer_norm(x, width), text, packed.cu_seqlens)
        normal = functional.layer_norm(x, width) * (1 + scale2) + shift2
        mlp: Tensor = self.mlp(normal)
        return x + (1 + gate2) * mlp

    def _self_attention(self, x: Tensor, angles: Tensor, ends: tuple[int, ...]) -> Tensor:
        """Within each sample alone: a loop over them is a mask, at a quarter of its cost."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        q, k = _turned(_rms(q), angles), _turned(_rms(k), angles)
        parts = [_attend(q[a:b], k[a:b], v[a:b]) for a, b in pairwise(ends)]
        joined: Tensor = self.joined(torch.cat(parts))
        return joined

    def _cross_attention(self, x: Tensor, text: Tensor, ends: tuple[int, ...]) -> Tensor:
        q = _rms(self.asked(x).unflatten(-1, (self.heads, -1)))
        k, v = self.told(text).unflatten(-1, (2, self.heads, -1)).unbind(2)
        each = zip(pairwise(ends), _rms(k), v, strict=True)
        heard: Tensor = self.heard(torch.cat([_attend(q[a:b], k, v) for (a, b), k, v in each]))
        return heard


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[q, heads, d] of queries, [k, heads, d] of keys and values: [q, heads · d]"""
    q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)


def _rms(x: Tensor) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],))


# ── positions ────────────────────────────────────────────────────────────────────────────────────


def _waves(at: Tensor, width: int, slowest: float = 1e4) -> Tensor:
    """Sines and cosines [n, width] at wavelengths from 2π to 2π · slowest."""
    half = width // 2
    rates = torch.exp(-math.log(slowest) * torch.arange(half, device=at.device) / max(half - 1, 1))
    angle = at.float()[:, None] * rates
    return torch.cat((angle.sin(), angle.cos()), -1)


def _absolute(positions: Tensor, width: int) -> Tensor:
    """[S, width] of t (a quarter), h and w (three eighths each)."""
    widths = (width // 4, width * 3 // 8, width * 3 // 8)
    return torch.cat([_waves(positions[:, i], n, 100.0) for i, n in enumerate(widths)], -1)


def _angles(positions: Tensor, head: int) -> Tensor:
    """[S, 1, head / 2] that the pairs of a head are turned by: t a quarter, h and w the rest."""
    pairs = head // 2
    counts = (pairs - 2 * (pairs * 3 // 8), pairs * 3 // 8, pairs * 3 // 8)
    turned = []
    for axis, count in enumerate(counts):
        rates = torch.exp(
            -math.log(100.0) * torch.arange(count, device=positions.device) / max(count, 1)
        )
        turned.append(positions[:, axis, None].float() * rates)
    return torch.cat(turned, -1)[:, None]


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


# ── rectified flow ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Noise:
    """What is added to a sequence: each sample's t, each patch's noise."""

    t: Tensor  # [n]
    values: Tensor  # [S, F]

    @classmethod
    def drawn(cls, like: Tensor, samples: int, generator: torch.Generator) -> Noise:
        """Logit-normal t, and normal noise for patches [S, F]."""
        t = torch.randn(samples, generator=generator).sigmoid().clamp_min(LEAST_T)
        values = torch.randn(like.shape, generator=generator)
        return cls(t.to(like.device), values.to(like.device))


def losses(model: nn.Module, clean: Tensor, packed: Packed, noise: Noise) -> Tensor:
    """[n]: each sample's mean of (v̂ - v)², where v̂ - v = (x - x̂) / t."""
    t = packed.spread(noise.t)[:, None]
    predicted = model((1 - t) * clean + t * noise.values, noise.t, packed)
    squares = ((clean - predicted) / t).square().mean(-1)
    return torch.stack([squares[a:b].mean() for a, b in pairwise(packed.cu_seqlens)])


class Gaussian(nn.Module):
    """The best predictor that knows no more than each feature's mean and variance [F]."""

    def __init__(self, patches: Tensor) -> None:
        super().__init__()
        self.mean, self.variance = patches.mean(0), patches.var(0)

    def forward(self, noisy: Tensor, t: Tensor, packed: Packed) -> Tensor:
        """[S, F]"""
        return wiener(noisy, packed.spread(t)[:, None], self.mean, self.variance)


@torch.no_grad()
def sample(
    model: nn.Module, packed: Packed, features: int, generator: torch.Generator, steps: int = 24
) -> Tensor:
    """[S, F]: patches from noise, by Euler's steps from t = 1 to 0."""
    x = torch.randn((packed.cu_seqlens[-1], features), generator=generator)
    x = x.to(packed.positions.device)
    grid = torch.linspace(1, 0, steps + 1).tolist()
    for t, after in pairwise(grid):
        times = torch.full((len(packed.cu_seqlens) - 1,), t, device=x.device)
        x = x + (x - model(x, times, packed)) / t * (after - t)
    return x
