import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrieval_ft.errors import ConfigError
from retrieval_ft.index.snippets import snippet
from retrieval_ft.index.tokens import LexicalSpec

SPEC = LexicalSpec()
PLAIN = LexicalSpec(stemmer=None, stop_words="none")


def find(text, query, *, spec=SPEC, length=240):
    return snippet(text, spec.tokenize([query])[0], spec=spec, length=length)


def marked(found):
    """The snippet with its matches in brackets."""
    text = found.text
    for begin, end in reversed(found.spans):
        text = f"{text[:begin]}[{text[begin:end]}]{text[end:]}"
    return text


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("Two buffers overflowed.", "buffer overflow", "Two [buffers] [overflowed]."),
        ("The Straße is long", "STRASSE", "The [Straße] is long"),
        ("A ﬁne ﬀ buffer", "fine buffer", "A [ﬁne] ﬀ [buffer]"),
        ("Un café, cafe\u0301 et cafe", "café", "Un [café], [cafe\u0301] et cafe"),
        ("\uff22\uff35ffer and ｶﾞｲﾄﾞ!", "buffer ガイド", "[\uff22\uff35ffer] and [ｶﾞｲﾄﾞ]!"),
        ("In İstanbul now", "istanbul", "In [İstanbul] now"),
        ("a buf\u00adfer here", "buffer", "a [buf\u00adfer] here"),
        ("weighs 5㎏ or ½ pound", "5kg", "weighs [5㎏] or ½ pound"),
        ("ﷺ then buffer", "buffer", "ﷺ then [buffer]"),
        ("שלום עולם, שלום!", "שלום", "[שלום] עולם, [שלום]!"),
        ("قرأت الكتاب أمس", "الكتاب", "قرأت [الكتاب] أمس"),
        ("मैंने हिन्दी सीखी", "हिन्दी", "मैंने [हिन्दी] सीखी"),
        (
            "😀buffer😀 👩\u200d👩\u200d👧 buffer",
            "buffer",
            "😀[buffer]😀 👩\u200d👩\u200d👧 [buffer]",
        ),
        ("nul\x00buffer\x1b[31m\x07buffer\r\n", "buffer", "nul\x00[buffer]\x1b[31m\x07[buffer]"),
        ("snake_case is one word", "snake", "snake_case is one word"),
        ("使用Python编程语言。数据库", "python 数据", "使用[Python]编程语言。[数据]库"),
        ("关系数据库系统", "数据库", "关系[数据库]系统"),
        ("数, 参数", "数", "[数], 参数"),
        ("ภาษาไทย buffer", "ไทย", "ภาษา[ไทย] buffer"),
        ("<b>buffer</b> & buffer", "buffer", "<b>[buffer]</b> & [buffer]"),
        ("the cat and the dog", "the", "the cat and the dog"),
    ],
)
def test_matches_are_marked_in_the_text_as_it_stands(text, query, expected):
    assert marked(find(text, query)) == expected


def test_matched_terms_are_those_of_the_whole_passage_in_the_order_of_the_query():
    text = "buffers here. " + "filler " * 100 + "an overflow of overflows"
    found = find(text, "missing overflow buffer overflow", length=40)
    assert found.terms == ("overflow", "buffer")
    assert "buffers" not in found.text


pieces = st.sampled_from(
    [
        *(
            "buffer",
            "Buffers",
            "straße",
            "STRASSE",
            "cafe\u0301",
            "café",
            "e",
            "\u0301",
            "½",
            "5㎏",
        ),
        *("ﬁ", "x", "_", "™", "\u00ad", "\u200d", "\u200b", "İ", "ß", "שלום", "हिन्दी", "각", "😀"),
        *(
            " ",
            " ",
            " ",
            "\n",
            "\x00",
            ".",
            "=",
            "\u0338",
            "\u00a0",
            "\ufeff",
            "¨",
            "①",
            "⑴",
            "\u11a8",
        ),
    ]
)
passages = st.lists(pieces, max_size=12).map("".join)
queries = st.sampled_from(
    ["buffer", "strasse", "café cafe", "kg 5kg", "e x", "fi", "i", "שלום", "हिन्दी", "각 가", "1 2"]
)


@given(passages, queries, st.sampled_from([SPEC, PLAIN]))
@example("a½ 5㎏", "kg 2", PLAIN)
def test_the_spans_are_the_matches_and_all_of_them(text, query, spec):
    wanted = set(spec.tokenize([query])[0])
    found = find(text, query, spec=spec, length=10_000)
    assert set(found.terms) == wanted.intersection(spec.tokenize([text])[0])
    for begin, end in found.spans:
        assert wanted.intersection(spec.tokenize([found.text[begin:end]])[0])
    rest = found.text
    for begin, end in reversed(found.spans):
        rest = f"{rest[:begin]} {rest[end:]}"
    assert not wanted.intersection(spec.tokenize([rest])[0])


