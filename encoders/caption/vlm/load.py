"""A vision-language model and its processor in memory, loaded from their folder and tried out."""

from __future__ import annotations

import copy
import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from telecine.encoders.caption.vlm.files import library
from telecine.encoders.caption.vlm.generate import Voice, speak, voice
from telecine.encoders.caption.vlm.inputs import Inputs
from telecine.encoders.caption.windows import View
from telecine.encoders.device import Device
from telecine.encoders.pretrained import loading
from telecine.infra.errors import UsageError


@dataclass(frozen=True, slots=True)
class Loaded:
    model: Any
    tokenizer: Any
    inputs: Inputs
    voice: Voice
    device: Device


def load(folder: Path, device: Device, max_tokens: int, temperature: float) -> Loaded:
    """Ready to speak. Raises UsageError where it is not what is needed."""
    processor = _processor(folder)
    model = _model(folder, device)
    tokenizer = copy.deepcopy(processor.tokenizer)  # two threads must not share one
    own = voice(model, tokenizer, max_tokens, temperature)
    model.generation_config = own.config  # what is unset in it would else be the model's
    loaded = Loaded(model, tokenizer, Inputs(processor, device.dtype), own, device)
    _probe(loaded, folder)
    return loaded


def _processor(folder: Path) -> Any:
    """The processor saved beside the model. Raises UsageError where there is none of use."""
    with loading(library(), f"the processor in {folder}"):
        processor = library().AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise UsageError(
            f"{folder} has no processor that takes pictures and text, only "
            f"{type(processor).__name__}: save_pretrained() the model's processor there as well"
        )
    if not processor.chat_template:
        raise UsageError(
            f"the processor in {folder} has no chat template: give a model that was trained to "
            "follow instructions, as those with -Instruct in their names"
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def _model(folder: Path, device: Device) -> Any:
    """The model on its device. Raises UsageError where the weights are not those of its config."""
    with loading(library(), f"the model in {folder}"):
        model, found = library().AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=device.dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    absent = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if absent:
        raise UsageError(
            f"the weights in {folder} lack what their config asks for, as {absent[0]}: they are "
            f"those of another model ({len(absent)} tensors missing or of another shape)"
        )
    return model.eval().requires_grad_(False).to(device.torch)


def _probe(loaded: Loaded, folder: Path) -> None:
    """Shows the model small pictures and has it say one token.

    Raises UsageError where processor and model do not fit one another, or the dtype the device:
    else every clip would fail by itself.
    """
    config = copy.deepcopy(loaded.voice.config)
    config.max_new_tokens = 1
    brief, device = dataclasses.replace(loaded.voice, config=config), loaded.device
    for view in PROBES:
        prepared = loaded.inputs.prepare([(0, view)])
        if prepared.refused:
            raise UsageError(
                f"the processor in {folder} does not take {len(view.stills)} stills and a text: "
                f"{prepared.refused[0]}"
            )
        try:
            with device.computing():
                speak(loaded.model, prepared.ready[0].tensors, brief, [view])
        except torch.OutOfMemoryError:
            raise  # it says nothing of the model
        except Exception as error:  # the model's own code, tried once before any clip
            raise UsageError(
                f"the model in {folder} does not take what its processor makes, in "
                f"{device.dtype} on {device.torch.type}: {error!r}"
            ) from error


def _picture(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "JPEG")
    return file.getvalue()


_STILLS = tuple((float(time), _picture((96, 64))) for time in range(3))
PROBES = tuple(View("Hello.", _STILLS[:count], 0.0, count) for count in (0, 1, 3))
