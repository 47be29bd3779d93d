"""Protected files are `encrypted`, whatever a decoder would make of them; others are not."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from telecine.infra.errors import MediaError, Reason
from telecine.manifests.specs import PixelSpec, ScanSpec
from telecine.pipeline.media.faults.protection import names_protection, refuse_protected
from telecine.pipeline.media.open import Video, open_media


def movie(form: str, codec: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for n in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * n, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.fixture(scope="module")
def plain() -> dict[str, bytes]:
    return {
        "asf": movie("asf", "wmv2"),
        "mp4": movie("mp4", "libx264"),
        "mpegts": movie("mpegts", "libx264"),
    }


def reason_of(data: bytes) -> Reason | None:
    """None where it is footage."""
    try:
        with_frames = open_media(io.BytesIO(data), ScanSpec(), PixelSpec())
    except MediaError as error:
        return error.reason
    assert isinstance(with_frames, Video)
    with_frames.close()
    return None


def test_what_is_not_protected_is_footage(plain: dict[str, bytes]) -> None:
    assert {form: reason_of(data) for form, data in plain.items()} == dict.fromkeys(plain)


# ── ASF ──────────────────────────────────────────────────────────────────────────────────────────

ASF_OBJECTS = {
    "content encryption": "FBB3112223BDD211B4B700A0C955FC6E",
    "extended content encryption": "14E68A292226174CB935DAE07EE9289C",
    "advanced content encryption": "338505438169E6499B74AD12CB86D58C",
}


@pytest.mark.parametrize("name", ASF_OBJECTS)
def test_an_asf_header_with_an_encryption_object(name: str, plain: dict[str, bytes]) -> None:
    data = plain["asf"]
    told = bytes.fromhex(ASF_OBJECTS[name]) + struct.pack("<Q", 24 + 40) + bytes(40)
    size, count = struct.unpack_from("<QI", data, 16)
    header = data[:16] + struct.pack("<QI", size + len(told), count + 1) + data[28:30] + told
    assert reason_of(header + data[30:]) is Reason.ENCRYPTED


# ── ISO media ────────────────────────────────────────────────────────────────────────────────────


def box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def found(data: bytes, *path: bytes) -> int:
    """Where the box at the path begins."""
    at = 0
    for name in path:
        at = data.index(name, at)
    return at - 4


def with_sample_entry(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The film with another sample entry of its video; `moov` lies behind all of its samples."""
    path = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    at = found(data, *path, b"avc1")
    (size,) = struct.unpack_from(">I", data, at)
    entry = change(data[at : at + size])
    whole = bytearray(data[:at] + entry + data[at + size :])
    for depth in range(1, len(path) + 1):
        outer = found(data, *path[:depth])
        (old,) = struct.unpack_from(">I", data, outer)
        struct.pack_into(">I", whole, outer, old + len(entry) - size)
    return bytes(whole)


def protected_by(scheme: bytes, default: int = 1) -> Callable[[bytes], bytes]:
    tenc = box(b"tenc", bytes(6), bytes([default, 8]), bytes(16))
    sinf = box(
        b"sinf",
        box(b"frma", b"avc1"),
        box(b"schm", bytes(4), scheme, bytes(4)),
        box(b"schi", tenc),
    )
    return lambda entry: box(b"encv", entry[8:], sinf)


@pytest.mark.parametrize("scheme", [b"cenc", b"cbc1", b"cens", b"cbcs", b"piff"])
def test_common_encryption(scheme: bytes, plain: dict[str, bytes]) -> None:
    protected = with_sample_entry(plain["mp4"], protected_by(scheme))
    assert reason_of(protected) is Reason.ENCRYPTED


def test_fairplay(plain: dict[str, bytes]) -> None:
    data = with_sample_entry(plain["mp4"], lambda entry: box(b"drmi", entry[8:]))
    assert reason_of(data) is Reason.ENCRYPTED


def test_the_header_may_lie_anywhere(plain: dict[str, bytes]) -> None:
    protected = with_sample_entry(plain["mp4"], protected_by(b"cenc"))
    padded = protected[: found(protected, b"moov")] + box(b"free", bytes(3_000_000))
    assert reason_of(padded + protected[found(protected, b"moov") :]) is Reason.ENCRYPTED


