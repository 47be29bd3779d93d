"""Stills in a terminal: what each kind of terminal is sent is the picture, and nothing else is."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from telecine.pipeline.terminal.pictures import (
    CELL,
    CHUNK,
    GAP,
    MOST,
    TALLEST,
    WIDEST,
    Drawing,
    Shown,
    draw,
    drawing,
    layout,
)

XTERM = {"TERM": "xterm-256color"}
KITTY = {"TERM": "xterm-kitty"}
ITERM2 = {"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}
COLOR = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀")


def console(width: int = 100, colors: str | None = "truecolor", terminal: bool = True) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=terminal,
        color_system=colors,  # type: ignore[arg-type]
        _environ={},
    )


def still(seed: int, size: tuple[int, int] = (320, 180), seconds: float = 0.0) -> Shown:
    """Smooth, so that it survives being scaled."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return Shown(seconds, file.getvalue())


def drawn(stills: list[Shown], environment: dict[str, str], screen: Console) -> str:
    draw(stills, screen, environment)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def opened(shown: Shown, size: tuple[int, int]) -> np.ndarray:
    picture = Image.open(io.BytesIO(shown.jpeg)).convert("RGB")
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


# ── what a terminal can show ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (XTERM, Drawing.BLOCKS),
        (KITTY, Drawing.KITTY),
        (XTERM | {"KITTY_WINDOW_ID": "1"}, Drawing.KITTY),
        ({"TERM": "xterm-ghostty"}, Drawing.KITTY),
        (ITERM2, Drawing.ITERM2),
        (XTERM | {"TERM_PROGRAM": "WezTerm"}, Drawing.ITERM2),
        (XTERM | {"TERM_PROGRAM": "Apple_Terminal"}, Drawing.BLOCKS),
        (KITTY | {"TMUX": "/tmp/tmux-0/default,1,0"}, Drawing.BLOCKS),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, Drawing.BLOCKS),
        (KITTY | {"NO_COLOR": "1"}, Drawing.NOTHING),
        (XTERM | {"NO_COLOR": ""}, Drawing.BLOCKS),
    ],
)
def test_the_environment_says_how(environment: dict[str, str], expected: Drawing) -> None:
    assert drawing(console(), environment) is expected


def test_nothing_is_drawn_where_it_would_be_no_picture() -> None:
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    for screen in (console(terminal=False), console(colors="standard"), console(colors=None), dumb):
        assert drawing(screen, XTERM) is Drawing.NOTHING
        assert drawn([still(1)], XTERM, screen) == ""
    assert drawing(console(terminal=False), KITTY) is Drawing.NOTHING
    assert drawn([], KITTY, console()) == ""


# ── the row ──────────────────────────────────────────────────────────────────────────────────────


@given(
    st.integers(1, 200), st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 500)
)  # fmt: skip
def test_a_row_fits_the_terminal(count: int, width: int, height: int, cells: int) -> None:
    plan = layout(count, (width, height), cells)
    assert plan.width <= cells
    assert 1 <= len(plan.places) <= min(count, MOST)
    assert list(plan.places) == sorted(set(plan.places))
    assert all(0 <= place < count for place in plan.places)
    assert 1 <= plan.columns <= WIDEST
    assert 1 <= plan.rows <= TALLEST


def test_a_row_keeps_the_shape_of_the_stills() -> None:
    """A cell is twice as high as it is wide."""
    wide, tall = layout(3, (384, 216), 120), layout(3, (216, 384), 120)
    for plan, aspect in ((wide, 16 / 9), (tall, 9 / 16)):
        assert plan.columns / (2 * plan.rows) == pytest.approx(aspect, rel=0.06)
    assert wide.places == (0, 1, 2)
    assert len(layout(64, (384, 216), 40).places) == 2  # evenly, not the first ones
    assert layout(64, (384, 216), 40).places == (16, 48)


# ── half blocks ──────────────────────────────────────────────────────────────────────────────────


