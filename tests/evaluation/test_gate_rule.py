import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation import Difference, decide, paired_test
from retrieval_ft.evaluation.gate import (
    ALPHA,
    Latency,
    Thresholds,
    general_deltas,
    verdict_document,
)


def difference(delta, low, high=0.5, p=0.01):
    return Difference(delta=delta, ci_low=low, ci_high=high, p=p, wins=5, ties=3, losses=2, n=10)


ABOVE = difference(0.2, 0.1)
UNSURE = difference(0.1, -0.01)
TOUCHING = difference(0.1, 0.0)
ZERO = difference(0.0, -0.1)
BELOW = difference(-0.1, -0.2)
TINY = difference(math.ulp(0.0), math.ulp(0.0))


def gate(dense=ABOVE, hybrid=ABOVE, **more):
    return decide(dense, hybrid, metric="recall@10", **more)


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


LUCKY = replace(ABOVE, p=math.nextafter(ALPHA, 1))


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        ({}, "gain_is_sure"),
        ({"dense": replace(ABOVE, p=ALPHA)}, "gain_is_sure"),
        ({"dense": LUCKY}, "p_too_high"),
        ({"hybrid": LUCKY}, "p_too_high"),
        ({"hybrid": replace(ABOVE, p=math.nan)}, "p_too_high"),
        ({"dense": UNSURE, "hybrid": LUCKY}, "interval_reaches_zero"),
        ({"dense": ZERO}, "no_gain"),
        ({"thresholds": Thresholds(min_gain=0.2)}, "gain_is_sure"),
        ({"thresholds": Thresholds(min_gain=0.201)}, "gain_too_small"),
        ({"dense": BELOW, "thresholds": Thresholds(min_gain=0.3)}, "no_gain"),
        ({"dense": UNSURE, "thresholds": Thresholds(min_gain=0.15)}, "gain_too_small"),
        ({"general": {"far": -0.5}}, "gain_is_sure"),
        ({"general": {"far": -0.02}, "thresholds": Thresholds(max_forgetting=0.02)}, None),
        ({"general": {"far": 0.5}, "thresholds": Thresholds(max_forgetting=0.0)}, None),
        (
            {"general": {"near": 0.1, "far": -0.021}, "thresholds": Thresholds(0.0, 0.02)},
            "forgot_too_much",
        ),
        (
            {"general": {"far": math.nan}, "thresholds": Thresholds(0.0, 0.02)},
            "forgot_too_much",
        ),
        ({"thresholds": Thresholds(max_forgetting=0.02)}, "forgetting_not_measured"),
        ({"dense": UNSURE, "thresholds": Thresholds(0.0, 0.02)}, "interval_reaches_zero"),
        ({"latency": Latency(10.0, 11.0)}, "gain_is_sure"),
        ({"latency": Latency(10.0, 11.01)}, "too_slow"),
        ({"dense": UNSURE, "latency": Latency(10.0, 20.0)}, "too_slow"),
        (
            {
                "latency": Latency(10.0, 99.0),
                "thresholds": Thresholds(max_latency_regression=None),
            },
            "gain_is_sure",
        ),
        (
            {
                "general": {"far": -1.0},
                "latency": Latency(1.0, 9.0),
                "thresholds": Thresholds(0.0, 0.02),
            },
            "forgot_too_much",
        ),
    ],
)
def test_each_step_fires_at_its_edge_and_in_its_order(case, rule):
    found = gate(**case)
    assert found.rule_id == (rule or "gain_is_sure")
    expected = {
        "gain_is_sure": "promote",
        "interval_reaches_zero": "inconclusive",
        "p_too_high": "inconclusive",
        "forgetting_not_measured": "inconclusive",
    }
    assert found.verdict == expected.get(found.rule_id, "hold")


def test_five_wins_and_no_loss_are_not_promoted_though_the_bootstrap_lies_above_zero():
    # All five differences are equal: no resample has another mean, and p is 2 of 2**5 signs.
    found = paired_test(np.full(5, 0.5), np.zeros(5), rng_seed=1)
    assert (found.ci_low, found.ci_high) == (0.5, 0.5)
    assert found.p == pytest.approx(2 / 2**5, abs=0.01)
    verdict = gate(found, found)
    assert (verdict.verdict, verdict.rule_id) == ("inconclusive", "p_too_high")
    assert "sign-flip p is above 0.05 for dense (p 0.06" in verdict.rule


