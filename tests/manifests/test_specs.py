"""Specs: what is refused, what is said, and that every key is documented."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from telecine.infra.errors import CommitError, UsageError
from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import create_dataset, open_dataset, parse_spec, replace_spec
from telecine.manifests.specs import DatasetSpec, PixelSpec, ScanSpec, TrackSpec

DOCS = Path(__file__).resolve().parents[2] / "docs" / "specs.md"


def keys(value: Any, prefix: str = "") -> set[str]:
    if not isinstance(value, dict) or not value:
        return {prefix}
    return {k for n, v in value.items() for k in keys(v, f"{prefix}.{n}" if prefix else n)}


def test_every_key_is_documented_and_no_other() -> None:
    documented = {
        line.split("`")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `")
    }
    tracks = {f"tracks.<name>.{key}" for key in TrackSpec.model_fields} | {"tracks.<name>"}
    known = keys(DatasetSpec().model_dump(mode="json")) - {"tracks", "renditions"}
    assert documented - tracks - {"renditions.NAME"} == known
    assert documented >= tracks


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[scan]\nmin_second = 2", "scan.min_second: unknown key"),
        ("[scan]\nmin_seconds = -1", "greater than 0"),
        ("[scan]\nmin_seconds = 40", "at least twice"),
        ('[vae]\nfps = "fast"', "no frame rate"),
        ("[buckets]\nresolutions = [480, 240]", "must rise"),
        ('[buckets]\naspects = ["wide"]', "write width:height"),
        ('[tracks.text]\ncolumns = ["x"]\nrule = "sum"', "none of latent, text"),
        ('[tracks.action]\ncolumns = ["x"]\nrule = "median"', "tracks.action.rule"),
        ("[scan", "is not TOML"),
    ],
)
def test_a_wrong_spec_is_refused_by_key(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_spec(text, "my.toml")


def test_a_dataset_keeps_the_spec_it_was_made_with(tmp_path: Path) -> None:
    folder = str(tmp_path / "d")
    given = parse_spec('[scan]\nmin_seconds = 2\n[vae]\nfps = "24"', "my.toml")
    create_dataset(folder, Storage(), given)
    assert open_dataset(folder, Storage()).spec == given
    assert create_dataset(folder, Storage(), None).spec == given
    # A key that is not given does not contradict.
    assert create_dataset(folder, Storage(), parse_spec("[scan]", "my.toml")).spec == given
    with pytest.raises(UsageError, match=r"scan.min_seconds: the dataset has 2.0, given 3.0"):
        create_dataset(folder, Storage(), parse_spec("[scan]\nmin_seconds = 3", "my.toml"))


def test_no_dataset_is_a_clear_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no dataset at"):
        open_dataset(str(tmp_path / "nothing"), Storage())


def test_the_fingerprint_of_the_default_spec() -> None:
    """A change of this value makes every dataset's clips new: is it meant?"""
    assert DatasetSpec().scan_fingerprint == (
        "6f688c6b4e90dbbd6cb220cfe6d907fd712786ec523579d8df88a108cbe58ae4"
    )


def test_a_spec_of_the_first_version_is_called_what_it_was() -> None:
    """Keys that came later are no part of it while they are left alone."""
    spec = DatasetSpec(scan=ScanSpec(version=1), pixels=PixelSpec(version=1))
    assert spec.scan_fingerprint == (
        "b35f2502dfc2f286aa4d0fc766bdefe60fe84d6a2077f356f55ca9509d52993b"
    )
    assert spec.pixels.fingerprint == (
        "c67861b7842fcd407ae56b56ff17b2099ede00d38c98889bc5701022536c1b32"
    )


def test_another_spec_in_force_is_written_once(tmp_path: Path) -> None:
    dataset = create_dataset(str(tmp_path), Storage(), None)
    file = tmp_path / "telecine.toml"
    other = dataset.spec.overlaid({"vae": {"fps": "24"}})
    assert replace_spec(dataset, other).spec == other
    assert open_dataset(str(tmp_path), Storage()).spec == other
    file.write_text("# mine\n" + file.read_text())
    replace_spec(dataset, other)
    assert file.read_text().startswith("# mine")


def test_a_spec_that_changed_since_it_was_read_is_left_alone(tmp_path: Path) -> None:
    create_dataset(str(tmp_path), Storage(), None)
    one, other = (open_dataset(str(tmp_path), Storage()) for _ in range(2))
    signal = one.spec.overlaid({"caption": {"captioner": "signal"}})
    there = replace_spec(other, signal)
    for asked in (one.spec, one.spec.overlaid({"vae": {"fps": "24"}})):
        with pytest.raises(CommitError, match=r"(?s)has 'signal', given 'auto'.*Run again"):
            replace_spec(dataclasses.replace(one, spec=asked), asked)
    assert open_dataset(str(tmp_path), Storage()).spec == signal
    assert replace_spec(one, signal).spec == signal  # both want the same
    assert replace_spec(there, one.spec).spec == one.spec  # what it wrote itself is no news


def test_a_dataset_keeps_its_scan_and_pixels(tmp_path: Path) -> None:
    dataset = create_dataset(str(tmp_path), Storage(), parse_spec("[scan]\nmin_seconds = 2", "x"))
    for other in (DatasetSpec(), dataset.spec.overlaid({"pixels": {"hdr": "reject"}})):
        with pytest.raises(UsageError, match=r"scan\.min_seconds|pixels\.hdr"):
            replace_spec(dataset, other)
    assert open_dataset(str(tmp_path), Storage()).spec == dataset.spec