def test_half_blocks_are_the_picture() -> None:
    shown = still(1)
    lines = drawn([shown], XTERM, console()).splitlines()
    plan = layout(1, (320, 180), 100)
    assert len(lines) == plan.rows + 1
    pairs = [[tuple(map(int, found)) for found in COLOR.findall(line)] for line in lines[:-1]]
    expected = opened(shown, (plan.columns, 2 * plan.rows))
    for row, cells in enumerate(pairs):
        upper, lower = expected[2 * row], expected[2 * row + 1]
        assert [cell[:3] for cell in cells] == [tuple(map(int, p)) for p in upper]
        assert [cell[3:] for cell in cells] == [tuple(map(int, p)) for p in lower]


def test_half_blocks_come_in_256_colors_too() -> None:
    text = drawn([still(1)], XTERM, console(colors="256"))
    assert re.search(r"\x1b\[38;5;\d+;48;5;\d+m▀", text)
    assert "38;2;" not in text


def test_times_stand_under_their_stills() -> None:
    stills = [still(n, seconds=n / 3) for n in range(3)]
    lines = drawn(stills, XTERM, console()).splitlines()
    plan = layout(3, (320, 180), 100)
    step = plan.columns + GAP
    assert [lines[-1].index(text) for text in ("0.00 s", "0.33 s", "0.67 s")] == [0, step, 2 * step]
    clear = re.sub(r"\x1b\[[0-9;]*m", "", lines[0])
    assert clear == ("▀" * plan.columns + " " * GAP) * 2 + "▀" * plan.columns


def test_a_damaged_still_is_left_clear_and_said() -> None:
    stills = [still(1), Shown(1.0, b"\xff\xd8 no picture"), still(2, seconds=2.0)]
    lines = drawn(stills, XTERM, console()).splitlines()
    assert "1.00 s damaged" in lines[-1]
    clear = re.sub(r"\x1b\[[0-9;]*m", "", lines[0])
    plan = layout(3, (320, 180), 100)
    assert clear.count("▀") == 2 * plan.columns
    everything = drawn([Shown(0.0, b"")], KITTY, console())
    assert everything.endswith("0.00 s damaged\n")


# ── pictures as they are ─────────────────────────────────────────────────────────────────────────


def received(png: bytes, stills: list[Shown]) -> None:
    """What arrived is the row: each still in its place, clear between them."""
    plan = layout(len(stills), (320, 180), 100)
    picture = np.asarray(Image.open(io.BytesIO(png), formats=["PNG"]))
    assert picture.shape == (plan.rows * CELL[1], plan.width * CELL[0], 4)
    size, step = (plan.columns * CELL[0], plan.rows * CELL[1]), (plan.columns + GAP) * CELL[0]
    for number, shown in enumerate(stills):
        part = picture[:, number * step : number * step + size[0]]
        assert (part[..., :3] == opened(shown, size)).all()
        assert (part[..., 3] == 255).all()
    assert (picture[:, size[0] : step, 3] == 0).all()


def test_kitty_is_sent_the_row_in_chunks() -> None:
    stills = [still(1), still(2)]
    text = drawn(stills, KITTY, console())
    commands = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert len(commands) > 1
    assert all(len(data) <= CHUNK for _, data in commands)
    plan = layout(2, (320, 180), 100)
    assert commands[0][0] == f"a=T,f=100,q=2,c={plan.width},r={plan.rows},m=1"
    assert [keys for keys, _ in commands[1:]] == ["m=1"] * (len(commands) - 2) + ["m=0"]
    received(base64.b64decode("".join(data for _, data in commands)), stills)
    assert re.sub(r"\x1b_G[^\x1b]*\x1b\\", "", text).splitlines()[0] == ""  # nothing else is sent


def test_one_small_picture_is_one_command() -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 9)).save(file, "JPEG")
    text = drawn([Shown(0.0, file.getvalue())], KITTY, console(width=10))
    ((keys, _),) = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert keys.endswith("m=0")


def test_iterm2_is_sent_the_row_at_once() -> None:
    stills = [still(3), still(4)]
    text = drawn(stills, ITERM2, console())
    ((keys, data),) = re.findall(r"\x1b\]1337;File=([^:]*):([^\x07]*)\x07", text)
    png = base64.b64decode(data)
    plan = layout(2, (320, 180), 100)
    assert dict(pair.split("=") for pair in keys.split(";")) == {
        "inline": "1", "size": str(len(png)), "width": str(plan.width), "height": str(plan.rows),
        "preserveAspectRatio": "0",
    }  # fmt: skip
    received(png, stills)
