"""Entry points of distributions that are really there: found, told apart, loaded when asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from telecine.infra import plugins
from telecine.infra.errors import UsageError
from tests.support.plugins import Install, install_into

GROUP = plugins.CAPTIONERS


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    monkeypatch.syspath_prepend(str(tmp_path))
    return install_into(tmp_path)


def test_what_is_installed_is_found_by_name_and_not_imported(install: Install) -> None:
    install("telecine-echo", "1.2", "echo_a", "raise SystemExit('imported')", {GROUP: "echo"})
    install("telecine-both", "0.1", "both_a", "", {GROUP: "both", plugins.SCORERS: "both"})
    names = [(p.name, str(p)) for p in plugins.installed(GROUP)]
    assert names == [("both", "telecine-both 0.1"), ("echo", "telecine-echo 1.2")]
    assert [p.name for p in plugins.installed(plugins.SCORERS)] == ["both"]
    found = plugins.find(GROUP, "echo", built_in=("auto",))
    assert found is not None
    assert found.identity() == {"distribution": "telecine-echo", "version": "1.2"}
    assert plugins.find(GROUP, "nobody") is None
    assert plugins.listed(GROUP, "{}:REST")[1] == "echo:REST (plug-in of telecine-echo 1.2)"
    assert "echo_a" not in sys.modules


def test_it_is_loaded_when_it_is_asked_for(install: Install) -> None:
    install("telecine-echo", "1.2", "echo_b", "OFFER = 7", {GROUP: "echo"})
    found = plugins.find(GROUP, "echo")
    assert found is not None
    assert found.load(int) == 7
    with pytest.raises(UsageError, match=r"telecine-echo 1\.2.*echo_b:OFFER is an int.*a Path"):
        found.load(Path)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError"),
        ("OTHER = 1", "AttributeError"),
        ("def (", "SyntaxError"),
    ],
)
def test_one_that_does_not_load_says_whose_it_is_and_why(
    code: str, why: str, install: Install
) -> None:
    module = f"broken_{why.partition(':')[0].lower()}"
    install("telecine-broken", "3", module, code, {GROUP: "broken"})
    found = plugins.find(GROUP, "broken")
    assert found is not None
    with pytest.raises(UsageError, match=f"broken is a plug-in of telecine-broken 3.*{why}"):
        found.load(object)


def test_a_name_with_two_meanings_is_refused_with_both(install: Install) -> None:
    install("telecine-one", "1", "one_c", "", {GROUP: "same"})
    install("telecine-two", "2", "two_c", "", {GROUP: "same"})
    with pytest.raises(UsageError, match="offered by telecine-one 1 and telecine-two 2"):
        plugins.find(GROUP, "same")
    install("telecine-three", "3", "three_c", "", {plugins.SCORERS: "openclip"})
    with pytest.raises(UsageError, match="offered by Telecine itself and telecine-three 3"):
        plugins.find(plugins.SCORERS, "openclip", built_in=("openclip",))
    assert plugins.find(plugins.ENCODERS, "dct", built_in=("dct",)) is None
