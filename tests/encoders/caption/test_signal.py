"""The sentences of `signal`: every word follows from a measurement, and from its sign."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telecine.encoders.caption import signal
from telecine.encoders.caption.interface import ClipFacts, Outcome
from telecine.encoders.caption.signal import SignalCaptioner, describe
from telecine.manifests.schemas import Clip, arrow_schema
from telecine.pipeline.scan.camera.similarity import View, fit
from telecine.testing.captioners import make_facts, make_request
from tests.support.camerawork import Pose, shot


def said(**facts: Any) -> str:
    return describe(make_facts(**facts))


def test_a_whole_caption() -> None:
    text = said(
        duration_seconds=4.2, width=1280, height=720, camera_x=0.1, brightness=0.2, contrast=0.3,
        change=0.5, dominant_colors=("grey", "blue", "black"),
    )  # fmt: skip
    assert text == (
        "A landscape video of 4.2 seconds, 1280 by 720 pixels; the camera pans slowly to the left "
        "and there is little motion in the picture. The picture is dim, with high contrast and "
        "muted colors, mostly grey, blue and black; it changes a lot from the beginning of the "
        "shot to its end."
    )


def test_a_still_image_has_no_length_camera_motion_or_change() -> None:
    text = said(kind="image", width=768, height=1024, dominant_colors=("red",))
    assert text == (
        "A portrait still image, 768 by 1024 pixels. The picture is moderately bright, with medium "
        "contrast and muted colors, mostly red."
    )


# The column's own words: right > 0, down > 0, of the picture. The camera goes the other way.
@pytest.mark.parametrize(
    ("camera_x", "camera_y", "words"),
    [
        (0.0, 0.0, "the camera does not pan or tilt"),
        (0.019, -0.019, "the camera does not pan or tilt"),
        (0.1, 0.0, "the camera pans slowly to the left"),
        (-0.1, 0.0, "the camera pans slowly to the right"),
        (0.3, 0.0, "the camera pans fast to the left"),
        (-0.25, 0.01, "the camera pans fast to the right"),
        (0.0, 0.1, "the camera tilts slowly up"),
        (0.0, -0.1, "the camera tilts slowly down"),
        (0.04, 0.5, "the camera tilts fast up"),
        (-0.1, -0.1, "the camera pans slowly to the right and tilts down"),
        (0.6, 0.4, "the camera pans fast to the left and tilts up"),
        (0.025, 0.018, "the camera pans slowly to the left"),
    ],
)
def test_the_camera_goes_against_the_drift_of_the_picture(
    camera_x: float, camera_y: float, words: str
) -> None:
    assert f"; {words} and there is" in said(camera_x=camera_x, camera_y=camera_y)


def test_the_signs_are_those_of_the_table() -> None:
    columns = arrow_schema(Clip)
    for name, sign in (("camera_x", "right > 0"), ("camera_y", "down > 0")):
        text = columns.field(name).metadata[b"text"].decode()
        assert "drift of the whole picture" in text
        assert f", {sign}" in text


@pytest.mark.parametrize(
    ("right", "down", "words"),
    [(4, 0, "pans fast to the left"), (-4, 0, "pans fast to the right"),
     (0, 4, "tilts fast up"), (0, -4, "tilts fast down")],
)  # fmt: skip
def test_the_signs_are_those_of_the_measurement(right: int, down: int, words: str) -> None:
    before, after = shot([Pose(), Pose(right / 64, down / 36)])  # what is shown moves by that
    views = [View(luma.round().astype(np.uint8)) for luma in (before, after)]
    found = fit(views[:1], views[1:], np.array([[right / 2, down / 2]]))
    assert words in said(camera_x=float(found.x[0]), camera_y=float(found.y[0]))


def test_of_what_is_unknown_nothing_is_said() -> None:
    unknown = {"camera_x": None, "camera_y": None}
    assert "640 by 360 pixels; there is little motion in the picture. The" in said(**unknown)
    text = said(**unknown, subject_motion=None)
    assert text.startswith("A landscape video of 2 seconds, 640 by 360 pixels. The picture is")
    assert "camera" not in text
    assert "; the camera does not pan or tilt. The picture" in said(subject_motion=None)
    (reply,) = SignalCaptioner().caption([make_request(facts=make_facts(**unknown))])
    assert reply.outcome is Outcome.OK


def test_facts_are_columns_of_a_clip_by_name_and_type() -> None:
    clip = Clip.__annotations__
    assert {name: clip.get(name) for name in ClipFacts.__annotations__} == ClipFacts.__annotations__


@pytest.mark.parametrize(
    ("fact", "scale"),
    [
        ("subject_motion", signal.SUBJECT_MOTION),
        ("brightness", signal.BRIGHTNESS),
        ("contrast", signal.CONTRAST),
        ("saturation", signal.SATURATION),
        ("change", signal.CHANGE),
    ],
)
def test_a_scale_names_each_of_its_ranges(fact: str, scale: signal.Scale) -> None:
    limits = [limit for limit, _ in scale]
    assert limits == sorted(set(limits))
    lower = 0.0
    for limit, name in scale:
        assert re.search(rf"\b{name}\b", said(**{fact: lower}))
        assert re.search(rf"\b{name}\b", said(**{fact: math.nextafter(min(limit, 1.0), 0)}))
        lower = limit


@pytest.mark.parametrize(
    ("width", "height", "word"),
    [(640, 360, "landscape"), (360, 640, "portrait"), (500, 500, "square"), (640, 628, "square"),
     (640, 627, "landscape"), (627, 640, "portrait")],
)  # fmt: skip
def test_orientation(width: int, height: int, word: str) -> None:
    assert said(width=width, height=height).startswith(f"A {word} video")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.0, "1 second"), (1.04, "1 second"), (1.06, "1.1 seconds"), (59.96, "60 seconds"),
     (0.25, "0.25 seconds"), (10.0, "10 seconds")],
)  # fmt: skip
def test_length(seconds: float, words: str) -> None:
    assert f" of {words}, " in said(duration_seconds=seconds)


def test_colors_are_listed_as_people_do() -> None:
    assert "mostly" not in said(dominant_colors=())
    assert ", mostly red; " in said(dominant_colors=("red",))
    assert ", mostly red and teal; " in said(dominant_colors=("red", "teal"))


@pytest.mark.parametrize("fact", ["camera_x", "change", "brightness", "duration_seconds"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_measurement_that_is_no_number_is_not_put_into_words(fact: str, value: float) -> None:
    (reply,) = SignalCaptioner().caption([make_request(facts=make_facts(**{fact: value}))])
    assert reply.outcome is Outcome.FAILED
    assert f"{fact}={value}" in reply.detail


# Every word that the sentences may hold. A content word would have to be added here first.
VOCABULARY = (
    "a and there is in the it to from of with video still image seconds second by pixels picture "
    "landscape portrait square camera pans tilts slowly fast left right up down almost no little "
    "some lot motion dark dim moderately bright low medium high contrast hardly any color muted "
    "moderate vivid colors mostly changes somewhat beginning shot its end does not pan tilt or"
)

measure = st.floats(0, 1)
speed = st.none() | st.floats(-3, 3)
facts = st.builds(
    ClipFacts, kind=st.sampled_from(["video", "image"]), duration_seconds=st.floats(0.01, 60),
    width=st.integers(16, 8192), height=st.integers(16, 8192), camera_x=speed, camera_y=speed,
    subject_motion=st.none() | measure, change=measure, brightness=measure, contrast=measure,
    saturation=measure, dominant_colors=st.just(()),
)  # fmt: skip


@given(facts)
def test_sentences_hold_only_words_for_what_was_measured(facts: ClipFacts) -> None:
    text = describe(facts)
    words = re.findall(r"[a-z]+", re.sub(r"[0-9]+(\.[0-9]+)?(e-[0-9]+)?", "", text.lower()))
    assert set(words) <= set(VOCABULARY.split())
    assert len(re.findall(r"\.(?: |$)", text)) == 2
    assert text == describe(facts)


def test_thresholds_and_words_are_part_of_the_identity() -> None:
    identity = str(SignalCaptioner().identity())
    scales = (signal.SUBJECT_MOTION, signal.BRIGHTNESS, signal.CONTRAST, signal.CHANGE)
    for limit, word in (entry for scale in scales for entry in scale):
        assert word in identity
        assert str(limit) in identity or limit == math.inf
    assert str([signal.CAMERA_STILL, signal.CAMERA_FAST, signal.CAMERA_AXIS_SHARE]) in identity
