"""What a vision-language model is given of a view: its stills as one video at their true times.

    clip     0 s ────────── 10 s ────────── 20 s
    view                    [ ▢  ▢   ▢    ▢ ]        stills at 10.0, 12.5, 15.0 and 19.0 s
    video                     10 000 … 19 000        frames of a video at 1000 frames per second

Times are the clip's, not the window's: what a text says of them stays true when windows are joined,
and agrees with the spans that a merge prompt names. How much of them a model is told is its own:

    Qwen3-VL and its like    "<11.2 seconds>" before each pair of stills: the mean of its two
    Qwen2.5-VL               one spacing for the whole video, from zero: the mean one
    LLaVA-OneVision          nothing

An odd still out is shown twice, by the library, as the model was trained.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from telecine.encoders.caption.windows import Stills, View

VERSION = 1  # rises when any view would be shown otherwise
TICKS = 1000  # a second: index / TICKS is a still's time
MAX_PIXELS = 1 << 24  # of a still, bounded before memory is taken

Content = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A view, decoded. `kind`: what is alike enough to be one batch."""

    kind: str
    content: Content  # of the one message, with a place for each picture or video
    images: list[Any] = field(default_factory=list)
    video: Any = None  # uint8 [T, H, W, 3]
    timing: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch as the model takes it, on the host."""

    places: tuple[int, ...]  # of its views among those that were asked about
    tensors: dict[str, Any]  # left-padded to one length
    thinking: bool  # its prompts end where thoughts begin


@dataclass(frozen=True, slots=True)
class Prepared:
    ready: list[Ready]
    refused: dict[int, str]  # place → why


class Inputs:
    """Builds batches with a model's own processor, pixels of a torch dtype."""

    def __init__(self, processor: Any, dtype: Any) -> None:
        self._processor, self._dtype = processor, dtype
        video = getattr(processor, "video_processor", None)
        self._videos = video is not None
        self._video_options: dict[str, Any] = {"do_sample_frames": False}
        if "cap_pixels_per_frame" in getattr(
            getattr(video, "valid_kwargs", None), "__annotations__", ()
        ):
            # Unset, it is what the library's version makes of it; True is the models' own way.
            own = getattr(video, "cap_pixels_per_frame", None)
            self._video_options["cap_pixels_per_frame"] = True if own is None else own
        template = str(processor.chat_template)
        self._template = {"enable_thinking": False} if "enable_thinking" in template else {}

    def prepare(self, asked: Sequence[tuple[int, View]]) -> Prepared:
        """Views with their places. What is wrong with a view is that view's alone."""
        shown: list[tuple[int, Shown]] = []
        refused: dict[int, str] = {}
        for place, view in asked:
            try:
                shown.append((place, self.shown(view)))
            except Exception as error:  # Pillow raises whatever its decoders do
                refused[place] = f"its stills cannot be shown: {error}"
        return Prepared(self._ready(shown, refused), refused)

    def shown(self, view: View) -> Shown:
        """The view's stills, decoded, in a message. Raises OSError or ValueError where one is
        broken.
        """
        prompt = {"type": "text", "text": view.prompt}
        pictures = [_decoded(jpeg) for _, jpeg in view.stills]
        if not pictures:
            return Shown("text", [prompt])
        if len(pictures) == 1:
            return Shown("image", [{"type": "image"}, prompt], pictures)
        if self._videos:
            video = np.stack([np.asarray(picture) for picture in pictures])
            return Shown("video", [{"type": "video"}, prompt], video=video, timing=timing(view))
        content: Content = []
        for seconds, _ in view.stills:
            content += [{"type": "text", "text": f"{seconds:.1f} s:"}, {"type": "image"}]
        return Shown("images", [*content, prompt], pictures)

    def _ready(self, shown: list[tuple[int, Shown]], refused: dict[int, str]) -> list[Ready]:
        """One batch, or as many as the processor needs it to be split into."""
        if not shown:
            return []
        try:
            return [self._batch(tuple(place for place, _ in shown), [each for _, each in shown])]
        except Exception as error:  # the model's own code: which view it is, halves tell
            if len(shown) == 1:
                refused[shown[0][0]] = f"the model's processor refuses it: {error!r}"
                return []
        middle = len(shown) // 2
        return self._ready(shown[:middle], refused) + self._ready(shown[middle:], refused)

    def _batch(self, places: tuple[int, ...], shown: Sequence[Shown]) -> Ready:
        prompts = self._processor.apply_chat_template(
            [[{"role": "user", "content": each.content}] for each in shown],
            add_generation_prompt=True,
            tokenize=False,
            **self._template,
        )
        given: dict[str, Any] = {}
        if any(each.images for each in shown):
            given["images"] = [each.images for each in shown]
        if any(each.video is not None for each in shown):
            given["videos"] = [each.video for each in shown]
            given["videos_kwargs"] = {
                **self._video_options, "video_metadata": [each.timing for each in shown]
            }  # fmt: skip
        bos = self._processor.tokenizer.bos_token
        if bos and prompts[0].startswith(bos):
            given["text_kwargs"] = {"add_special_tokens": False}
        made = self._processor(text=prompts, padding=True, return_tensors="pt", **given)
        # Pixels alone: of seconds, bfloat16 would keep three digits.
        tensors = {
            name: value.to(self._dtype) if name.startswith("pixel_values") else value
            for name, value in made.items()
        }
        return Ready(places, tensors, prompts[0].rstrip().endswith("<think>"))


def timing(view: View) -> dict[str, Any]:
    """The library's video metadata: of a video of TICKS frames a second these few were taken.

    `total_num_frames` is such that the library's mean rate is the stills' own, whatever lies
    before the first and after the last.
    """
    times = [seconds for seconds, _ in view.stills]
    spacing = (times[-1] - times[0]) / (len(times) - 1)
    return {
        "fps": float(TICKS),
        "frames_indices": [round(seconds * TICKS) for seconds in times],
        "total_num_frames": max(1, round(len(times) * spacing * TICKS)),
        "duration": view.end_seconds,
    }


def cost(view: View) -> tuple[int, int, int]:
    """Views of one cost make batches with little padding: stills, pixels of each, characters."""
    return len(view.stills), _pixels(view.stills), len(view.prompt)


def _pixels(stills: Stills) -> int:
    try:
        with Image.open(io.BytesIO(stills[0][1])) as picture:
            return picture.width * picture.height
    except (IndexError, OSError, ValueError):
        return 0  # none, or it will be refused


def _decoded(jpeg: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{picture.width}×{picture.height} is no size for a still")
            return picture.convert("RGB")
    except UnidentifiedImageError as error:  # its own text names an address in memory
        raise ValueError(f"{len(jpeg)} bytes are no JPEG") from error
