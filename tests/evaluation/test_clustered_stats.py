import itertools
import math
import time

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset.types import Qrels
from retrieval_ft.errors import DataError
from retrieval_ft.evaluation import PerQuery, compare, difference_rows, paired_test
from retrieval_ft.evaluation.compare import document_groups

RESAMPLES = 10_000
steps = st.sampled_from([-1.0, -0.5, 0.0, 0.0, 1 / 3, 1.0])


def zeros(d):
    return np.zeros(len(d))


@given(st.lists(steps, min_size=1, max_size=40), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_groups_of_one_query_give_the_figures_of_no_groups(d, seed):
    d = np.array(d)
    alone = paired_test(d, zeros(d), rng_seed=seed, resamples=300)
    grouped = paired_test(
        d, zeros(d), rng_seed=seed, resamples=300, groups=[f"g{i}" for i in range(len(d))]
    )
    assert (alone.groups, grouped.groups) == (None, len(d))
    for name in ("delta", "ci_low", "ci_high", "p", "wins", "ties", "losses", "n"):
        assert getattr(alone, name) == getattr(grouped, name)


@given(st.lists(steps, min_size=2, max_size=12), st.integers(2, 5), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_a_query_asked_several_times_in_one_group_counts_as_one(d, times, seed):
    d = np.array(d)
    once = paired_test(d, zeros(d), rng_seed=seed, resamples=300)
    many = np.repeat(d, times)
    groups = np.repeat(np.arange(len(d)), times).tolist()
    again = paired_test(many, zeros(many), rng_seed=seed, resamples=300, groups=groups)
    assert again.p == once.p
    assert (again.delta, again.ci_low, again.ci_high) == pytest.approx(
        (once.delta, once.ci_low, once.ci_high)
    )
    assert (again.n, again.groups) == (times * len(d), len(d))


def test_p_is_that_of_all_sign_assignments_to_groups():
    d = np.array([1.0, 0.5, 1.0, -0.5, 1.0, 0.25, 0.5, 1.0, -1.0, 0.5])
    groups = list("aabbcdeefg")
    sums = [sum(d[i] for i in range(len(d)) if groups[i] == g) for g in sorted(set(groups))]
    flipped = [abs(np.dot(s, sums)) for s in itertools.product((1, -1), repeat=len(sums))]
    exact = np.mean(np.array(flipped) >= abs(d.sum()) - 1e-9)
    found = paired_test(d, zeros(d), rng_seed=1, groups=groups)
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / RESAMPLES))


def test_interval_is_that_of_scipys_bootstrap_of_the_ratio():
    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, 40, 200))
    d = rng.choice([-1.0, 0.0, 0.0, 0.5, 1.0], 200)
    names, sizes = np.unique(groups, return_counts=True)
    sums = np.array([d[groups == name].sum() for name in names])
    theirs = scipy.stats.bootstrap(
        (sums, sizes),
        lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(3),
    ).confidence_interval
    ours = paired_test(d, zeros(d), rng_seed=1, groups=groups.tolist())
    within = 0.04 * (theirs.high - theirs.low)
    assert ours.ci_low == pytest.approx(theirs.low, abs=within)
    assert ours.ci_high == pytest.approx(theirs.high, abs=within)
    assert ours.delta == pytest.approx(d.mean())


def test_queries_that_go_up_and_down_by_document_are_less_sure_by_group():
    rng = np.random.default_rng(0)
    d = np.repeat(rng.normal(0.2, 1, 50), 10)
    groups = np.repeat(np.arange(50), 10).tolist()
    naive = paired_test(d, zeros(d), rng_seed=0)
    grouped = paired_test(d, zeros(d), rng_seed=0, groups=groups)
    ratio = (grouped.ci_high - grouped.ci_low) / (naive.ci_high - naive.ci_low)
    # The variance of a mean of 50 against one of 500 that only look independent.
    assert ratio == pytest.approx(math.sqrt(10), rel=0.1)
    assert grouped.p > naive.p


def test_2000_queries_in_groups_take_under_2_seconds():
    rng = np.random.default_rng(0)
    a, b = rng.random(2000), rng.random(2000)
    start = time.perf_counter()
    paired_test(a, b, rng_seed=0, groups=(np.arange(2000) // 2).tolist())
    assert time.perf_counter() - start < 2


def test_one_group_and_a_missing_group_are_refused():
    d = np.ones(3)
    with pytest.raises(ValueError, match="all 3 queries are of one group"):
        paired_test(d, zeros(d), rng_seed=0, groups=["a"] * 3)
    with pytest.raises(ValueError, match="found 2 for 3"):
        paired_test(d, zeros(d), rng_seed=0, groups=["a", "b"])


RNG = np.random.default_rng(1)
IDS = tuple(f"q{i:02}" for i in range(60))
SYSTEMS = {name: PerQuery(IDS, {"recall@10": RNG.random(60)}) for name in ("a", "b")}


def test_rows_by_group_are_those_of_compare_and_say_how_many_groups():
    groups = {query_id: query_id[:2] for query_id in IDS}
    (row,) = difference_rows(SYSTEMS, [("a", "b")], metrics=["recall@10"], seed=3, groups=groups)
    found = compare(SYSTEMS["a"], SYSTEMS["b"], metric="recall@10", seed=3, groups=groups)
    assert (row["delta"], row["ci"], row["p"]) == (
        found.delta,
        [found.ci_low, found.ci_high],
        found.p,
    )
    assert row["groups"] == found.groups == 6
    (plain,) = difference_rows(SYSTEMS, [("a", "b")], metrics=["recall@10"], seed=3)
    assert "groups" not in plain and plain["delta"] == row["delta"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (dict.fromkeys(IDS[:-2], "x"), "2 of 60 queries have no group, the first is 'q58'"),
        (dict.fromkeys(IDS, "x"), "all 60 queries are of the one group 'x'"),
    ],
)
def test_groups_that_do_not_fit_are_a_data_error(groups, message):
    with pytest.raises(DataError, match=message) as info:
        difference_rows(SYSTEMS, [("a", "b")], metrics=["recall@10"], seed=0, groups=groups)
    assert info.value.exit_code == 3


passages = st.dictionaries(st.sampled_from([f"d{i}#{j}" for i in range(9) for j in range(2)]),
                           st.integers(0, 1), max_size=3)  # fmt: skip


@given(st.dictionaries(st.sampled_from([f"q{i}" for i in range(8)] + ["文"]), passages))
@settings(deadline=None)
def test_document_groups_are_the_connected_components(grades):
    qrels = Qrels(grades)
    found = document_groups(qrels, lambda passage_id: passage_id.partition("#")[0])
    documents = {q: {p.partition("#")[0] for p in qrels.relevant(q)} for q in grades}
    ids = list(qrels.query_ids)
    linked = np.array([[bool(documents[q] & documents[r]) for r in ids] for q in ids], int)
    labels = (
        scipy.sparse.csgraph.connected_components(scipy.sparse.csr_array(linked))[1] if ids else []
    )
    assert list(found) == ids
    for label in set(labels):
        members = [q for q, own in zip(ids, labels, strict=True) if own == label]
        assert {found[q] for q in members} == {min(members)}
    assert len(set(found.values())) == len(set(labels))
