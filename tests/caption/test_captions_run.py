"""Captions of a server, from the stills to the samples: resumed, mixed, selected, repaired."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from telecine.infra.errors import ServerError, UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import open_dataset
from telecine.manifests.schemas import Caption
from telecine.manifests.tables import Tables
from telecine.pipeline import recipes
from telecine.pipeline.caption.step import BATCH_CLIPS_WITH_STILLS, CaptionOutcome
from telecine.pipeline.cli.inspect import inspect_summary
from telecine.pipeline.cli.options import given_caption
from tests.support import inline
from tests.support.chat_server import Answer, ChatServer, Received, completion
from tests.support.damage import verify
from tests.support.lab import Lab
from tests.support.movies import picture, write_movie
from tests.support.rows import turn
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

KEY = "sk-of-the-test-0123456789"
WINDOW = 1.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer(key=KEY) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of three seconds and eleven images, some with a sidecar; to be copied."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    write_movie(lab.footage / "film.mp4", [picture(frame) for frame in range(75)])
    for number in range(11):
        lab.image(f"{number}", seed=number)
        if number % 2:
            lab.text(f"{number}", f"Picture {number}.")
    lab.ingest()
    return lab.footage.parent


@pytest.fixture
def lab(made: Path, tmp_path: Path) -> Lab:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Lab(tmp_path)


def recaption(lab: Lab, config: str = "", **options: Any) -> CaptionOutcome:
    """`telecine caption`, in this process."""
    path = lab.dataset.parent / "caption.toml"
    path.write_text(f'[caption]\ncaptioner = "openai:tiny-vision"\n{config}')
    opened = open_dataset(str(lab.dataset), Storage())
    asked = dataclasses.replace(
        opened, spec=given_caption(opened.spec, path, options.pop("captioner", None))
    )
    return recipes.caption(inline.run_of(asked), **options)


def samples(lab: Lab) -> dict[str, tuple[dict[str, Any], str]]:
    """Of the current build: each one's JSON and text, by clip_id."""
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for path in {s.shard_path for s in lab.live() if s.outcome == "kept"}:
        with tarfile.open(lab.dataset / path) as tar:
            parts = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        for name, data in parts.items():
            if name.endswith(".json"):
                key = name.removesuffix(".json")
                found[key] = json.loads(data), parts[f"{key}.txt"].decode()
    return found


def test_captions_of_windows_go_into_the_sample(lab: Lab, server: ChatServer) -> None:
    outcome = recaption(lab, f"window_seconds = {WINDOW}\nprompt = 'Say what is there.'")
    assert outcome.outcomes == {"ok": 12}
    assert outcome.in_force
    assert len(server.asked) == 11 + 3
    built = inline.rebuild(str(lab.dataset))
    assert (built.samples, built.frames_encoded) == (12, 0)
    for facts, text in samples(lab).values():
        (caption,) = facts["captions"]
        assert text == facts["caption"] == caption["text"]
        assert caption["captioner"] == facts["captioner"] == "openai"
        windows = caption["windows"]
        if facts["kind"] == "image":
            assert windows == []
        else:
            assert [(w["start_seconds"], w["end_seconds"]) for w in windows] == [
                (0.0, 1.0), (1.0, 2.0), (2.0, 3.0),
            ]  # fmt: skip
            assert " ".join(w["text"] for w in windows) == text
    assert (
        recaption(lab, f"window_seconds = {WINDOW}\nprompt = 'Say what is there.'").outcomes == {}
    )


MIX = {"second": {"captioner": "sidecar"}, "second_share": 0.4, "none_share": 0.4}


def test_a_mix_of_captions_is_by_clip_id_and_survives_repair(lab: Lab, server: ChatServer) -> None:
    recaption(lab)
    recaption(lab, captioner="sidecar", choose=False)
    inline.rebuild(str(lab.dataset), {"caption_mix": MIX})
    found = samples(lab)
    turns = Counter[str]()
    for clip_id, (facts, text) in found.items():
        server_said, sidecar_said = facts["captions"]
        assert (server_said["captioner"], sidecar_said["captioner"]) == ("openai", "sidecar")
        expected = server_said["text"]
        if turn(clip_id) < 0.4:
            expected = ""
        elif turn(clip_id) < 0.8 and sidecar_said["text"]:
            expected = sidecar_said["text"]
        assert text == facts["caption"] == expected
        turns[facts["captioner"]] += 1
    assert len(turns) == 3, turns
    before = {p: p.read_bytes() for p in lab.dataset.glob("shards/**/*.tar")}
    current = lab.current()
    for sample in lab.live(current):
        (lab.dataset / sample.shard_path).unlink(missing_ok=True)
    repaired = verify(lab.dataset, repair=True)
    assert repaired.sound
    assert repaired.repaired is not None
    assert not repaired.repaired.replaced, "they are put back as they were"
    assert {p: p.read_bytes() for p in lab.dataset.glob("shards/**/*.tar")} == before


def test_another_second_caption_makes_its_shard_anew(lab: Lab, server: ChatServer) -> None:
    given = {"caption": {"captioner": "signal"}, "caption_mix": MIX}
    inline.recaption(str(lab.dataset), {"caption": {"captioner": "signal"}})
    first = inline.rebuild(str(lab.dataset), given)
    assert first.samples == 12
    assert all(len(facts["captions"]) == 1 for facts, _ in samples(lab).values()), "none was asked"
    inline.recaption(str(lab.dataset), {"caption": {"captioner": "sidecar"}})
    second = inline.rebuild(str(lab.dataset), given)
    assert second.build == first.build
    assert second.frames_encoded == 0
    assert all(len(facts["captions"]) == 2 for facts, _ in samples(lab).values())


