import json
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation import PerQuery, difference_rows
from retrieval_ft.evaluation.seeds import average, seed_document, summarise

IDS = tuple(f"q{i:02}" for i in range(40))
RNG = np.random.default_rng(0)


def run(lift=0.0, ids=IDS, metrics=("recall@10", "ndcg@10")):
    return PerQuery(ids, {metric: RNG.random(len(ids)) + lift for metric in metrics})


RUNS = {
    "bm25": [run()],
    "base": [run(), run(), run()],
    "tuned": [run(0.3), run(0.2), run(0.4)],
}
PAIRS = [("tuned", "base"), ("tuned", "bm25")]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
@settings(deadline=None)
def test_the_summary_is_that_of_the_statistics_module(figures):
    found = summarise(figures)
    assert found.mean == pytest.approx(statistics.fmean(figures), abs=1e-12)
    assert (found.low, found.high, found.seeds) == (min(figures), max(figures), len(figures))
    if len(figures) == 1:
        assert found.std is None
    else:
        assert found.std == pytest.approx(statistics.stdev(figures), abs=1e-9)


def test_each_query_is_averaged_over_the_runs():
    found = average(RUNS["tuned"])
    assert found.query_ids == IDS
    for metric in found.values:
        columns = [own.of(metric) for own in RUNS["tuned"]]
        assert found.of(metric) == pytest.approx(sum(columns) / 3)
        assert found.mean(metric) == pytest.approx(
            np.mean([own.mean(metric) for own in RUNS["tuned"]])
        )


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7), st.randoms())
@settings(deadline=None)
def test_the_order_of_the_runs_makes_no_difference(figures, random):
    shuffled = random.sample(figures, len(figures))
    one, other = (
        average([PerQuery(("q",), {"map": np.array([value])}) for value in values])
        for values in (figures, shuffled)
    )
    assert one.of("map") == other.of("map")


def test_one_run_is_its_own_average_and_many_equal_ones_are_no_more_sure():
    tuned, base = RUNS["tuned"][0], RUNS["base"][0]
    once = seed_document({"t": [tuned], "b": [base]}, [("t", "b")], metrics=["ndcg@10"], seed=1)
    four = seed_document(
        {"t": [tuned] * 4, "b": [base] * 4}, [("t", "b")], metrics=["ndcg@10"], seed=1
    )
    (plain,) = difference_rows({"t": tuned, "b": base}, [("t", "b")], metrics=["ndcg@10"], seed=1)
    assert {name: once["differences"][0][name] for name in plain} == plain
    assert {name: four["differences"][0][name] for name in plain} == plain
    assert four["systems"]["t"]["ndcg@10"]["std"] == 0
    assert once["systems"]["t"]["ndcg@10"]["std"] is None


def test_differences_are_tested_on_averages_and_spread_is_told_run_by_run():
    found = seed_document(RUNS, PAIRS, metrics=["recall@10"], seed=3)
    means = {name: [own.mean("recall@10") for own in runs] for name, runs in RUNS.items()}
    against_base, against_bm25 = found["differences"]
    averaged = {name: average(runs) for name, runs in RUNS.items()}
    for row, plain in zip(
        found["differences"],
        difference_rows(averaged, PAIRS, metrics=["recall@10"], seed=3),
        strict=True,
    ):
        spread = row.pop("over_seeds")
        assert row == plain
        assert spread["mean"] == pytest.approx(plain["delta"])
        assert spread["seeds"] == 3
        row["over_seeds"] = spread
    paired = [a - b for a, b in zip(means["tuned"], means["base"], strict=True)]
    assert against_base["over_seeds"]["std"] == pytest.approx(statistics.stdev(paired))
    # BM25 has no seed: its one run stands against every run of the other.
    assert against_bm25["over_seeds"]["std"] == pytest.approx(statistics.stdev(means["tuned"]))
    assert found["systems"]["bm25"]["recall@10"]["std"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_metrics_are_those_that_all_runs_have():
    found = average([run(metrics=("map", "recall@10")), run(metrics=("recall@10", "mrr@10"))])
    assert list(found.values) == ["recall@10"]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "needs at least one run, found none"),
        ([run(), run(ids=IDS[:-1])], "run 1 has 40, run 2 has 39, 39 of them in both"),
        ([run(metrics=("map",)), run(metrics=("mrr@10",))], "no metric in common.*: map; mrr@10"),
    ],
)
def test_runs_that_do_not_fit_are_a_data_error(runs, message):
    with pytest.raises(DataError, match=message) as info:
        average(runs)
    assert info.value.exit_code == 3


def test_what_is_unknown_is_named():
    with pytest.raises(ConfigError, match="unknown system 'soup'; measured: bm25, base, tuned"):
        seed_document(RUNS, [("soup", "base")], metrics=["recall@10"], seed=0)
    with pytest.raises(ConfigError, match="'map' was not measured; measured: recall@10, ndcg@10"):
        seed_document(RUNS, PAIRS, metrics=["map"], seed=0)
    with pytest.raises(ValueError, match="at least one run"):
        summarise([])
