import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import DenseIndex


def unit(rng, count, dimension=8):
    vectors = rng.normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(count):
    return [f"p{i:03d}" for i in range(count)]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_search_is_brute_force(count, queries, k, seed):
    rng = np.random.default_rng(seed)
    vectors, asked = unit(rng, count), unit(rng, queries)
    found = DenseIndex.build(names(count), vectors).search(asked, k=k)
    for query, (positions, scores) in zip(asked, found, strict=True):
        cosines = vectors @ query
        assert len(positions) == min(k, count)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, np.sort(cosines)[::-1][:k], atol=1e-6)
        np.testing.assert_allclose(scores, cosines[positions], atol=1e-6)


def test_hits_are_those_of_faiss_where_nothing_ties():
    rng = np.random.default_rng(1)
    vectors, asked = unit(rng, 300, 16), unit(rng, 40, 16)
    flat = faiss.IndexFlatIP(16)
    flat.add(vectors)
    _, expected = flat.search(asked, 10)
    found = DenseIndex.build(names(300), vectors).search(asked, k=10)
    assert [positions.tolist() for positions, _ in found] == expected.tolist()


@pytest.mark.parametrize("k", [1, 3, 40, 250, 500])
def test_ties_are_in_id_order_however_many_there_are(k):
    # One-hot vectors make exact cosines: 200 passages tie at 1, the other 100 at 0.
    rng = np.random.default_rng(2)
    rows = np.array([0] * 200 + [1] * 100)
    rng.shuffle(rows)
    ids = names(300)
    rng.shuffle(ids)
    vectors = np.eye(2, dtype=np.float32)[rows]
    ((positions, _),) = DenseIndex.build(ids, vectors).search(vectors[rows == 0][:1], k=k)
    expected = sorted(range(300), key=lambda i: (rows[i], ids[i]))[:k]
    assert positions.tolist() == expected


def test_a_query_cut_by_ties_does_not_disturb_its_neighbours():
    vectors = np.eye(3, dtype=np.float32)[[0] * 100 + [1] * 2 + [2]]
    asked = np.eye(3, dtype=np.float32)[[2, 0, 1]]
    found = DenseIndex.build(names(103), vectors).search(asked, k=2)
    assert [positions.tolist() for positions, _ in found] == [[102, 0], [0, 1], [100, 101]]


def test_an_empty_batch_gives_no_results():
    index = DenseIndex.build(names(3), unit(np.random.default_rng(0), 3))
    assert index.search(np.zeros((0, 8), np.float32), k=5) == []


def test_an_empty_index_finds_nothing():
    index = DenseIndex.build([], np.zeros((0, 8), np.float32))
    ((positions, scores),) = index.search(unit(np.random.default_rng(0), 1), k=5)
    assert len(positions) == len(scores) == 0


def test_what_is_loaded_answers_like_what_was_saved(tmp_path):
    rng = np.random.default_rng(3)
    vectors, asked = unit(rng, 20), unit(rng, 4)
    index = DenseIndex.build(names(20), vectors)
    index.save(tmp_path)
    loaded = DenseIndex.load(tmp_path)
    assert (loaded.ids, loaded.dimension, len(loaded)) == (index.ids, 8, 20)
    for mine, theirs in zip(index.search(asked, k=7), loaded.search(asked, k=7), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ids.json", "vectors.faiss"]


@pytest.mark.parametrize("fault", [np.nan, np.inf, 0.0, 0.5])
def test_a_faulty_passage_vector_is_refused_by_its_id(fault):
    vectors = unit(np.random.default_rng(4), 5)
    vectors[3] *= fault
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match="'p003'") as caught:
        DenseIndex.build(names(5), vectors)
    assert "1 faulty of 5" in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_faulty_query_vector_is_refused_by_its_row():
    index = DenseIndex.build(names(5), unit(np.random.default_rng(5), 5))
    asked = unit(np.random.default_rng(6), 3)
    asked[1, 2] = np.nan
    with pytest.raises(DataError, match="query 1 holds NaN"):
        index.search(asked, k=2)


def test_another_dimension_is_refused_with_both():
    index = DenseIndex.build(names(5), unit(np.random.default_rng(5), 5, 8))
    with pytest.raises(DataError, match="12 dimensions, the index has 8"):
        index.search(unit(np.random.default_rng(6), 1, 12), k=2)


def test_one_vector_without_a_batch_axis_is_refused():
    index = DenseIndex.build(names(5), unit(np.random.default_rng(5), 5))
    with pytest.raises(DataError, match=r"shape \(8,\)"):
        index.search(unit(np.random.default_rng(6), 1)[0], k=2)


def test_ids_and_vectors_of_different_number_are_refused():
    with pytest.raises(DataError, match="5 vectors under 4 ids"):
        DenseIndex.build(names(4), unit(np.random.default_rng(5), 5))


def test_k_below_one_is_refused():
    index = DenseIndex.build(names(5), unit(np.random.default_rng(5), 5))
    with pytest.raises(ConfigError, match="k = 0"):
        index.search(unit(np.random.default_rng(6), 1), k=0)


def test_loading_from_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"ids\.json: no such file"):
        DenseIndex.load(tmp_path)
