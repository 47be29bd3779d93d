"""Tiny text encoders on disk, as the library's own save_pretrained() writes them.

Random weights, seeded, and a tokenizer of one token a byte; each text ends with a token of its own,
and CLIP's begins with one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from telecine.encoders.torchvision_ops import mend_torchvision

mend_torchvision()

import transformers  # noqa: E402

WIDTH = 16
SMALL = {
    "d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 300,
}  # fmt: skip


def tokenizer(begin: bool = False) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "</s>": 1, "<s>": 2}
    vocabulary |= {char: number for number, char in enumerate(alphabet, len(vocabulary))}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = [("<s>", 2), ("</s>", 1)] if begin else [("</s>", 1)]
    single = "<s> $A </s>" if begin else "$A </s>"
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=marks)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", bos_token="<s>"
    )


def model(kind: str, seed: int = 7, scale: float = 1.0) -> Any:
    torch.manual_seed(seed)
    if kind == "t5":
        made = transformers.T5EncoderModel(transformers.T5Config(**SMALL))
    elif kind == "umt5":
        made = transformers.UMT5EncoderModel(transformers.UMT5Config(**SMALL))
    elif kind == "clip":
        config = transformers.CLIPTextConfig(
            vocab_size=300, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=77, eos_token_id=1, bos_token_id=2,
        )  # fmt: skip
        made = transformers.CLIPTextModel(config)
    else:
        config = transformers.Qwen2Config(
            vocab_size=300, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        )  # fmt: skip
        made = transformers.Qwen2Model(config)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 1 and scale != 1.0:
                weight.mul_(scale)
            elif weight.ndim > 1:
                weight.normal_(0, 0.3)
    return made.eval()


def save(folder: Path, kind: str = "t5", **changes: Any) -> str:
    """As a spec calls it."""
    model(kind, **changes).save_pretrained(folder)
    tokenizer(begin=kind == "clip").save_pretrained(folder)
    return f"{'transformers' if kind == 'qwen2' else kind}:{folder}"
