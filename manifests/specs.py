"""Specs: everything that changes bytes, and nothing else.

A dataset's `telecine.toml` is one `DatasetSpec`. Options that only change speed are `RunOptions`
(pipeline/recipes.py), a type of their own, so that a speed knob can never reach a fingerprint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from telecine.manifests.fingerprint import JsonValue, fingerprint
from telecine.manifests.index.tracks import RESERVED


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.canonical())

    def canonical(self) -> dict[str, JsonValue]:
        """Every key but those that came `later` and stand at their default."""
        return {
            name: _canonical(getattr(self, name), dumped)
            for name, dumped in self.model_dump(mode="json").items()
            if not self._is_as_before(name)
        }

    def _is_as_before(self, name: str) -> bool:
        key = type(self).model_fields[name]
        return key.json_schema_extra == _LATER and getattr(self, name) == key.default


def _canonical(value: Any, dumped: JsonValue) -> JsonValue:
    if isinstance(value, Spec):
        return value.canonical()
    if isinstance(value, Mapping) and all(isinstance(one, Spec) for one in value.values()):
        return {name: one.canonical() for name, one in value.items()}
    return dumped


_LATER: dict[str, Any] = {"later": True}


def later(default: Any) -> Any:
    """A key that not every version had: a spec that leaves it alone keeps its older fingerprint."""
    return Field(default=default, json_schema_extra=_LATER)


Positive = Annotated[int, Field(gt=0)]
ShortSide = Annotated[int, Field(ge=16, multiple_of=2)]  # px; even, so that 4:2:0 chroma is whole


class StillSpec(Spec):
    """The small frames of a clip that captioners, scorers and people look at."""

    per_second: Annotated[float, Field(gt=0, le=30)] = 1.0
    minimum: Positive = 3
    maximum: Positive = 64
    short_side: Annotated[int, Field(ge=16)] = 384  # px, at most
    quality: Annotated[int, Field(ge=1, le=95)] = 87  # JPEG

    @model_validator(mode="after")
    def _ordered(self) -> StillSpec:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum ({self.minimum}) is above maximum ({self.maximum})")
        return self


class ScanSpec(Spec):
    """How sources become clips. `version` rises when the code would cut or measure differently.

    It is that of the code which began the dataset; what is there is scanned anew when it is raised.
    """

    version: Literal[1, 2] = 2
    min_seconds: Annotated[float, Field(gt=0)] = 1.0
    max_seconds: Annotated[float, Field(gt=0)] = 60.0
    max_pixels: Positive = 2**26  # width × height of one frame, bounded before memory is taken
    max_source_seconds: Positive = 6 * 3600  # bounds the stills a worker holds, ~100 MB an hour
    detector: Literal["adaptive", "transnetv2", "transnetv2:all"] = later("adaptive")
    stills: StillSpec = StillSpec()

    @model_validator(mode="after")
    def _ordered(self) -> ScanSpec:
        # An even split of a shot just over max_seconds gives halves; they must not be too short.
        if self.max_seconds < 2 * self.min_seconds:
            raise ValueError(
                f"max_seconds ({self.max_seconds}) must be at least twice "
                f"min_seconds ({self.min_seconds})"
            )
        return self


class PixelSpec(Spec):
    """The pixel contract (docs/pixels.md). `version` rises when any pixel would differ."""

    version: Literal[1, 2] = 2
    hdr: Literal["tonemap", "reject"] = "tonemap"


Share = Annotated[float, Field(ge=0, le=1)]


class CaptionSpec(Spec):
    """Who says what of each clip. Those from `weights` on are for captioners that are models.

    What is None is the captioner's own default; `weights` is found when a captioner is chosen, so
    that what its captions are called is known where its model is not at hand.
    """

    captioner: str = "auto"  # sidecar, signal, openclip:..., vlm:... or openai:MODEL
    weights: str | None = None  # SHA-256 of the model's files
    prompt: str | None = None
    frames: Positive | None = None  # stills that are shown of a window, at most
    window_seconds: Annotated[float, Field(gt=0)] = 10.0  # longer clips: in windows, joined
    merge_prompt: str | None = None  # has the model join the windows' texts; None: one by one
    max_tokens: Positive | None = None  # of one answer
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"  # computed in


class CaptionMixSpec(Spec):
    """Which shares of the clips take a second captioner's text, or none: chosen by clip_id."""

    second: CaptionSpec | None = None
    second_share: Share = 0.0
    none_share: Share = 0.0

    @model_validator(mode="after")
    def _adds_up(self) -> CaptionMixSpec:
        if self.second_share + self.none_share > 1:
            raise ValueError(
                f"second_share ({self.second_share}) and none_share ({self.none_share}) are more "
                "than all clips"
            )
        if self.second_share and self.second is None:
            raise ValueError("second_share needs a [caption_mix.second] captioner")
        return self


