"""An open_clip model in memory, and stills as it takes them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from telecine.encoders.score.files import Place
from telecine.encoders.score.names import library
from telecine.infra.errors import UsageError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from telecine.encoders.device import Device

MAX_PIXELS = 1 << 24  # of a still, bounded before memory is taken
MAX_RATIO = 50  # of its sides: a thin one grows with the short side that is fitted
WHOLE_GPU = "give the model a whole GPU (--gpus 1)"
QUOTED = 400  # characters of a library's message

Preprocessing: TypeAlias = "Callable[[Image.Image], torch.Tensor]"


@dataclass(frozen=True, slots=True)
class Loaded:
    net: Any
    tokenizer: Any
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True)
class Still:
    """One that decodes."""

    jpeg: bytes
    pixels: torch.Tensor  # [3, H, W], normalised


def load(place: Place, device: Device) -> Loaded:
    """The model in the device's memory, in its dtype.

    Raises UsageError where its files do not make it.
    """
    open_clip = library()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    in_folder = place.model.startswith("local-dir:")
    try:
        net = open_clip.create_model(
            place.model,
            pretrained=None if in_folder else str(place.weights),
            force_preprocess_cfg=dict(place.preprocessing),
            require_pretrained=True,
            weights_only=True,  # of a pickle, tensors alone: nothing in it is run
        )
        tokenizer = open_clip.get_tokenizer(place.tokenizer)
        transform = image_transform_v2(PreprocessCfg(**net.visual.preprocess_cfg), is_train=False)
    except Exception as error:  # of torch, safetensors, pickle, transformers, the model's class
        raise UsageError(f"{place.named} does not load: {reason(error)}") from error
    with device.fitting(f"the weights of {place.named}", WHOLE_GPU):
        net = net.eval().requires_grad_(False).to(device.torch, device.dtype)
    return Loaded(net, tokenizer, transform)


def reason(error: Exception) -> str:
    """Why a file of weights does not load, without torch's advice to run what is in it."""
    said = " ".join(str(error).split())
    if isinstance(error, pickle.UnpicklingError) or "TorchScript" in said:
        return (
            "it is a pickle of more than tensors, or holds code of its own, which is not run: load "
            "it where you trust it, and save its state_dict(), best as safetensors"
        )
    return f"{said[:QUOTED]}{'…' if len(said) > QUOTED else ''}"


def read_still(jpeg: bytes, preprocessing: Preprocessing) -> Still | str:
    """The still, ready; or what is wrong with it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS or max(image.size) > MAX_RATIO * min(image.size):
                return f"{width}×{height} is no size for a still"
            return Still(jpeg, preprocessing(image.convert("RGB")))
    except Image.DecompressionBombError:  # where Pillow's own bound stands, before ours is asked
        return "so many pixels are no size for a still"
    except UnidentifiedImageError:  # its own words name an object in memory
        return "it is no JPEG"
    except Exception as error:  # Pillow raises whatever its decoders do
        return f"it does not decode: {error}"
