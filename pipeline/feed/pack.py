"""A pack: samples of any shape one after the other in one sequence, and what belongs to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from telecine.manifests.index.samples import BuildFacts
from telecine.pipeline.feed import patches
from telecine.pipeline.feed.buffers import Buffers
from telecine.pipeline.feed.patches import ORDER

if TYPE_CHECKING:
    import torch

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Member:
    """A sample in a pack, or a piece of one."""

    key: str  # clip_id
    shape: tuple[int, int, int, int]  # C, T, H, W as they are here
    start_latent: int  # latent frame of the sample that it begins with
    exact: bool  # its own frames alone would be encoded to this
    num_frames: int
    fps: float  # of encoded frames; 0 of an image
    build: BuildFacts
    members: Mapping[str, bytes] = field(repr=False)  # of the tar, by what follows the key
    text_dropped: bool = False
    text: npt.NDArray[np.float16] | None = None  # [L, D]
    tracks: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    caption_of_column: str | None = None

    @property
    def caption(self) -> str:
        if self.text_dropped:
            return ""
        if self.caption_of_column is not None:
            return self.caption_of_column
        return self.members.get("txt", b"").decode()


@dataclass(frozen=True)
class Pack:
    """n samples of together S tokens. Its memory is used again once the pack is let go."""

    latents: npt.NDArray[np.float16]  # values of the samples one after the other
    samples: tuple[Member, ...]
    channels: int
    patch: int
    step: int
    epoch: int
    repeated: bool  # it came in this epoch before
    memory: Buffers | None = field(default=None, repr=False)  # for patches on the CPU
    pad_to: int = 1  # rows of zeros make S a multiple of it

    # ── of each sample ───────────────────────────────────────────────────────────────────────────

    @property
    def keys(self) -> list[str]:
        return [one.key for one in self.samples]

    @property
    def shapes(self) -> list[tuple[int, int, int, int]]:
        return [one.shape for one in self.samples]

    @property
    def captions(self) -> list[str]:
        return [one.caption for one in self.samples]

    @cached_property
    def facts(self) -> list[dict[str, Any]]:
        return [json.loads(one.members["json"]) for one in self.samples]

    @property
    def fps(self) -> list[float]:
        return [one.fps for one in self.samples]

    @property
    def num_frames(self) -> list[int]:
        return [one.num_frames for one in self.samples]

    @property
    def image(self) -> list[bool]:
        return [one.fps == 0 for one in self.samples]

    @property
    def start_latent(self) -> list[int]:
        return [one.start_latent for one in self.samples]

    @property
    def exact(self) -> list[bool]:
        return [one.exact for one in self.samples]

    @property
    def text_dropped(self) -> list[bool]:
        return [one.text_dropped for one in self.samples]

    @cached_property
    def grid(self) -> Ints:
        """[n, 3]: patches in time, height and width."""
        shapes = np.array(self.shapes, np.int32).reshape(-1, 4)
        return shapes[:, 1:] // np.array([1, self.patch, self.patch], np.int32)

    @property
    def tokens(self) -> list[int]:
        counts: list[int] = self.grid.prod(axis=1).tolist()
        return counts

    # ── of each token ────────────────────────────────────────────────────────────────────────────

    @cached_property
    def cu_seqlens(self) -> Ints:
        """[n + 1]: where each sample begins, and where the last one ends.

        What is padded is one more at the end: [n + 2].
        """
        rest = [self.padding] if self.padding else []
        return np.concatenate([[0], np.cumsum([*self.tokens, *rest])]).astype(np.int32)

    @property
    def padding(self) -> int:
        """Tokens at the end that are of no sample."""
        return -sum(self.tokens) % self.pad_to

    @property
    def max_seqlen(self) -> int:
        return max([*self.tokens, self.padding])

    @cached_property
    def positions(self) -> Ints:
        """[S, 3]: latent frame, row and column of patches, of each token in its sample."""
        found = np.zeros((int(self.cu_seqlens[-1]), 3), np.int32)
        for start, one, (t, h, w) in zip(self.cu_seqlens, self.samples, self.grid, strict=False):
            part = found[start : start + t * h * w].reshape(t, h, w, 3)
            part[..., 0] = np.arange(one.start_latent, one.start_latent + t)[:, None, None]
            part[..., 1] = np.arange(h)[:, None]
            part[..., 2] = np.arange(w)
        return found

    @cached_property
    def sample_ids(self) -> Ints:
        """[S]: number of the sample, in this pack, that a token is of; -1: of none."""
        numbers = np.append(np.arange(len(self.samples), dtype=np.int32), np.int32(-1))
        ids: Ints = np.repeat(numbers, [*self.tokens, self.padding])
        return ids

    @cached_property
    def seconds(self) -> npt.NDArray[np.float32]:
        """[S]: when the last frame of the token's latent frame is shown: frame ÷ fps; 0 of images.

        Latent frame k of a causal encoder with stride s ends with frame s·k.
        """
        rate = [
            (one.build.temporal_stride or 1) / one.fps if one.fps else 0.0 for one in self.samples
        ]
        each: npt.NDArray[np.float32] = np.array([*rate, 0.0], np.float32)[self.sample_ids]
        return self.positions[:, 0].astype(np.float32) * each

    # ── tensors ──────────────────────────────────────────────────────────────────────────────────

    def tensor(self, device: Any = None) -> torch.Tensor:
        """The flat latents; on the CPU they share the pack's memory."""
        import torch

        flat = torch.from_numpy(self.latents)
        return flat if device is None else flat.to(device, non_blocking=True)

    def patches(self, order: str = ORDER, device: Any = None) -> torch.Tensor:
        """[S, C·p·p] float16, made on the device."""
        import torch

        if not self.samples:  # all were left out
            return torch.empty((0, self._width), dtype=torch.float16, device=device)
        flat, into = self.tensor(device), None
        size = self.latents.size + self.padding * self._width
        if self.memory is not None and flat.device.type == "cpu":
            into = torch.from_numpy(self.memory.take(2 * size)[: 2 * size].view(self.latents.dtype))
        elif self.padding:
            into = torch.empty(size, dtype=flat.dtype, device=flat.device)
        if into is not None:
            into[self.latents.size :] = 0
        return patches.patchify(flat, self.shapes, self.patch, order, into)

    @property
    def _width(self) -> int:
        """Values of a patch."""
        return self.channels * self.patch**2

    def unpatch(self, rows: torch.Tensor, order: str = ORDER) -> list[torch.Tensor]:
        """Rows as `patches` gives them → [C, T, H, W] of each sample."""
        return patches.unpatchify(rows, self.shapes, self.patch, order)

    def split(self) -> list[npt.NDArray[np.float16]]:
        """[C, T, H, W] of each sample, views of the pack's memory."""
        sizes = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts: Sequence[npt.NDArray[np.float16]] = np.split(self.latents, sizes)
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=False)]

    # ── text and tracks ──────────────────────────────────────────────────────────────────────────

    @cached_property
    def text_embedding(self) -> npt.NDArray[np.float16] | None:
        """[ΣL, D], or None where the feed was given no column of texts."""
        texts = [one.text for one in self.samples if one.text is not None]
        return np.concatenate(texts) if texts else None

    @cached_property
    def text_cu_seqlens(self) -> Ints:
        """As many as `cu_seqlens`: what is padded has no text."""
        lengths = [0 if one.text is None else len(one.text) for one in self.samples]
        lengths += [0] if self.padding else []
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)

    @property
    def tracks(self) -> dict[str, list[npt.NDArray[np.float32] | None]]:
        """Of each sample [T, stride, numbers], None where it has none."""
        names = sorted({name for one in self.samples for name in one.tracks})
        return {name: [one.tracks.get(name) for one in self.samples] for name in names}
