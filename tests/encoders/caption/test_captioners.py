"""What every captioner promises, and what `auto` makes of two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from telecine.encoders.caption.interface import (
    Captioner,
    Outcome,
    clean_text,
)
from telecine.encoders.load import load_captioner, pin_captioner
from telecine.encoders.runtime import ModelRuntime
from telecine.infra.errors import UsageError
from telecine.manifests.specs import CaptionSpec
from telecine.testing.captioners import CaptionerContract, every_request, seen_request
from tests.support import vlm_models
from tests.support.chat_server import ChatServer
from tests.support.openclip_models import COCA, save_folder, tiny

SPECS = ("auto", "sidecar", "signal")
MODELS = ("openclip", "vlm", "openai")


def load(name: str) -> Captioner:
    return load_captioner(CaptionSpec(captioner=name))


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Callable[[], Captioner]]]:
    """Small random models on disk, and a server, each loaded anew by a call."""
    folder = tmp_path_factory.mktemp("models")
    save_folder(tiny(COCA), COCA, folder / "coca")
    vlm_models.save(folder / "vlm", "qwen25")
    with ChatServer() as server:
        captioners = {
            "openclip": f"openclip:{folder / 'coca'}",
            "vlm": f"vlm:{folder / 'vlm'}",
            "openai": "openai:tiny-vision",
        }
        runtime = ModelRuntime(url=server.url)
        yield {
            name: partial(
                load_captioner,
                CaptionSpec(captioner=spec, max_tokens=8, window_seconds=1.0, **options),
                runtime,
            )
            for name, spec in captioners.items()
            for options in [{} if name == "openai" else {"dtype": "float32"}]
        }


class TestEveryCaptioner(CaptionerContract):
    @pytest.fixture(params=[*SPECS, *MODELS])
    def make(
        self, request: pytest.FixtureRequest, models: dict[str, Callable[[], Captioner]]
    ) -> Callable[[], Captioner]:
        return models.get(request.param) or partial(load, request.param)


def test_captioners_differ_in_fingerprint(models: dict[str, Callable[[], Captioner]]) -> None:
    found = {load(spec).fingerprint for spec in SPECS} | {
        make().fingerprint for make in models.values()
    }
    assert len(found) == len(SPECS) + len(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_fails_where_a_still_is_missing_or_broken_and_nowhere_else(
    name: str, models: dict[str, Callable[[], Captioner]]
) -> None:
    replies = models[name]().caption(every_request())
    failed = {r.clip_id for r in replies if r.outcome is Outcome.FAILED}
    assert failed == ({"clip4"} if name == "openai" else {"clip4", "clip6"}), "a server may mind"


@pytest.mark.parametrize("name", ["openclip", "vlm"])
def test_what_captions_are_called_is_known_without_the_model(
    name: str, models: dict[str, Callable[[], Captioner]], tmp_path: Path
) -> None:
    there: Any = models[name]
    spec: CaptionSpec = there.args[0]
    pinned = pin_captioner(spec)
    assert pinned.weights
    kind, _, _ = spec.captioner.partition(":")
    away = pinned.model_copy(update={"captioner": f"{kind}:{tmp_path / 'away'}"})
    assert load_captioner(away).fingerprint == there().fingerprint
    with pytest.raises(UsageError):
        load_captioner(away).caption([seen_request(0)])
    other = load_captioner(pinned.model_copy(update={"weights": "0" * 64}))
    with pytest.raises(UsageError, match=r"nam(e|ing) it again"):
        other.caption([seen_request(0)])


def test_an_unknown_captioner_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no captioner 'oracle'; choose one of auto, sidecar, s"):
        load("oracle")


# ── auto ─────────────────────────────────────────────────────────────────────────────────────────


def test_auto_is_the_sidecar_where_it_has_a_text_and_else_signal() -> None:
    auto, sidecar, signal = map(load, SPECS)
    assert auto.speakers == (*sidecar.speakers, *signal.speakers)
    asked = every_request()
    spoke = [reply.speaker.name for reply in auto.caption(asked)]
    assert spoke == [
        *("sidecar", "signal", "signal", "signal"),
        *("sidecar", "signal", "sidecar", "sidecar"),
    ]
    for reply, by_sidecar, by_signal in zip(
        auto.caption(asked), sidecar.caption(asked), signal.caption(asked), strict=True
    ):
        expected = by_sidecar if reply.speaker.name == "sidecar" else by_signal
        assert (reply.outcome, reply.text) == (expected.outcome, expected.text)


def test_auto_keeps_why_a_sidecar_failed_but_not_that_there_is_none() -> None:
    replies = load("auto").caption(every_request())
    assert replies[1].detail == ""
    assert replies[2].detail.startswith("sidecar failed: a.json is malformed JSON: Expecting")
    assert replies[3].detail == ""
    assert replies[5].detail == "sidecar failed: a.exe holds binary data, not text"


# ── text ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("  a\t b\r\n\u2028c\u00a0d ", "a b c d"),
        ("a\x00b\x1b[0m\x9dc\ufeff", "ab[0mc"),
        ("\u202eevil\u202c\u2066x\u2069", "evilx"),
        ("lone \ud83d surrogate", "lone surrogate"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),
        ("\x85\x0b\x0c", ""),
    ],
)
def test_clean_text_is_one_line_that_any_table_can_hold(given: str, cleaned: str) -> None:
    assert clean_text(given) == cleaned
    assert clean_text(cleaned) == cleaned
    cleaned.encode()
