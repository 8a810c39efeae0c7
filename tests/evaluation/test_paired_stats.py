import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.evaluation import holm, paired_test, smallest_detectable

RESAMPLES = 10_000
values = st.lists(st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0]), min_size=1, max_size=30)
columns = st.lists(st.tuples(*[st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0])] * 2), min_size=1)


def exact_p(d):
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((1, -1), repeat=len(d))]
    return np.mean(np.array(sums) >= abs(d.sum()) - 1e-9)


def monte_carlo_error(p):
    return 4 * math.sqrt(p * (1 - p) / RESAMPLES) + 2 / RESAMPLES


SMALL = {
    "one query": [0.5],
    "all wins": [1.0] * 6,
    "one loss": [1.0, 1.0, 1.0, -0.5, 1.0, 0.25, 0.5, 1.0],
    "mostly ties": [0.0] * 6 + [1.0, 1.0, -1.0, 0.5],
    "balanced": [1.0, -1.0, 0.5, -0.5],
    "thirds, whose sums round": [1 / 3, -2 / 3, 1 / 3, 1 / 3, 0.1, 0.2, -0.3, 0.7],
}


@pytest.mark.parametrize("d", SMALL.values(), ids=SMALL.keys())
def test_p_is_that_of_all_sign_assignments(d):
    d = np.array(d)
    found = paired_test(d, np.zeros_like(d), rng_seed=1)
    assert found.p == pytest.approx(exact_p(d), abs=monte_carlo_error(exact_p(d)))


def test_p_is_that_of_scipy():
    rng = np.random.default_rng(5)
    a, b = rng.random(12) + 0.2, rng.random(12)

    def mean_difference(x, y, axis):
        return np.mean(x - y, axis=axis)

    exact = scipy.stats.permutation_test(
        (a, b), mean_difference, permutation_type="samples", vectorized=True, n_resamples=np.inf
    ).pvalue
    found = paired_test(a, b, rng_seed=1)
    assert found.p == pytest.approx(exact, abs=monte_carlo_error(exact))


@pytest.mark.parametrize("n", [20, 200])
def test_interval_is_that_of_scipys_percentile_bootstrap(n):
    rng = np.random.default_rng(n)
    a, b = rng.integers(0, 2, n).astype(float), rng.integers(0, 2, n) * 0.5
    theirs = scipy.stats.bootstrap(
        (a - b,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(3)
    ).confidence_interval
    ours = paired_test(a, b, rng_seed=1)
    within = 0.04 * (theirs.high - theirs.low)
    assert ours.ci_low == pytest.approx(theirs.low, abs=within)
    assert ours.ci_high == pytest.approx(theirs.high, abs=within)


@given(values, st.integers(0, 2**40))
@settings(max_examples=20, deadline=None)
def test_equal_systems_differ_by_nothing(column, seed):
    a = np.array(column)
    found = paired_test(a, a.copy(), rng_seed=seed, resamples=200)
    assert (found.delta, found.ci_low, found.ci_high, found.p) == (0, 0, 0, 1)
    assert (found.wins, found.ties, found.losses, found.n) == (0, len(a), 0, len(a))


@given(columns, st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_swapping_the_systems_negates_the_difference(rows, seed):
    a, b = np.array(rows).T
    one = paired_test(a, b, rng_seed=seed, resamples=300)
    other = paired_test(b, a, rng_seed=seed, resamples=300)
    assert other.delta == -one.delta
    assert (other.ci_low, other.ci_high) == pytest.approx((-one.ci_high, -one.ci_low), abs=1e-12)
    assert (other.p, other.wins, other.losses) == (one.p, one.losses, one.wins)
    assert one.wins + one.ties + one.losses == one.n == len(rows)


@given(columns)
@settings(max_examples=50, deadline=None)
def test_the_mean_lies_in_the_range_and_p_is_never_0(rows):
    a, b = np.array(rows).T
    found = paired_test(a, b, rng_seed=0, resamples=300)
    assert found.delta == pytest.approx(float(np.mean(a - b)))
    assert (a - b).min() - 1e-12 <= found.ci_low <= found.ci_high <= (a - b).max() + 1e-12
    assert 1 / 301 <= found.p <= 1


def test_a_constant_gain_has_an_interval_of_one_point():
    found = paired_test(np.full(40, 0.75), np.full(40, 0.25), rng_seed=0)
    assert (found.delta, found.ci_low, found.ci_high) == (0.5, 0.5, 0.5)
    assert found.p == 1 / (RESAMPLES + 1)


def test_one_seed_one_answer_and_another_seed_another():
    rng = np.random.default_rng(0)
    a, b = rng.random(300), rng.random(300)
    assert paired_test(a, b, rng_seed=7) == paired_test(a, b, rng_seed=7)
    assert paired_test(a, b, rng_seed=7).p != paired_test(a, b, rng_seed=8).p


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        a = rng.random(100) + 0.1
        found = paired_test(a, rng.random(100), rng_seed=seed, resamples=500)
        covered += found.ci_low <= 0.1 <= found.ci_high
    # 4 standard errors of a share of 200 either side.
    assert 0.95 - 4 * math.sqrt(0.95 * 0.05 / 200) <= covered / 200 <= 1


def test_2000_queries_take_under_2_seconds_and_little_memory():
    rng = np.random.default_rng(0)
    a, b = rng.random(2000), rng.random(2000)
    start = time.perf_counter()
    paired_test(a, b, rng_seed=0)
    assert time.perf_counter() - start < 2
    tracemalloc.start()
    paired_test(a, b, rng_seed=0, resamples=2000)
    assert tracemalloc.get_traced_memory()[1] < 8e6  # all draws at once would be 32 MB
    tracemalloc.stop()


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_columns_that_do_not_pair_are_refused(shapes):
    with pytest.raises(ValueError, match="two columns of one length are needed"):
        paired_test(np.zeros(shapes[0]), np.zeros(shapes[1]), rng_seed=0)


@given(st.lists(st.floats(0, 1), max_size=6))
@settings(deadline=None)
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    family = range(len(p_values))
    subsets = [s for size in family for s in itertools.combinations(family, size + 1)]
    expected = [
        max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s)
        for i in family
    ]
    assert holm(p_values) == pytest.approx(expected)


def test_smallest_detectable_is_the_half_width():
    assert smallest_detectable(0.5, 600) == pytest.approx(1.96 * 0.5 / math.sqrt(600))
