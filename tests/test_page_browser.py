"""The page of a study in a real browser: what it shows, to whom, and that it asks nobody."""

import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from sweeper.answers.best import answers
from sweeper.answers.page import FIGURES, page, save
from sweeper.answers.page_figures import figures
from tests import pages

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MADE = {
    "measured": pages.measured,
    "estimate": pages.estimated,
    "simulation": pages.simulated,
    "many": pages.many,
}
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """The pages, in folders with spaces and letters of all kinds in their names."""
    found = {}
    for kind, make in MADE.items():
        study, contents = make()
        folder = tmp_path_factory.mktemp("a study") / f"größe & 温度 #1 100% {kind}"
        folder.mkdir()
        text = page(study, contents, answers(contents.standing(), study))
        found[kind] = save(text, {}, folder).as_uri()
    return found


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program is not None, f"the test needs one of {', '.join(BROWSERS)}"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, addresses):
    """Opens a page without network; at its end nothing was asked for, and nothing went wrong."""
    contexts, asked, faults = [], [], []

    def open_page(kind, size="wide", scheme="light", **more):
        context = browser.new_context(
            viewport=dict(zip(("width", "height"), SIZES[size], strict=True)),
            color_scheme=scheme,
            offline=True,
            **more,
        )
        contexts.append(context)
        shown = context.new_page()
        shown.set_default_timeout(20_000)
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda message: faults.append(message.text))
        shown.on("pageerror", lambda error: faults.append(str(error)))
        shown.goto(addresses[kind])
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert set(asked) <= {*addresses.values(), "data:,"}
    assert faults == []


def marks(shown):
    return shown.locator("a.mark:visible")


PLOTS = {"measured": 1, "estimate": 1, "simulation": 2, "many": 4}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", MADE)
def test_plots_are_seen_and_nothing_is_wider_than_the_page(opened, kind, size):
    shown = opened(kind, size)
    plots = shown.locator(f".plot > svg.{size}")
    assert plots.count() == PLOTS[kind]
    width = SIZES[size][0]
    for plot in plots.all():
        box = plot.bounding_box()
        assert box["width"] > 0.6 * width
        assert box["height"] > 250
    other = "narrow" if size == "wide" else "wide"
    assert shown.locator(f".plot > svg.{other}:visible").count() == 0
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    inside = """marks => marks.every(mark => {
        const box = mark.getBoundingClientRect();
        const plot = mark.ownerSVGElement.getBoundingClientRect();
        return box.left >= plot.left - 8 && box.right <= plot.right + 8;
    })"""
    assert marks(shown).count() > 0
    assert marks(shown).evaluate_all(inside)
    text = ".plot svg text:visible"
    sizes = shown.locator(text).evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 11


@pytest.mark.parametrize("size", SIZES)
def test_pointing_at_a_mark_shows_its_numbers(opened, size):
    shown = opened("measured", size)
    tip = shown.locator(".tip")
    assert tip.is_hidden()
    shown.locator(f'svg.{size} a.mark[href="#c1-tp2-b16"]').hover()
    said = tip.inner_text()
    assert "tensor_parallel 2, batch_size 16" in said
    assert "energy per output token: 297 ±11 mJ/token" in said
    box, width = tip.bounding_box(), SIZES[size][0]
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert "lit" in shown.locator("#c1-tp2-b16").get_attribute("class")
    shown.locator("h1").hover()
    assert tip.is_hidden()


def test_the_keyboard_reaches_every_mark_and_its_row(opened):
    shown = opened("measured")
    first = shown.locator('svg.wide a.mark[tabindex="0"]')
    assert first.count() == 1
    first.focus()
    seen = []
    for _ in range(marks(shown).count()):
        seen.append(shown.locator(".tip strong").inner_text())
        shown.keyboard.press("ArrowRight")
    assert len(set(seen)) == 14
    assert shown.locator(".tip").is_visible()
    shown.keyboard.press("Escape")
    assert shown.locator(".tip").is_hidden()
    shown.keyboard.press("End")
    reached = shown.locator(":focus").get_attribute("href")
    shown.keyboard.press("Enter")
    shown.wait_for_url(lambda url: url.endswith(reached))


def test_a_mark_leads_to_its_row_also_where_that_is_folded_away(opened):
    shown = opened("many")
    row = shown.locator("#c2-tp1-b4-512")
    assert row.is_hidden()
    shown.locator('svg.wide a.mark[href="#c2-tp1-b4-512"]').focus()
    shown.keyboard.press("Enter")
    row.wait_for(state="visible")
    assert 0 <= row.bounding_box()["y"] <= SIZES["wide"][1]


