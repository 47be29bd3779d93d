"""Lets libraries that import torchvision work where its compiled part does not fit torch."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # the operators last as long as this does


def mend_torchvision() -> None:
    """Call before an import that reaches torchvision: diffusers' models, open_clip.

    torchvision built against another torch fails on import, for want of two operators that no
    model here uses; they are declared, without a body. Does nothing where it imports or is absent.
    """
    if _declared or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        import torch

        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(name + _BOXES)  # type: ignore[no-untyped-call]
        _declared.append(library)
        importlib.import_module("torchvision")
