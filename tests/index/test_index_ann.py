import json
import resource
import signal
from dataclasses import asdict

import faiss
import numpy as np
import pytest

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index.ann import Approximate, Facts
from retrieval_ft.index.ann_choice import named
from retrieval_ft.index.ann_recall import DEPTH

KINDS = ["hnsw", "ivf-flat", "ivf-sq8", "ivf-rabitq"]
DIMENSION = 32


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(count, seed=0, *, queries=40):
    """Vectors around 50 centres, and queries beside some of them, as text has topics."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(50, DIMENSION))
    vectors = unit(
        centres[rng.integers(50, size=count)] + 0.4 * rng.normal(size=(count, DIMENSION))
    )
    near = vectors[rng.integers(count, size=queries)]
    return vectors, unit(near + 0.1 * rng.normal(size=(queries, DIMENSION)))


def build(vectors, queries, kind, *, min_recall=0.95, seed=7, note=lambda _: None):
    choice = named(kind, count=len(vectors))
    return Approximate.build(
        vectors, choice, queries=queries, min_recall=min_recall, seed=seed, note=note
    )


def rescored(vectors, query, positions, k):
    """The positions a caller ends up with: those proposed, by exact score."""
    positions = positions[positions >= 0]
    return positions[np.argsort(-(vectors[positions] @ query), kind="stable")[:k]]


def recall(vectors, queries, candidates, k=10, *, among=None):
    shares = []
    for query, row in zip(queries, candidates, strict=True):
        scores = vectors @ query
        if among is not None:
            scores = np.where(among, scores, -np.inf)
        best = set(np.argsort(-scores)[:k].tolist())
        shares.append(len(best & set(rescored(vectors, query, row, k).tolist())) / k)
    return np.mean(shares)


@pytest.fixture(scope="module")
def data():
    return clustered(4000)


@pytest.fixture(scope="module", params=KINDS)
def index(request, data):
    return build(*data, request.param)


def test_the_recall_stated_is_the_recall_after_exact_scores(index, data):
    vectors, queries = data
    assert index.facts.queries == len(queries)
    assert index.facts.recall_at_10 >= 0.95
    for k, stated in [(10, index.facts.recall_at_10), (100, index.facts.recall_at_100)]:
        found = index.candidates(queries, k=DEPTH)
        assert recall(vectors, queries, found, k) == pytest.approx(stated, abs=1e-9)


def test_few_hits_are_chosen_from_as_many_candidates_as_were_measured(index, data):
    _, queries = data
    few, measured = (index.candidates(queries, k=k) for k in (1, DEPTH))
    np.testing.assert_array_equal(few, measured)
    assert few.dtype == np.int64
    assert few.shape == (len(queries), DEPTH * index.facts.oversample)


def test_candidates_are_distinct_positions_or_minus_one(index, data):
    vectors, queries = data
    for row in index.candidates(queries, k=1000):
        found = row[row >= 0]
        assert len(set(found.tolist())) == len(found)
        assert found.max() < len(vectors)


def test_one_query_finds_what_a_batch_finds(index, data):
    _, queries = data
    batch = index.candidates(queries, k=10)
    for query, row in zip(queries, batch, strict=True):
        np.testing.assert_array_equal(index.candidates(query[None], k=10)[0], row)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_what_is_not_allowed_is_not_proposed_and_recall_holds(index, data, share):
    vectors, queries = data
    allowed = np.random.default_rng(3).random(len(vectors)) < share
    found = index.candidates(queries, k=10, allowed=allowed)
    assert allowed[found[found >= 0]].all()
    assert recall(vectors, queries, found, among=allowed) >= 0.9


def test_all_that_is_allowed_is_proposed_where_it_is_little(index, data):
    vectors, queries = data
    allowed = np.zeros(len(vectors), bool)
    allowed[[5, 17, 3999]] = True
    found = index.candidates(queries, k=10, allowed=allowed)
    assert found.shape == (len(queries), 3)
    assert all(set(row.tolist()) == {5, 17, 3999} for row in found)


def test_nothing_allowed_proposes_nothing(index, data):
    vectors, queries = data
    found = index.candidates(queries, k=10, allowed=np.zeros(len(vectors), bool))
    assert found.shape == (len(queries), 0)


def test_no_queries_give_no_rows(index):
    assert len(index.candidates(np.zeros((0, DIMENSION), np.float32), k=10)) == 0


def test_k_below_one_is_refused(index, data):
    with pytest.raises(ConfigError, match="k = 0"):
        index.candidates(data[1], k=0)


def test_what_is_loaded_proposes_what_was_saved(index, data, tmp_path):
    path = tmp_path / "ann.faiss"
    index.save(path)
    facts = Facts(**json.loads(json.dumps(asdict(index.facts))))
    loaded = Approximate.load(path, facts)
    assert loaded.facts == index.facts
    allowed = np.arange(len(data[0])) % 3 > 0
    for chosen in (None, allowed):
        np.testing.assert_array_equal(
            loaded.candidates(data[1], k=50, allowed=chosen),
            index.candidates(data[1], k=50, allowed=chosen),
        )
    assert [p.name for p in tmp_path.iterdir()] == ["ann.faiss"]


def test_the_same_inputs_give_the_same_bytes(index, data, tmp_path):
    again = build(*data, index.facts.kind)
    first, second = tmp_path / "first", tmp_path / "second"
    index.save(first)
    again.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert (again.facts.effort, again.facts.oversample) == (
        index.facts.effort,
        index.facts.oversample,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_read_from_a_read_only_map(kind, data, tmp_path):
    vectors, queries = data
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    ours, theirs = build(mapped, queries, kind), build(vectors, queries, kind)
    np.testing.assert_array_equal(ours.candidates(queries, k=10), theirs.candidates(queries, k=10))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 40, 150])
def test_a_segment_with_few_vectors_is_searched_whole(kind, count):
    vectors, queries = clustered(count, queries=3)
    index = build(vectors, queries, kind, min_recall=1.0)
    for row in index.candidates(queries, k=200):
        assert sorted(row[row >= 0].tolist()) == list(range(count))


# Of equal vectors k-means makes equal centroids; after RaBitQ's rotation rounding, which depends on the
# number of threads and queries, decides which of them a query is near to, and all but one are empty.
@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-sq8"])
def test_equal_vectors_are_as_good_as_each_other(kind):
    vectors = np.repeat(unit(np.random.default_rng(0).normal(size=(1, DIMENSION))), 300, axis=0)
    index = build(vectors, vectors[:5], kind, min_recall=1.0)
    assert index.facts.recall_at_10 == 1.0
    found = index.candidates(vectors[:1], k=10)[0]
    assert (found >= 0).sum() >= 10


def test_more_recall_takes_no_less_effort(data):
    efforts = [build(*data, "ivf-flat", min_recall=r).facts.effort for r in (0.5, 0.8, 0.95, 1.0)]
    assert efforts == sorted(efforts)
    assert efforts[0] < efforts[-1]


def test_a_build_that_misses_too_much_fails_and_says_by_how_much():
    rng = np.random.default_rng(1)
    vectors = unit(rng.normal(size=(20_000, 96)))  # no clusters: the worst there is for lists
    with pytest.raises(DataError) as caught:
        build(vectors, unit(rng.normal(size=(30, 96))), "ivf-flat", min_recall=0.99)
    said = str(caught.value)
    assert "ivf-flat (IVF512,Flat) over 20,000 vectors reaches recall@10 0." in said
    assert "on 30 queries, under the 0.99 asked for" in said
    assert "choose another kind (flat is exact), or lower min_recall" in said
    assert caught.value.exit_code == 3


def test_at_most_200_queries_are_measured(data):
    _, queries = clustered(4000, queries=500)
    assert build(data[0], queries, "ivf-flat").facts.queries == 200


def test_the_builder_is_told_what_is_done(data):
    told = []
    index = build(*data, "ivf-sq8", note=told.append)
    assert told[0] == f"{index.facts.factory}: training on 4,000 of 4,000 vectors"
    assert f"recall@10 {index.facts.recall_at_10:.3f} over 40 queries" in told[-1]


def test_threads_are_left_as_they_were(data):
    before = faiss.omp_get_max_threads()
    build(*data, "hnsw")
    assert faiss.omp_get_max_threads() == before


def test_exact_search_is_not_built(data):
    with pytest.raises(ConfigError, match="flat is exact search"):
        build(*data, "flat")


@pytest.mark.parametrize(("count", "queries"), [(0, 3), (5, 0)])
def test_nothing_to_index_or_to_measure_on_is_refused(count, queries):
    rng = np.random.default_rng(0)
    vectors, asked = (unit(rng.normal(size=(n, DIMENSION))) for n in (count, queries))
    with pytest.raises(DataError, match=f"over {count} vectors, measured on {queries} queries"):
        build(vectors, asked, "hnsw")


def test_a_missing_file_is_named(index, tmp_path):
    with pytest.raises(DataError, match=r"gone\.faiss: no such file"):
        Approximate.load(tmp_path / "gone.faiss", index.facts)


@pytest.mark.parametrize("missing", [1, 1000, None])
def test_a_file_cut_short_is_refused_by_name(index, tmp_path, missing):
    path = tmp_path / "ann.faiss"
    index.save(path)
    data = path.read_bytes()
    kept = data[: -missing if missing else 0]
    path.write_bytes(kept)
    said = rf"ann\.faiss: damaged \({len(kept):,} bytes, written with {len(data):,}\)"
    with pytest.raises(DataError, match=said) as caught:
        Approximate.load(path, index.facts)
    assert caught.value.exit_code == 3


def test_a_file_of_something_else_is_refused_by_name(index, tmp_path):
    path = tmp_path / "ann.faiss"
    path.write_bytes(b"\x00" * index.facts.bytes)
    with pytest.raises(DataError, match=r"ann\.faiss: no FAISS index"):
        Approximate.load(path, index.facts)


def test_the_index_of_other_vectors_is_refused(index, tmp_path):
    path = tmp_path / "ann.faiss"
    index.save(path)
    facts = Facts(**{**asdict(index.facts), "count": 4001})
    with pytest.raises(DataError, match="holds 4,000 vectors of 32 dimensions, the manifest says"):
        Approximate.load(path, facts)


def test_a_full_disk_leaves_no_file(index, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            index.save(tmp_path / "ann.faiss")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []
