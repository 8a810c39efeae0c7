import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from retrieval_ft.evaluation.advise import advice_text, advise, place_of_knowledge
from retrieval_ft.evaluation.advise_rules import wilson_low
from retrieval_ft.evaluation.costs import ACTIONS, costs, queries_needed, target_gain, value
from retrieval_ft.evaluation.facts import Facts, Gain, Limits, Prices

# Enough labels and queries, hybrid served, half of what is missing ranks low, and it all pays.
BASE = Facts(
    passages=10_000,
    test_queries=1_000,
    bm25_recall_10=0.5,
    base_dense_recall_10=0.55,
    base_hybrid_recall_10=0.6,
    base_hybrid_recall_100=0.8,
    train_labels=1_000,
    serves="hybrid",
    queries_per_month=1e6,
)
GOOD = Gain(0.1, 0.07, 0.13, 0.001)
UNSURE = Gain(0.01, -0.01, 0.03, 0.3)
REFUTED = Gain(-0.01, -0.025, 0.005, 0.2)


def first(facts=BASE, **changes):
    found = advise(replace(facts, **changes))
    return found.first, found.rule


def recall(value, hundred=None):
    return {"base_hybrid_recall_10": value, "base_hybrid_recall_100": hundred or max(value, 0.8)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (recall(0.99), ("leave_it", "good_enough")),
        # Seen on few queries, .99 is not yet .95: there is no gain to be had, but for a point.
        ({**recall(0.995, 1.0), "test_queries": 30}, ("leave_it", "no_headroom")),
        ({**recall(0.99), "truncated_passages": 0.9}, ("leave_it", "good_enough")),
        ({"truncated_passages": 0.10}, ("fix_chunking", "passages_cut")),
        ({"truncated_passages": 0.099}, ("rerank", "found_but_ranked_low")),
        ({"truncated_passages": 0.5, "serves": "dense"}, ("fix_chunking", "passages_cut")),
        ({"truncated_passages": 0.5, "queries_per_month": 0}, ("leave_it", "nothing_pays")),
        ({"serves": "dense"}, ("add_hybrid", "hybrid_is_better")),
        ({"serves": "bm25"}, ("add_hybrid", "hybrid_is_better")),
        ({"serves": "dense", "hybrid": GOOD}, ("add_hybrid", "hybrid_is_better")),
        ({"serves": "dense", "hybrid": UNSURE}, ("rerank", "found_but_ranked_low")),
        (
            {"serves": "dense", "hybrid": Gain(0.009, 0.001, 0.02, 0.01)},
            ("rerank", "found_but_ranked_low"),
        ),
        # .05 over dense alone is less than 300 queries show.
        ({"serves": "dense", "test_queries": 300}, ("collect_labels", "test_set_cannot_tell")),
        ({"tuned": GOOD}, ("tune", "gain_is_shown")),
        ({"tuned": replace(GOOD, p=0.051)}, ("rerank", "found_but_ranked_low")),
        ({"tuned": Gain(0.009, 0.004, 0.014, 0.01)}, ("rerank", "found_but_ranked_low")),
        ({"tuned": GOOD, "queries_per_month": 0}, ("leave_it", "nothing_pays")),
        ({"reranked": GOOD}, ("rerank", "gain_is_shown")),
        ({"reranked": GOOD, "tuned": replace(GOOD, delta=0.12)}, ("tune", "gain_is_shown")),
        ({"reranked": replace(GOOD, delta=0.12), "tuned": GOOD}, ("rerank", "gain_is_shown")),
        # The same gain, but each query pays for its reranking.
        (
            {"reranked": GOOD, "tuned": GOOD, "queries_per_month": 1e8},
            ("tune", "gain_is_shown"),
        ),
        ({"reranked": REFUTED, "tuned": REFUTED}, ("leave_it", "nothing_pays")),
        ({"reranked": REFUTED}, ("tune", "tuning_untried")),
        ({"reranked": REFUTED, "train_labels": 499}, ("collect_labels", "too_few_labels")),
        ({"reranked": REFUTED, "train_labels": 500}, ("tune", "tuning_untried")),
        (
            {"reranked": REFUTED, "tuned": UNSURE, "train_labels": 0},
            ("collect_labels", "too_few_labels"),
        ),
        ({"reranked": REFUTED, "tuned": UNSURE}, ("leave_it", "nothing_pays")),
        (
            {"reranked": REFUTED, "tuned": UNSURE, "train_labels": 500},
            ("leave_it", "nothing_pays"),
        ),
        # Just half of what is missing is among the first 100, then less than half.
        (recall(0.5, 0.75), ("rerank", "found_but_ranked_low")),
        (recall(0.6, 0.79), ("tune", "tuning_untried")),
        ({**recall(0.6, 0.79), "train_labels": 0}, ("rerank", "found_but_ranked_low")),
        ({**recall(0.6, 0.605), "train_labels": 0}, ("collect_labels", "too_few_labels")),
        # At this volume reranking is dearer than tuning.
        ({"queries_per_month": 1e8}, ("tune", "tuning_untried")),
        ({"queries_per_month": 1e8, "train_labels": 0}, ("rerank", "found_but_ranked_low")),
        ({"queries_per_month": 0}, ("leave_it", "nothing_pays")),
        ({"test_queries": 20}, ("collect_labels", "test_set_cannot_tell")),
        # Where labels would not pay either, nothing is tried blindly.
        ({"test_queries": 20, "queries_per_month": 1_000}, ("leave_it", "nothing_pays")),
    ],
)
def test_each_rule_fires_at_its_edge_and_in_its_order(changes, expected):
    assert first(**changes) == expected


