"""The tables: one frozen row type each, one line of text and a unit per column. The glossary.

Rows hold no wall-clock time and nothing that depends on which worker made them, so that two runs
over the same footage leave equal rows.

A column that comes later has a default, which is what older rows say, and the version that began
it: `since`. That of a measurement is None: what was not measured is unknown, not 0.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

import pyarrow as pa

from telecine.manifests.rows.arrow import arrow_schema as arrow_schema
from telecine.manifests.rows.arrow import defaults_of as defaults_of
from telecine.manifests.rows.arrow import from_arrow as from_arrow
from telecine.manifests.rows.arrow import to_arrow as to_arrow
from telecine.manifests.rows.field import column as column
from telecine.manifests.rows.texts import ColumnSample as ColumnSample
from telecine.manifests.rows.texts import TextEmbedding as TextEmbedding


def measured(text: str, default: Any = dataclasses.MISSING, *, since: str = "") -> Any:
    """A column of clips that says what their pictures are like (pipeline/scan).

    Every list of measurements follows from this: charts, pages, `inspect clip`, a dataset card, and
    each sample's JSON. One that comes later is `float | None` with the default None.
    """
    metadata = {"text": text, "since": since, "measured": True}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedSpan:
    """Frames that the scan left out."""

    start_frame: int = column("ordinal of the first frame, from 0")
    num_frames: int = column("frames")
    start_pts: int = column("source time base, included")
    end_pts: int = column("source time base, excluded")
    reason: str = column("too_short, black, frozen or transition")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is known of one object at one time. The row in force has its URI's highest revision."""

    uri: str = column("absolute path or s3://bucket/key, the key as it is, never quoted")
    revision: int = column("0, 1, 2, ... per URI: a replaced or retried object gets another row")
    source_id: str = column("128-bit hash of URI and version")
    version: str = column("ETag, or size and modification time in ns on disk")
    size_bytes: int = column("bytes")
    kind: str = column("video, image, or empty where content could not tell")
    status: str = column("scanned, rejected or duplicate")
    reason: str = column("why it was rejected, one of errors.Reason; else empty", "")
    detail: str = column("the decoder's or store's own words", "")
    duplicate_of: str = column("source_id of the object with the same bytes, or empty", "")
    content_digest: str = column("SHA-256 over the SHA-256 of each 8 MiB block", "")
    sidecar_uri: str = column("caption file beside it, or empty", "")
    sidecar_version: str = column("the caption file's version, or empty", "")
    tracks_uri: str = column("track file beside it, or empty", "", since="0.2.0")
    tracks_version: str = column("the track file's version, or empty", "", since="0.2.0")
    scan_fingerprint: str = column("of the scan spec and the pixel contract")

    # What the header says
    container: str = column("FFmpeg's or Pillow's name of the format", "")
    codec: str = column("FFmpeg's or Pillow's name", "")
    profile: str = column("codec profile", "")
    pixel_format: str = column("FFmpeg's or Pillow's name", "")
    bit_depth: int = column("bits per component", 0)
    coded_width: int = column("px before rotation and square pixels", 0)
    coded_height: int = column("px before rotation and square pixels", 0)
    rotation_degrees: int = column("counter-clockwise turn that displays it: 0, 90, 180, 270", 0)
    mirrored: bool = column("flipped left to right before the turn", False)
    sample_aspect_num: int = column("pixel width", 1)
    sample_aspect_den: int = column("pixel height", 1)
    color_matrix: str = column("bt709, bt601, bt2020, smpte240m, fcc or rgb, after defaults", "")
    color_range: str = column("limited or full, after defaults", "")
    color_transfer: str = column("sdr, pq or hlg", "")
    color_primaries: str = column("as tagged, or empty", "")
    interlaced: bool = column("any frame is deinterlaced, one frame per frame", False)
    header_fps_num: int = column("average rate that the header claims", 0)
    header_fps_den: int = column("average rate that the header claims", 1)
    header_num_frames: int = column("frames that the header claims, 0 if silent", 0)
    header_duration_seconds: float = column("seconds that the header claims, 0 if silent", 0.0)
    num_video_streams: int = column("streams", 0)
    stream_index: int = column("the stream used, among all streams", 0)
    has_audio: bool | None = column("an audio stream comes with it", None, since="0.2.0")
    audio_channels: int | None = column(
        "of the audio stream that a player would choose; 0: no audio", None, since="0.2.0"
    )
    audio_sample_rate: int | None = column("of it, Hz; 0: no audio", None, since="0.2.0")

    # What decoding it showed
    width: int = column("displayed px: turned, square pixels", 0)
    height: int = column("displayed px: turned, square pixels", 0)
    num_frames: int = column("frames decoded = frames_kept + frames_dropped", 0)
    frames_kept: int = column("frames inside clips", 0)
    frames_dropped: int = column("frames inside dropped spans", 0)
    dropped: tuple[DroppedSpan, ...] = column("the dropped spans, in order", ())
    num_shots: int = column("shots", 0)
    num_clips: int = column("clips", 0)
    timing: str = column("pts, or ordinal where stamps are absent or do not rise", "")
    time_base_num: int = column("seconds per pts tick", 0)
    time_base_den: int = column("seconds per pts tick", 1)
    fps_num: int = column("nominal frames per second: most frames are this far apart", 0)
    fps_den: int = column("nominal frames per second", 1)
    start_pts: int = column("source time base, included", 0)
    end_pts: int = column("source time base, excluded", 0)
    duration_seconds: float = column("(end_pts - start_pts) × time base", 0.0)
    decode_errors: int = column("packets that the decoder refused and went on from", 0)

    # How it was scanned
    telecine_version: str = column("the Telecine that scanned it", "", since="0.2.0")
    tries: int = column(
        "scans of it until this one, each before it ended by a crash, for memory or time", 1,
        since="0.2.0",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A half-open span of one source that lies inside one shot; an image is a clip of one frame."""

    clip_id: str = column("128-bit hash of source, span and scan spec; the WebDataset key")
    source_id: str = column("the source")
    scan_fingerprint: str = column("of the scan spec and the pixel contract")
    kind: str = column("video or image")
    shot: int = column("number of the shot in its source, from 0")
    start_frame: int = column("ordinal of the first frame in its source, from 0")
    num_frames: int = column("frames decoded in the span")
    start_pts: int = column("source time base, included")
    end_pts: int = column("source time base, excluded")
    time_base_num: int = column("seconds per pts tick")
    time_base_den: int = column("seconds per pts tick")
    timing: str = column("pts, or ordinal (pts counts frames)")
    fps_num: int = column("nominal frames per second")
    fps_den: int = column("nominal frames per second")
    variable_rate: bool = column("unevenly spaced, in no regular turn: taken by time, at fps")
    duration_seconds: float = column("(end_pts - start_pts) × time base; 0 for an image")
    width: int = column("displayed px")
    height: int = column("displayed px")
    num_stills: int = column("rows in `stills`")
    stills_digest: str = column("SHA-256 over the stills' JPEG bytes, in order")

    motion: float = measured("mean picture change from frame to frame, 0..1 of full scale")
    temporal_information: float = measured(
        "TI of ITU-T P.910: maximum over frames, full-range levels"
    )
    spatial_information: float = measured("SI of P.910: maximum over stills, at their size")
    camera_x: float | None = measured(
        "median drift of the whole picture, widths per second, right > 0; NULL: it cannot be told",
        None,
    )
    camera_y: float | None = measured(
        "median drift of the whole picture, heights per second, down > 0; NULL: it cannot be told",
        None,
    )
    subject_motion: float | None = measured(
        "motion × the share of it that the drift does not explain; NULL: the drift cannot be told",
        None,
    )
    zoom: float | None = measured(
        "median growth of the picture, natural logarithm per second, in > 0; NULL: unknown",
        None,
        since="0.2.0",
    )
    roll: float | None = measured(
        "median turn of the picture, degrees per second, counter-clockwise > 0; NULL: unknown",
        None,
        since="0.2.0",
    )
    shake: float | None = measured(
        "jitter of the picture over 1/15 s, RMS, shares of its longer side; NULL: unknown",
        None,
        since="0.2.0",
    )
    change: float = measured("difference of first and last still, 0..1 of full scale")
    brightness: float = measured("mean luma, 0..1 of full range")
    contrast: float = measured("standard deviation of luma, 0..1 of full range")
    saturation: float = measured("mean HSV saturation of the stills, 0..1")
    sharpness: float = measured(
        "texture of the stills: log10(1 + variance of the Laplacian of luma), median; focus is blur"
    )
    black_share: float = measured("share of frames that are black, 0..1")
    frozen_share: float = measured("share of time in which the picture is held or equal, 0..1")
    letterbox_left: int = measured("px of black bar, displayed, to one pixel of the stills")
    letterbox_right: int = measured("px of black bar, displayed, to one pixel of the stills")
    letterbox_top: int = measured("px of black bar, displayed, to one pixel of the stills")
    letterbox_bottom: int = measured("px of black bar, displayed, to one pixel of the stills")
    dominant_colors: tuple[str, ...] = measured("up to three colour names, most common first")
    blur: float | None = measured(
        "px at native resolution: width (Gaussian σ) of the strongest edges seen through 1 px, "
        "median over a few frames; 1 sharp, 1.4 blurred by 1 px, 2.2 by 2; NULL without edges",
        None,
        since="0.2.0",
    )
    upscaled: float | None = measured(
        "nominal over true bandwidth of luma, median over a few frames: 1 full; 2 where half of "
        "the pixels across and down would hold all detail: upscaled, or as blurred; NULL: none",
        None,
        since="0.2.0",
    )
    logo_share: float | None = measured(
        "share of the picture under an overlay that stays while the rest moves in 4 stills, 0..1; "
        "NULL where it cannot be told: under 3, little that moves, a camera that stands, an image",
        None,
        since="0.2.0",
    )
    text_share: float | None = measured(
        "share of the picture in lines of burnt-in text that stand in two of 4 stills, mean over "
        "them, 0..1; misses faint, very large and dense text; NULL of an image or one still",
        None,
        since="0.2.0",
    )
    combing: float | None = measured(
        "share of the picture that is combed, mean over a few frames, 0..1: rows of two moments",
        None,
        since="0.2.0",
    )
    gradual_share: float | None = measured(
        "share of its time that may be a gradual transition between two shots, 0..1",
        None,
        since="0.2.0",
    )
    corrupt_frames: int | None = measured(
        "frames that the decoder marks as damaged or concealed, or that refer to what it refused",
        None,
        since="0.2.0",
    )
    effective_start: float | None = column(
        "seconds into the clip: the middle of its first picture at effective_fps; NULL: coded rate",
        None,
        since="0.2.0",
    )
    effective_fps: float | None = measured(
        "distinct frames per second where the picture moves; NULL where too little does",
        None,
        since="0.2.0",
    )

    @property
    def start_seconds(self) -> float:
        """start_pts × time base: on the source's own clock, whose first frame need not be at 0."""
        return float(self.start_pts * Fraction(self.time_base_num, self.time_base_den))

    @property
    def end_seconds(self) -> float:
        """end_pts × time base, on the same clock; excluded."""
        return float(self.end_pts * Fraction(self.time_base_num, self.time_base_den))


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    """A small frame of a clip, for captioners, scorers and people."""

    clip_id: str = column("the clip")
    source_id: str = column("the source")
    position: int = column("0, 1, 2, ... in time order")
    pts: int = column("source time base: the frame's own stamp")
    seconds: float = column("since the clip's first frame")
    width: int = column("px")
    height: int = column("px")
    jpeg: bytes = column("JPEG, full-range BT.601 as JFIF has it, sRGB")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTimes:
    """When the frames of a clip are shown, where they are not evenly spaced to a millisecond."""

    clip_id: str = column("the clip")
    stamps: bytes = column(
        "of its frames in order, source time base: zlib of int64 differences, little-endian; the "
        "first one is from start_pts"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionWindow:
    """A part of a clip that a captioner described by itself."""

    start_seconds: float = column("since the clip's first frame")
    end_seconds: float = column("since the clip's first frame, excluded")
    text: str = column("what was said of this part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What one captioner said of one clip."""

    clip_id: str = column("the clip")
    captioner: str = column("name: sidecar, signal, openclip, vlm or openai")
    captioner_fingerprint: str = column("of the captioner's spec, weights included")
    input_digest: str = column("of what it was given: stills, measurements, sidecar version")
    outcome: str = column("ok, empty, refused, truncated or failed")
    text: str = column("the caption, or empty")
    text_key: int = column(
        "first 63 bits of the text's SHA-256, 0 of none: equal texts are counted", 0
    )
    windows: tuple[CaptionWindow, ...] = column("parts that the text was joined from, if any", ())
    detail: str = column("why it failed, or empty", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """Where one scorer's model puts one clip."""

    clip_id: str = column("the clip")
    scorer: str = column("name: openclip")
    scorer_fingerprint: str = column("of the model, weights included")
    stills_digest: str = column("of the stills it was shown")
    embedding: bytes = column(
        "float16, little-endian: mean over the stills of their embeddings of length 1; or empty"
    )
    detail: str = column("why there is none, or empty", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number of one clip."""

    clip_id: str = column("the clip")
    name: str = column(
        "text_similarity, aesthetic_score, similarity_<prompt>, <track>_coverage or <track>_gap"
    )
    scorer_fingerprint: str = column("of the model, weights included; of a track, of its spec")
    input_digest: str = column("of what was compared: stills, and text or head; of a track file")
    value: float = column("cosine -1..1, the head's own scale, coverage 0..1, or a gap in seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A clip's place among its near-duplicates. The row in force has the highest round."""

    clip_id: str = column("the clip")
    grouping: str = column("fingerprint of scorer, threshold and which clip of a group is kept")
    round: int = column("0, 1, 2, ...: the run that grouped; only what changed has a row")
    duplicate_group: str = column("clip_id of the one that is kept")
    duplicate_rank: int = column(
        "0: the one that is kept, or without duplicates; 1, 2, ...: others"
    )
    grouped: str = column("of a round's last row: which clips were grouped; else empty", "")


def of_latents(
    text: str, default: Any = dataclasses.MISSING, *, since: str = "", told: bool = False
) -> Any:
    """A column of samples that follows from the latents alone (pipeline/build/latents.py).

    Where latents are copied from another sample, so is it. `told`: a number that each sample's JSON
    has among its checks, and the view `dataset` beside the clip. None is left out of the JSON: a
    sample that was made before the column keeps its bytes.
    """
    return field(
        default=default, metadata={"text": text, "since": since, "latents": True, "told": told}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One clip in one build. Its shard's facts ride along: they cannot be committed apart."""

    build_id: str = column("the build")
    plan: int = column("number of the plan within its build that made this row, from 0")
    clip_id: str = column("the clip")
    outcome: str = column("kept or dropped")
    reason: str = column("why it was dropped, one of errors.Reason; else empty", "")
    detail: str = column("the failure's own words", "")
    telecine_version: str = column("the Telecine that dropped it", "", since="0.2.0")
    text_digest: str = column("SHA-256 of the sample's .txt", "")
    captions_digest: str = column("SHA-256 of all that its JSON says of captions", "")
    tracks_digest: str = column("of the track file it was made from, or empty", "", since="0.2.0")
    shard_id: str = column("128-bit hash of build and members; kept by builds that follow", "")
    shard_path: str = column("relative to the dataset", "")
    shard_sha256: str = column("of the tar", "")
    shard_bytes: int = column("size of the tar", 0)
    shard_samples: int = column("samples in the tar", 0)
    position: int = column("of the sample in its shard, from 0", 0)
    resolution: int = column("bucket: px of the short side", 0)
    aspect: str = column("bucket: width x height, as in 16x9", "")
    duration: str = column("bucket: image, or seconds, as in 4s", "")
    copied_from: str = column("shard_path whose latents were copied, or empty if encoded", "")
    latent_offset: int = column("byte offset of the latent member's data in the tar", 0)
    latent_bytes: int = column("bytes of the latent member", 0)
    latent_sha256: str = of_latents("of the latent member", "")
    latent_shape: tuple[int, ...] = column("C, T', H', W' (2C of moments)", ())
    latent_mean: float = of_latents("of all values", 0.0, told=True)
    latent_std: float = of_latents("of all values", 0.0, told=True)
    latent_absmax: float = of_latents("largest magnitude", 0.0, told=True)
    channel_means: tuple[float, ...] = of_latents("of the values of each channel, as stored", ())
    channel_stds: tuple[float, ...] = of_latents("of the values of each channel, as stored", ())
    psnr_db: float = of_latents("round trip of a canary's first frames, dB; 0: no canary", 0.0)
    encoded_width: int = column("px after the crop to the grid", 0)
    encoded_height: int = column("px after the crop to the grid", 0)
    crop_x: int = column("px left of the crop, displayed picture", 0)
    crop_y: int = column("px above the crop, displayed picture", 0)
    encoded_frames: int = column("frames encoded, at the encoded rate", 0)
    frames_left_out: int = column("frames at the clip's end beyond the temporal grid", 0)
    fps_num: int = column("encoded frames per second", 0)
    fps_den: int = column("encoded frames per second", 1)
    frames_resampled_away: int | None = of_latents(
        "the clip's frames that no frame at the encoded rate shows", None, since="0.2.0"
    )
    frames_repeated: int | None = of_latents(
        "frames at the encoded rate that show again what the one before shows", None, since="0.2.0"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One event in a build's life. A plan pins the table versions it is a pure function of."""

    build_id: str = column("128-bit hash of the build's spec")
    name: str = column("folder under shards/")
    sequence: int = column("0, 1, 2, ... over all builds: the order of events")
    event: str = column("planned, completed, promoted, rolled_back (to it) or deleted")
    plan: int = column("number of the plan within its build, from 0")
    plan_digest: str = column("SHA-256 of the plan")
    num_shards: int = column("shards planned")
    num_samples: int = column("samples planned")
    retry: bool = column("clips that the build dropped before were planned again")
    follows: str = column("build_id whose shards the plan's are laid out as, or empty", "")
    replaces: tuple[str, ...] = column("shard_ids that this plan's shards stand in for", ())
    family: str = column(
        "renditions it is one of, as NAME=BUILD_ID, the first one first; or empty",
        "",
        since="0.2.0",
    )
    sources_version: int = column("table version planned from, -1 if there was no table")
    clips_version: int = column("table version planned from, -1 if there was no table")
    captions_version: int = column("table version planned from, -1 if there was no table")
    scores_version: int = column("table version planned from, -1 if there was no table")
    duplicates_version: int = column("table version planned from, -1 if there was no table")
    samples_version: int = column("table version planned from, -1 if there was no table")
    builds_version: int = column("table version planned from, -1 if there was no table")
    vae: str = column("the encoder's identity, canonical JSON")
    vae_fingerprint: str = column("of the encoder's identity")
    temporal_stride: int | None = column("frames of a latent frame", None, since="0.2.0")
    causal: bool | None = column(
        "the first latent frame is of the first frame alone", None, since="0.2.0"
    )
    pixel_fingerprint: str = column("of the pixel contract")
    latents_fingerprint: str = column("of all that latents depend on: equal ones are copied")
    spec: str = column("the build's spec, canonical JSON")


Row: TypeAlias = (
    Source | Clip | Still | FrameTimes | Caption | Embedding | Score | Duplicate | Sample | Build
    | TextEmbedding | ColumnSample
)  # fmt: skip

TABLES: dict[str, type[Row]] = {
    "sources": Source,
    "clips": Clip,
    "stills": Still,
    "frame_times": FrameTimes,
    "captions": Caption,
    "embeddings": Embedding,
    "scores": Score,
    "duplicates": Duplicate,
    "samples": Sample,
    "builds": Build,
    "text_embeddings": TextEmbedding,
    "column_samples": ColumnSample,
}

# Columns of samples, in the order of their declaration.
OF_LATENTS = tuple(f.name for f in dataclasses.fields(Sample) if f.metadata.get("latents"))
CHECKS = tuple(f.name for f in dataclasses.fields(Sample) if f.metadata.get("told"))

# Columns of clips, in the order of their declaration.
MEASUREMENTS = tuple(f.name for f in dataclasses.fields(Clip) if f.metadata.get("measured"))
MEASURED_NUMBERS = tuple(
    name for name in MEASUREMENTS if not pa.types.is_list(arrow_schema(Clip).field(name).type)
)

RowType = typing.TypeVar("RowType", bound=Row)
