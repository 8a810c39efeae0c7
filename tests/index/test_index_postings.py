import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.index import LexicalSpec, postings
from retrieval_ft.index.postings import Postings

WORDS = ["cat", "cats", "the", "Running", "runs", "überlauf", "數據", "x_1", "🚀"]
text = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
SPEC = LexicalSpec()


def same(first, second):
    left, right = first.arrays(), second.arrays()
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert (array.dtype, array.shape) == (right[name].dtype, right[name].shape), name
        assert array.tobytes() == right[name].tobytes(), name


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(text, st.booleans()), max_size=6), min_size=1, max_size=4))
def test_merging_gives_byte_for_byte_what_building_from_the_live_texts_gives(parts):
    built = [
        (Postings.build([t for t, _ in part], spec=SPEC), np.array([a for _, a in part], bool))
        for part in parts
    ]
    live = [t for part in parts for t, alive in part if alive]
    same(Postings.merge(built), Postings.build(live, spec=SPEC))


@settings(deadline=None)
@given(st.lists(text, max_size=9))
def test_blocks_of_texts_make_no_difference(texts):
    whole, before = Postings.build(texts, spec=SPEC), postings._TEXTS
    try:
        postings._TEXTS = 2
        same(Postings.build(texts, spec=SPEC), whole)
    finally:
        postings._TEXTS = before


@pytest.mark.parametrize(("count", "width"), [(255, 1), (256, 2), (65_535, 2), (65_536, 4)])
def test_a_word_is_counted_however_often_it_stands_there(count, width):
    built = Postings.build(["word " * count, "word"], spec=SPEC)
    assert built.frequencies.tolist() == [count, 1]
    assert built.frequencies.dtype.itemsize == width
    merged = Postings.merge([(built, np.array([False, True])), (built, None)])
    assert merged.frequencies.tolist() == [1, count, 1]


def test_a_term_that_only_deleted_passages_had_is_gone():
    built = Postings.build(["secret plan", "plan"], spec=SPEC)
    merged = Postings.merge([(built, np.array([False, True]))])
    assert merged.terms.table.tolist() == SPEC.tokenize(["plan"])[0]
    assert b"secret" not in merged.arrays()["terms"].tobytes()


def test_holders_counts_live_passages():
    built = Postings.build(["a1 b1", "a1", "b1 c1"], spec=LexicalSpec(stemmer=None))
    assert built.terms.table.tolist() == ["a1", "b1", "c1"]
    assert built.holders().tolist() == [2, 2, 1]
    assert built.holders(np.array([True, False, False])).tolist() == [1, 1, 0]


@given(st.lists(text, max_size=5))
def test_arrays_make_the_same_postings_again(texts):
    built = Postings.build(texts, spec=SPEC)
    same(Postings.of_arrays(built.arrays()), built)