def test_one_query_too_few_asks_for_labels_and_one_more_does_not():
    needed = queries_needed(Limits().plausible_gain, deviation=BASE.deviation)
    assert first(test_queries=needed - 1) == ("collect_labels", "test_set_cannot_tell")
    assert first(test_queries=needed) == ("rerank", "found_but_ranked_low")


def test_a_shown_gain_that_the_test_set_could_not_have_shown_is_not_acted_on():
    # All that is missing is .12, and 2.8 / 1.96 of the half-width .09 is more.
    wide = Gain(0.1, 0.01, 0.19, 0.04)
    found = first(**recall(0.88, 0.88), tuned=wide, test_queries=60)
    assert found == ("collect_labels", "test_set_cannot_tell")
    assert first(**recall(0.6, 0.6), tuned=wide, test_queries=60) == ("tune", "gain_is_shown")


def test_labels_are_not_advised_where_they_cost_more_than_the_gain_brings():
    dear = Prices(label_hour=1e9)
    assert advise(replace(BASE, test_queries=20), dear).rule == "nothing_pays"


@given(st.integers(1, 2_000), st.data())
def test_the_lower_end_is_that_of_the_wilson_interval(n, data):
    hits = data.draw(st.integers(0, n))
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson").low
    assert wilson_low(hits / n, n) == pytest.approx(expected, abs=1e-4)


SHARE = st.floats(0, 1)


@st.composite
def gains(draw):
    low, delta, high = sorted(draw(st.floats(-1, 1)) for _ in range(3))
    return Gain(delta, low, high, draw(SHARE))


@st.composite
def any_facts(draw):
    ten, hundred = sorted((draw(SHARE), draw(SHARE)))
    return Facts(
        passages=draw(st.integers(0, 10**10)),
        test_queries=draw(st.integers(1, 10**4)),
        bm25_recall_10=draw(SHARE),
        base_dense_recall_10=draw(SHARE),
        base_hybrid_recall_10=ten,
        base_hybrid_recall_100=hundred,
        train_labels=draw(st.integers(0, 2_000)),
        tuned=draw(st.none() | gains()),
        hybrid=draw(st.none() | gains()),
        reranked=draw(st.none() | gains()),
        truncated_passages=draw(st.floats(0, 0.3)),
        serves=draw(st.sampled_from(("bm25", "dense", "hybrid"))),
        corpus_change_per_month=draw(st.floats(0, 2)),
        queries_per_month=draw(st.floats(0, 1e9)),
    )


