"""Many queries at once find what each finds alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.index import LexicalIndex, LexicalSpec, lexical

WORDS = ["cat", "cats", "the", "Running", "runs", "buffer", "überlauf", "數據", "x_1"]
text = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


def as_lists(found):
    return [(positions.tolist(), scores.tolist()) for positions, scores in found]


@settings(deadline=None)
@given(
    st.lists(text, min_size=1, max_size=12),
    st.lists(text, max_size=9),
    st.integers(1, 15),
    st.sampled_from([1, 3, 10, 1 << 22]),
    st.sampled_from([0.0, 0.25]),
)
def test_a_batch_finds_what_each_query_finds_alone(texts, queries, k, postings, epsilon):
    ids = [f"p{i}" for i in reversed(range(len(texts)))]
    index = LexicalIndex.build(ids, texts, spec=LexicalSpec(epsilon=epsilon))
    alone = [index.search([query], k=k)[0] for query in queries]
    before = lexical._POSTINGS
    try:
        lexical._POSTINGS = postings
        together = index.search(queries, k=k)
    finally:
        lexical._POSTINGS = before
    assert as_lists(together) == as_lists(alone)
    for positions, scores in together:
        assert (positions.dtype, scores.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("epsilon", [0.25, -0.5])
def test_scores_that_are_not_above_zero_are_no_hits_in_a_batch_either(epsilon):
    texts = ["same cat", "same dog", "same", "same owl"]
    index = LexicalIndex.build(list("abcd"), texts, spec=LexicalSpec(epsilon=epsilon))
    queries = ["same", "cat", "same cat", "nothing", "owl same"]
    expected = []
    for query in queries:
        scores = index.scores(query)
        hits = [i for i in range(4) if scores[i] > 0]
        expected.append(sorted(hits, key=lambda i: (-scores[i], i)))
    found = index.search(queries, k=4)
    assert [positions.tolist() for positions, _ in found] == expected


def test_a_larger_corpus_in_many_blocks():
    generator = np.random.default_rng(3)
    words = np.array([f"w{i}" for i in range(300)])
    weights = 1 / np.arange(1, 301)
    draw = [
        " ".join(generator.choice(words, generator.integers(1, 30), p=weights / weights.sum()))
        for _ in range(900)
    ]
    index = LexicalIndex.build([f"p{i:03}" for i in range(600)], draw[:600], spec=LexicalSpec())
    together = index.search(draw[600:], k=20)
    assert as_lists(together) == [as_lists(index.search([q], k=20))[0] for q in draw[600:]]
