"""Text encoders of the transformers library: T5, UMT5, CLIP's, and whatever has hidden states.

    texts ─▶ tokens ─sorted by length─▶ batches ─▶ last hidden state ─▶ [L, D] of the real tokens
             └ counted, cut at max_tokens     └ padded on the right, and masked

Of T5 and UMT5 the encoder alone is read, after its last norm; of CLIP the text model, after its
last norm; of another encoder-decoder its encoder. Padding is masked, so that it changes a real
token's vector in the last bits alone; those hang on what else is in a batch, which is a pure
function of the texts that are given together.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from telecine.encoders.pretrained import loading
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.text.files import Place, library, locate, weights_of
from telecine.encoders.text.interface import EncodedText
from telecine.infra.errors import UsageError
from telecine.infra.pulse import beat
from telecine.manifests.fingerprint import JsonValue, fingerprint
from telecine.manifests.specs import EmbedSpec

if TYPE_CHECKING:
    import torch

    from telecine.encoders.device import Device

VERSION = 1  # rises when any embedding would come out differently
BATCH_TOKENS = 8192  # with their padding; part of the last bits, so no option
MAX_BATCH = 128  # texts
WHOLE_GPU = "give the model a whole GPU (--gpus 1), or a smaller --max-tokens"

Tokens = list[int]


@dataclass(frozen=True, slots=True)
class Loaded:
    net: Any
    tokenizer: Any
    limit: int  # tokens of a text, at most
    filler: int  # id of the token that stands for a text without any, and of padding


class TransformersTextEncoder:
    """A model by what a spec calls it. Weights are loaded when first needed.

    Not to be shared by threads.
    """

    def __init__(self, spec: EmbedSpec, runtime: ModelRuntime) -> None:
        self.named = str(spec.encoder)
        self.name = self.named.partition(":")[0]
        self._spec, self._device_name = spec, runtime.device

    @functools.cached_property
    def weights(self) -> str:
        return self._spec.weights or weights_of(self.named)

    def identity(self) -> dict[str, JsonValue]:
        return {
            "name": self.name,
            "version": VERSION,
            "weights": self.weights,  # and tokenizer
            "dtype": self._spec.dtype,
            "max_tokens": self._spec.max_tokens,
            "output": "last_hidden_state",
        }

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity())

    @functools.cached_property
    def dimensions(self) -> int:
        config = library().AutoConfig.from_pretrained(
            locate(self.named).model, local_files_only=True, trust_remote_code=False
        )
        return int(getattr(config, "text_config", config).hidden_size)

    @functools.cached_property
    def device(self) -> Device:
        import torch

        from telecine.encoders.device import Device

        return Device(self._device_name, getattr(torch, self._spec.dtype))

    @functools.cached_property
    def loaded(self) -> Loaded:
        loaded = self._load(self._checked_place())
        self._checked_place()  # it may have been replaced while it was read
        return loaded

    def encode(self, texts: Sequence[str]) -> list[EncodedText | str]:
        """As `TextEncoder.encode`. Raises OutOfDeviceMemory where a GPU does not take a batch."""
        if not texts:
            return []
        tokens, cut = self._tokens(texts)
        made: list[EncodedText | str] = [""] * len(texts)
        what = f"{self.named} and a batch of {BATCH_TOKENS:,} tokens"
        with self.device.computing(), self.device.fitting(what, WHOLE_GPU):
            for batch in batches([len(some) for some in tokens]):
                beat()
                hidden = self._hidden([tokens[i] for i in batch])
                for place, rows in zip(batch, hidden, strict=True):
                    made[place] = _stored(rows[: len(tokens[place])], truncated=cut[place])
        return made

    def _tokens(self, texts: Sequence[str]) -> tuple[list[Tokens], list[bool]]:
        """Their ids, at most `limit`; and whether a text has more."""
        loaded = self.loaded
        whole = loaded.tokenizer(list(texts), verbose=False)["input_ids"]
        kept = loaded.tokenizer(list(texts), truncation=True, max_length=loaded.limit)["input_ids"]
        tokens = [ids or [loaded.filler] for ids in kept]
        return tokens, [len(ids) > loaded.limit for ids in whole]

    def _hidden(self, tokens: Sequence[Tokens]) -> torch.Tensor:
        """[n, longest, D], on the device."""
        import torch

        longest = max(map(len, tokens))
        padded = [ids + [self.loaded.filler] * (longest - len(ids)) for ids in tokens]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in tokens]
        ids, real = (self.device.send(torch.tensor(rows)) for rows in (padded, mask))
        hidden: torch.Tensor = self.loaded.net(input_ids=ids, attention_mask=real)[0]
        return hidden

    def _checked_place(self) -> Place:
        place = locate(self.named)
        if place.digest() != self.weights:
            raise UsageError(
                f"the model at {self.named} is not the one that the column was made with: put that "
                f"one back, or use this one by naming it again, --encoder {self.named}"
            )
        return place

    def _load(self, place: Place) -> Loaded:
        with loading(library(), place.named):
            tokenizer = library().AutoTokenizer.from_pretrained(
                place.tokenizer, local_files_only=True, trust_remote_code=False
            )
            net, config = _net(self.name, place, self.device)
        with self.device.fitting(f"the weights of {place.named}", WHOLE_GPU):
            net = net.eval().requires_grad_(False).to(self.device.torch)
        limit, said = self._spec.max_tokens, getattr(config, "text_config", config)
        if positions := getattr(said, "max_position_embeddings", None):
            limit = min(limit, positions, tokenizer.model_max_length)
        ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, 0)
        return Loaded(net, tokenizer, limit, next(i for i in ids if i is not None))


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places of texts that go together: shortest first, of at most BATCH_TOKENS with padding."""
    made: list[list[int]] = [[]]
    for place in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        size = len(made[-1]) + 1
        if made[-1] and (size > MAX_BATCH or size * lengths[place] > BATCH_TOKENS):
            made.append([])
        made[-1].append(place)
    return made


def _net(kind: str, place: Place, device: Device) -> tuple[Any, Any]:
    """The part that encodes texts, and its config."""
    classes = {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel", "clip": "CLIPTextModel"}
    whole, found = getattr(library(), classes.get(kind, "AutoModel")).from_pretrained(
        place.model,
        dtype=device.dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    absent = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if absent:
        raise UsageError(
            f"the weights of {place.named} lack what their config asks for, as {absent[0]}: they "
            f"are those of another model ({len(absent)} tensors missing or of another shape)"
        )
    return (whole.get_encoder() if whole.config.is_encoder_decoder else whole), whole.config


def _stored(rows: torch.Tensor, *, truncated: bool) -> EncodedText | str:
    """[L, D] as float16, rounded to nearest."""
    import torch

    embedding = rows.to(torch.float16)
    if not torch.isfinite(embedding).all():
        largest = float(rows.float().abs().max())
        return f"its embedding is not finite in float16 (largest value {largest:g})"
    return EncodedText(np.ascontiguousarray(embedding.cpu().numpy()), truncated)
