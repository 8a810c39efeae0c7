import itertools

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import DenseIndex, DenseSpec
from retrieval_ft.index.dense import DensePart
from retrieval_ft.index.vectors import codes_of, copy_live, empty_like, rows_of


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


def part(ids, vectors, alive=None):
    (made,) = DenseIndex.build(ids, vectors).parts
    return DensePart(made.ids, made.storage, None, alive)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=4), st.integers(1, 30), st.integers(0, 99))
def test_segments_with_deletions_answer_as_one_index_of_what_lives(sizes, k, seed):
    rng = np.random.default_rng(seed)
    # Few distinct vectors, so that there are ties within and between segments.
    vectors = unit(rng, 5)[rng.integers(0, 5, sum(sizes))]
    ids = [f"p{i:02}" for i in rng.permutation(sum(sizes))]
    alive = rng.random(sum(sizes)) < 0.7
    bounds = np.cumsum([0, *sizes])
    parts = [
        part(ids[a:b], vectors[a:b].reshape(-1, 8), alive[a:b])
        for a, b in itertools.pairwise(bounds)
    ]
    index = DenseIndex(parts, DenseSpec(), dimension=8)
    whole = DenseIndex.build([i for i, a in zip(ids, alive, strict=True) if a], vectors[alive])
    asked = unit(rng, 3)
    for mine, theirs in zip(index.search(asked, k=k), whole.search(asked, k=k), strict=True):
        np.testing.assert_allclose(mine[1], theirs[1], atol=1e-6)
        same = np.round(mine[1], 5).tolist() == np.round(theirs[1], 5).tolist()
        assert same
        assert len(set(index.ids.take(mine[0]))) == len(mine[0])
        assert set(index.ids.take(mine[0])) <= {i for i, a in zip(ids, alive, strict=True) if a}


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_a_filter_is_brute_force_over_what_passes(precision, share):
    rng = np.random.default_rng(8)
    vectors, asked = unit(rng, 400), unit(rng, 3)
    spec = DenseSpec(precision=precision)
    index = DenseIndex.build(names(400), vectors, spec=spec)
    mask = rng.random(400) < share
    every = index.search(asked, k=400)
    for (positions, _), (ranked, _) in zip(
        index.search(asked, k=7, allowed=[mask]), every, strict=True
    ):
        assert positions.tolist() == [p for p in ranked.tolist() if mask[p]][:7]


def test_int8_stays_near_and_takes_a_quarter():
    rng = np.random.default_rng(9)
    vectors, asked = unit(rng, 500, 64), unit(rng, 20, 64)
    exact = DenseIndex.build(names(500), vectors)
    small = DenseIndex.build(names(500), vectors, spec=DenseSpec(precision="int8"))
    assert small.parts[0].storage.code_size * 4 == exact.parts[0].storage.code_size
    for mine, theirs in zip(small.search(asked, k=10), exact.search(asked, k=10), strict=True):
        assert len(set(mine[0].tolist()) & set(theirs[0].tolist())) >= 8
        np.testing.assert_allclose(mine[1], theirs[1], atol=0.02)


def test_vectors_are_copied_between_storages_bit_for_bit():
    rng = np.random.default_rng(10)
    vectors = unit(rng, 30)
    alive = rng.random(30) < 0.5
    for precision in ("float32", "int8"):
        (first,) = DenseIndex.build(names(30), vectors, spec=DenseSpec(precision=precision)).parts
        copied = empty_like(first.storage)
        copy_live(copied, [(first.storage, alive), (first.storage, None)])
        codes = codes_of(first.storage)
        np.testing.assert_array_equal(codes_of(copied), np.concatenate([codes[alive], codes]))
        np.testing.assert_array_equal(rows_of(copied)[: alive.sum()], rows_of(first.storage)[alive])
        assert copied.search(vectors[:1], 1)[0] == first.storage.search(vectors[:1], 1)[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"precision": "int4"}, "float32 or int8, not as 'int4'"), ({"dimension": 0}, "at least 1")],
)
def test_a_spec_that_cannot_be_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        DenseSpec(**options)


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
