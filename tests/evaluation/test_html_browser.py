import io
import itertools

import pytest
from browser import chromium, opened
from page_example import NASTY, example
from pypdf import PdfReader

from retrieval_ft.evaluation.html import report_html

PLOTS = 10
"""Curves, forest, four times differences by query, separation, training, fusion, soup."""
BOXES = """svgs => svgs.map(svg => {
  const box = svg.getBoundingClientRect();
  return [box.width, box.height, svg.querySelectorAll('path, use').length];
})"""
WIDTH = "() => [document.documentElement.scrollWidth, window.innerWidth]"
OPEN_ALL = "all => all.forEach(one => { one.open = true; })"
LOST = """all => all.map(one => one.getAttribute('aria-labelledby')).flatMap(ids => ids.split(' '))
  .filter(id => !document.getElementById(id)?.textContent.trim())"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(report_html(*example()), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def nasty_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("nasty") / "report.html"
    file.write_text(report_html(*example(text=NASTY, extra=(NASTY,))), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [1280, 360])
def test_every_plot_is_drawn_without_a_complaint_or_a_request(browser, page_file, width):
    with opened(browser, page_file, width=width) as found:
        boxes = found.page.locator("svg.plot").evaluate_all(BOXES)
        assert len(boxes) == PLOTS
        assert all(w > 250 and h > 90 and paths >= 5 for w, h, paths in boxes)
        found.page.wait_for_load_state("networkidle")
        assert found.messages == []
        assert found.requests == [page_file.as_uri()]


def test_markup_in_texts_ids_and_names_is_text(browser, nasty_file):
    with opened(browser, nasty_file) as found:
        page = found.page
        page.locator("details").evaluate_all(OPEN_ALL)
        assert page.locator("script, img, iframe, b").count() == 0
        assert page.evaluate("() => typeof window.hacked") == "undefined"
        title = page.locator(".ranking .title").first.inner_text()
        assert NASTY in title
        assert NASTY in page.locator(".ranking .id").first.inner_text()
        assert any(NASTY[:25] in text for text in page.locator("svg.plot text").all_text_contents())
        assert NASTY[:60] in page.title()
        assert found.messages == []
        assert found.requests == [nasty_file.as_uri()]


def test_an_injected_script_would_be_blocked(browser, page_file, tmp_path):
    """The policy is a second wall: it holds even where escaping would have failed."""
    hacked = '<script>window.hacked = 1</script><img src="https://127.0.0.1:9/x.png">'
    file = tmp_path / "hacked.html"
    file.write_text(
        page_file.read_text("utf-8").replace("</main>", f"{hacked}</main>"), encoding="utf-8"
    )
    with opened(browser, file) as found:
        assert found.page.evaluate("() => typeof window.hacked") == "undefined"
        assert len([text for text in found.messages if "Content Security Policy" in text]) == 2


@pytest.mark.parametrize("name", ["page_file", "nasty_file"])
@pytest.mark.parametrize("width", [360, 1024])
def test_the_page_never_scrolls_sideways(browser, request, name, width):
    with opened(browser, request.getfixturevalue(name), width=width) as found:
        found.page.locator("details").evaluate_all(OPEN_ALL)
        scroll, inner = found.page.evaluate(WIDTH)
        assert scroll <= inner == width


def test_dark_and_light_follow_the_reader_in_text_and_plots(browser, page_file):
    seen = {}
    with opened(browser, page_file) as found:
        for scheme in ("light", "dark"):
            found.page.emulate_media(color_scheme=scheme)
            seen[scheme] = found.page.evaluate(
                """() => [
                  getComputedStyle(document.body).backgroundColor,
                  getComputedStyle(document.body).color,
                  getComputedStyle(document.querySelector('svg.plot text')).fill,
                  getComputedStyle(document.querySelector('svg.plot path[style*=stroke]')).stroke,
                ]"""
            )
    assert seen["light"][0] == "rgb(255, 255, 255)"
    assert all(one != other for one, other in zip(*seen.values(), strict=True))


def test_print_shows_what_is_folded_away_on_light_paper(browser, page_file):
    with opened(browser, page_file, color_scheme="dark") as found:
        folded = found.page.locator("details.example:not([open]) .ranking .title").first
        assert not folded.is_visible()
        found.page.emulate_media(media="print", color_scheme="dark")
        assert folded.is_visible()
        assert not found.page.locator("nav").is_visible()
        body = "() => getComputedStyle(document.body).backgroundColor"
        assert found.page.evaluate(body) == "rgb(255, 255, 255)"
        pages = PdfReader(io.BytesIO(found.page.pdf(format="A4"))).pages
    text = "\n".join(page.extract_text() for page in pages)
    assert len(pages) >= 5
    assert "Loss by step" in text  # a table that is folded on a screen
    assert "seed: 13" in text
    assert "Contents" not in text


def test_headings_figures_and_tables_are_named_for_a_screen_reader(browser, page_file):
    with opened(browser, page_file) as found:
        page = found.page
        levels = page.locator("h1, h2, h3, h4, h5").evaluate_all(
            "all => all.map(one => +one.tagName[1])"
        )
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert page.locator("svg:not([aria-hidden]):not([role=img])").count() == 0
        named = page.locator("[aria-labelledby]")
        assert named.count() > PLOTS
        assert named.evaluate_all(LOST) == []
        assert page.locator("table:not(:has(caption))").count() == 0
        assert page.locator("tr:not(:has(th))").count() == 0
        assert page.locator("th:not([scope])").count() == 0
        # All but the forest, whose table stands open below it.
        assert page.locator("figure.chart:has(details table)").count() == PLOTS - 1
        ids = page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
        assert len(ids) == len(set(ids))
        links = page.locator("a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
        assert all(link[1:] in ids for link in links)
        assert page.locator("html").get_attribute("lang") == "en"


def test_a_keyboard_reaches_the_report_and_opens_what_is_folded(browser, page_file):
    with opened(browser, page_file) as found:
        page = found.page
        page.keyboard.press("Tab")
        skip = page.locator(".skip")
        assert skip.evaluate("one => one === document.activeElement")
        assert skip.evaluate("one => one.getBoundingClientRect().left") >= 0
        page.keyboard.press("Enter")
        assert page.evaluate("() => document.activeElement.id") == "main"
        summary = page.locator("details.numbers summary").first
        summary.focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Shift+Tab")
        outline = "one => getComputedStyle(one).outlineStyle"
        assert summary.evaluate(outline) == "solid"
        page.keyboard.press("Enter")
        assert page.locator("details.numbers").first.get_attribute("open") is not None
