"""How a vision-language model speaks: which settings are in force, by what chance, and what of its
tokens is the answer.

    logits ─▶ temperature ─▶ the model's own top_k, top_p ... ─▶ + noise of the view ─▶ largest

At temperature 0 the largest logit is taken and nothing else has a say. Above it each view has noise
of its own, seeded by what the model is shown, so that chance is no matter of the batch: the largest
of logits with Gumbel noise is a sample of their softmax (Gumbel, 1954; Maddison et al., 2014). The
same view gives the same text on the same device and libraries, as far as rounding allows at either
temperature; on another device, where random numbers are others, it may give another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.encoders.caption.vlm.files import library
from telecine.encoders.caption.windows import View

THINK, THOUGHT = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Voice:
    """The settings of one model."""

    config: Any  # the library's GenerationConfig
    warpers: tuple[Any, ...]  # of the logits, in order, before the noise
    ends: frozenset[int]  # tokens that end an answer

    @property
    def limit(self) -> int:
        return int(self.config.max_new_tokens)


def voice(model: Any, tokenizer: Any, max_tokens: int, temperature: float) -> Voice:
    """Of the model's own settings those of its tokens; above temperature 0, of its sampling too."""
    own = model.generation_config
    ends = _listed(own.eos_token_id) or _listed(tokenizer.eos_token_id)
    pad = tokenizer.pad_token_id if own.pad_token_id is None else own.pad_token_id
    penalty = own.repetition_penalty if temperature else None
    config = library().GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_tokens,
        repetition_penalty=penalty or 1.0,
        bos_token_id=own.bos_token_id,
        eos_token_id=ends,
        pad_token_id=pad,
    )
    return Voice(config, tuple(_warpers(own, temperature)), frozenset(ends))


def _listed(ids: int | list[int] | None) -> list[int]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)


def _warpers(own: Any, temperature: float) -> list[Any]:
    from transformers.generation import logits_process as made

    if not temperature:
        return []
    warpers: list[Any] = [made.TemperatureLogitsWarper(float(temperature))]
    if own.top_k:
        warpers.append(made.TopKLogitsWarper(own.top_k))
    if own.top_p is not None and own.top_p < 1:
        warpers.append(made.TopPLogitsWarper(own.top_p))
    if own.min_p:
        warpers.append(made.MinPLogitsWarper(own.min_p))
    return warpers


def speak(
    model: Any, tensors: dict[str, Any], voice: Voice, views: Sequence[View]
) -> list[list[int] | None]:
    """The tokens that the model adds to each of a batch of prompts; None where it was no number
    that it found to be the largest. To be called inside of `Device.computing`.
    """
    sound = Sound(len(views), model.device)
    chances = [*voice.warpers, Noise(views, model.device)] if voice.warpers else []
    sent = {name: value.to(model.device) for name, value in tensors.items()}
    said = model.generate(
        **sent,
        generation_config=voice.config,
        logits_processor=library().LogitsProcessorList([sound, *chances]),
    )
    added = said[:, sent["input_ids"].shape[1] :].tolist()
    return [ids if good else None for ids, good in zip(added, sound.rows.tolist(), strict=True)]


class Sound:
    """Notes of each row of logits whether its largest is ever NaN or infinite; changes nothing."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.rows = torch.ones(count, dtype=torch.bool, device=device)

    def __call__(self, _ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        self.rows &= logits.amax(-1).isfinite()
        return logits


class Noise:
    """Adds to each row of logits Gumbel noise of its view's own."""

    def __init__(self, views: Sequence[View], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed(view)) for view in views]

    def __call__(self, _ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        noise = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return logits.float() - noise.log()


def seed(view: View) -> int:
    """Of everything that the model is shown."""
    digest = hashlib.sha256(view.prompt.encode())
    for seconds, jpeg in view.stills:
        digest.update(f"\0{seconds!r}\0{len(jpeg)}\0".encode() + jpeg)
    return int.from_bytes(digest.digest()[:7])


def answer(ids: Sequence[int], tokenizer: Any, voice: Voice, *, thinking: bool) -> Said:
    """What was said, without its end, special tokens and a leading block of thoughts."""
    end = next((i for i, token in enumerate(ids) if token in voice.ends), None)
    text = _spoken(list(ids[:end]), tokenizer, thinking)
    if text is None:
        where = f"after {voice.limit} tokens" if end is None else "where it ended"
        return Said(Outcome.FAILED, "", f"the model was still thinking {where}")
    return Said(Outcome.TRUNCATED if end is None else Outcome.OK, text)


def _spoken(ids: list[int], tokenizer: Any, thinking: bool) -> str | None:
    """None where thoughts do not close. `thinking`: the prompt has opened them already."""
    whole = _text(ids, tokenizer, special=True)
    if not thinking and not whole.lstrip().startswith(THINK):
        return _text(ids, tokenizer)
    closing = tokenizer.convert_tokens_to_ids(THOUGHT)
    if closing in ids:  # it may be a special token, and not be seen in the text
        return _text(ids[ids.index(closing) + 1 :], tokenizer)
    _, closed, rest = _text(ids, tokenizer).partition(THOUGHT)
    return rest if closed else None


def _text(ids: list[int], tokenizer: Any, *, special: bool = False) -> str:
    return str(
        tokenizer.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False)
    )