class ScoreSpec(Spec):
    """What clips are scored by. A `--where` may use each score as a column of `clips`."""

    scorer: str | None = None  # openclip:...
    weights: str | None = None  # SHA-256 of the model's files, found when it was chosen
    prompts: Mapping[str, str] = {}  # name → text; the column is similarity_<name>
    aesthetic: str | None = None  # file of a linear head over the embedding
    aesthetic_weights: str | None = None  # its SHA-256, found when it was chosen
    dtype: Literal["bfloat16", "float16", "float32"] = "float32"  # computed in
    duplicate_threshold: Annotated[float, Field(gt=0, le=1)] | None = (
        None  # cosine; None: no groups
    )
    duplicate_keep: Literal["longest", "largest"] = "longest"

    @field_validator("prompts")
    @classmethod
    def _names(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in value.items():
            if not re.fullmatch("[a-z][a-z0-9_]{0,47}", name) or not text.strip():
                raise ValueError(f"{name} = {text!r}: a prompt has a name of a-z 0-9 _ and a text")
        return dict(value)


class EmbedSpec(Spec):
    """What texts are embedded by, and the column that the embeddings go into."""

    encoder: str | None = None  # none, t5:..., umt5:..., clip:... or transformers:...
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,63}$")] | None = None
    weights: str | None = None  # SHA-256 of the model's files, found when it was chosen
    max_tokens: Positive = 512  # what a text has beyond is left out
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"  # computed in; stored: float16


