import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset.power import PAIRED_DEVIATION, smallest_difference
from retrieval_ft.evaluation.costs import (
    ACTIONS,
    Cost,
    break_even,
    cheaper_from,
    costs,
    labels_missing,
    queries_needed,
    value,
)
from retrieval_ft.evaluation.facts import Facts, Limits, Prices

FACTS = Facts(
    passages=1_000_000,
    test_queries=400,
    bm25_recall_10=0.5,
    base_dense_recall_10=0.55,
    base_hybrid_recall_10=0.6,
    base_hybrid_recall_100=0.9,
    train_labels=700,
    truncated_passages=0.5,
    passage_tokens=200,
    query_tokens=20,
    corpus_change_per_month=0.3,
)
PRICES = Prices(
    engineer_hour=100,
    label_hour=30,
    labels_per_hour=60,
    core_hour=0.36,
    memory_gb_month=2,
    tokens_per_core_second=1_000,
    train_core_seconds_per_pair=1,
    search_core_seconds=0.01,
    bytes_per_passage=2_000,
    rerank_passages=50,
    hours_chunking=3,
    hours_hybrid=4,
    hours_rerank=5,
    hours_tune=6,
    hours_retune=2,
    retune_after=0.3,
    value_per_find=0.1,
)
CORPUS = 1_000_000 * 200 / 1_000 / 3600 * 0.36  # 20: encoding the corpus once


def cost_of(action, facts=FACTS):
    return costs(facts, PRICES, Limits())[action]


def test_each_cost_is_its_formula():
    close = pytest.approx
    chunking = cost_of("fix_chunking")
    assert chunking.one_time == close(3 * 100 + CORPUS)
    assert chunking.per_month == close(0.5 * 1e6 * 2_000 / 1e9 * 2 + 0.5 * 0.3 * CORPUS)
    dense = cost_of("add_hybrid")
    assert (dense.one_time, dense.per_month) == (close(400), close(1e6 * 2_000 / 1e9 * 2))
    assert dense.per_query == close(0.01 / 3600 * 0.36)
    words = cost_of("add_hybrid", replace(FACTS, serves="bm25"))
    assert words.one_time == close(400 + CORPUS)
    assert words.per_month == close(dense.per_month + 0.3 * CORPUS)
    assert words.per_query == close(dense.per_query + 20 / 1_000 / 3600 * 0.36)
    assert cost_of("add_hybrid", replace(FACTS, serves="hybrid")) == Cost()
    assert cost_of("rerank") == Cost(500, 0, close(50 * 220 / 1_000 / 3600 * 0.36))
    once = 700 * 1 / 3600 * 0.36 + CORPUS
    assert cost_of("tune") == Cost(close(600 + once), close(1.0 * (200 + once)))
    few = cost_of("tune", replace(FACTS, train_labels=3))
    assert few.one_time == close(600 + 500 / 3600 * 0.36 + CORPUS)
    assert cost_of("leave_it") == Cost()


def test_labels_are_counted_up_to_what_training_and_the_test_set_need():
    needed = queries_needed(0.05, deviation=PAIRED_DEVIATION)
    few = replace(FACTS, train_labels=100, test_queries=50)
    assert labels_missing(few, Limits()) == (400, needed - 50)
    assert cost_of("collect_labels", few).one_time == pytest.approx((350 + needed) / 60 * 30)
    assert labels_missing(replace(FACTS, test_queries=needed), Limits()) == (0, 0)


@given(st.floats(0.001, 1), st.floats(0.01, 1))
def test_the_queries_needed_for_a_gain_are_the_fewest_that_show_it(gain, deviation):
    n = queries_needed(gain, deviation=deviation)
    assert smallest_difference(n, deviation=deviation) <= gain * (1 + 1e-6)
    if n > 1:
        assert smallest_difference(n - 1, deviation=deviation) > gain * (1 - 1e-6)


def test_no_number_of_queries_shows_a_gain_of_nothing():
    with pytest.raises(ValueError, match="gain 0"):
        queries_needed(0.0, deviation=0.3)


MONEY = st.floats(0, 1e6)
COSTS = st.builds(Cost, MONEY, MONEY, st.floats(0, 1))


@given(COSTS, st.floats(0, 1), st.floats(0, 100))
def test_at_the_break_even_volume_an_option_brings_what_it_costs(cost, gain, worth):
    prices = Prices(value_per_find=worth)
    volume = break_even(cost, gain=gain, prices=prices)
    if volume is None:
        assert gain * worth <= cost.per_query + 1e-300
        return
    assert volume >= 0
    brings = value(gain, queries=volume, prices=prices)
    assert brings == pytest.approx(cost.total(volume), rel=1e-6, abs=1e-6) or gain * worth < 1e-9


@given(COSTS, COSTS, st.floats(0, 1e9))
def test_an_option_is_cheaper_from_where_the_lines_cross(cost, other, queries):
    volume = cheaper_from(cost, other)
    if volume is None:
        assert cost.per_query >= other.per_query
        return
    assert volume >= 0
    if queries > volume:
        assert cost.total(queries) <= other.total(queries) * (1 + 1e-9) + 1e-3


SHARE = st.floats(0, 1)


@st.composite
def any_facts(draw):
    ten, hundred = sorted((draw(SHARE), draw(SHARE)))
    return Facts(
        passages=draw(st.integers(0, 10**9)),
        test_queries=draw(st.integers(1, 10**5)),
        bm25_recall_10=draw(SHARE),
        base_dense_recall_10=draw(SHARE),
        base_hybrid_recall_10=ten,
        base_hybrid_recall_100=hundred,
        train_labels=draw(st.integers(0, 10**6)),
        truncated_passages=draw(SHARE),
        serves=draw(st.sampled_from(("bm25", "dense", "hybrid"))),
        corpus_change_per_month=draw(st.floats(0, 10)),
        queries_per_month=draw(st.floats(0, 1e12)),
    )


@settings(max_examples=100, deadline=None)
@given(any_facts(), st.floats(0, 1e12), st.floats(0, 1e12))
def test_no_cost_is_negative_and_more_queries_never_cost_less(facts, queries, more):
    found = costs(facts, Prices(), Limits())
    assert tuple(found) == ACTIONS
    low, high = sorted((queries, more))
    for cost in found.values():
        parts = (cost.one_time, cost.per_month, cost.per_query, cost.total(high))
        assert all(part >= 0 and math.isfinite(part) for part in parts)
        assert cost.monthly(low) <= cost.monthly(high)
    assert found["rerank"].per_query > 0
