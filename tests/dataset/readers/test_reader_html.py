import pytest
import reader_words
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset import Link
from retrieval_ft.dataset.readers.html import DEEPEST, parse
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.reading import Fault

LINKS = Links("docs/a.html", frozenset({"docs/b.html"}))
TAGS = (
    "div p b i span h1 h2 h3 ul ol li dl dt dd table tbody tr td th pre code blockquote a section "
    "article main details summary button label em figure figcaption form x-own"
)
tags = st.sampled_from([f"<{tag}>" for tag in TAGS.split()] + [f"</{tag}>" for tag in TAGS.split()])
pieces = tags | reader_words.phrases | st.sampled_from(["<br>", "<hr>", " ", "<a href=b.html>"])


@settings(deadline=None)
@given(st.lists(pieces, max_size=25))
def test_every_word_of_any_tag_soup_is_found(soup):
    written = "".join(piece if piece[0] in " <" else f" {piece} " for piece in soup)
    source = " ".join(piece for piece in soup if piece[0] != "<")
    assert not reader_words.lost(source, parse(written, LINKS))


@settings(deadline=None)
@given(st.lists(reader_words.phrases, min_size=6, max_size=6))
def test_every_word_of_a_page_is_found_and_in_its_order(texts):
    page = "<title>{}</title><h1>{}</h1><p>{}<ul><li>{}</ul><table><td>{}<td>{}</table>"
    parsed = parse(page.format(*texts), LINKS)
    words = " ".join((parsed.title, *parsed.sections[0].headings, parsed.sections[0].text)).split()
    expected = " ".join(texts).split()
    if texts[0].casefold() == texts[1].casefold():
        expected = " ".join(texts[1:]).split()
    assert [word for word in words if word not in "-|"] == expected


def test_headings_lists_tables_and_code_become_sections_of_text():
    page = """<!doctype html><html><head><title>Pumps &amp; more</title></head><body>
    <h1>Pumps</h1> two
      <b>kin</b>ds<br>of pump
    <h2>Small <i>ones</i></h2><ol><li>prime it<li>start it</ol>
    <pre>pump --start
      --slow</pre>
    <table><tr><th>size<th>price</tr><tr><td>3<td>4</table>
    <h2>Large<br>ones</h2><div>none</div><div>yet</div></body></html>"""
    parsed = parse(page, LINKS)
    assert parsed.title == "Pumps & more"
    assert reader_words.outline(parsed) == [
        (("Pumps",), "two kinds\nof pump"),
        (
            ("Pumps", "Small ones"),
            "- prime it\n- start it\n\npump --start\n      --slow\n\nsize | price\n3 | 4",
        ),
        (("Pumps", "Large ones"), "none\n\nyet"),
    ]


def test_the_frame_of_a_page_is_left_out_but_not_the_header_of_an_article():
    page = """<header>banner</header><nav>menu</nav><aside>ad</aside><script>s</script>
    <style>c</style><template>t</template><noscript>n</noscript><!-- comment -->
    <article><header><h1>Title</h1></header>text<footer>by me</footer></article>
    <div role="navigation">m</div><p hidden>h</p><dialog>d</dialog><footer>imprint</footer>"""
    parsed = parse(page, LINKS)
    assert (parsed.title, reader_words.outline(parsed)) == ("Title", [((), "text\n\nby me")])


def test_links_are_resolved_and_marks_that_link_to_themselves_go():
    page = """<h1><a href="#t">T</a><a class="headerlink" href="#t">¶</a></h1><h2>S <a href=b.html>see</a></h2>
    <a href="b.html#x"><div>whole</div> block</a> <a href="#s">below</a> <a>no place</a>"""
    parsed = parse(page, LINKS)
    assert parsed.title == "T"
    assert parsed.sections[0].headings == ("S see",)
    assert parsed.sections[0].links == (
        Link("see", "docs/b.html"),
        Link("whole block", "docs/b.html#x"),
        Link("below", "docs/a.html#s"),
    )


def test_a_picture_gives_its_alternative_text():
    assert parse("a<img alt='small pump' src=x>b", LINKS).sections[0].text == "a small pump b"


def test_a_page_of_frames_alone_has_no_text():
    assert parse("<frameset><frame src=x></frameset>", LINKS).sections == ()


@pytest.mark.parametrize("tail", ["", "</div>" * (DEEPEST + 1)])
def test_nesting_without_end_is_a_fault(tail):
    with pytest.raises(Fault, match="too deep: over 5,000 HTML elements inside each other"):
        parse("<div>" * (DEEPEST + 1) + "x" + tail, LINKS)


def test_nesting_up_to_the_bound_is_read():
    assert parse("<div>" * DEEPEST + "x", LINKS).sections[0].text == "x"


def test_many_elements_that_are_not_inside_each_other_are_no_nesting():
    page = "<p>a<li>b<div>c</div><span>" * 6_000 + "<div><span></div>" * 6_000
    with pytest.raises(Fault):
        parse(page, LINKS)  # spans that nobody closes do nest
    page = "<p>a<li>b<div><span>c</div>" * 6_000
    assert parse(page, LINKS).sections[0].text.count("c") == 6_000
