"""A condition in its parts: which of them are true of a clip, and of what values they speak."""

from __future__ import annotations

from pathlib import Path

from telecine.manifests.queries import connect
from telecine.manifests.tables import Tables
from telecine.pipeline.catalog.conditions import Part, judged
from tests.support.rows import make_clip


def test_a_condition_in_its_parts(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    tables.append("clips", [make_clip(motion=0.5, dominant_colors=("red", "blue"))])
    con = connect(tables)

    def parts(where: str) -> tuple[Part, ...]:
        (found,) = judged(con, "clips", where).values()
        return found

    assert parts("motion > 0.1 -- a remark") == (Part("motion > 0.1", True, {"motion": 0.5}),)
    assert parts("true") == (Part("true", True, {}),)
    nested = parts("(Width = 640 AND height > 999) AND NOT (kind = 'image' AND shot = 0)")
    assert [(p.sql, p.true) for p in nested] == [
        ("Width = 640", True), ("height > 999", False),
        ("NOT ((kind = 'image') AND (shot = 0))", True),
    ]  # fmt: skip
    assert nested[0].values == {"width": 640}
    listed = parts("list_contains(dominant_colors, 'red') AND clips.shot BETWEEN 1 AND 2")
    assert [(p.true, p.values) for p in listed] == [
        (True, {"dominant_colors": ["red", "blue"]}), (False, {"shot": 0}),
    ]  # fmt: skip
    failing, other = parts("kind::INTEGER > 3 AND width > 1")
    assert (failing.true, failing.values, other.true) == (None, {"kind": "video"}, True)
    assert "Could not convert string 'video'" in failing.error
    assert parts("contains(kind, ')') OR ')' = kind")[0].true is False
