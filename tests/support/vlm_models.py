"""Tiny vision-language models on disk, as the library's own save_pretrained() writes them.

`save` writes one with seeded random weights; with `says`, one whose weights are made so that it
says just that: its layers add nothing, and its head maps each token to the one that follows.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from telecine.encoders.caption.vlm.vlm import Vlm
from telecine.encoders.caption.windows import View
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.torchvision_ops import mend_torchvision
from telecine.manifests.specs import CaptionSpec

mend_torchvision()

import transformers  # noqa: E402

SEED = 7
END, PAD = "<|im_end|>", "<|endoftext|>"
PICTURE, VIDEO, START, STOP = "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
SPECIAL = (PAD, "<|im_start|>", END, START, STOP, PICTURE, VIDEO)
PLAIN = ("<think>", "</think>")  # added tokens that are not special, as Qwen3's are
VISION = f"{START}{{}}{STOP}"
TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% for part in message.content -%}
{%- if part.type == 'video' -%}VIDEO{%- elif part.type == 'image' -%}IMAGE
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


def template(image: str, video: str, opening: str = "") -> str:
    made = TEMPLATE.replace("VIDEO", video).replace("IMAGE", image)
    return made.replace("assistant\n", f"assistant\n{opening}")


def tokenizer(words: Sequence[str] = ()) -> Any:
    """Bytes, one token each, the special tokens, and these words as tokens of their own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=PAD)
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    fast.add_tokens([*PLAIN, *words])
    return fast


def text_config(vocabulary: int, **others: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "bos_token_id": None, **others,
    }  # fmt: skip


def qwen25(words: Any, opening: str = "") -> tuple[Any, Any]:
    ids = words.convert_tokens_to_ids
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
    processor = transformers.Qwen2_5_VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size), words,
        transformers.Qwen2VLVideoProcessor(size=size),
        chat_template=template(VISION.format(PICTURE), VISION.format(VIDEO), opening),
    )  # fmt: skip
    config = transformers.Qwen2_5_VLConfig(
        text_config=text_config(
            len(words), rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2]},
        ),
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2,
            "out_hidden_size": 32, "window_size": 56, "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
        image_token_id=ids(PICTURE), video_token_id=ids(VIDEO),
        vision_start_token_id=ids(START), vision_end_token_id=ids(STOP),
    )  # fmt: skip
    return transformers.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3(words: Any, opening: str = "") -> tuple[Any, Any]:
    ids = words.convert_tokens_to_ids
    size = {"shortest_edge": 32 * 32 * 2, "longest_edge": 32 * 32 * 64}
    processor = transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size, patch_size=16), words,
        transformers.Qwen3VLVideoProcessor(size=size),
        chat_template=template(VISION.format(PICTURE), VISION.format(VIDEO), opening),
    )  # fmt: skip
    config = transformers.Qwen3VLConfig(
        text_config=text_config(
            len(words), head_dim=8,
            rope_parameters={
                "rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True,
                "rope_theta": 10000.0,
            },
        ),
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2,
            "out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
        },
        image_token_id=ids(PICTURE), video_token_id=ids(VIDEO),
        vision_start_token_id=ids(START), vision_end_token_id=ids(STOP),
    )  # fmt: skip
    return transformers.Qwen3VLForConditionalGeneration(config), processor


SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    "vision_use_head": False,
}  # fmt: skip


def onevision(words: Any, opening: str = "") -> tuple[Any, Any]:
    ids = words.convert_tokens_to_ids
    size, grids = {"height": 28, "width": 28}, [[28, 28], [28, 56]]
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grids), words,
        transformers.LlavaOnevisionVideoProcessor(size=size), num_image_tokens=4,
        vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_9",
        image_token=PICTURE, video_token=VIDEO, chat_template=template(PICTURE, VIDEO, opening),
    )  # fmt: skip
    config = transformers.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **text_config(len(words))},
        vision_config=SIGLIP,
        image_token_index=ids(PICTURE), video_token_index=ids(VIDEO),
        image_grid_pinpoints=grids, vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )  # fmt: skip
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor


def llava(words: Any, opening: str = "") -> tuple[Any, Any]:
    """Its processor takes no videos."""
    ids = words.convert_tokens_to_ids
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        ),
        words, patch_size=14, vision_feature_select_strategy="full", image_token=PICTURE,
        num_additional_image_tokens=0, chat_template=template(PICTURE, "", opening),
    )  # fmt: skip
    config = transformers.LlavaConfig(
        text_config={"model_type": "qwen2", **text_config(len(words))}, vision_config=SIGLIP,
        image_token_index=ids(PICTURE), vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config), processor


FAMILIES = {"qwen25": qwen25, "qwen3": qwen3, "onevision": onevision, "llava": llava}


def save(
    folder: Path, family: str = "qwen25", *, says: Sequence[str] = (), opening: str = ""
) -> Path:
    """A model and its processor; gives `folder`. `says`: tokens, no two alike; then it ends."""
    words = tokenizer([word for word in says if word not in (*SPECIAL, *PLAIN)])
    ids = words.convert_tokens_to_ids
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        model, processor = FAMILIES[family](words, opening)
        for parameter in model.parameters():
            if parameter.ndim > 1:  # as the library starts them, inputs hardly matter
                parameter.normal_(std=0.5)
        model.get_output_embeddings().weight[ids(list(PLAIN))] = 0  # thoughts would have no end
        if says:
            _follow(model, [words("\n")["input_ids"][0], *map(ids, says), ids(END)])
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=[ids(END), ids(PAD)], pad_token_id=ids(PAD)
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _follow(model: Any, chain: Sequence[int]) -> None:
    """Layers add nothing to what is embedded, and the head knows of each token the next one."""
    for name, parameter in model.named_parameters():
        if "visual" not in name and name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.zero_()
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embedding.zero_()
    head.zero_()
    for place, (token, following) in enumerate(itertools.pairwise(chain)):
        embedding[token, place] = 1
        head[following, place] = 1


def jpeg(number: int = 0, width: int = 56, height: int = 42) -> bytes:
    """Noise of its own."""
    noise = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def view(*seconds: float, number: int = 0, prompt: str = "Say it.", **size: int) -> View:
    """Stills at these times, in a window that ends with the last of them."""
    stills = tuple((time, jpeg(100 * number + i, **size)) for i, time in enumerate(seconds))
    return View(prompt, stills, *((seconds[0], seconds[-1]) if seconds else ()))


def vlm(folder: Path, batch: int | None = None, device: str = "cpu", **options: Any) -> Vlm:
    options = {"dtype": "float32", "max_tokens": 5, **options}
    spec = CaptionSpec(captioner=f"vlm:{folder}", **options)
    return Vlm(spec, ModelRuntime(device=device, batch=batch))