def test_samples_that_are_clear_by_default_are_footage(plain: dict[str, bytes]) -> None:
    assert reason_of(with_sample_entry(plain["mp4"], protected_by(b"cenc", default=0))) is None


def test_a_segment_without_its_header(plain: dict[str, bytes]) -> None:
    """It cannot be opened, and says why: its samples have initialisation vectors."""
    pieces = box(b"moof", box(b"traf", box(b"senc", bytes(8)))), box(b"mdat", bytes(100))
    assert reason_of(box(b"styp", b"msdhmsdh") + b"".join(pieces)) is Reason.ENCRYPTED


@pytest.mark.parametrize("size", [0, 1, 7, 1 << 31, 1 << 62, (1 << 64) - 1])
@pytest.mark.parametrize("name", [b"mdat", b"moov"])
def test_no_size_of_a_box_is_too_much(name: bytes, size: int, tmp_path: Path) -> None:
    """Of a file on disk too, which cannot be asked for what lies beyond 63 bits."""
    path = tmp_path / "a.mp4"
    path.write_bytes(box(b"ftyp", bytes(8)) + struct.pack(">I4sQ", 1, name, size) + bytes(64))
    with path.open("rb") as file:
        refuse_protected(file)
        assert not names_protection(file)


# ── transport streams ────────────────────────────────────────────────────────────────────────────


def packets_of(data: bytes, pid: int) -> list[int]:
    return [
        at for at in range(0, len(data), 188)
        if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF == pid
    ]  # fmt: skip


def video_pid(data: bytes) -> int:
    return next(
        int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF
        for at in range(0, len(data), 188)
        if b"\0\0\1\xe0" in data[at : at + 188]
    )


@pytest.mark.parametrize("spacing", [188, 192, 204])
def test_transport_scrambling(spacing: int, plain: dict[str, bytes]) -> None:
    rng = np.random.default_rng(0)
    data = bytearray(plain["mpegts"])
    for at in packets_of(data, video_pid(data)):
        data[at + 3] |= 0x80
        data[at + 4 + 100 : at + 188] = rng.bytes(84)
        start = bytes(data[at : at + 188]).find(b"\0\0\1\xe0")
        data[at + 4 : at + 104] = rng.bytes(100) if start < 0 else data[at + 4 : at + 104]
        if start >= 0:
            data[at + start : at + start + 4] = rng.bytes(4)
    front, back = (4, 0) if spacing == 192 else (0, spacing - 188)
    spaced = b"".join(
        bytes(front) + data[at : at + 188] + bytes(back) for at in range(0, len(data), 188)
    )
    assert reason_of(spaced) is Reason.ENCRYPTED


def test_sample_encryption_of_http_live_streaming(plain: dict[str, bytes]) -> None:
    data = bytearray(plain["mpegts"])
    for at in packets_of(data, 0x1000):  # the program map, where FFmpeg puts it
        stream = b"\x1b" + (0xE000 | video_pid(data)).to_bytes(2, "big")  # H.264, and its PID
        data[data.index(stream, at)] = 0xDB
    assert reason_of(bytes(data)) is Reason.ENCRYPTED


# ── others, and real files ───────────────────────────────────────────────────────────────────────


def test_digital_cinema() -> None:
    partition = bytes.fromhex("060e2b34020501010d0102010102040083000010") + bytes(16)
    context = bytes.fromhex("060e2b34025301010d0104010202000083000010") + bytes(16)
    assert reason_of(partition + context + bytes(5000)) is Reason.ENCRYPTED


def test_real_files_that_are_protected(footage: Path) -> None:
    names = (
        "androidx__sample_fragmented_clearkey.mp4", "androidx__sample_fragmented_widevine.mp4",
        "androidx__sample_fragmented_sgpd_v2.mp4", "androidx__subsample_encrypted_altref.webm",
        "mp4parse__short-cenc.mp4", "nestegg__seek_encrypted.webm", "gomp4__sample_init.encv.mp4",
    )  # fmt: skip
    found = {name: reason_of((footage / "bad" / name).read_bytes()) for name in names}
    assert found == dict.fromkeys(names, Reason.ENCRYPTED)


def test_real_files_that_are_not(footage: Path) -> None:
    for path in (p for p in footage.iterdir() if p.is_file()):
        with path.open("rb") as file:
            refuse_protected(file)
            assert not names_protection(file), path.name
