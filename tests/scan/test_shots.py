"""Shots of whole sources: files whose shots were once found wrong."""

from __future__ import annotations

import pytest

from telecine.infra.store.storage import Storage
from telecine.manifests.schemas import Source
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.scan.discover import Found, ScanTask
from telecine.pipeline.scan.worker import scan_source
from tests.support.cases import case


def scan(name: str) -> Source:
    info = Storage().stat(str(case(name)))
    task = ScanTask(Found(info.uri, info.version, info.size_bytes), 0)
    source = scan_source(task, Storage(), DatasetSpec()).source
    assert source.status == "scanned", source.detail
    assert source.num_frames == source.frames_kept + source.frames_dropped
    return source


def test_three_frames_with_a_cut_at_the_second() -> None:
    assert scan("three.gif").num_frames == 3


def test_short_runs_of_changing_size() -> None:
    assert scan("resize.webm").num_frames > 3


@pytest.mark.parametrize("name", ["doubled_24.mp4", "doubled_24_in_60.mp4", "doubled_15_in_60.mp4"])
def test_a_film_whose_pictures_are_repeated_is_one_shot(name: str) -> None:
    source = scan(name)
    assert source.num_shots == 1
    assert source.dropped == ()
