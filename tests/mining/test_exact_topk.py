import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.errors import DataError
from retrieval_ft.mining import exact_top_k, topk


def unit(generator, rows, width=8):
    vectors = generator.standard_normal((rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(generator, count):
    ids = [f"p{i:04}" for i in range(count)]
    generator.shuffle(ids)
    return ids


def sorted_by_score_then_id(scores, ids, k):
    return sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))[:k]


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(topk, "_PASSAGES", 64)
    monkeypatch.setattr(topk, "_QUERIES", 5)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 300), st.integers(0, 12), st.integers(0, 40))
def test_it_is_the_whole_order_cut_at_k(seed, passages, queries, k):
    """On a grid of eighths products are exact, so that ties are ties, and there are many."""
    generator = np.random.default_rng(seed)
    vectors = generator.integers(-2, 3, (passages, 4)).astype(np.float32) / 8
    asked = generator.integers(-2, 3, (queries, 4)).astype(np.float32) / 8
    ids = names(generator, passages)
    before = topk._PASSAGES, topk._QUERIES
    try:
        topk._PASSAGES, topk._QUERIES = 64, 5
        rows, scores = exact_top_k(asked, vectors, ids=ids, k=k)
    finally:
        topk._PASSAGES, topk._QUERIES = before
    assert (rows.shape, rows.dtype) == ((queries, k), np.int64)
    assert (scores.shape, scores.dtype) == ((queries, k), np.float32)
    for query in range(queries):
        products = vectors @ asked[query]
        expected = sorted_by_score_then_id(products, ids, k)
        assert rows[query].tolist() == expected + [-1] * (k - len(expected))
        assert scores[query, : len(expected)].tolist() == products[expected].tolist()
        assert (scores[query, len(expected) :] == -np.inf).all()


def test_it_finds_what_faiss_finds():
    import faiss

    generator = np.random.default_rng(1)
    vectors, asked = unit(generator, 20_000, 32), unit(generator, 300, 32)
    scores, rows = faiss.knn(asked, vectors, 25, metric=faiss.METRIC_INNER_PRODUCT)
    found, cosines = exact_top_k(asked, vectors, ids=[f"{i:05}" for i in range(20_000)], k=25)
    np.testing.assert_allclose(cosines, scores, atol=1e-6)
    assert (found == rows).mean() > 0.999  # neighbours a rounding apart may change places


def test_vectors_may_lie_on_disk(tmp_path, small_tiles):
    generator = np.random.default_rng(2)
    vectors, asked = unit(generator, 200), unit(generator, 7)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    ids = names(generator, 200)
    for found, expected in zip(
        exact_top_k(asked, mapped, ids=ids, k=9),
        exact_top_k(asked, vectors, ids=ids, k=9),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_the_order_of_the_corpus_changes_nothing(small_tiles):
    generator = np.random.default_rng(3)
    vectors, asked = unit(generator, 300), unit(generator, 6)
    ids = names(generator, 300)
    rows, _ = exact_top_k(asked, vectors, ids=ids, k=20)
    shuffled = generator.permutation(300)
    again, _ = exact_top_k(asked, vectors[shuffled], ids=[ids[i] for i in shuffled], k=20)
    np.testing.assert_array_equal(shuffled[again], rows)


def test_all_equal_scores_come_in_id_order(small_tiles):
    vectors, asked = np.ones((300, 2), np.float32), np.ones((3, 2), np.float32)
    ids = [f"{i:03}" for i in reversed(range(300))]
    rows, _ = exact_top_k(asked, vectors, ids=ids, k=70)
    assert rows.tolist() == [list(range(299, 229, -1))] * 3


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["query", "passage"])
def test_a_faulty_vector_is_named_by_its_row(fault, side, small_tiles):
    generator = np.random.default_rng(4)
    vectors, asked = unit(generator, 200), unit(generator, 150)
    (asked if side == "query" else vectors)[137, 2] = fault
    with pytest.raises(DataError, match=f"vector of {side} 137 holds NaN") as caught:
        exact_top_k(asked, vectors, ids=names(generator, 200), k=3)
    assert caught.value.exit_code == 3


def test_vectors_of_two_models_are_refused_with_both_widths():
    generator = np.random.default_rng(5)
    with pytest.raises(DataError, match="have 8 dimensions, the passage vectors 6"):
        exact_top_k(unit(generator, 2), unit(generator, 3, 6), ids=["a", "b", "c"], k=1)
