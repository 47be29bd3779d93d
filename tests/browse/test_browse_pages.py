"""browse in a real browser: charts that are clicked, stills and film that play, and nothing that
people wrote runs. Skips where there is no Chromium; TELECINE_BROWSER names one elsewhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from telecine.manifests.schemas import Clip, Source
from telecine.pipeline.browse.report import report
from tests.support.browsing import Served, dataset, one, plain_tables, real_footage, served
from tests.support.waiting import PATIENCE

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    given = os.environ.get("TELECINE_BROWSER")
    path = given or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)}; TELECINE_BROWSER may name one")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def requests() -> list[dict[str, Any]]:
    """What the server was asked, as it was asked."""
    return []


@pytest.fixture(scope="module")
def server(requests: list[dict[str, Any]]) -> Iterator[Served]:
    with served(dataset(), record=requests.append) as found:
        yield found


class Pages:
    """Pages that must neither complain, nor run what people wrote, nor ask anybody else."""

    def __init__(self, browser: Any, server: Served) -> None:
        self._browser, self._server = browser, server
        self.complaints: list[str] = []
        self._open: list[Any] = []

    def open(self, path: str, width: int = 1440, **options: Any) -> Any:
        context = self._browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(PATIENCE * 1000)
        self._open.append(context)
        page = context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)
        page.goto(path if "://" in path else self._server.url + path)
        page.wait_for_load_state("networkidle")
        return page

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self._server.url, "data:", "file:///")):
            self.complaints.append(request.url)

    def close(self) -> None:
        for context in self._open:
            for page in context.pages:
                assert page.evaluate("window.owned") is None
            context.close()


@pytest.fixture
def pages(browser: Any, server: Served) -> Iterator[Pages]:
    found = Pages(browser, server)
    yield found
    found.close()
    assert found.complaints == []


def drawn(page: Any, selector: str) -> Any:
    """A chart's place, when the chart is there."""
    place = page.locator(selector)
    place.scroll_into_view_if_needed()
    page.wait_for_function(
        "(place) => window.echarts && echarts.getInstanceByDom(document.querySelector(place))",
        arg=selector,
    )
    return place


def click(page: Any, selector: str, column: int, row: float) -> None:
    """A click in the middle of a bar or a cell."""
    place = drawn(page, selector)
    x, y = place.evaluate(
        "(place, at) => echarts.getInstanceByDom(place).convertToPixel({seriesIndex: 0}, at)",
        [column, row],
    )
    place.click(position={"x": x, "y": y})
    page.wait_for_load_state("networkidle")


def clause(page: Any) -> str:
    """What the address and the form say alike."""
    (said,) = parse_qs(urlsplit(page.url).query)["where"]
    assert page.locator("input[name=where]").input_value() == said
    return said


def test_a_click_on_a_chart_shows_its_clips_and_another_adds_to_the_clause(
    pages: Pages, server: Served
) -> None:
    charts = server.get("/charts.json").json()
    (histogram,) = (h for h in charts["histograms"] if h["name"] == "num_frames")
    number = next(n for n, bar in enumerate(histogram["bars"]) if bar["clips"])
    bar = histogram["bars"][number]
    page = pages.open("/")
    click(page, "#histogram-num_frames", number, bar["clips"] / 2)
    assert clause(page) == bar["where"]
    assert page.locator("a.clip").count() == bar["clips"]

    page.locator("details.charts summary").click()
    shown = server.get(f"/charts.json?{urlsplit(page.url).query}").json()
    if shown["cells"]:  # of the current build's
        cell = shown["cells"][0]
        click(page, "#heat .canvas", 0, 0)
        assert clause(page) == bar["where"]
        assert parse_qs(urlsplit(page.url).query)["place"] == [cell["place"]]
        assert page.locator("a.clip").count() == cell["clips"]


