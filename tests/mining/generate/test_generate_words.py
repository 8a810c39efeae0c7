import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.mining.generate import words


@pytest.mark.parametrize(
    ("given_text", "cleaned"),
    [
        ("  Late \n fees\t", "Late fees"),
        ("3.2 Late fees", "Late fees"),
        ("2. Late fees", "Late fees"),
        ("- 1) Late fees:", "Late fees"),
        ("## Late fees ¶", "Late fees"),
        ("2024 budget rules", "2024 budget rules"),
        ("3.11", "3.11"),
        ("", ""),
    ],
)
def test_white_space_numbering_and_permalinks_go(given_text, cleaned):
    assert words.clean(given_text) == cleaned


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("late fees", None),
        ("Gebühren für Verspätung", None),
        ("退款规则", None),
        ("fees", "too_short"),
        ("json.dumps", "path"),
        ("re-use", "too_short"),
        ("docs/a.md", "path"),
        ("Late fees.pdf", "path"),
        ("https://example.org/late fees", "path"),
        ("2024 11 20", "no_words"),
        ("how to do it", "no_words"),
        ("Release notes", "no_words"),
        ("", "no_words"),
        ("fee " * 40, None),
        ("fee " * 41, "too_long"),
    ],
)
def test_what_is_no_query_is_named(query, reason):
    assert words.fault(query.strip()) == reason


def test_characters_of_a_script_without_spaces_count_as_words():
    assert words.count_words("退款 rules apply") == 4


def test_content_words_are_case_folded_and_hold_no_stop_words():
    assert words.content_words("The FEE is the fee, straße 5") == {"fee", "strasse", "5"}


@given(st.text())
def test_a_cleaned_text_has_single_spaces_only(text):
    cleaned = words.clean(text)
    assert cleaned == " ".join(cleaned.split())
    assert words.informative(cleaned) <= len(words.content_words(cleaned))


def test_keys_differ_by_seed_and_by_where_the_parts_end():
    assert words.key(1, "ab", "c") == words.key(1, "ab", "c")
    assert len({words.key(1, "ab", "c"), words.key(2, "ab", "c"), words.key(1, "a", "bc")}) == 3
