"""Reading what models answer: JSON in any wrapping, plain lines, and nothing out of prose."""

import json

import pytest
from chat_server import queries
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.mining.synthetic.answers import normalised, parse, refusal

JSON = queries("one thing", "another thing")
BOTH = ["one thing", "another thing"]

words = st.text(alphabet="abcdefgh ÄÖ漢字🙂", min_size=1, max_size=30).map(
    lambda text: "x" + " ".join(text.split())
)


@pytest.mark.parametrize(
    "answer",
    [
        JSON,
        json.dumps(json.loads(JSON), indent=2),
        f"```json\n{JSON}\n```",
        f"```\n{JSON}```",
        f"Here you are:\n\n```json\n{JSON}\n```\nDid that help?",
        f"Sure! {JSON} Is there more?",
        json.dumps(BOTH),
        json.dumps([{"query": text} for text in BOTH]),
        json.dumps({"queries": [{"query": text} for text in BOTH]}),
        f"<think>They want {{}} with [two] things.\nFine.</think>\n{JSON}",
        f"The form is [that]. Good.</think>{JSON}",
        f'The form is {{"queries": ["..."]}}, so: {JSON}',
        "1. one thing\n2. another thing",
        "Here are two queries:\n\n- one thing\n- another thing\n",
        '* "one thing"\n* "another thing"',
        "(1) one thing\n(2) another thing",
        "one thing\nanother thing",
        "Queries:\none thing\n\nanother thing",
    ],
)
def test_queries_are_read_in_any_wrapping(answer):
    assert parse(answer, number=2) == BOTH


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "...",
        "{}",
        "[]",
        '{"queries": []}',
        '{"queries": ["..."]}',
        '{"queries": [null, 3]}',
        '{"queries": ["one thing", "anoth',
        '{"answer": "one thing"}',
        "[[[[" * 5000,
        "<!DOCTYPE html><html><body>Sign in</body></html>",
        "<think>one thing, another thing",
        "I'm sorry, I cannot do that.",
        "I can\u2019t help with this passage.",
        "As an AI model I have no view.",
        "The passage is about bread.\nIt says much.\nMore could be said.",
    ],
)
def test_what_holds_no_queries_gives_none(answer):
    assert parse(answer, number=2) == []


def test_a_query_may_begin_like_an_excuse():
    assert parse("I can't connect to the printer", number=1) == ["I can't connect to the printer"]


@given(st.lists(words, min_size=1, max_size=6), st.integers(1, 6))
def test_json_round_trips(texts, number):
    assert parse(queries(*texts), number=number) == texts


@given(st.one_of(st.text(), st.text(alphabet='{}[]":,\\n\ud800<>`ab- 1.').map(str)))
def test_any_text_at_all_gives_clean_lines(text):
    for query in parse(text, number=3):
        assert query == query.strip() == " ".join(query.split())
        query.encode()


@given(words, words)
def test_a_query_that_is_its_passage_or_an_example_is_refused(query, other):
    assert refusal(query.upper(), passage=f" {query}\n", examples=[]) == "copies_passage"
    assert refusal(query, passage=other + " and more", examples=[f"{query} "]) == "copies_example"


def test_words_of_the_passage_may_be_used_but_no_long_stretch_of_it():
    passage = "The ferry to Castra leaves at noon from the second pier of the old harbour."
    assert refusal("second pier", passage=passage, examples=[]) is None
    stretch = "Leaves at noon from the second pier?"
    assert refusal(stretch, passage=passage, examples=[]) == "copies_passage"
    assert refusal("noon from the second pier?", passage=passage, examples=[]) is None
    assert refusal(" -- ", passage=passage, examples=[]) == "empty"
    assert refusal("w " * 48, passage=passage, examples=[]) is None
    assert refusal("w " * 49, passage=passage, examples=[]) == "too_long"
    assert refusal("字" * 401, passage=passage, examples=[]) == "too_long"


def test_normalised_ignores_case_and_white_space():
    assert normalised(" Straße\tNr.\n1 ") == normalised("STRASSE nr. 1")
