"""docs/ARCHITECTURE.md names every module, in the words of the modules themselves."""

from __future__ import annotations

from tests.support.architecture import BEGIN, END, PAGE, folders, modules, with_listing
from tests.support.architecture import first_sentence as said


def test_the_page_lists_every_module_as_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert page == with_listing(page), "run: python -m tests.support.architecture"


def test_every_room_and_module_says_in_a_sentence_what_it_is() -> None:
    assert len(folders()) > 15
    paths = [path for f in folders() for path in (f / "__init__.py", *modules(f))]
    assert not [str(path) for path in paths if len(said(path)) < 15]