UNIT = st.floats(-1, 1)
SIDES = st.builds(
    lambda delta, low, p: difference(delta, low, p=p),
    UNIT,
    UNIT,
    st.one_of(st.floats(0, 0.2), st.just(math.nan)),
)


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.floats(0, 0.5), st.dictionaries(st.text(max_size=3), UNIT, max_size=2))
def test_what_is_promoted_met_every_condition_and_only_that_is(dense, hybrid, least, general):
    thresholds = Thresholds(min_gain=least, max_forgetting=0.1)
    found = gate(dense, hybrid, thresholds=thresholds, general=general)
    met = all(
        side.delta > 0 and side.delta >= least - 1e-12 and side.ci_low > 0 and side.p <= ALPHA
        for side in (dense, hybrid)
    )
    kept = bool(general) and all(-delta <= 0.1 + 1e-12 for delta in general.values())
    assert (found.verdict == "promote") == (met and kept)
    assert found.rule.endswith(".")
    assert "\n" not in found.rule
    json.dumps(verdict_document(found, differences=[]), allow_nan=False)


def test_the_sentences_of_costs_name_threshold_and_figure():
    slow = gate(latency=Latency(10.0, 12.0))
    assert "grew by 20.0% (10.00 to 12.00 ms), more than max_latency_regression 10.0%" in slow.rule
    forgot = gate(general={"hpo": -0.03}, thresholds=Thresholds(max_forgetting=0.01))
    assert "more than max_forgetting 0.0100 on a general set: hpo -0.0300;" in forgot.rule


def test_what_was_asked_for_and_not_measured_is_listed():
    assert gate().unchecked == ("max_latency_regression",)
    assert gate(latency=Latency(1.0, 1.0)).unchecked == ()
    assert "max_forgetting" in gate(thresholds=Thresholds(max_forgetting=0.1)).unchecked


@pytest.mark.parametrize(
    "bad",
    [
        {"min_gain": -0.1},
        {"max_forgetting": math.nan},
        {"max_latency_regression": math.inf},
    ],
)
def test_a_threshold_that_is_no_share_is_refused_by_its_config_path(bad):
    with pytest.raises(ConfigError, match=f"evaluation.{next(iter(bad))}: found .* is allowed"):
        Thresholds(**bad)


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, math.nan), (1.0, -1.0)])
def test_a_latency_that_is_no_time_is_refused(times):
    with pytest.raises(DataError, match="above 0 ms is needed"):
        Latency(*times)


def test_the_losses_of_general_sets_come_from_their_rows():
    rows = [
        {"name": "hpo", "differences": [{"metric": "recall@10", "delta": -0.5}]},
        {"name": "cwe", "differences": [{"metric": "recall@10", "delta": 0.25}]},
    ]
    assert general_deltas(rows, metric="recall@10") == {"hpo": -0.5, "cwe": 0.25}
    with pytest.raises(ConfigError, match="general set hpo: 'map' was not measured; measured: rec"):
        general_deltas(rows, metric="map")


def test_verdict_json_holds_rule_thresholds_figures_and_differences():
    rows = [{"system": "tuned_dense", "against": "base_dense", "metric": "map", "delta": math.nan}]
    found = gate(
        general={"hpo": -0.01},
        latency=Latency(4.0, 5.0),
        thresholds=Thresholds(0.01, 0.02, 0.5),
    )
    document = json.loads(json.dumps(verdict_document(found, differences=rows), allow_nan=False))
    assert document == {
        "schema_version": 1,
        "verdict": "promote",
        "reason": found.rule,
        "rule": "gain_is_sure",
        "thresholds": {"min_gain": 0.01, "max_forgetting": 0.02, "max_latency_regression": 0.5},
        "unchecked": [],
        "figures": {
            "metric": "recall@10",
            "dense": {**vars(ABOVE)},
            "hybrid": {**vars(ABOVE)},
            "general": {"hpo": -0.01},
            "latency": {
                "base_p95_ms": 4.0,
                "tuned_p95_ms": 5.0,
                "growth_low": None,
                "growth": 0.25,
            },
        },
        "differences": [{**rows[0], "delta": None}],
    }
