"""The records of families: told apart, and what the documents say of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from telecine.encoders.video.families.base import Family
from telecine.encoders.video.families.registry import FAMILIES, REFUSED, family_of

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_records_are_told_apart() -> None:
    samples = [sample.name for family in FAMILIES for sample in family.samples]
    assert len(set(samples)) == len(samples)
    for field in ("class_name", "name"):
        assert len({getattr(family, field) for family in FAMILIES}) == len(FAMILIES)
    assert not {family.class_name for family in FAMILIES} & REFUSED.keys()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_record_is_whole(family: Family) -> None:
    assert family_of(family.class_name) is family
    assert family.samples
    assert family.published
    assert (family.exact is None) != (family.window is None)


def rows() -> dict[str, list[str]]:
    """Of the table in docs/rebuild.md that says what memory each VAE needs."""
    text = (DOCS / "rebuild.md").read_text(encoding="utf-8")
    table = text.split("| VAE | streams |")[1].split("\n\n")[0]
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return {name: rest for first, *rest in cells for name in first.split(", ")}


def test_the_documents_tell_of_families_as_their_records_do() -> None:
    published = {name: family for family in FAMILIES for name in family.published}
    told = rows()
    assert told.keys() <= published.keys()
    specs = (DOCS / "specs.md").read_text(encoding="utf-8")
    for name, (streams, at_once, *_) in told.items():
        family = published[name]
        assert streams.startswith("exactly" if family.exact else "in windows"), name
        if family.window:
            stride = family.samples[0].temporal_stride
            assert int(at_once) == 1 + stride * family.window
            assert re.search(rf"{at_once} of {re.escape(name)}", specs), name
