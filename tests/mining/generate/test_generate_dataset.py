import random

import pytest

from retrieval_ft.dataset import Corpus
from retrieval_ft.errors import DataError
from retrieval_ft.mining.generate import GeneratedPair, to_dataset

CORPUS = Corpus(("a", "b", "c"), ("boats sail", "kites fly", "rain falls"), ("", "", ""))
PAIRS = [
    GeneratedPair("Wide rivers", "b", "heading", "view of b"),
    GeneratedPair("wide  RIVERS", "a", "title", "view of a"),
    GeneratedPair("old towns", "c", "question"),
]


def test_one_text_is_one_query_with_several_positives_and_views():
    made = to_dataset(PAIRS, CORPUS)
    ids = {text: query_id for query_id, text in made.queries.text_of.items()}
    rivers, towns = ids["wide  RIVERS"], ids["old towns"]  # the text of the first passage
    assert made.grades == {rivers: {"a": 1, "b": 1}, towns: {"c": 1}}
    assert made.views == {rivers: {"a": "view of a", "b": "view of b"}}
    assert made.queries.metadata_of(rivers) == {"origin": "title"}
    assert made.queries.metadata_of(towns) == {"origin": "question"}
    assert made.queries.ids == tuple(sorted(ids.values()))
    assert made.dropped == {}


def test_the_result_hangs_neither_on_order_nor_on_other_pairs():
    shuffled = PAIRS.copy()
    random.Random(1).shuffle(shuffled)
    assert to_dataset(shuffled, CORPUS) == to_dataset(PAIRS, CORPUS)
    assert set(to_dataset(PAIRS[2:], CORPUS).queries.ids) < set(
        to_dataset(PAIRS, CORPUS).queries.ids
    )


def test_pairs_made_twice_and_queries_that_are_there_already_are_counted():
    again = [*PAIRS, GeneratedPair("Old towns", "c", "title", "view")]
    made = to_dataset(again, CORPUS, own=["Wide rivers "])
    assert made.queries.texts == ("old towns",)
    assert made.dropped == {"duplicate": 1, "own_query": 2}


def test_a_pair_of_an_unknown_passage_is_refused_by_name():
    with pytest.raises(DataError, match=r"'old towns'\) names passage 'zz'.*make the pairs again"):
        to_dataset([GeneratedPair("old towns", "zz", "title")], CORPUS)


def test_nothing_gives_nothing():
    made = to_dataset([], CORPUS)
    assert (len(made.queries), made.grades, made.views, made.dropped) == (0, {}, {}, {})
