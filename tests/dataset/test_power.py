import math

import numpy as np
import pytest
from scipy import stats

from retrieval_ft.dataset import power

HALF_WIDTHS = {50: 9.3, 100: 6.6, 200: 4.7, 500: 3.0, 1000: 2.1}


@pytest.mark.parametrize(("queries", "points"), HALF_WIDTHS.items())
def test_the_deviation_gives_back_the_measured_half_widths(queries, points):
    assert round(100 * 1.96 * power.PAIRED_DEVIATION / math.sqrt(queries), 1) == points


@pytest.mark.parametrize(
    ("queries", "deviation"),
    [(200, power.PAIRED_DEVIATION), (600, power.PAIRED_DEVIATION), (400, 0.5)],
)
def test_the_stated_difference_is_detected_four_times_in_five(queries, deviation):
    """Recall@10 of one positive a query: wins, losses and ties, with the stated mean and spread."""
    rng = np.random.default_rng(7)
    difference = power.smallest_difference(queries, deviation=deviation)
    changed = deviation**2 + difference**2  # share of queries where the two systems differ
    shares = [(changed + difference) / 2, (changed - difference) / 2, 1 - changed]
    trials = rng.choice([1.0, -1.0, 0.0], p=shares, size=(4000, queries))
    p = stats.ttest_1samp(trials, 0.0, axis=1).pvalue
    detected = np.mean((p < 0.05) & (trials.mean(axis=1) > 0))
    assert detected == pytest.approx(0.80, abs=0.025)  # four standard errors of 4,000 trials


def test_four_times_the_queries_resolve_half_the_difference():
    assert power.smallest_difference(800) == pytest.approx(power.smallest_difference(200) / 2)
    assert power.smallest_difference(100, deviation=0.0) == 0.0


@pytest.mark.parametrize("queries", [0, -1])
def test_no_queries_resolve_nothing(queries):
    with pytest.raises(ValueError, match="at least one is needed"):
        power.smallest_difference(queries)


@pytest.mark.parametrize(
    ("queries", "start"),
    [
        (1, "With 1 test query, differences of recall@10 under about 94 points"),
        (50, "With 50 test queries, differences of recall@10 under about 13 points"),
        (600, "With 600 test queries, differences of recall@10 under about 4 points"),
        (1000, "With 1,000 test queries, differences of recall@10 under about 3 points"),
        (5000, "With 5,000 test queries, differences of recall@10 under about 1.3 points"),
    ],
)
def test_the_sentence_says_queries_and_points(queries, start):
    assert power.power_sentence(queries) == f"{start} cannot be told from noise."


def test_too_little_is_warned_of_and_enough_is_not():
    assert power.warnings(500, 200) == []
    few_pairs, few_queries = power.warnings(499, 199)
    assert few_pairs.startswith("499 train pairs are few (under 500)")
    assert few_queries.startswith("199 test queries are few (under 200)")
    assert len(power.warnings(499, 200)) == len(power.warnings(500, 199)) == 1
