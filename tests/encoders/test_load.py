"""Models by name: what is built in and what plug-ins add look alike to a spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from telecine.encoders import load
from telecine.encoders.caption.interface import Speaker
from telecine.encoders.plugin import PluginCaptioner
from telecine.infra import plugins
from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import fingerprint
from telecine.manifests.specs import CaptionSpec, ScoreSpec, VaeSpec
from telecine.testing.captioners import make_request
from tests.support.plugins import Install, install_into

PARROT = """
from telecine.encoders.caption.interface import Input, OneSpeaker, Outcome, reply
from telecine.encoders.kinds import CaptionerKind, RunsOn

class Parrot(OneSpeaker):
    name = "parrot"
    uses = frozenset({Input.STILLS})

    def __init__(self, spec, runtime):
        self.word = spec.captioner.partition(":")[2]

    def identity(self):
        return {"name": self.name, "word": self.word}

    def caption(self, requests):
        return [reply(r, self.speakers[0], Outcome.OK, self.word) for r in requests]

OFFER = CaptionerKind(
    rests=("WORD",), make=Parrot, options=frozenset({"prompt"}), runs_on=RunsOn.CPU
)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    monkeypatch.syspath_prepend(str(tmp_path))
    return install_into(tmp_path)


def test_a_plug_ins_captioner_is_asked_by_its_name(install: Install) -> None:
    install("telecine-parrot", "1.0", "parrot_a", PARROT, {plugins.CAPTIONERS: "parrot"})
    captioner = load.load_captioner(CaptionSpec(captioner="parrot:hello"))
    assert captioner.identity() == {
        "name": "parrot",
        "word": "hello",
        "plugin": {"distribution": "telecine-parrot", "version": "1.0"},
    }
    assert captioner.fingerprint == fingerprint(captioner.identity())
    (reply,) = captioner.caption([make_request()])
    assert (reply.text, reply.speaker) == ("hello", Speaker("parrot", captioner.fingerprint))
    assert captioner.speakers == (reply.speaker,)
    assert load.captioner_kind("parrot:hello").runs_on == "cpu"
    assert load.pin_captioner(CaptionSpec(captioner="parrot:hello")).weights is None
    assert load.absolute_captioner("parrot:hello") == "parrot:hello"


def test_another_version_or_distribution_of_a_plug_in_has_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for distribution, version in (("parrot", "1.0"), ("parrot", "1.1"), ("polly", "1.0")):
        folder = tmp_path / f"{distribution}-{version}"
        folder.mkdir()
        with monkeypatch.context() as patched:
            patched.syspath_prepend(str(folder))
            install_into(folder)(
                distribution, version, "parrot_b", PARROT, {plugins.CAPTIONERS: "parrot"}
            )
            captioner = load.load_captioner(CaptionSpec(captioner="parrot:hello"))
            seen.add(captioner.fingerprint)
    assert len(seen) == 3


def test_each_speaker_of_a_plug_in_is_called_by_it(install: Install) -> None:
    install("telecine-parrot", "1.0", "parrot_c", PARROT, {plugins.CAPTIONERS: "parrot"})
    (plugin,) = plugins.installed(plugins.CAPTIONERS)
    auto = load.load_captioner(CaptionSpec(captioner="auto"))
    called = PluginCaptioner(auto, plugin)
    assert [s.name for s in called.speakers] == [s.name for s in auto.speakers]
    assert not {s.fingerprint for s in called.speakers} & {s.fingerprint for s in auto.speakers}
    requests = [make_request(0), make_request(1, sidecar=None)]
    assert [r.speaker for r in called.caption(requests)] == list(called.speakers)


def test_what_a_plug_in_does_not_heed_is_refused(install: Install) -> None:
    install("telecine-parrot", "1.0", "parrot_d", PARROT, {plugins.CAPTIONERS: "parrot"})
    load.load_captioner(CaptionSpec(captioner="parrot:a", prompt="say"))
    with pytest.raises(UsageError, match=r"\[caption\] weights, temperature: parrot:a has no such"):
        load.load_captioner(CaptionSpec(captioner="parrot:a", temperature=1, weights="0"))


def test_what_is_built_in_refuses_what_it_does_not_heed() -> None:
    with pytest.raises(UsageError, match=r"\[vae\] tile: dct has no such option"):
        load.load_encoder(VaeSpec(tile=64))
    with pytest.raises(UsageError, match=r"\[caption\] prompt: signal has no such option"):
        load.load_captioner(CaptionSpec(captioner="signal", prompt="?"))


def test_a_name_that_nothing_has_is_refused_with_those_there_are(install: Install) -> None:
    install("telecine-parrot", "1.0", "parrot_e", PARROT, {plugins.CAPTIONERS: "parrot"})
    theirs = r"openai:MODEL, parrot \(plug-in of telecine-parrot 1\.0\) \(\[caption\] captioner"
    with pytest.raises(UsageError, match=rf"no captioner 'oracle'; choose one of auto, .*{theirs}"):
        load.load_captioner(CaptionSpec(captioner="oracle"))
    with pytest.raises(UsageError, match=r"no captioner 'parrot': .*parrot 1\.0 has parrot:WORD"):
        load.load_captioner(CaptionSpec(captioner="parrot"))
    for wrong in ("dct:x", "diffusers", "diffusers:"):
        with pytest.raises(UsageError, match=r"choose one of dct, diffusers:FOLDER, diffusers:HUB"):
            load.load_encoder(VaeSpec(encoder=wrong))


def test_an_entry_point_of_the_wrong_group_says_so(install: Install) -> None:
    install("telecine-parrot", "1.0", "parrot_f", PARROT, {plugins.SCORERS: "parrot"})
    with pytest.raises(UsageError, match=r"is a CaptionerKind: an entry point .* a ScorerKind"):
        load.load_scorer(ScoreSpec(scorer="parrot:x"))


def test_a_name_that_a_plug_in_shares_with_a_built_in_is_refused(install: Install) -> None:
    install("telecine-parrot", "1.0", "parrot_g", PARROT, {plugins.CAPTIONERS: "vlm"})
    with pytest.raises(UsageError, match=r"vlm is offered by Telecine itself and telecine-parrot"):
        load.load_captioner(CaptionSpec(captioner="vlm:anything"))
