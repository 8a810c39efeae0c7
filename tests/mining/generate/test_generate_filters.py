import numpy as np
import pytest

from retrieval_ft.config import PairsConfig
from retrieval_ft.dataset import Corpus
from retrieval_ft.mining.generate.filters import (
    account,
    check_overlap,
    check_round_trip,
    describe,
    overlap,
    shown,
)
from retrieval_ft.mining.generate.types import GeneratedPair

CORPUS = Corpus(("a", "b"), ("boats sail far", "kites fly high"), ("Lake", ""))


def pair(query, view=None, *, passage_id="a", kind="title"):
    return GeneratedPair(query, passage_id, kind, view)


@pytest.mark.parametrize(
    ("query", "text", "share"),
    [
        ("fast red boats", "Boats, red and blue", 2 / 3),
        ("the boats and the boats", "boats", 1.0),
        ("boats", "", 0.0),
        ("of the", "of the", 0.0),
        ("STRASSE", "straße", 1.0),
    ],
)
def test_overlap_is_the_share_of_the_querys_words(query, text, share):
    assert overlap(query, text) == share


def test_what_must_be_found_is_the_view_or_else_the_passage_with_its_title():
    assert shown(pair("q", "kept words"), CORPUS) == "kept words"
    assert shown(pair("q"), CORPUS) == "Lake boats sail far"


def test_a_pair_at_the_ceiling_stays_and_one_over_it_goes():
    config = PairsConfig(max_overlap=0.5)
    at, over, whole = pair("red boats", "boats"), pair("red boats", "boats red"), pair("boats far")
    found = check_overlap([at, over, whole], CORPUS, config=config)
    assert found.kept == (at,)
    assert [(d.pair, d.reason, d.value) for d in found.dropped] == [
        (over, "too_easy", 1.0),
        (whole, "too_easy", 1.0),
    ]


def test_a_pair_at_the_last_rank_stays_and_one_behind_it_or_nowhere_goes():
    pairs = [pair(f"query {i}") for i in range(4)]
    ranks = np.array([1.0, 20.0, 21.0, np.inf])
    found = check_round_trip(pairs, ranks, config=PairsConfig(round_trip_k=20))
    assert found.kept == tuple(pairs[:2])
    assert [(d.reason, d.value) for d in found.dropped] == [
        ("not_found", 21),
        ("not_found", np.inf),
    ]


def test_ranks_of_other_pairs_are_refused():
    with pytest.raises(ValueError, match="zip"):
        check_round_trip([pair("query a")], np.array([1.0, 2.0]), config=PairsConfig())


def test_the_account_has_every_pair_once_and_the_line_says_the_shares():
    config = PairsConfig(max_overlap=0.8, round_trip_k=20)
    pairs = [
        pair("red boats", "red boats"),
        pair("blue kites", "sky"),
        pair("old towns", "sky", kind="crop"),
        pair("new towns", "sky", kind="crop"),
    ]
    easy = check_overlap(pairs, CORPUS, config=config)
    lost = check_round_trip(easy.kept, np.array([1, 99, np.inf]), config=config)
    assert account(easy, lost) == {
        "crop": {"not_found": 2},
        "title": {"kept": 1, "too_easy": 1},
    }
    line = describe(easy, lost, config=config)
    assert line.startswith("1 of 4 generated pairs kept; 1 dropped (25%) because over 80% of")
    assert "2 (50%) because the base hybrid does not rank it in its first 20" in line
    assert "pairs.max_overlap" in line.split(";")[-1]


def test_no_pairs_are_no_fault():
    nothing = check_overlap([], CORPUS, config=PairsConfig())
    lost = check_round_trip([], np.zeros(0), config=PairsConfig())
    assert account(nothing, lost) == {}
    assert describe(nothing, lost, config=PairsConfig()).startswith("0 of 0")
