import math

import pytest

from retrieval_ft.evaluation import Difference, decide


def difference(delta, low, high=0.5):
    return Difference(delta=delta, ci_low=low, ci_high=high, p=0.01, wins=5, ties=3, losses=2, n=10)


ABOVE = difference(0.2, 0.1)
UNSURE = difference(0.1, -0.01)
TOUCHING = difference(0.1, 0.0)
ZERO = difference(0.0, -0.1)
BELOW = difference(-0.1, -0.2)
TINY = difference(math.ulp(0.0), math.ulp(0.0))


@pytest.mark.parametrize(
    ("dense", "hybrid", "verdict"),
    [
        (ABOVE, ABOVE, "promote"),
        (TINY, TINY, "promote"),
        (ABOVE, TOUCHING, "inconclusive"),
        (TOUCHING, ABOVE, "inconclusive"),
        (UNSURE, UNSURE, "inconclusive"),
        (ABOVE, ZERO, "hold"),
        (ZERO, ABOVE, "hold"),
        (BELOW, BELOW, "hold"),
        (ABOVE, BELOW, "hold"),
        (UNSURE, ZERO, "hold"),
        (BELOW, UNSURE, "hold"),
        (ABOVE, difference(math.nan, math.nan), "hold"),
    ],
)
def test_the_rule_at_its_boundaries(dense, hybrid, verdict):
    assert decide(dense, hybrid, metric="recall@10").verdict == verdict


def test_the_sentence_names_the_metric_the_side_and_the_figures():
    found = decide(ABOVE, difference(0.05, -0.0125, 0.1125), metric="recall@10")
    assert "at recall@10 over 10 queries" in found.rule
    assert "its 95% interval is not for hybrid:" in found.rule
    assert "dense +0.2000 [+0.1000, +0.5000]" in found.rule
    assert "hybrid +0.0500 [-0.0125, +0.1125]" in found.rule


def test_hold_names_only_the_sides_that_did_not_rise():
    assert "not above zero for dense and hybrid:" in decide(ZERO, BELOW, metric="map").rule
    assert "not above zero for dense:" in decide(BELOW, UNSURE, metric="map").rule