def _frame_rate(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        rate = Fraction(value)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{value!r} is no frame rate; write 24 or 30000/1001") from error
    if not 0 < rate <= 240:
        raise ValueError(f"{value!r} is no frame rate between 0 and 240")
    return str(rate)


class VaeSpec(Spec):
    """The video encoder. `fps` asks for one frame rate; by default a clip keeps its own.

    Those from `dtype` on are for learned encoders.
    """

    encoder: str = "dct"  # or diffusers:FOLDER, diffusers:HUB_ID[@revision]
    patch: Positive = 2  # trainer's spatial patch; the crop grid is spatial stride × patch
    fps: str | None = None  # e.g. "24" or "30000/1001"
    # Without `fps`: as frames are coded, or without those that repeat (clips' effective_fps).
    rate: Literal["coded", "effective"] = later("coded")
    short_side: ShortSide | None = later(None)  # px that larger clips are made; None: native size
    filter: Literal["bicubic"] = later("bicubic")  # they are made smaller with
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"  # computed in; stored: float16
    posterior: Literal["mean", "moments", "sample"] = "mean"  # a sample is seeded by the clip_id
    normalise: bool = True  # with the model's own constants, as its diffusion transformer reads it
    window: Positive | None = None  # frames encoded at once, where a model cannot stream exactly
    tile: Positive | None = None  # px: encode in overlapping squares, where memory asks for it
    tile_overlap: Positive = 256  # px

    @field_validator("fps")
    @classmethod
    def _rate(cls, value: str | None) -> str | None:
        return _frame_rate(value)


class RenditionSpec(Spec):
    """What one rendition has otherwise than [vae]; a key that is not set is as there."""

    short_side: ShortSide | None = later(None)
    fps: str | None = later(None)
    rate: Literal["coded", "effective"] | None = later(None)

    @field_validator("fps")
    @classmethod
    def _rate(cls, value: str | None) -> str | None:
        return _frame_rate(value)

    def of(self, vae: VaeSpec) -> VaeSpec:
        """The [vae] of the rendition."""
        return vae.model_copy(update=self.canonical())


# Keys of [vae] that say what of a clip is encoded, whichever the encoder.
ABOUT_CLIPS = {"patch", "fps", "rate", "short_side", "filter"}


class BucketSpec(Spec):
    """Rungs: resolution in px of the short side, aspect as width:height, duration in seconds."""

    resolutions: tuple[Positive, ...] = (144, 240, 360, 480, 720, 1080, 1440, 2160)
    aspects: tuple[str, ...] = (
        "9:21", "9:16", "2:3", "3:4", "1:1", "4:3", "3:2", "16:9", "21:9",
    )  # fmt: skip
    durations: tuple[Annotated[float, Field(gt=0)], ...] = (1, 2, 4, 8, 16, 32, 60)

    @field_validator("resolutions", "durations")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError(f"rungs must rise and not repeat: {list(value)}")
        return value

    @field_validator("aspects")
    @classmethod
    def _aspects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            width, _, height = text.partition(":")
            if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
                raise ValueError(f"{text!r} is no aspect; write width:height, as in 16:9")
        if not value or len(set(value)) != len(value):
            raise ValueError(f"aspects must be there and not repeat: {list(value)}")
        return value


class SelectSpec(Spec):
    """Which clips a build takes: an SQL condition over clips (pipeline/catalog/selection.py)."""

    where: str | None = None
    damaged: Literal["drop", "keep"] = later("drop")  # clips with `corrupt_frames`, however few

    @field_validator("where")
    @classmethod
    def _blank_takes_all(cls, where: str | None) -> str | None:
        return where if where and where.strip() else None


class TrackSpec(Spec):
    """One track of the samples: columns of the track file beside a source, and how they are read.

    Rules for what happened from a frame until the next: sum, any, last, mean. For what is true at
    a frame: linear, hold, nearest, and slerp, of unit quaternions (four columns each).
    """

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    rule: Literal["sum", "any", "last", "mean", "linear", "hold", "nearest", "slerp"]
    unit: str = ""
    required: bool = False  # a clip that it does not cover whole is dropped
    max_gap: Annotated[float, Field(gt=0)] | None = None  # s between rows; None: any
    tolerance: Annotated[float, Field(ge=0)] | None = None  # s beyond a row; None: half a frame


class ShardSpec(Spec):
    target_bytes: Annotated[int, Field(ge=1_000_000)] = 512_000_000
    # In each shard, as .txt and in the JSON; or in a column beside it alone (telecine embed).
    captions: Literal["shard", "column"] = later("shard")


def _check_family(renditions: Mapping[str, VaeSpec], vae: VaeSpec) -> None:
    """Raises ValueError where they could not follow one of them: its clips, seats and order."""
    for name in renditions:
        if not re.fullmatch("[a-z][a-z0-9_-]{0,31}", name):
            raise ValueError(f"{name!r}: a rendition has a name of a-z 0-9 _ -, a letter first")
    firsts = [name for name, one in renditions.items() if one == vae]
    if len(firsts) != 1:
        raise ValueError(
            f"one rendition must be [vae] itself, as in final = {{}}, for the others to follow; "
            f"given are {len(firsts)} of {len(renditions)}"
        )
    for name, one in renditions.items():
        if vae.short_side and (one.short_side or 0) > vae.short_side:
            raise ValueError(
                f"{name} is larger ({one.short_side} px) than [vae] itself ({vae.short_side} px)"
            )
        same = [other for other, theirs in renditions.items() if theirs == one and other != name]
        if same:
            raise ValueError(f"{name} and {same[0]} are the same")


TOGETHER = ("renditions", "tracks")


class DatasetSpec(Spec):
    """`telecine.toml`: what a dataset is to be; one table per step, unknown keys refused.

    Scan and pixels are fixed when a dataset is made. The rest is the spec of the build that is
    current, or about to be: promotion writes it.
    """

    scan: ScanSpec = ScanSpec()
    pixels: PixelSpec = PixelSpec()
    caption: CaptionSpec = CaptionSpec()
    caption_mix: CaptionMixSpec = CaptionMixSpec()
    score: ScoreSpec = ScoreSpec()
    vae: VaeSpec = VaeSpec()
    renditions: Mapping[str, RenditionSpec] = later({})  # of each clip: by name; {} is [vae] itself
    select: SelectSpec = SelectSpec()
    buckets: BucketSpec = BucketSpec()
    shards: ShardSpec = ShardSpec()
    embed: EmbedSpec = later(EmbedSpec())
    tracks: Mapping[str, TrackSpec] = later({})

    @field_validator("tracks")
    @classmethod
    def _track_names(cls, value: Mapping[str, TrackSpec]) -> Mapping[str, TrackSpec]:
        for name in value:
            if not re.fullmatch("[a-z][a-z0-9_]{0,47}", name) or name in RESERVED:
                raise ValueError(
                    f"[tracks.{name}]: a track has a name of a-z 0-9 _, the first a letter, and "
                    f"none of {', '.join(RESERVED)}"
                )
        return dict(value)

    @field_validator("renditions")
    @classmethod
    def _family(
        cls, value: Mapping[str, RenditionSpec], info: ValidationInfo
    ) -> Mapping[str, RenditionSpec]:
        if value and "vae" in info.data:
            _check_family({name: one.of(info.data["vae"]) for name, one in value.items()},
                          info.data["vae"])  # fmt: skip
        return dict(value)

    @property
    def first_rendition(self) -> str:
        """The one that [vae] itself describes, and that the others follow; empty: none is named."""
        return next((n for n, one in self.renditions.items() if one.of(self.vae) == self.vae), "")

    def as_rendition(self, name: str) -> DatasetSpec:
        """The spec of one of the renditions alone."""
        vae = self.renditions[name].of(self.vae)
        return self.model_copy(update={"vae": vae, "renditions": {}})

    def overlaid(self, given: Mapping[str, Mapping[str, Any]]) -> DatasetSpec:
        """The spec with the given keys of the given tables in place of its own.

        Another encoder or captioner has options of its own: those not given are the defaults, not
        the old ones.
        Raises pydantic's ValidationError where a value is not allowed.
        """
        tables = self.model_dump()
        encoder = given.get("vae", {}).get("encoder", self.vae.encoder)
        if encoder != self.vae.encoder:
            about_clips = self.vae.model_dump(include=ABOUT_CLIPS)
            tables["vae"] = VaeSpec(encoder=encoder, **about_clips).model_dump()
        captioner = given.get("caption", {}).get("captioner", self.caption.captioner)
        if captioner != self.caption.captioner:
            tables["caption"] = CaptionSpec(captioner=captioner).model_dump()
        for name, table in given.items():
            # Both are declared together: one that is not named again is no longer asked for.
            tables[name] = dict(table) if name in TOGETHER else tables[name] | dict(table)
        return DatasetSpec.model_validate(tables)

    @property
    def scan_fingerprint(self) -> str:
        """What clips and stills depend on: the cut rules, and the pixels the stills are made of."""
        return fingerprint({"scan": self.scan.canonical(), "pixels": self.pixels.canonical()})