def test_numbers_of_an_estimate_say_so_when_pointed_at(opened):
    shown = opened("estimate")
    marks(shown).first.hover()
    assert "4.25 J/token (estimate)" in shown.locator(".tip").inner_text()


def test_the_launch_command_is_copied(opened, browser):
    shown = opened("measured", permissions=["clipboard-read", "clipboard-write"])
    shown.get_by_role("button", name="Copy").first.click()
    shown.get_by_role("button", name="Copied").wait_for()
    copied = shown.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("vllm serve meta-llama/")
    assert copied == shown.locator(".command code").first.inner_text()


def test_without_a_script_the_numbers_are_there_too(opened):
    shown = opened("measured", java_script_enabled=False)
    mark = shown.locator('svg.wide a.mark[href="#c1-tp2-b16"]')
    assert "297 ±11 mJ/token" in mark.locator("title").text_content()
    assert shown.locator(".plot > svg.wide").bounding_box()["height"] > 250


def test_print_opens_what_is_folded_and_hides_what_is_for_pointing(opened):
    shown = opened("measured")
    shown.emulate_media(media="print")
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert shown.get_by_text("limits: {tpot_p99_s: 0.05}").is_visible()
    assert shown.locator(".hint").is_hidden()
    assert shown.locator("button:visible").count() == 0
    assert shown.locator(".plot > svg.wide").is_visible()
    assert len(shown.pdf()) > 20_000
    shown.evaluate("dispatchEvent(new Event('afterprint'))")
    assert shown.locator("details[open]").count() == 0


@pytest.mark.parametrize("kind", MADE)
def test_nothing_is_cut_off_on_paper(opened, kind):
    """A4 less its margins is 182 mm wide, at 96 pixels an inch."""
    shown = opened(kind)
    shown.set_viewport_size({"width": 688, "height": 1000})
    shown.emulate_media(media="print")
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    ends = "all => all.map(each => each.getBoundingClientRect().right)"
    assert max(shown.locator("table, pre, svg.wide, p, h2").evaluate_all(ends)) <= 688
    closed = "all => all.filter(each => each.getBoundingClientRect().height == 0).length"
    assert shown.locator("tbody tr").evaluate_all(closed) == 0


def test_a_plot_is_a_picture_by_itself(browser, tmp_path):
    study, contents = pages.simulated()
    found = answers(contents.standing(), study)
    save(page(study, contents, found), figures(study, found), tmp_path)
    context = browser.new_context(offline=True)
    for file in sorted((tmp_path / FIGURES).iterdir()):
        shown = context.new_page()
        shown.goto(file.as_uri())
        height = shown.locator("svg").bounding_box()["height"]
        assert height > 500
        assert shown.get_by_text("SIMULATION, NOT MEASURED").is_visible()
        colours = "all => [...new Set(all.map(each => getComputedStyle(each).fill))]"
        assert len(shown.locator(".mark path").evaluate_all(colours)) == 3
        lowest = "all => Math.max(...all.map(each => each.getBoundingClientRect().bottom))"
        assert shown.locator("text").evaluate_all(lowest) <= height
    context.close()


@pytest.mark.parametrize(
    ("kind", "scheme", "size"),
    [
        ("measured", "light", "wide"),
        ("measured", "dark", "narrow"),
        ("estimate", "light", "narrow"),
        ("estimate", "dark", "wide"),
        ("simulation", "light", "wide"),
        ("simulation", "dark", "wide"),
        ("many", "light", "narrow"),
    ],
)
def test_nothing_keeps_anybody_out(opened, kind, scheme, size):
    found = Axe().run(opened(kind, size, scheme))
    assert found.violations_count == 0, found.generate_report()


def test_hostile_names_do_nothing(opened, addresses, tmp_path):
    study, contents = pages.hostile(HOSTILE)
    text = page(study, contents, answers(contents.standing(), study))
    addresses["hostile"] = save(text, {}, tmp_path).as_uri()
    shown = opened("hostile")
    assert shown.locator("script").count() == 1
    assert shown.locator("img").count() == 0
    assert shown.locator("h1").inner_text() == HOSTILE
    marks(shown).first.hover()
    assert HOSTILE in shown.locator(".tip").inner_text()
