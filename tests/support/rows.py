"""Rows with plain defaults for tests that care about a few columns."""

from __future__ import annotations

import hashlib
from typing import Any

from telecine.manifests.schemas import Build, Caption, Clip, Sample, Source, Still


def make_clip(**changes: Any) -> Clip:
    """Two seconds of 640×360 at 25 frames per second, unless told otherwise."""
    facts: dict[str, Any] = {
        "clip_id": "c" * 32, "source_id": "s" * 32, "scan_fingerprint": "f", "kind": "video",
        "shot": 0, "start_frame": 0, "num_frames": 50, "start_pts": 0,
        "time_base_num": 1, "time_base_den": 25, "timing": "pts", "fps_num": 25, "fps_den": 1,
        "variable_rate": False, "width": 640, "height": 360, "num_stills": 3,
        "stills_digest": "d", "motion": 0.1, "temporal_information": 10.0,
        "spatial_information": 40.0, "camera_x": 0.0, "camera_y": 0.0, "subject_motion": 0.05,
        "change": 0.1, "brightness": 0.5, "contrast": 0.2, "saturation": 0.3, "sharpness": 2.0,
        "black_share": 0.0, "frozen_share": 0.0, "letterbox_left": 0, "letterbox_right": 0,
        "letterbox_top": 0, "letterbox_bottom": 0, "dominant_colors": ("grey",),
    }  # fmt: skip
    facts.update(changes)
    if facts["kind"] == "image":
        facts.update(num_frames=1, time_base_den=1, fps_num=0)
    facts.setdefault("end_pts", facts["start_pts"] + facts["num_frames"])
    seconds = (facts["end_pts"] - facts["start_pts"]) / facts["time_base_den"]
    facts.setdefault("duration_seconds", 0.0 if facts["kind"] == "image" else seconds)
    return Clip(**facts)


def make_source(**changes: Any) -> Source:
    facts: dict[str, Any] = {
        "uri": "/footage/a.mp4", "revision": 0, "source_id": "s" * 32, "version": "1",
        "size_bytes": 1000, "kind": "video", "status": "scanned", "scan_fingerprint": "f",
        "num_frames": 50, "frames_kept": 50, "num_shots": 1, "num_clips": 1,
    }  # fmt: skip
    return Source(**{**facts, **changes})


def make_still(**changes: Any) -> Still:
    facts: dict[str, Any] = {
        "clip_id": "c" * 32, "source_id": "s" * 32, "position": 0, "pts": 0, "seconds": 0.0,
        "width": 384, "height": 216, "jpeg": b"\xff\xd8",
    }  # fmt: skip
    return Still(**{**facts, **changes})


def make_caption(**changes: Any) -> Caption:
    facts: dict[str, Any] = {
        "clip_id": "c" * 32, "captioner": "signal", "captioner_fingerprint": "f",
        "input_digest": "d", "outcome": "ok", "text": "A still shot.",
    }  # fmt: skip
    return Caption(**{**facts, **changes})


def make_sample(**changes: Any) -> Sample:
    """Kept, in the bucket 360/16x9/2s."""
    facts: dict[str, Any] = {
        "build_id": "b" * 32, "plan": 0, "clip_id": "c" * 32, "outcome": "kept",
        "text_digest": "t", "captions_digest": "t", "shard_id": "d" * 32, "shard_bytes": 10_000,
        "resolution": 360,
        "aspect": "16x9", "duration": "2s", "latent_bytes": 1000, "latent_shape": (16, 13, 45, 80),
        "encoded_frames": 49, "frames_left_out": 1, "fps_num": 25, "fps_den": 1,
    }  # fmt: skip
    return Sample(**{**facts, **changes})


def make_build(**changes: Any) -> Build:
    facts: dict[str, Any] = {
        "build_id": "b" * 32, "name": "dct-bbbbbbbb", "sequence": 0, "event": "planned", "plan": 0,
        "plan_digest": "d", "num_shards": 1, "num_samples": 1, "retry": False,
        "sources_version": 0, "clips_version": 0, "captions_version": 0, "scores_version": -1,
        "duplicates_version": -1, "samples_version": -1, "builds_version": -1,
        "vae": '{"name":"dct"}', "vae_fingerprint": "v", "pixel_fingerprint": "p",
        "latents_fingerprint": "l", "follows": "", "spec": "{}",
    }  # fmt: skip
    return Build(**{**facts, **changes})


def turn(clip_id: str) -> float:
    """The clip's place in a mix of captions, from 0 to 1."""
    return int(hashlib.sha256(f"caption_mix {clip_id}".encode()).hexdigest()[:13], 16) / 2**52
