import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.mining.words import WordSets

words = st.sampled_from(["sea", "Sea", "boat", "fox", "漢字", "über", "x_1", "!", "3"])
texts = st.lists(words, max_size=7).map(" ".join)


def similar(a, b, jaccard):
    x, y = (set(re.findall(r"\w+", text.lower())) for text in (a, b))
    return bool(x | y) and len(x & y) >= jaccard * len(x | y)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=8), st.sampled_from([0.2, 0.5, 0.8, 1.0]), st.data())
def test_it_is_the_jaccard_index_of_the_word_sets(rows, jaccard, data):
    sets = WordSets(rows)
    places = st.integers(0, len(rows) - 1)
    for _ in range(2):  # what was read before stays as it was
        pairs = data.draw(st.lists(st.tuples(places, places), max_size=12))
        left, right = np.array(pairs, np.int64).reshape(-1, 2).T
        found = sets.similar(left, right, jaccard=jaccard)
        assert found.tolist() == [similar(rows[a], rows[b], jaccard) for a, b in pairs]


def test_many_pairs_are_compared_in_parts():
    rows = ["a b c d", "a b c d e", "x"]
    left = np.tile([0, 0, 2], 40_000)
    right = np.tile([1, 2, 2], 40_000)
    found = WordSets(rows).similar(left, right, jaccard=0.8)
    assert found.tolist() == [True, False, True] * 40_000


def test_texts_without_words_are_like_nothing_not_even_each_other():
    sets = WordSets(["", "?!", "sea"])
    found = sets.similar(np.array([0, 0, 1]), np.array([0, 1, 2]), jaccard=0.1)
    assert not found.any()


def test_words_of_a_whole_language_have_their_own_numbers():
    rows = [f"{left}{right}" for left in "abcdefghij漢" for right in range(2_000)]
    left = np.arange(len(rows) - 1)
    sets = WordSets([*rows, " ".join(rows)])
    assert not sets.similar(left, left + 1, jaccard=1.0).any()
    whole = sets.similar(np.array([len(rows)]), np.array([len(rows)]), jaccard=1.0)
    assert whole.all() and sets._size[-1] > len(rows) - 3