def test_part_of_the_clips_do_not_choose_a_captioner(lab: Lab, server: ChatServer) -> None:
    part = recaption(lab, where="kind = 'video'")
    assert (part.outcomes, part.in_force, part.waiting) == ({"ok": 1}, False, 11)
    assert open_dataset(str(lab.dataset), Storage()).spec.caption.captioner == "auto"
    aside = recaption(lab, choose=False)
    assert (aside.outcomes, aside.in_force, aside.waiting) == ({"ok": 11}, False, 0)
    whole = recaption(lab, where="kind = 'video'")
    assert (whole.outcomes, whole.in_force) == ({}, True), "nobody waits any more"
    with pytest.raises(UsageError, match="takes none of the clips"):
        recaption(lab, where="width > 99999")


def test_a_server_that_goes_away_ends_the_run_and_loses_nothing(
    lab: Lab, server: ChatServer
) -> None:
    server.behave = lambda received: Answer(401, {"error": {"message": f"bad {KEY}"}})
    with pytest.raises(ServerError) as error:
        recaption(lab)
    assert KEY not in str(error.value)
    assert not [c for c in Tables(str(lab.dataset)).rows(Caption) if c.captioner == "openai"]
    server.behave = lambda received: Answer()
    assert recaption(lab).outcomes == {"ok": 12}


def test_what_a_server_answered_before_it_went_away_is_kept(lab: Lab, server: ChatServer) -> None:
    def five(received: Received) -> Answer:
        return Answer() if len(server.asked) <= 5 else Answer(404, {"error": {"message": "gone"}})

    server.behave = five
    with pytest.raises(ServerError):
        recaption(lab)
    kept = [c for c in Tables(str(lab.dataset)).rows(Caption) if c.captioner == "openai"]
    assert {c.outcome for c in kept} == {"ok"}
    server.behave = lambda received: Answer()
    assert recaption(lab).outcomes == {"ok": 12 - len(kept)}


def test_failures_are_asked_again_and_the_key_is_nowhere(lab: Lab, server: ChatServer) -> None:
    def fussy(received: Received) -> Answer:
        if not received.stills:
            return Answer()
        kind = hashlib.sha256(received.stills[0]).digest()[0] % 3
        if kind == 0:
            return Answer(400, {"error": {"message": f"too large, {received.headers!r}"}})
        return Answer(200, completion("I'm sorry, I can't.")) if kind == 1 else Answer()

    server.behave = fussy
    first = recaption(lab)
    assert first.outcomes.keys() == {"ok", "failed", "refused"}
    assert sum(first.outcomes.values()) == 12
    assert first.waiting == first.outcomes["failed"]
    server.behave = lambda received: Answer()
    second = recaption(lab)
    assert second.outcomes == {"ok": first.outcomes["failed"]}
    for path in lab.dataset.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    assert not any(KEY in f"{c.text} {c.detail}" for c in Tables(str(lab.dataset)).rows(Caption))


def test_the_same_text_on_many_clips_is_an_alarm(lab: Lab, server: ChatServer) -> None:
    def alarm() -> str:
        out = io.StringIO()
        opened = open_dataset(str(lab.dataset), Storage())
        inspect_summary(opened, False, Console(file=out, width=200))
        return out.getvalue()

    recaption(lab)
    assert "alarm" not in alarm()
    server.behave = lambda received: Answer(200, completion("A picture."))
    recaption(lab, "prompt = 'Say it again.'")
    assert "alarm: 12 of 12 captions of openai" in alarm()
    assert "say the same: A picture." in alarm()


# ── killed ───────────────────────────────────────────────────────────────────────────────────────


def run_caption(lab: Lab) -> subprocess.Popen[bytes]:
    at_once = "import telecine.pipeline.commit; telecine.pipeline.commit.COMMIT_SECONDS = 0.0"
    words = [
        "-c",
        f"{at_once}\nfrom telecine.pipeline.cli.main import main; main()",
        "caption",
        str(lab.dataset),
    ]
    words += ["--captioner", "openai:tiny-vision", "--workers", "1", "--concurrency", "4"]
    return subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


def stills_of(requests: Sequence[Received]) -> Counter[bytes]:
    return Counter(r.stills[0] for r in requests)


def test_killed_in_the_middle_and_run_again(tmp_path: Path, server: ChatServer) -> None:
    """On Ray, by the command: what was committed is not asked again, and nothing is left out."""
    lab = Lab(tmp_path)
    clips = 2 * BATCH_CLIPS_WITH_STILLS + 9
    for number in range(clips):
        lab.image(f"{number:03}", seed=number)
    lab.ingest()
    slow_from = BATCH_CLIPS_WITH_STILLS + 5
    server.behave = lambda received: Answer(
        delay_seconds=PATIENCE * (len(server.asked) > slow_from)
    )
    process = run_caption(lab)
    try:
        until(lambda: len(server.asked) > slow_from, process)
        until(lambda: _committed(lab), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = _committed(lab)
    assert 0 < len(before) < clips
    asked = len(server.asked)
    server.behave = lambda received: Answer()
    again = run_caption(lab)
    _, said = again.communicate()
    assert again.returncode == 0, said.decode()
    rows = [c for c in Tables(str(lab.dataset)).rows(Caption) if c.captioner == "openai"]
    assert len(rows) == len({c.clip_id for c in rows}) == clips
    assert {c.outcome for c in rows} == {"ok"}
    second = stills_of(server.asked[asked:])
    assert sum(second.values()) == clips - len(before)
    assert max(second.values()) == 1


def _committed(lab: Lab) -> set[str]:
    rows = Tables(str(lab.dataset)).rows(Caption)
    return {c.clip_id for c in rows if c.captioner == "openai"}
