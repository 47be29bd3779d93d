"""Latents ⇄ patches of one latent frame and p × p latents: the same numbers, in another order.

    [C, T, H, W]  ⇄  [T·(H/p)·(W/p), C·p·p]    a row per patch, by t, then h, then w

Where a row ends in "w" and p is 2, two float16 are moved as one 32-bit word: twice as fast, and
bit for bit the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from telecine.infra.errors import UsageError

if TYPE_CHECKING:
    import torch

ORDER = "c t h w"


def patchify(
    flat: torch.Tensor,
    shapes: Sequence[Sequence[int]],
    patch: int,
    order: str = ORDER,
    into: torch.Tensor | None = None,
) -> torch.Tensor:
    """[S, C·p·p] of samples whose values lie one after the other in `flat`, on its device.

    `order` is that of the values in a row: c channels, h and w within the patch; t is 1 long.
    `into` is memory for them, of as many values. Raises UsageError for another word.
    """
    import torch

    channels = shapes[0][0] if shapes else 1
    width = channels * patch * patch
    rows = (torch.empty_like(flat) if into is None else into).view(-1, width)
    start = first = 0
    for shape in shapes:
        count = shape[0] * shape[1] * shape[2] * shape[3]
        tokens = count // width
        of_latents, of_rows = _views(
            flat[start : start + count], rows[first : first + tokens], shape, patch, order
        )
        axis = 3 + _names(order).index("h")
        for row in range(patch):  # so that what is moved together is long
            of_rows.select(axis, row).copy_(of_latents.select(axis, row))
        start, first = start + count, first + tokens
    return rows


def unpatchify(
    rows: torch.Tensor, shapes: Sequence[Sequence[int]], patch: int, order: str = ORDER
) -> list[torch.Tensor]:
    """[C, T, H, W] of each sample: exactly what `patchify` was given."""
    import torch

    found, first = [], 0
    for shape in shapes:
        count = shape[0] * shape[1] * shape[2] * shape[3]
        flat = torch.empty(count, dtype=rows.dtype, device=rows.device)
        tokens = count // rows.shape[1]
        part = rows[first : first + tokens].contiguous()
        of_latents, of_rows = _views(flat, part, shape, patch, order)
        of_latents.copy_(of_rows)
        found.append(flat.view(*shape))
        first += tokens
    return found


def _views(
    flat: torch.Tensor, rows: torch.Tensor, shape: Sequence[int], patch: int, order: str
) -> tuple[Any, Any]:
    """The same numbers of both, of one shape: [T, H/p, W/p, and what is within a patch]."""
    import torch

    names = _names(order)
    channels, frames, height, width = shape
    inner = {"c": channels, "h": patch, "w": patch}
    axes = {"c": 0, "h": 3, "w": 5}
    if names[-1] == "w" and patch == 2 and flat.element_size() == 2:
        flat, rows, inner["w"] = flat.view(torch.int32), rows.view(torch.int32), 1
    across = inner["w"]
    latents = flat.view(channels, frames, height // patch, patch, width // patch, across)
    latents = latents.permute(1, 2, 4, *(axes[name] for name in names))
    sizes = [inner[name] for name in names]
    return latents, rows.view(frames, height // patch, width // patch, *sizes)


def _names(order: str) -> list[str]:
    if sorted(order.split()) != ["c", "h", "t", "w"]:
        raise UsageError(f"order = {order!r}: write c, t, h and w, as in {ORDER!r}")
    return [name for name in order.split() if name != "t"]