PRICES = st.builds(
    Prices, engineer_hour=st.floats(0, 500), value_per_find=st.floats(0, 1), core_hour=SHARE
)


@settings(max_examples=300, deadline=None)
@given(any_facts(), PRICES)
def test_advice_is_one_of_the_list_and_keeps_its_promises(facts, prices):
    found = advise(facts, prices)
    assert found.first in ACTIONS
    assert found == advise(facts, prices)
    assert tuple(option.action for option in found.options) == ACTIONS
    json.dumps(found.document(), allow_nan=False)
    assert advice_text(found).endswith("\n")
    limits = Limits()
    if found.first == "tune":
        assert facts.detectable <= facts.headroom
        if facts.tuned is None:
            assert facts.detectable <= target_gain(facts, limits)
            assert facts.train_labels >= limits.train_labels
        else:
            assert facts.tuned.shown
    if found.first == "collect_labels":
        assert found.options[4].one_time > 0 or prices.label_hour == 0
    if found.first != "leave_it":
        # No gain above the largest in play could pay for it otherwise.
        known = [g.delta for g in (facts.tuned, facts.hybrid, facts.reranked) if g]
        best = max([1.0, *known])
        cost = costs(facts, prices, limits)[found.first]
        queries = facts.queries_per_month
        assert value(best, queries=queries, prices=prices) > cost.total(queries)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_more_queries_never_turn_something_that_pays_once_into_nothing(a, b):
    facts = replace(BASE, tuned=GOOD, reranked=REFUTED)
    low, high = (advise(replace(facts, queries_per_month=q)).first for q in sorted((a, b)))
    assert (low, high) != ("tune", "leave_it")


@pytest.mark.parametrize(
    ("changes", "place", "rule"),
    [
        ({"corpus_change_per_month": 0.01}, "index", "facts_change"),
        ({"corpus_change_per_month": 0.0099}, "index", "index_is_cheaper"),
        ({"corpus_change_per_month": 0.0}, "index", "index_is_cheaper"),
        ({"corpus_change_per_month": 0.0, "passages": 10**9}, "weights", "stable_and_cheaper"),
        ({"corpus_change_per_month": 0.01, "passages": 10**9}, "index", "facts_change"),
    ],
)
def test_facts_that_change_belong_in_the_index_and_so_does_what_is_cheaper_there(
    changes, place, rule
):
    found = place_of_knowledge(replace(BASE, **changes), Prices(), Limits())
    assert (found.place, found.rule) == (place, rule)


def test_the_cost_of_knowledge_is_its_formula():
    prices = Prices()
    found = place_of_knowledge(replace(BASE, corpus_change_per_month=0.5), prices, Limits())
    encode = 10_000 * 160 / 4_000 / 3600 * 0.05
    held = 10_000 * 2_071 / 1e9 * 3
    assert found.index_12_months == pytest.approx((1 + 12 * 0.5) * encode + 12 * held)
    train = 10_000 * 0.42 / 3600 * 0.05
    again = 12 * 0.5 / 0.05 * (200 + train)
    assert found.weights_12_months == pytest.approx(1_600 + train + again)


def test_the_text_says_what_to_do_why_and_what_it_costs():
    text = advice_text(advise(replace(BASE, tuned=GOOD)))
    assert text.startswith(
        "Do first: tune the embedder. It has shown +10.0 points [+0.070, +0.130]"
    )
    assert "- rerank: gain unknown (at most 20.0 points, recall@100 less recall@10; measure" in text
    assert "pays from" in text
    assert "Knowledge belongs in the index: 5.0% of the corpus changes in a month" in text
    assert "at 1,000,000 queries a month" in text


def test_a_reranker_dearer_than_its_gain_pays_at_no_volume():
    found = advise(BASE, Prices(core_hour=1e6))
    rerank = next(option for option in found.options if option.action == "rerank")
    assert rerank.break_even_queries is None
    assert rerank.break_even_at == 0.05
    assert "pays at no volume at a gain of 5.0 points" in advice_text(found)
    assert math.isfinite(rerank.total_12_months)
