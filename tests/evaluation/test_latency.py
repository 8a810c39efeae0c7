"""Percentiles of times, and when one model is surely slower than another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.errors import DataError
from retrieval_ft.evaluation import Latency, paired_latency, percentiles

TIMES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=50)


@given(TIMES)
def test_percentiles_are_ordered_and_within_the_times(times):
    found = percentiles(times)
    assert min(times) <= found["p50"] <= found["p95"] <= found["p99"] <= max(times)
    assert found["p50"] == pytest.approx(np.median(times))


def test_no_time_has_no_percentile():
    with pytest.raises(DataError, match="no query was timed"):
        percentiles([])


@given(TIMES, st.integers(0, 9))
def test_a_model_is_not_slower_than_itself(times, seed):
    found = paired_latency(times, times, seed=seed)
    assert found.growth == 0 and found.growth_low == pytest.approx(0)
    assert not found.exceeds(0)


def test_twice_the_time_of_every_query_is_surely_slower():
    times = np.random.default_rng(0).lognormal(2, 0.3, 100)
    found = paired_latency(times, 2 * times, seed=1)
    assert found.growth == pytest.approx(1) and found.growth_low == pytest.approx(1)
    assert found.exceeds(0.1) and not found.exceeds(1.0)


def test_a_few_slow_moments_are_noise():
    """Six stalls of a hundred put p95 up by far, and drawn again they may as well be missing."""
    times = np.full(100, 10.0)
    stalled = times.copy()
    stalled[:6] = 50.0
    found = paired_latency(times, stalled, seed=1)
    assert found.growth > 1.5
    assert not found.exceeds(0.1)


def test_one_seed_gives_one_interval():
    generator = np.random.default_rng(3)
    sides = generator.lognormal(2, 0.3, (2, 80))
    assert paired_latency(*sides, seed=5) == paired_latency(*sides, seed=5)


def test_times_of_other_queries_make_no_pair():
    with pytest.raises(DataError, match="2 and 1 queries"):
        paired_latency([1.0, 2.0], [1.0], seed=0)


def test_without_an_interval_the_growth_itself_decides():
    assert Latency(10.0, 11.5).exceeds(0.1)
    assert not Latency(10.0, 11.5, growth_low=0.05).exceeds(0.1)
