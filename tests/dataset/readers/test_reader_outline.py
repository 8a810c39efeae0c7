import reader_words
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset import Link
from retrieval_ft.dataset.readers.outline import Outline

headings = st.tuples(st.integers(1, 4), reader_words.phrases)
blocks = st.tuples(st.just(0), reader_words.phrases)


def fed(steps, title=""):
    outline = Outline()
    for level, text in steps:
        outline.heading(level, text) if level else outline.block(text)
    return outline.parsed(title)


@settings(deadline=None)
@given(steps=st.lists(headings | blocks, max_size=12), title=st.just("") | reader_words.phrases)
def test_no_text_is_lost_and_blocks_keep_their_order(steps, title):
    parsed = fed(steps, title)
    assert not reader_words.lost(" ".join([title, *(text for _, text in steps)]), parsed) or any(
        text == title for _, text in steps
    )
    texts = "\n\n".join(text for level, text in steps if not level)
    assert "\n\n".join(s.text for s in parsed.sections if s.text) == texts


@settings(deadline=None)
@given(steps=st.lists(headings | blocks, max_size=12))
def test_the_path_of_a_section_is_the_stack_of_headings_above_it(steps):
    parsed = fed(steps, title="\N{SNOWMAN}")  # so that no heading becomes the title
    expected, path = [], []
    for level, text in steps:
        if level:
            path = [*(p for p in path if p[0] < level), (level, text)]
        else:
            expected.append((tuple(t for _, t in path), text))
    found = [(s.headings, text) for s in parsed.sections for text in s.text.split("\n\n") if text]
    assert found == expected


def test_the_lone_first_heading_is_the_title():
    assert fed([(1, "T"), (0, "a"), (2, "S"), (0, "b")]).title == "T"
    assert reader_words.outline(fed([(1, "T"), (0, "a"), (2, "S"), (0, "b")])) == [
        ((), "a"),
        (("S",), "b"),
    ]
    assert fed([(2, "T"), (3, "S")]).title == "T"


def test_a_heading_behind_text_or_beside_others_is_no_title():
    assert fed([(0, "a"), (1, "T"), (0, "b")]).title == ""
    assert fed([(1, "one"), (0, "a"), (1, "two")]).title == ""
    assert fed([(2, "one"), (1, "two")]).title == ""


def test_a_title_from_elsewhere_takes_the_first_heading_in_only_where_they_are_equal():
    assert reader_words.outline(fed([(1, "The  Title"), (0, "a")], "the title")) == [((), "a")]
    assert reader_words.outline(fed([(1, "Other"), (0, "a")], "The Title")) == [(("Other",), "a")]


def test_a_heading_without_text_has_a_section_unless_it_stands_in_the_path_of_the_next():
    parsed = fed([(1, "a"), (2, "b"), (2, "c"), (0, "x"), (1, "d")])
    assert reader_words.outline(parsed) == [
        (("a", "b"), ""),
        (("a", "c"), "x"),
        (("d",), ""),
    ]


def test_links_stay_with_their_section_and_empty_ones_go():
    outline = Outline()
    outline.heading(1, "a")
    outline.block("x")
    outline.link(" two\nwords ", "b.md")
    outline.link("", "c.md")
    outline.link("words", "")
    outline.heading(1, "b")
    assert [s.links for s in outline.parsed().sections] == [(Link("two words", "b.md"),), ()]


def test_tight_blocks_are_lines_and_others_paragraphs():
    outline = Outline()
    for text, tight in (("a", False), ("b", True), (" \n", True), ("  c\n", False)):
        outline.block(text, tight=tight)
    assert outline.parsed().sections[0].text == "a\nb\n\n  c"
