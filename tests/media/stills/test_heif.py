"""HEIF and AVIF photographs: put together, turned, cut and coloured as their properties say."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from telecine.infra.errors import MediaError, Reason
from telecine.manifests.specs import PixelSpec, ScanSpec
from telecine.pipeline.media.facts import Picture
from telecine.pipeline.media.geometry import EXIF_ORIENTATIONS
from telecine.pipeline.media.open import open_media
from telecine.pipeline.media.stills.images import orient
from telecine.pipeline.media.stills.items import Item as StoredItem
from telecine.pipeline.media.stills.items import Items, read_items
from telecine.pipeline.media.tracks.iso import file_boxes
from tests.support.cases import case
from tests.support.heif import Item, av1, box, clap, full, grid, heif, hevc, nclx
from tests.support.movies import PIXELS, SCAN, Planes

Pixels = npt.NDArray[np.uint8]
WIDE, HIGH = 64, 48
KINDS = (b"av01", b"hvc1")


def picture(data: bytes, pixels: PixelSpec = PIXELS) -> Picture:
    found = open_media(io.BytesIO(data), SCAN, pixels)
    assert isinstance(found, Picture)
    return found


def refused(data: bytes, scan: ScanSpec = SCAN, pixels: PixelSpec = PIXELS) -> Reason:
    with pytest.raises(MediaError) as caught:
        open_media(io.BytesIO(data), scan, pixels)
    assert caught.value.detail
    return caught.value.reason


def scene(seed: int) -> Pixels:
    """Squares of 8 px in different colours, which survive coding."""
    small = np.random.default_rng(seed).integers(30, 220, (HIGH // 8, WIDE // 8, 3), np.uint8)
    return small.repeat(8, 0).repeat(8, 1)


def planes_of(rgb: Pixels) -> Planes:
    """Some 4:2:0 planes: which colours they are does not matter here."""
    return rgb[..., 0], rgb[::2, ::2, 1], rgb[::2, ::2, 2]


def clear_above() -> Pixels:
    """Opacity: nothing above, half in the middle, all below."""
    plane = np.full((HIGH, WIDE), 255, np.uint8)
    plane[:16], plane[16:32] = 0, 128
    return plane


@pytest.fixture(scope="module")
def tiles() -> dict[bytes, list[Item]]:
    scenes = [scene(seed) for seed in range(6)]
    return {
        b"av01": [av1(pixels) for pixels in scenes],
        b"hvc1": [hevc(planes_of(pixels), "yuv420p") for pixels in scenes],
    }


@pytest.fixture(scope="module")
def opacity() -> Item:
    return av1(clear_above())


def with_properties(item: Item, *properties: bytes) -> Item:
    return replace(item, properties=[*item.properties, *properties])


def beside(item: Item, to: int) -> Item:
    return replace(item, references={b"auxl": [to]})


# --- grids -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "columns", "cut", "before", "inside"),
    [(2, 3, 0, 0, False), (1, 4, 5, 70000, True), (3, 1, 30, 0, True), (1, 1, 0, 70000, False)],
)
def test_a_grid_is_put_together_wherever_its_table_lies(
    tiles: dict[bytes, list[Item]], kind: bytes, rows: int, columns: int, cut: int, before: int,
    inside: bool,
) -> None:  # fmt: skip
    used = tiles[kind][: rows * columns]
    alone = [picture(heif([tile])).rgb for tile in used]
    whole = np.vstack([np.hstack(alone[r * columns : (r + 1) * columns]) for r in range(rows)])
    height, width = HIGH * rows - cut, WIDE * columns - cut
    first = grid(rows, columns, width, height, [*range(2, 2 + len(used))], wide=inside)
    found = picture(heif([first, *used], before=before, inside=inside))
    assert np.array_equal(found.rgb, whole[:height, :width])
    assert (found.facts.width, found.facts.height) == (width, height)
    assert (found.facts.coded_width, found.facts.coded_height) == (width, height)


def test_a_grid_that_does_not_fit_its_tiles_is_corrupt(tiles: dict[bytes, list[Item]]) -> None:
    used = tiles[b"av01"][:4]
    for item in (
        grid(2, 2, 2 * WIDE + 1, HIGH, [2, 3, 4, 5]), grid(2, 2, 2 * WIDE, HIGH, [2, 3, 4, 5]),
        grid(2, 2, 2 * WIDE, 2 * HIGH, [2, 3, 4]), grid(1, 1, WIDE, HIGH, [9]),
        grid(1, 1, 0, HIGH, [2]), grid(1, 1, WIDE, HIGH, [2], wide=True),
    ):  # fmt: skip
        data = item.data[:9] if item.data[1] else item.data
        assert refused(heif([replace(item, data=data), *used])) is Reason.CORRUPT


def test_a_grid_of_itself_ends(tiles: dict[bytes, list[Item]]) -> None:
    assert refused(heif([grid(1, 1, WIDE, HIGH, [1]), tiles[b"av01"][0]])) is Reason.UNSUPPORTED


def test_sizes_are_bounded_before_memory_is_taken(tiles: dict[bytes, list[Item]]) -> None:
    used = tiles[b"av01"][0]
    bomb = grid(256, 256, 1 << 24, 1 << 24, [2] * 65535, wide=True)
    assert refused(heif([bomb, used])) is Reason.TOO_LARGE
    small = ScanSpec(max_pixels=WIDE * HIGH - 1)
    assert refused(heif([used]), small) is Reason.TOO_LARGE
    unsaid = replace(used, properties=used.properties[1:])
    assert refused(heif([unsaid]), small) in (Reason.TOO_LARGE, Reason.CORRUPT)


@pytest.mark.parametrize("kind", [b"unci", b"tmap", b"sato", b"mski"])
def test_what_is_made_in_another_way_is_unsupported(
    tiles: dict[bytes, list[Item]], kind: bytes
) -> None:
    other = Item(kind, bytes(12), [], {b"dimg": [2]})
    assert refused(heif([other, tiles[b"av01"][0]])) is Reason.UNSUPPORTED


@pytest.mark.parametrize("wide", [False, True])
def test_an_overlay_lays_each_picture_at_its_place(
    tiles: dict[bytes, list[Item]], wide: bool
) -> None:
    used = tiles[b"hvc1"][:3]
    alone = [picture(heif([tile])).rgb for tile in used]
    width, height, corners = 100, 70, [(-10, 5), (60, -20), (90, 69)]
    data = bytes([0, int(wide)]) + struct.pack(">4H", 0x8000, 0x4000, 0x2000, 0xFFFF)
    data += struct.pack(">II" if wide else ">HH", width, height)
    data += b"".join(struct.pack(">ii" if wide else ">hh", *corner) for corner in corners)
    found = picture(heif([Item(b"iovl", data, [], {b"dimg": [2, 3, 4]}), *used])).rgb
    room = np.full((height + 200, width + 200, 3), (0x80, 0x40, 0x20), np.uint8)
    for pixels, (x, y) in zip(alone, corners, strict=True):
        room[100 + y : 100 + y + HIGH, 100 + x : 100 + x + WIDE] = pixels
    assert np.array_equal(found, room[100 : 100 + height, 100 : 100 + width])
    cut = Item(b"iovl", data[:-1], [], {b"dimg": [2, 3, 4]})
    assert refused(heif([cut, *used])) is Reason.CORRUPT
    assert refused(heif([Item(b"iovl", data), *used])) is Reason.CORRUPT


def test_an_identity_is_turned_once_more(tiles: dict[bytes, list[Item]], opacity: Item) -> None:
    inner = with_properties(tiles[b"av01"][0], box(b"irot", b"\1"))
    outer = Item(b"iden", b"", [box(b"imir", b"\0")], {b"dimg": [2]})
    seen = picture(heif([outer, inner, beside(opacity, 2)])).rgb
    plain = picture(heif([tiles[b"av01"][0], beside(opacity, 1)])).rgb
    assert np.array_equal(seen, np.rot90(plain)[::-1])
    assert refused(heif([replace(outer, references={}), inner])) is Reason.CORRUPT
    assert refused(heif([replace(outer, references={b"dimg": [1]})])) is Reason.UNSUPPORTED


def test_a_short_header_is_unsupported_and_said() -> None:
    """The `mini` box of ISO 23008-12:2025 holds what `meta` does elsewhere."""
    head = box(b"ftyp", b"mif3", b"avif", b"mif3")
    assert refused(head + box(b"mini", bytes(400))) is Reason.UNSUPPORTED


def test_a_demand_that_is_not_known_is_not_passed_over(tiles: dict[bytes, list[Item]]) -> None:
    item = with_properties(tiles[b"av01"][0], box(b"new!", b"x"))
    assert np.array_equal(picture(heif([item])).rgb, picture(heif([tiles[b"av01"][0]])).rgb)
    assert refused(heif([replace(item, essential=(b"new!",))])) is Reason.UNSUPPORTED


# --- which picture, and which way up -------------------------------------------------------------


def test_the_primary_item_is_the_picture(tiles: dict[bytes, list[Item]]) -> None:
    """A gain map, a thumbnail or a depth map beside it may be larger, or come first."""
    used = tiles[b"hvc1"]
    larger = grid(1, 2, 2 * WIDE, HIGH, [1, 2])
    found = picture(heif([*used[:3], larger], primary=3))
    assert np.array_equal(found.rgb, picture(heif([used[2]])).rgb)


TURNS = [*product(range(4), (None, 0, 1))]


@pytest.mark.parametrize(("turns", "mirror"), TURNS)
def test_it_is_cut_then_turned_then_mirrored(
    tiles: dict[bytes, list[Item]], turns: int, mirror: int | None
) -> None:
    item, plain = tiles[b"av01"][0], picture(heif([tiles[b"av01"][0]])).rgb
    expected = np.rot90(plain[6 : 6 + 40, 3 : 3 + 50], turns)
    made = [clap(50, 40, (-8, 2), (4, 2)), box(b"irot", bytes([turns]))]
    if mirror is not None:
        made.append(box(b"imir", bytes([mirror])))
        expected = expected[:, ::-1] if mirror else expected[::-1]
    found = picture(heif([with_properties(item, *made)]))
    assert np.array_equal(found.rgb, expected)
    cut = np.ascontiguousarray(plain[6 : 6 + 40, 3 : 3 + 50])
    assert np.array_equal(found.rgb, orient(cut, found.facts.orientation))


@pytest.mark.parametrize(
    "part",
    [clap(70, 40, (0, 1), (0, 1)), clap(50, 40, (40, 1), (0, 1)), clap(50, 40, (0, 0), (0, 1)),
     box(b"clap", b"short"), box(b"irot"), box(b"imir")],
)  # fmt: skip
def test_a_cut_or_turn_that_cannot_be_meant_is_none(
    tiles: dict[bytes, list[Item]], part: bytes
) -> None:
    item = tiles[b"av01"][0]
    seen = picture(heif([with_properties(item, part)])).rgb
    assert np.array_equal(seen, picture(heif([item])).rgb)


def exif(value: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, value, 0)
    return bytes(4) + b"MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_turns_what_no_property_turns(tiles: dict[bytes, list[Item]], tag: int) -> None:
    item = tiles[b"hvc1"][0]
    told = Item(b"Exif", exif(tag), [], {b"cdsc": [1]})
    plain = picture(heif([item])).rgb
    assert np.array_equal(picture(heif([item, told])).rgb, orient(plain, EXIF_ORIENTATIONS[tag]))
    turned = with_properties(item, box(b"irot", b"\1"))
    assert np.array_equal(picture(heif([turned, told])).rgb, np.rot90(plain))


@given(data=st.binary(min_size=1, max_size=60))
def test_no_exif_costs_a_photograph(tiles: dict[bytes, list[Item]], data: bytes) -> None:
    item = tiles[b"av01"][0]
    told = Item(b"Exif", data, [], {b"cdsc": [1]})
    assert picture(heif([item, told])).rgb.size == WIDE * HIGH * 3


# --- alpha ---------------------------------------------------------------------------------------


def over_white(rgb: Pixels) -> npt.NDArray[np.float64]:
    """What `opacity` leaves of it, before any turn."""
    seen = rgb.astype(float)
    seen[:16] = 255
    seen[16:32] = (seen[16:32] * 128 + 255 * 127) / 255
    return seen


def near(seen: Pixels, expected: npt.NDArray[np.float64]) -> bool:
    """Alpha is coded with a loss too: at its edges it may be off."""
    away = np.abs(seen - expected).max(axis=2)
    return bool(np.mean(away > 6) < 0.15)


def test_alpha_beside_a_photograph_is_shown_over_white(
    tiles: dict[bytes, list[Item]], opacity: Item
) -> None:
    item = tiles[b"hvc1"][0]
    plain = picture(heif([item])).rgb
    seen = picture(heif([item, beside(opacity, 1)])).rgb
    assert near(seen, over_white(plain))
    assert (seen[:12] >= 253).all()
    turned = with_properties(item, box(b"irot", b"\1"))
    both = picture(heif([turned, beside(opacity, 1)])).rgb
    assert np.array_equal(both, np.rot90(seen))
    other = replace(opacity, properties=[*opacity.properties[:-1], full(b"auxC", b"urn:depth\0")])
    assert np.array_equal(picture(heif([item, beside(other, 1)])).rgb, plain)


def test_alpha_of_a_grid_is_a_grid_or_lies_beside_its_tiles(
    tiles: dict[bytes, list[Item]], opacity: Item
) -> None:
    used = tiles[b"av01"][:2]
    whole = picture(heif([grid(1, 2, 2 * WIDE, HIGH, [2, 3]), *used])).rgb
    parts = [grid(1, 2, 2 * WIDE, HIGH, [2, 3]), *used]
    gray = grid(1, 2, 2 * WIDE, HIGH, [5, 6])
    gray.properties.append(opacity.properties[-1])
    one = [*parts, beside_grid(gray), opacity, opacity]
    tiled = [*parts, beside(opacity, 2), beside(opacity, 3)]
    for items in (one, tiled):
        assert near(picture(heif(items)).rgb, over_white(whole))


def beside_grid(item: Item) -> Item:
    return replace(item, references={**item.references, b"auxl": [1]})


def test_colours_that_alpha_was_multiplied_into_are_not_multiplied_again(
    tiles: dict[bytes, list[Item]], opacity: Item
) -> None:
    item = tiles[b"hvc1"][0]
    plain = picture(heif([item])).rgb.astype(float)
    made = replace(item, references={b"prem": [2]})
    seen = picture(heif([made, beside(opacity, 1)])).rgb
    plain[:16] = 255
    plain[16:32] = np.minimum(plain[16:32] + 127, 255)
    assert near(seen, plain)


# --- colour --------------------------------------------------------------------------------------


def flat(y: int, cb: int, cr: int, dtype: type[np.unsignedinteger] = np.uint8) -> Planes:
    return tuple(np.full((HIGH, WIDE), value, dtype) for value in (y, cb, cr))


def test_the_container_says_the_colours() -> None:
    """H.273: BT.601 where nothing else is said, of the stream's range; else as `colr` has it."""
    item = hevc(flat(100, 90, 180), "yuv444p")
    blue, red = 90 - 128, 180 - 128
    for colr, (kr, kb), whole in (
        ([], (0.299, 0.114), False),
        ([nclx(1, 13, 6)], (0.299, 0.114), True),
        ([nclx(1, 13, 1)], (0.2126, 0.0722), True),
        ([nclx(1, 13, 1, whole=False)], (0.2126, 0.0722), False),
    ):
        luma, chroma = (100.0, 1.0) if whole else ((100 - 16) * 255 / 219, 255 / 224)
        green = 2 * (kb * (1 - kb) * blue + kr * (1 - kr) * red) / (1 - kr - kb)
        expected = np.array(
            [luma + chroma * 2 * (1 - kr) * red, luma - chroma * green,
             luma + chroma * 2 * (1 - kb) * blue]
        )  # fmt: skip
        seen = picture(heif([with_properties(item, *colr)])).rgb[HIGH // 2, WIDE // 2]
        assert np.abs(seen - expected).max() <= 3
    identity = picture(heif([with_properties(item, nclx(1, 13, 0))])).rgb[HIGH // 2, WIDE // 2]
    assert np.abs(identity.astype(int) - (180, 100, 90)).max() <= 2


PQ_SIGNALS = (0.2997, 0.4403, 0.5081, 0.5807)  # 10, 50, 100 and 203 nit (SMPTE ST 2084)
SDR_GREYS = (73, 142, 189, 230)  # what BT.2390 and BT.1886 make of them


def grey_bars(signals: tuple[float, ...]) -> Planes:
    """10-bit full-range 4:4:4."""
    codes = np.rint(np.array(signals) * 1023).astype(np.uint16).repeat(WIDE // len(signals))
    neutral = np.full((HIGH, WIDE), 512, np.uint16)
    return np.tile(codes, (HIGH, 1)), neutral, neutral


def test_light_is_tone_mapped_from_all_of_its_bits() -> None:
    item = hevc(grey_bars(PQ_SIGNALS), "yuv444p10le")
    data = heif([with_properties(item, nclx(9, 16, 9))])
    found = picture(data)
    assert found.facts.color_transfer == "pq"
    assert found.facts.bit_depth == 10
    assert np.abs(found.rgb[24, 8::16, 0].astype(int) - SDR_GREYS).max() <= 2
    assert refused(data, pixels=PixelSpec(hdr="reject")) is Reason.HDR
    row = grid(1, 2, 2 * WIDE, HIGH, [2, 2])
    row.properties.append(nclx(9, 16, 9))
    both = picture(heif([row, item])).rgb  # the grid says it for its tiles
    assert np.abs(both[24, 8::16, 0].astype(int) - SDR_GREYS * 2).max() <= 2
    hlg = hevc(grey_bars((0.75,)), "yuv444p10le")
    same = picture(heif([with_properties(hlg, nclx(9, 18, 9))])).rgb
    assert abs(int(same[24, 32, 0]) - SDR_GREYS[-1]) <= 2


def exchanged_primaries() -> bytes:
    """sRGB with red and green exchanged: what is stored as red is seen green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def test_a_profile_goes_before_primaries_and_after_hdr() -> None:
    red = hevc(flat(76, 85, 255), "yuv444p")
    profile = box(b"colr", b"prof", exchanged_primaries())
    for others in ([nclx(1, 13, 6)], [nclx(12, 13, 6)], []):
        seen = picture(heif([with_properties(red, profile, *others)])).rgb[24, 32]
        assert np.abs(seen.astype(int) - (0, 255, 0)).max() <= 8 if others else seen[1] > 200
    facts = picture(heif([with_properties(red, profile, nclx(12, 13, 6))])).facts
    assert facts.color_primaries == "smpte432"  # as tagged, in the tables
    pq = with_properties(red, profile, nclx(9, 16, 9))
    assert picture(heif([pq])).facts.color_transfer == "pq"
    assert picture(heif([pq])).rgb[24, 32].argmax() == 0
    broken = with_properties(red, box(b"colr", b"prof", b"no profile"), nclx(1, 13, 6))
    assert picture(heif([broken])).rgb[24, 32].argmax() == 0


# --- damage ---------------------------------------------------------------------------------------


def test_a_photograph_with_a_part_missing_is_corrupt(tiles: dict[bytes, list[Item]]) -> None:
    used = tiles[b"hvc1"][:2]
    data = heif([grid(1, 2, 2 * WIDE, HIGH, [2, 3]), *used])
    assert refused(data[:-20]) is Reason.CORRUPT
    assert refused(heif([replace(used[0], data=b"")])) is Reason.CORRUPT
    assert refused(heif([replace(used[0], data=bytes(50))])) is Reason.CORRUPT


def test_places_past_any_file_are_corrupt() -> None:
    """Offsets have 64 bits, and a file fewer."""
    items = Items(io.BytesIO(bytes(100)))
    for part in ((1 << 63, 4), ((1 << 64) - 4, 0), (98, 4)):
        with pytest.raises(MediaError):
            items.data(StoredItem(1, b"hvc1", parts=[part]))
    far = struct.pack(">I4sQ", 1, b"free", (1 << 64) - 1)
    assert [kind for kind, _, _ in file_boxes(io.BytesIO(far))] == [b"free"]


def test_the_rest_of_a_file_many_times_over_is_too_large() -> None:
    items = Items(io.BytesIO(bytes(1 << 22)))
    parts = [(0, 0)] * 65_535  # 256 GiB
    with pytest.raises(MediaError, match="too_large"):
        items.data(StoredItem(1, b"hvc1", parts=parts))


def test_millions_of_properties_are_too_large() -> None:
    """A table of 16 MB with one byte for each would take 2 GB."""
    rows = (struct.pack(">HB", 1, 255) + b"\1" * 255) * 5000
    table = box(b"iprp", box(b"ipco", box(b"free")), full(b"ipma", struct.pack(">I", 5000), rows))
    with pytest.raises(MediaError, match="too_large"):
        read_items(io.BytesIO(full(b"meta", table)))


def damaged(data: bytes, places: list[tuple[int, int]], end: int) -> bytes:
    broken = bytearray(data)
    for at, byte in places:
        broken[at % end] = byte
    return bytes(broken)


@given(
    places=st.lists(
        st.tuples(st.integers(16, 4096), st.sampled_from([0, 1, 2, 16, 127, 128, 255])),
        min_size=1,
        max_size=6,
    )
)
def test_every_damage_to_the_table_gives_a_picture_or_a_reason(
    tiles: dict[bytes, list[Item]], opacity: Item, places: list[tuple[int, int]]
) -> None:
    items = [
        with_properties(grid(1, 2, 100, 40, [2, 3]), box(b"irot", b"\1"), nclx(1, 13, 6)),
        *tiles[b"av01"][:2], beside(opacity, 2), Item(b"Exif", exif(6), [], {b"cdsc": [1]}),
    ]  # fmt: skip
    data = heif(items, inside=True)
    broken = damaged(data, places, data.index(b"mdat"))
    try:
        found = open_media(io.BytesIO(broken), ScanSpec(max_pixels=1 << 16), PIXELS)
    except MediaError:
        return
    if not isinstance(found, Picture):
        found.close()


# --- files as they come ---------------------------------------------------------------------------


def mean_difference(name: str, others: Image.Image) -> float:
    seen = picture(case(name).read_bytes()).rgb
    return float(np.abs(seen.astype(int) - np.asarray(others.convert("RGB"))).mean())


CASES = {
    "tiles_late.avif": (1024, 770), "gainmap_larger.avif": (400, 300),
    "test__resources__gradient_10bit.heic": (64, 48), "exif.avif": (240, 160),
    "icc_p3.avif": (240, 160), "alpha.heic": (240, 160),
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), CASES.items())
def test_photographs_have_their_size(name: str, size: tuple[int, int]) -> None:
    found = picture(case(name).read_bytes())
    assert found.rgb.shape[1::-1] == size == (found.facts.width, found.facts.height)


def test_photographs_have_their_colours() -> None:
    for name in ("tiles_late.avif", "gainmap_larger.avif"):
        assert mean_difference(name, Image.open(case(name))) < 1
    profiled = picture(case("icc_p3.avif").read_bytes()).rgb[2, 2].astype(int)
    assert np.abs(profiled - (241, 30, 47)).max() <= 2
    clear = picture(case("alpha.heic").read_bytes()).rgb
    assert (clear[80, 120] == 255).all()
