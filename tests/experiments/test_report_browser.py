"""The page in a real browser: it draws, follows the reader's colours and window, obeys clicks, and asks nobody else.

Needs Playwright (of the extra `dev`) and a Chromium: Debian's, Chrome, or what `playwright install chromium` brings.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from experiments.report.command import main
from tests.experiments.run_folders import config, write_run, write_sweep

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HIDDEN = "<img src=x onerror=\"document.title='harmed'\">"
METHOD = "Bokeh.documents.flatMap((one) => [...one.all_models]).filter((one) => one.tags.includes('method'))"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_sweep(folder, {"none": 0, "cbp": 10}, seeds=3, algorithm="sac")
    harmful = config("none", 0, algorithm="sac")
    harmful["plasticity"] = {HIDDEN: {}}
    write_run(folder / "harmful", harmful, 50.0, values=lambda index: HIDDEN)
    write_sweep(folder, {"none": 0, "cbp": -10}, seeds=2, env="Zen-v1")
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert main([str(folder), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = own if os.path.exists(own) else next(filter(None, map(shutil.which, NAMES)), None)
        if found is None:
            pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, report):
    """Opens the page in a window of its own; what went wrong and what was asked for is in its attributes."""
    contexts = []

    def open_page(width=1200, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.faults, page.asked = [], []
        page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")
        page.wait_for_function("Bokeh.documents.every((one) => one.is_idle)")
        settle(page)
        return page

    yield open_page
    for context in contexts:
        context.close()


def settle(page):
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 150)))")


def until(page, look, enough):
    """What `look` returns once it is enough, or after ten seconds: figures are painted when the browser has time."""
    for _ in range(60):
        found = look()
        settle(page)
        if enough(found) and found == look():
            break
    return found


# Bokeh's canvases are inside shadow roots
COLOURS = """() => {
  const found = [];
  const visit = (root) => {
    for (const one of root.querySelectorAll("*")) {
      if (one.shadowRoot) visit(one.shadowRoot);
      if (one.tagName === "CANVAS" && one.width > 50) {
        const data = one.getContext("2d").getImageData(0, 0, one.width, one.height).data, seen = new Map();
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) {
          const key = `${data[i]},${data[i + 1]},${data[i + 2]}`;
          seen.set(key, (seen.get(key) ?? 0) + 1);
        }
        found.push(Object.fromEntries([...seen].filter(([, count]) => count > 30)));
      }
    }
  };
  visit(document);
  return found;
}"""


def painted(page):
    """The opaque colours of each canvas that has any: colour -> pixels."""
    return [one for one in page.evaluate(COLOURS) if one]


def rgb(text):
    return ",".join(str(int(text[place : place + 2], 16)) for place in (1, 3, 5))


def test_all_figures_are_drawn_without_a_fault_or_a_request(visit, report):
    page = visit()
    figures = page.evaluate("document.querySelectorAll('.plot').length")
    assert figures == 2 + 3 * 3 + 2 + 2 * 3
    assert page.evaluate("document.documentElement.dataset.drawn") == str(figures)
    assert len(painted(page)) >= figures
    assert not page.faults
    assert [url for url in page.asked if not url.startswith("data:")] == [report.as_uri()]


def test_a_click_on_a_method_hides_it_in_all_figures_of_its_section(visit):
    page = visit()
    chip = page.locator("#env-0 .chip", has_text="cbp")
    shown = f"{METHOD}.map((one) => [one.tags[1], one.tags[2], one.visible])"
    index = int(chip.get_attribute("data-index"))
    colour = rgb(chip.evaluate("(one) => getComputedStyle(one).getPropertyValue('--light').trim()"))

    def pixels():
        return sum(one.get(colour, 0) for one in painted(page))

    before = until(page, pixels, lambda count: count > 1000)
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    for place, method, visible in page.evaluate(shown):
        assert visible is not (place == 0 and method == index)
    assert until(page, pixels, lambda count: count < 0.1 * before) < 0.1 * before
    chip.press("Enter")
    assert all(visible for _, _, visible in page.evaluate(shown))
    assert until(page, pixels, lambda count: count > 0.9 * before) == pytest.approx(before, rel=0.1)


def test_zooming_moves_all_axes_of_steps_and_a_double_click_brings_them_back(visit):
    page = visit()
    plot = page.locator("[data-figure='figure-0-returns']")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    across = "Bokeh.documents[0].roots().map((one) => one.x_range).map((one) => [one.start, one.end])"
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 200, steps=5)
    page.mouse.up()
    settle(page)
    ranges = page.evaluate(across)
    zoomed = [one for one in ranges if one[0] > 200 and one[1] < 900]
    assert len(zoomed) == 1 + 3 * 3
    plot.dblclick(position={"x": box["width"] / 2, "y": 100})
    settle(page)
    assert [0, 1000] in page.evaluate(across)
    assert not [one for one in page.evaluate(across) if one[0] > 200]


def test_hovering_shows_values_and_runs_no_code_of_theirs(visit):
    page = visit()
    plot = page.locator("[data-figure='figure-0-returns']")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    said = ""
    for height in range(20, int(box["height"]) - 50, 3):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + height)
        said += page.evaluate(
            """() => { let text = ""; const visit = (root) => { for (const one of root.querySelectorAll("*")) {
              if (one.classList.contains("bk-Tooltip")) text += (one.shadowRoot ?? one).textContent;
              if (one.shadowRoot) visit(one.shadowRoot); } }; visit(document); return text; }"""
        )
    assert "runs" in said
    assert "steps" in said
    assert HIDDEN in said  # as text
    assert page.title() != "harmed"
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert not page.faults


@pytest.mark.parametrize("width", [320, 375, 768])
def test_a_narrow_window_has_nothing_beyond_its_edge(visit, width):
    page = visit(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("Math.max(...[...document.querySelectorAll('.plot')].map((one) => one.scrollWidth))") <= width
    assert len(painted(page)) >= 19


# of each table that is wider than its place: whether it says so, fades, and shows its last column once scrolled
TABLES = """async () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)));
  await frame();
  const found = [];
  for (const scroll of document.querySelectorAll(".scroll")) {
    const fades = () => getComputedStyle(scroll).maskImage !== "none", hint = scroll.previousElementSibling;
    const wide = scroll.scrollWidth > scroll.clientWidth + 1, before = fades(), said = hint.offsetHeight > 0;
    scroll.scrollLeft = 1e6;
    await frame();
    const cells = [...scroll.querySelectorAll("tr > :last-child")].map((one) => one.getBoundingClientRect().right);
    found.push({wide, said, before, after: fades(), beyond: Math.max(...cells) - scroll.getBoundingClientRect().right});
  }
  return found;
}"""


@pytest.mark.parametrize(("width", "some"), [(1280, 0), (800, 1), (400, 10)])
def test_a_table_wider_than_the_window_says_so_and_can_be_read_to_its_end(visit, width, some):
    page = visit(width)
    tables = page.evaluate(TABLES)
    assert len([one for one in tables if one["wide"]]) >= some
    for one in tables:
        assert one["said"] == one["before"] == one["wide"]
        assert not one["after"]
        assert one["beyond"] < 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_no_table_is_cut_off(visit):
    page = visit(688)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.emulate_media(media="print")
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    said = """() => {  // also if the page was not laid out anew before it was printed
      const table = document.querySelector(".scroll"), hint = table.previousElementSibling;
      table.classList.add("more");
      hint.hidden = false;
      return [getComputedStyle(table).maskImage, getComputedStyle(table).overflowX, getComputedStyle(hint).display];
    }"""
    assert page.evaluate(said) == ["none", "visible", "none"]
    beyond = "[...document.querySelectorAll('td, th')].map((one) => one.getBoundingClientRect().right)"
    assert max(page.evaluate(beyond)) <= 688


def test_a_finger_scrolls_over_figures(visit):
    page = visit(375, has_touch=True, is_mobile=True)
    active = page.evaluate("Bokeh.documents[0].roots().map((one) => one.toolbar.gestures.pan.active)")
    assert active == [None] * 19


def test_a_dark_page_is_dark_and_changes_with_the_reader(visit):
    page = visit(scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(20, 23, 27)"
    dark = painted(page)[0]
    assert rgb("#62aeea") in dark
    assert rgb("#1f6fb4") not in dark
    page.emulate_media(color_scheme="light")
    settle(page)
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    light = painted(page)[0]
    assert rgb("#1f6fb4") in light
    assert rgb("#62aeea") not in light


def test_printing_is_light_with_all_measures_and_leaves_the_page_as_it_was(visit, tmp_path):
    page = visit(scheme="dark")
    folded = "document.querySelectorAll('details.measure:not([open])').length"
    before = page.evaluate(folded)
    page.evaluate(
        """() => addEventListener("beforeprint", () => { window.printed = {
          folded: document.querySelectorAll('details.measure:not([open])').length,
          ink: Bokeh.documents[0].roots()[0].left[0].major_label_text_color,
          widest: Math.max(...[...document.querySelectorAll('.plot')].map((one) => one.getBoundingClientRect().width)),
        }; })"""
    )
    page.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
    printed = page.evaluate("window.printed")
    assert printed["folded"] == 0
    assert printed["ink"] == "#22262b"
    assert printed["widest"] <= 680
    assert Path(tmp_path / "page.pdf").stat().st_size > 20_000
    settle(page)
    assert page.evaluate(folded) == before > 0
    assert page.evaluate("Bokeh.documents[0].roots()[0].left[0].major_label_text_color") == "#e4e8ed"
    assert not page.faults
