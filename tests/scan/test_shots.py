"""Shots of whole sources: files whose shots were once found wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from telecine.infra.store.storage import Storage
from telecine.manifests.schemas import Source
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.scan.discover import Found, ScanTask
from telecine.pipeline.scan.worker import Scanned, scan_source
from tests.support.cases import case
from tests.support.movies import write_movie


def scan_file(path: Path) -> Scanned:
    info = Storage().stat(str(path))
    task = ScanTask(Found(info.uri, info.version, info.size_bytes), 0)
    scanned = scan_source(task, Storage(), DatasetSpec())
    source = scanned.source
    assert source.status == "scanned", source.detail
    assert source.num_frames == source.frames_kept + source.frames_dropped
    return scanned


def scan(name: str) -> Source:
    return scan_file(case(name)).source


def test_three_frames_with_a_cut_at_the_second() -> None:
    assert scan("three.gif").num_frames == 3


def test_short_runs_of_changing_size() -> None:
    assert scan("resize.webm").num_frames > 3


@pytest.mark.parametrize("name", ["doubled_24.mp4", "doubled_24_in_60.mp4", "doubled_15_in_60.mp4"])
def test_a_film_whose_pictures_are_repeated_is_one_shot(name: str) -> None:
    source = scan(name)
    assert source.num_shots == 1
    assert source.dropped == ()


def test_a_dissolve_and_a_fade_are_left_out_between_shots(tmp_path: Path) -> None:
    """40 frames of one picture, 60 of another and 30 of black, with 12 of each between."""
    shares = np.arange(1, 13)[:, None, None] / 13
    rng = np.random.default_rng(1)
    one, other = (rng.integers(30, 220, (6, 10)).repeat(16, 0).repeat(16, 1) for _ in range(2))
    black, grey = np.full_like(one, 16), np.full((48, 80), 128, np.uint8)
    still = [np.broadcast_to(one, (40, *one.shape)), np.broadcast_to(other, (60, *one.shape))]
    dissolve, fade = one * (1 - shares) + other * shares, other * (1 - shares) + black * shares
    luma = np.concatenate([still[0], dissolve, still[1], fade, [black] * 30]).astype(np.uint8)
    luma += rng.integers(0, 3, luma.shape, np.uint8)  # or it would be frozen
    path = tmp_path / "a.mp4"
    write_movie(path, [(picture, grey, grey) for picture in luma])
    scanned = scan_file(path)
    source, clips = scanned.source, scanned.clips
    assert source.num_shots == 3
    assert [span.reason for span in source.dropped] == ["transition", "transition", "black"]
    for span, start in zip(source.dropped, (40, 112, 124), strict=True):
        assert abs(span.start_frame - start) <= 2
    assert [clip.shot for clip in clips] == [0, 1]
    assert [clip.gradual_share for clip in clips] == [0, 0]
    assert all(clip.num_stills >= 3 for clip in clips)
