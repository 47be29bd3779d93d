"""What a sample's JSON says: everything that a trainer conditions on, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from telecine.encoders.video.interface import VideoEncoder
from telecine.manifests.fingerprint import JsonValue
from telecine.manifests.schemas import CHECKS, MEASUREMENTS, Clip, Sample, Source
from telecine.manifests.specs import PixelSpec, VaeSpec
from telecine.pipeline.media.geometry import reduced_size


@dataclass(frozen=True, slots=True)
class ChosenCaption:
    """The text in force for a clip, and what each captioner of the mix said of it."""

    captioner: str
    captioner_fingerprint: str
    text: str
    text_digest: str  # empty: captions are in a column
    captions: str = "[]"  # JSON array: captioner, captioner_fingerprint, outcome, text, windows
    captions_digest: str = ""

    @property
    def text_bytes(self) -> int:
        """In a sample: of its .txt, and of what its JSON says of captions."""
        return 2 * len(self.text.encode()) + len(self.captions.encode())


IN_A_COLUMN = ChosenCaption("", "", "", "")  # the sample says nothing of captions


def sample_json(
    clip: Clip,
    source: Source,
    caption: ChosenCaption,
    sample: Sample,
    *,
    encoder: VideoEncoder,
    pixels: PixelSpec,
    vae: VaeSpec,
) -> dict[str, JsonValue]:
    """The `.json` member of one sample."""
    return {
        "clip_id": clip.clip_id,
        "kind": clip.kind,
        "build_id": sample.build_id,
        **_caption_json(caption),
        **_frames_json(clip, sample),
        **_reduced_json(clip, vae),
        "bucket": {
            "resolution": sample.resolution,
            "aspect": sample.aspect,
            "duration": sample.duration,
        },
        "source": _source_json(clip, source),
        "latent": _latent_json(sample, encoder),
        "pixels": _pixels_json(source, pixels),
        "measurements": _known(clip, MEASUREMENTS),
        "checks": {"finite": True, **_known(sample, CHECKS)},
    }


def _caption_json(caption: ChosenCaption) -> dict[str, JsonValue]:
    if not caption.text_digest:
        return {}
    return {
        "caption": caption.text,
        "captioner": caption.captioner,
        "captioner_fingerprint": caption.captioner_fingerprint,
        "captions": json.loads(caption.captions),
    }


def _frames_json(clip: Clip, sample: Sample) -> dict[str, JsonValue]:
    """Size and time: of what was encoded, and of the clip as it was found."""
    rate = Fraction(sample.fps_num, sample.fps_den)
    return {
        "width": sample.encoded_width,
        "height": sample.encoded_height,
        "native_width": clip.width,
        "native_height": clip.height,
        "crop": {"x": sample.crop_x, "y": sample.crop_y},
        "num_frames": sample.encoded_frames,
        "native_num_frames": clip.num_frames,
        "frames_left_out": sample.frames_left_out,
        **_known(sample, ("frames_resampled_away", "frames_repeated")),
        "fps": float(rate),
        "fps_rational": str(rate),
        "native_fps": clip.fps_num / clip.fps_den,
        "variable_rate": clip.variable_rate,
        "duration": sample.encoded_frames / float(rate) if rate else 0.0,
    }


def _reduced_json(clip: Clip, vae: VaeSpec) -> dict[str, JsonValue]:
    """What the displayed picture was made before the crop, where that was asked for."""
    size = reduced_size(clip.width, clip.height, vae.short_side)
    if vae.short_side is None or size is None:
        return {}
    return {"reduced": {"width": size[0], "height": size[1], "filter": vae.filter}}


def _latent_json(sample: Sample, encoder: VideoEncoder) -> dict[str, JsonValue]:
    return {
        "shape": list(sample.latent_shape),
        "dtype": "float16",
        "posterior": encoder.posterior,
        "normalised": encoder.normalised,
        "mean": list(encoder.latents_mean),
        "std": list(encoder.latents_std),
        "temporal_stride": encoder.temporal_stride,
        "spatial_stride": encoder.spatial_stride,
        "vae": encoder.identity(),
        "vae_fingerprint": encoder.fingerprint,
    }


def _known(row: Clip | Sample, names: Iterable[str]) -> dict[str, JsonValue]:
    """Columns that say something: where one came after the row, the JSON stays as it was."""
    values = {name: getattr(row, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _source_json(clip: Clip, source: Source) -> dict[str, JsonValue]:
    time_base = Fraction(clip.time_base_num, clip.time_base_den)
    return {
        # A file name need not be UTF-8; JSON must be.
        "uri": source.uri.encode("utf-8", "backslashreplace").decode(),
        "source_id": source.source_id,
        "version": source.version,
        "content_digest": source.content_digest,
        "start_pts": clip.start_pts,
        "end_pts": clip.end_pts,
        "time_base": str(time_base),
        "timing": clip.timing,
        "start_frame": clip.start_frame,
        "start_seconds": clip.start_seconds,
        "end_seconds": clip.end_seconds,
        "shot": clip.shot,
    }


def _pixels_json(source: Source, pixels: PixelSpec) -> dict[str, JsonValue]:
    """The pixel contract, and what it met in this source."""
    return {
        "contract": pixels.canonical(),
        "fingerprint": pixels.fingerprint,
        "color_matrix": source.color_matrix,
        "color_range": source.color_range,
        "color_transfer": source.color_transfer,
        "rotation_degrees": source.rotation_degrees,
        "mirrored": source.mirrored,
        "sample_aspect": f"{source.sample_aspect_num}:{source.sample_aspect_den}",
        "interlaced": source.interlaced,
    }