def test_charts_have_tables_whose_rows_lead_to_their_clips(pages: Pages, server: Served) -> None:
    page = pages.open("/")
    figure = page.locator("figure", has=page.locator("#histogram-num_frames"))
    figure.locator("summary").focus()
    page.keyboard.press("Enter")
    row = figure.locator("tbody tr").first
    clips = int(row.locator("td").nth(1).inner_text())
    row.locator("a").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/clips?where=*")
    assert page.locator("a.clip").count() == clips
    figures = pages.open("/").locator("figure.chart")
    assert figures.count() > 15
    for one_figure in figures.all():
        assert one_figure.locator("details table").count() == 1


def test_the_heat_map_counts_hours_or_clips(pages: Pages) -> None:
    page = pages.open("/")
    place = drawn(page, "#heat .canvas")
    before = place.screenshot()
    page.get_by_role("button", name="clips").click()
    assert page.get_by_role("button", name="clips").get_attribute("aria-pressed") == "true"
    assert place.screenshot() != before


def test_clips_are_filtered_sorted_and_paged_by_hand(pages: Pages) -> None:
    page = pages.open("/clips?size=2")
    page.locator("input[name=where]").fill("motion >= 0")
    page.locator("select[name=sort]").select_option("num_frames")
    page.locator("select[name=order]").select_option("down")
    page.get_by_role("button", name="Show").click()
    page.wait_for_load_state("networkidle")
    assert clause(page) == "motion >= 0"
    seen = []
    while True:
        seen += [clip.get_attribute("data-clip") for clip in page.locator("a.clip").all()]
        if not page.locator("a[rel=next]").count():
            break
        page.locator("a[rel=next]").first.click()
        page.wait_for_load_state("networkidle")
    rows = plain_tables().sql("SELECT clip_id FROM clips ORDER BY num_frames DESC, clip_id")
    assert seen == [clip_id for (clip_id,) in rows.fetchall()]
    page.locator("a[rel=prev]").first.click()
    assert clause(page) == "motion >= 0"


def test_stills_play_while_pointed_at_or_in_focus(pages: Pages) -> None:
    page = pages.open("/clips?sort=num_stills&order=down")
    clip = page.locator("a.clip").first
    image = clip.locator("img")
    first = image.get_attribute("src")
    moved = "([image, first]) => image.getAttribute('src') !== first"

    def plays() -> None:
        page.wait_for_function(moved, arg=[image.element_handle(), first])

    clip.hover()
    plays()
    page.mouse.move(1, 1)
    page.wait_for_function(f"(given) => !({moved})(given)", arg=[image.element_handle(), first])
    clip.focus()
    plays()
    page.keyboard.press("Enter")
    page.wait_for_url("**/clips/*")

    calm = pages.open("/clips?sort=num_stills&order=down", reduced_motion="reduce")
    calm.locator("a.clip").first.hover()
    calm.wait_for_timeout(800)
    assert calm.locator("a.clip img").first.get_attribute("src") == first


def a_clip(name: str) -> str:
    """The last clip of a source whose name ends so."""
    query = (
        "SELECT arg_max(clip_id, start_frame) FROM clips JOIN "
        "(SELECT source_id, uri FROM sources) USING (source_id) WHERE ends_with(uri, ?)"
    )
    return str(one(plain_tables(), query, name))


PLAYED = """async (video) => {
    await video.play();
    const begun = video.currentTime;
    const moved = () => video.currentTime > begun;
    await new Promise((done) => { video.ontimeupdate = () => moved() && done(); });
    return [begun, video.currentTime, video.videoWidth];
}"""


def test_a_clip_plays_its_span_of_the_source(pages: Pages, requests: list[dict[str, Any]]) -> None:
    clip_id = a_clip("movie.mp4" if real_footage() else "landscape.mp4")
    (clip,) = (c for c in dataset().tables.rows(Clip) if c.clip_id == clip_id)
    start = clip.start_pts * clip.time_base_num / clip.time_base_den
    requests.clear()
    page = pages.open(f"/clips/{clip_id}")
    begun, at, width = page.locator("#original").evaluate(PLAYED)
    assert start - 0.05 <= begun < at
    assert width == clip.width
    asked = [r for r in requests if r["path"] == f"/footage/{clip.source_id}"]
    assert asked
    assert all(b"range" in dict(request["headers"]) for request in asked)
    assert page.locator("#unplayable").is_hidden()
    page.locator("#original").evaluate("(video) => { video.currentTime = video.duration - 0.1; }")
    page.wait_for_function("() => document.getElementById('original').paused")
    page.locator("#original").evaluate("(video) => video.play()")
    again = page.locator("#original").evaluate("(video) => video.currentTime")
    assert again < clip.end_pts * clip.time_base_num / clip.time_base_den


def test_what_the_browser_cannot_play_is_said(pages: Pages) -> None:
    if not real_footage():
        pytest.skip("needs footage that no browser plays; set TELECINE_FOOTAGE")
    page = pages.open(f"/clips/{a_clip('.h264')}")
    page.locator("#unplayable").wait_for(state="visible")
    assert "cannot play h264 in h264" in page.locator("#unplayable").inner_text()
    assert page.locator("#original").is_hidden()
    assert page.locator(".strip img").first.evaluate("(image) => image.naturalWidth") > 0


def test_latents_are_decoded_beside_the_original(pages: Pages) -> None:
    clip_id = a_clip("movie.mp4" if real_footage() else "landscape.mp4")
    page = pages.open(f"/clips/{clip_id}")
    page.get_by_text("Decode the latents").click()
    film = page.locator("#decoded video")
    film.wait_for(state="visible")
    page.wait_for_function("() => document.querySelector('#decoded video').duration > 0.5")
    assert film.evaluate(PLAYED)[2] > 0
    channels = page.locator(".channels img")
    channels.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('.channels img').naturalWidth > 100")
    assert "16 channels" in (channels.get_attribute("alt") or "")


def test_without_the_encoder_it_says_so(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    from telecine.infra.errors import UsageError

    def gone(*_: Any, **__: Any) -> None:
        raise UsageError("its weights are not there")

    monkeypatch.setattr("telecine.pipeline.look.decode.load_encoder", gone)
    picture = next(s for s in dataset().tables.rows(Source) if s.kind == "image" and s.num_clips)
    clip_id = a_clip(Path(picture.uri).name)
    page = pages.open(f"/clips/{clip_id}")
    if page.get_by_text("Decode the latents").count():
        page.get_by_text("Decode the latents").click()
        said = page.locator(".decoded [role=status]")
        page.wait_for_function(
            "() => document.querySelector('.decoded [role=status]').textContent.includes('weights')"
        )
        assert "its weights are not there" in said.inner_text()
        pages.complaints[:] = [c for c in pages.complaints if "400 (Bad Request)" not in c]


def test_builds_are_compared_by_hand(pages: Pages) -> None:
    page = pages.open("/builds")
    page.locator("select[name=b]").select_option(label="eight")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_load_state("networkidle")
    assert page.get_by_text("vae.fps: none → 8").count() == 1


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_every_page_fits_and_runs_nothing_foreign(pages: Pages, width: int, scheme: str) -> None:
    clip_id = a_clip("movie.mp4" if real_footage() else "landscape.mp4")
    page = pages.open("/", width, color_scheme=scheme)
    for path in ("/", "/clips", f"/clips/{clip_id}", "/rejected", "/builds?a=dct&b=eight"):
        if path != "/":
            page.goto(page.url.partition("//")[0] + "//" + urlsplit(page.url).netloc + path)
            page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.evaluate("[...document.images].every((image) => image.alt)"), path
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(19, 22, 23)") == (scheme == "dark")
        assert page.evaluate("window.owned") is None


def test_a_report_draws_its_charts_and_plays_its_stills_by_itself(
    pages: Pages, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    report(dataset(), file)
    page = pages.open(file.as_uri())
    drawn(page, "#heat .canvas")
    drawn(page, "#histogram-num_frames")
    clip = page.locator(".clip", has=page.locator("img[hidden]")).first
    assert clip.locator("img:visible").count() == 1
    clip.hover()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.clip')].some((c) => c.querySelector('img').hidden)"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440
