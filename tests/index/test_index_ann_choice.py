import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.errors import ConfigError
from retrieval_ft.index.ann import Approximate
from retrieval_ft.index.ann_choice import (
    EXACT_UP_TO,
    KINDS,
    choose,
    list_count,
    memory_bytes,
    named,
)

MILLION = 1_000_000


@pytest.mark.parametrize("deletes", [True, False])
def test_up_to_the_limit_search_is_exact_whatever_the_memory(deletes):
    for count in (0, 1, EXACT_UP_TO):
        choice = choose(count, 384, memory_gb=0.001, deletes=deletes)
        assert (choice.kind, choice.factory) == ("flat", "Flat")
    assert choose(EXACT_UP_TO + 1, 384, memory_gb=100, deletes=deletes).kind != "flat"


@pytest.mark.parametrize(
    ("memory_gb", "deletes", "kind", "factory"),
    [
        (4, False, "hnsw", "HNSW32,SQ8"),
        (4, True, "ivf-sq8", "IVF4096,SQ8"),
        (1, True, "ivf-sq8", "IVF4096,SQ8"),
        (0.5, False, "ivf-sq8", "IVF4096,SQ8"),
        (0.3, True, "ivf-rabitq", "RR,IVF4096,RaBitQ"),
    ],
)
def test_a_million_vectors_get_the_first_kind_that_fits(memory_gb, deletes, kind, factory):
    choice = choose(MILLION, 384, memory_gb=memory_gb, deletes=deletes)
    assert (choice.kind, choice.factory) == (kind, factory)


def test_the_reason_is_one_sentence_with_the_numbers():
    reason = choose(MILLION, 384, memory_gb=1, deletes=True).reason
    assert reason == (
        "1,000,000 vectors are more than the 200,000 searched exactly; passages may be deleted, so "
        "no hnsw; ivf-sq8 is the first that fits in the 1 GB given (ivf-sq8 0.40 GB)"
    )


def test_where_nothing_fits_the_smallest_is_taken_and_said_to_be_too_large():
    choice = choose(MILLION, 384, memory_gb=0.01, deletes=False)
    assert choice.kind == "ivf-rabitq"
    assert "the smallest, though it does not fit in the 0.01 GB given" in choice.reason


@given(
    st.integers(EXACT_UP_TO + 1, 50_000_000),
    st.integers(1, 4096),
    st.floats(0.001, 500),
    st.booleans(),
)
def test_what_is_chosen_fits_where_anything_does(count, dimension, memory_gb, deletes):
    choice = choose(count, dimension, memory_gb=memory_gb, deletes=deletes)
    sizes = [memory_bytes(k, count=count, dimension=dimension) for k in KINDS if k != "flat"]
    chosen = memory_bytes(choice.kind, count=count, dimension=dimension)
    assert chosen <= memory_gb * 1e9 or min(sizes) > memory_gb * 1e9
    assert not (deletes and choice.kind == "hnsw")
    assert choice == choose(count, dimension, memory_gb=memory_gb, deletes=deletes)


@given(st.integers(0, 100_000_000))
def test_lists_are_a_power_of_two_with_enough_vectors_each(count):
    lists = list_count(count)
    assert lists >= 1
    assert lists & (lists - 1) == 0
    assert lists == 1 or count / lists >= 39
    assert lists <= 4 * np.sqrt(max(count, 1)) * np.sqrt(2)


@pytest.mark.parametrize(("count", "lists"), [(100_000, 1024), (300_000, 2048), (MILLION, 4096)])
def test_lists_grow_with_the_root_of_the_count(count, lists):
    assert list_count(count) == lists


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flat"])
def test_the_memory_foreseen_is_the_size_of_the_file(kind, tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Approximate.build(
        vectors,
        named(kind, count=4000),
        queries=vectors[:10],
        min_recall=0,
        seed=0,
        note=lambda _: None,
    )
    index.save(tmp_path / "ann")
    foreseen = memory_bytes(kind, count=4000, dimension=64)
    assert (tmp_path / "ann").stat().st_size == pytest.approx(foreseen, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_can_be_asked_for_by_name(kind):
    choice = named(kind, count=1000)
    assert choice.kind == kind
    assert choice.reason == f"{kind} was asked for"


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="'faiss'; choose from flat, hnsw, ivf-flat") as caught:
        named("faiss", count=10)
    assert caught.value.exit_code == 2
