import re

import pytest
import reader_words
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset import Link
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.markdown import parse
from retrieval_ft.dataset.readers.reading import Fault

LINKS = Links("guide/a.md", frozenset({"guide/b.md", "x.md"}))
phrase = reader_words.phrases


def joined(*parts):
    return st.tuples(*parts).map("".join)


inline = st.one_of(
    phrase,
    phrase.map(lambda t: f"**{t}** and `{t}`"),
    phrase.map(lambda t: f"[{t}](b.md 'tip')"),
    phrase.map(lambda t: f"![{t}](b.png)"),
    phrase.map(lambda t: f"<kbd>{t}</kbd><br>{t}"),
)
block = st.one_of(
    inline,
    joined(st.sampled_from(["# ", "## ", "### "]), inline),
    joined(phrase, st.sampled_from(["\n===", "\n---"])),
    st.lists(inline, min_size=1).map(lambda items: "\n".join(f"- {item}" for item in items)),
    st.lists(inline, min_size=1).map(lambda items: "\n".join(f"3. {item}\n" for item in items)),
    joined(st.just("- "), phrase, st.just("\n  - "), phrase, st.just("\n\n    "), phrase),
    joined(st.just("> "), inline, st.just("\n> > # "), inline),
    joined(st.just("```py\n"), phrase, st.just("\n```")),
    joined(st.just("    "), phrase),
    joined(st.just("| "), inline, st.just(" | b |\n|---|---|\n| "), inline, st.just(" | "), phrase),
    joined(st.just("<div><h2>"), phrase, st.just("</h2>"), phrase, st.just("</div>")),
    joined(st.just("<tr><td>"), phrase, st.just("</td><td>"), phrase, st.just("</td></tr>")),
    joined(phrase, st.just("[^1]\n\n[^1]: "), phrase),
    joined(st.just("[^n]: "), reader_words.words),
)


def seen(text):
    """A text without what a reader of the page does not see."""
    for mark in ("b.md 'tip'", "b.png", "```py", "[^n]"):
        text = text.replace(mark, " ")
    return re.sub("</?[a-z0-9]+>", " ", text)


@settings(deadline=None)
@given(st.lists(block, max_size=8).map("\n\n".join))
def test_every_word_of_a_document_is_found(text):
    assert not reader_words.lost(seen(text), parse(text, LINKS))


@settings(deadline=None)
@given(st.text(alphabet="ab \n\t#*->=+1.!\"'\\", max_size=60))
def test_every_letter_of_any_text_is_found(text):
    found = "".join(reader_words.kept(parse(text, LINKS)).elements())
    assert found.count("a") >= text.count("a")
    assert found.count("b") >= text.count("b")


def test_headings_lists_code_and_tables_become_sections_of_text():
    text = """
# Pumps

Two *kinds*
of pump.

## Small ones

1. prime it
2. start it
   - slowly

```sh
pump --start
# no heading
```

| size | price |
|------|-------|
| 3    | 4 \\| 5 |

#### Deep

- one

- two

> quoted
> ## no section
"""
    parsed = parse(text, LINKS)
    assert parsed.title == "Pumps"
    assert reader_words.outline(parsed) == [
        ((), "Two kinds of pump."),
        (
            ("Small ones",),
            "1. prime it\n2. start it\n  - slowly\n\npump --start\n# no heading\n\n"
            "size | price\n3 | 4 | 5",
        ),
        (("Small ones", "Deep"), "- one\n\n- two\n\nquoted\n\nno section"),
    ]


def test_links_are_resolved_and_stay_with_their_section():
    text = "# A [b](b.md#x)\n\n<a href='/x'>html *one*</a> ![p](p.png) <https://e.org>\n\n|[c](../x.md)|\n|-|"
    assert parse(text, LINKS).sections[0].links == (
        Link("b", "guide/b.md#x"),
        Link("html one", "x.md"),
        Link("https://e.org", "https://e.org"),
        Link("c", "x.md"),
    )


def test_reference_links_and_footnotes_are_read():
    text = "See [the manual][m] and a note[^1].\n\n[m]: b.md\n[^1]: Grüße"
    parsed = parse(text, LINKS)
    assert parsed.sections[0].text == "See the manual and a note^1.\n\n[^1] Grüße"
    assert parsed.sections[0].links == (Link("the manual", "guide/b.md"),)


def test_front_matter_gives_the_title_and_metadata():
    text = "---\ntitle: The pump\ndate: 2024-05-01\ntags: [a, b]\nspan: 3\nno: {x: 1}\n---\nText"
    parsed = parse(text, LINKS)
    assert (parsed.title, parsed.sections[0].text) == ("The pump", "Text")
    assert parsed.metadata == {"date": "2024-05-01", "tags": ["a", "b"], "span_": 3}


@pytest.mark.parametrize("content", ["a: [", "just words", "- a", "when: 2024-99-99"])
def test_front_matter_that_is_no_yaml_mapping_stays_text(content):
    assert parse(f"---\n{content}\n---\nText", LINKS).sections[0].text == f"{content}\n\nText"


def test_front_matter_cannot_fill_the_memory():
    bomb = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20))
    parsed = parse(f"---\na0: &a0 [x]\n{bomb}\ntitle: T\n---\nText", LINKS)
    assert (parsed.title, parsed.metadata) == ("T", {"a0": ["x"]})


def test_rows_of_a_table_that_began_in_an_earlier_html_block_keep_their_cells_apart():
    parsed = parse("<table>\n\n<tr><td>one</td><td>two</td></tr>\n\n</table>", LINKS)
    assert parsed.sections[0].text == "one | two"


@pytest.mark.parametrize(
    "text", [">" * 200 + " deep", "".join("  " * i + "- x\n" for i in range(120)), ">" * 90_000]
)
def test_nesting_without_end_is_a_fault_and_no_silent_loss(text):
    with pytest.raises(Fault, match="too deep: about 100 lists or quotes inside each other"):
        parse(text, LINKS)