# Not found: half of a symbol such as U+32C0 ("1" and a letter) beside another letter, and marks that
# become letters (the last three) where they stand on none.
unusual = st.text(
    st.characters(
        exclude_categories=["Cs", "Co", "Cn", "So"], exclude_characters="\u0345\u0e33\u0eb3"
    ),
    max_size=12,
)


@given(st.lists(unusual | passages, max_size=4).map(" ".join), st.sampled_from([SPEC, PLAIN]))
def test_a_passage_matches_all_of_its_own_terms(text, spec):
    terms = spec.tokenize([text])[0]
    assert snippet(text, terms, spec=spec).terms == tuple(dict.fromkeys(terms))


chinese = st.text("数据库ガイ入x ,", max_size=12)


@given(chinese, st.text("数据库ガイ入x", min_size=1, max_size=3))
def test_terms_of_scripts_without_spaces_are_those_of_the_index(text, query):
    wanted = set(SPEC.tokenize([query])[0])
    found = find(text, query)
    assert set(found.terms) == wanted.intersection(SPEC.tokenize([text])[0])
    assert bool(found.spans) == bool(found.terms)
    for begin, end in found.spans:
        assert wanted.intersection(SPEC.tokenize([found.text[begin:end]])[0])


@given(
    passages | chinese | st.text(max_size=60),
    queries | st.text(max_size=5),
    st.integers(1, 30),
)
def test_a_snippet_is_a_part_of_the_passage_within_its_length(text, query, length):
    found = find(text, query, length=length)
    assert len(found.text) <= length
    assert text[found.start : found.start + len(found.text)] == found.text
    assert found.text == found.text.strip() or not text.strip()
    edges = [place for span in found.spans for place in span]
    assert edges == sorted(set(edges))
    assert all(0 <= place <= len(found.text) for place in edges)
    assert bool(found.spans) == bool(found.terms)
    assert bool(found.text) == bool(text.strip())


@given(
    st.lists(st.sampled_from(["aa", "bb", "cc", "filler", "xx"]), max_size=30).map(" ".join),
    st.integers(6, 40),
)
def test_no_other_part_has_more_of_the_terms(text, length):
    found = find(text, "aa bb cc", spec=PLAIN, length=length)

    def distinct(part):
        return len({"aa", "bb", "cc"}.intersection(part.split()))

    padded = f" {text} "
    parts = [
        padded[at + 1 : at + 1 + length].rsplit(" ", 1)[0]
        if padded[at + 1 + length : at + 2 + length] not in ("", " ")
        else padded[at + 1 : at + 1 + length]
        for at in range(len(padded))
        if padded[at] == " "
    ]
    assert distinct(found.text) == max(map(distinct, parts))


def test_more_matches_win_among_parts_with_as_many_terms_and_then_the_first():
    gap = " xx" * 30
    text = f"aa one{gap} aa two aa{gap} aa three aa"
    assert marked(find(text, "aa", spec=PLAIN, length=12)) == "[aa] two [aa]"


def test_words_at_the_edges_are_whole_and_matches_in_the_middle():
    text = "lorem " * 50 + "buffer" + " ipsum" * 50
    found = find(text, "buffer", length=60)
    assert set(found.text.split()) == {"lorem", "buffer", "ipsum"}
    before, after = found.text.split("buffer")
    assert abs(len(before) - len(after)) <= 6
    assert len(found.text) > 48


def test_a_family_of_emoji_is_not_cut():
    family = "👩\u200d👩\u200d👧"
    found = find(family * 5 + "buffer" + family * 5, "buffer", length=17)
    assert found.text.replace(family, "") == "buffer"


def test_without_a_match_it_is_the_beginning():
    found = find("  One two three four", "buffer", length=12)
    assert (found.text, found.start, found.spans, found.terms) == ("One two", 2, (), ())
    assert find("Unbreakable", "buffer", length=4).text == "Unbr"
    assert find("One two", "", length=40).text == "One two"


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_an_empty_passage_has_an_empty_snippet(text):
    found = find(text, "buffer")
    assert (found.text, found.spans, found.terms) == ("", (), ())


def test_a_word_longer_than_the_snippet_is_cut():
    found = find("x " + "a" * 100, "a" * 100, length=10)
    assert (found.text, found.spans) == ("a" * 10, ((0, 10),))


@pytest.mark.parametrize("filler", ["word and other words ", "naïve mots à côté ", "x" * 20, "."])
def test_ten_megabytes_take_seconds(filler):
    half = filler * (5_000_000 // len(filler))
    began = time.process_time()
    found = find(f"{half} two buffers overflow {half}", "buffer overflow")
    assert time.process_time() - began < 10  # far above what it takes: machines differ
    assert "two [buffers] [overflow]" in marked(found)


def test_a_snippet_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"length = 0: .* at least 1") as caught:
        find("text", "text", length=0)
    assert caught.value.exit_code == 2
