import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from retrieval_ft.dataset.types import Corpus, Qrels, Queries, Ranking
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation.evidence import examples, query_deltas, recall_curves, separation
from retrieval_ft.evaluation.metrics import PerQuery, evaluate

LETTERS = [f"p{i:02}" for i in range(40)]


def ranking_of(rows):
    """Passage ids by query, with falling scores."""
    return Ranking(
        {q: (tuple(ids), np.arange(len(ids), 0, -1).astype(np.float32)) for q, ids in rows.items()}
    )


def random_case(seed, *, queries=30, systems=2, depth=40):
    rng = np.random.default_rng(seed)
    names = [f"q{i:04}" for i in range(queries)]
    qrels = Qrels(
        {q: dict.fromkeys(rng.choice(LETTERS, 2, replace=False).tolist(), 1) for q in names}
    )
    rankings = {
        f"s{i}": ranking_of({q: rng.permutation(LETTERS)[:depth].tolist() for q in names})
        for i in range(systems)
    }
    return rankings, qrels


def per_query_of(rankings, qrels):
    return {name: evaluate(ranking, qrels) for name, ranking in rankings.items()}


def test_the_middle_of_a_curve_is_the_mean_recall():
    rankings, qrels = random_case(1)
    found = recall_curves(rankings, qrels, seed=3, resamples=50)
    for name, ranking in rankings.items():
        measured = evaluate(ranking, qrels, metrics=[f"recall@{k}" for k in found["k"]])
        assert found["systems"][name]["mean"] == pytest.approx(list(measured.means().values()))


def test_bands_are_percentiles_of_means_of_queries_drawn_again():
    rankings, qrels = random_case(2)
    found = recall_curves(rankings, qrels, ks=(5, 10), seed=3, resamples=4000)
    rng = np.random.default_rng(99)  # other draws: both must come near the same ends
    for name, ranking in rankings.items():
        for column, k in enumerate((5, 10)):
            values = evaluate(ranking, qrels, metrics=[f"recall@{k}"]).of(f"recall@{k}")
            means = [rng.choice(values, len(values)).mean() for _ in range(4000)]
            band = [found["systems"][name][end][column] for end in ("low", "high")]
            assert band == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.012)


def test_one_seed_gives_one_curve_whatever_other_systems_there_are():
    rankings, qrels = random_case(4)
    alone = recall_curves({"s0": rankings["s0"]}, qrels, seed=5, resamples=60)
    both = recall_curves(rankings, qrels, seed=5, resamples=60)
    assert both == recall_curves(rankings, qrels, seed=5, resamples=60)
    for end in ("mean", "low", "high"):
        assert alone["systems"]["s0"][end] == pytest.approx(both["systems"]["s0"][end])


def test_a_band_holds_its_mean_and_curves_never_fall():
    rankings, qrels = random_case(6, queries=1)
    for curve in recall_curves(rankings, qrels, seed=0)["systems"].values():
        assert curve["low"] == curve["mean"] == curve["high"]  # one query: nothing varies
    rankings, qrels = random_case(6)
    for curve in recall_curves(rankings, qrels, seed=0)["systems"].values():
        assert all(np.diff(curve["mean"]) >= 0)
        assert all(np.array(curve["low"]) <= curve["mean"])
        assert all(np.array(curve["high"]) >= curve["mean"])


def test_two_thousand_queries_of_six_systems_take_under_two_seconds():
    rankings, qrels = random_case(7, queries=2000, systems=6)
    start = time.process_time()
    recall_curves(rankings, qrels, seed=0)
    assert time.process_time() - start < 2.0


def test_no_system_gives_no_curve_and_odd_depths_are_refused():
    rankings, qrels = random_case(8)
    assert recall_curves({}, qrels, seed=0, ks=(1, 10)) == {"k": [1, 10], "systems": {}}
    for ks in ((), (0, 1), (5, 1), (1, 1)):
        with pytest.raises(ConfigError, match="ascending depths from 1"):
            recall_curves(rankings, qrels, ks=ks, seed=0)
    with pytest.raises(ConfigError, match="resamples: found 0"):
        recall_curves(rankings, qrels, seed=0, resamples=0)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=20), st.data())
@settings(max_examples=40, deadline=None)
def test_deltas_fall_and_sum_to_the_difference_of_the_means(values, data):
    others = data.draw(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(values), max_size=len(values))
    )
    ids = tuple(f"q{i:02}" for i in range(len(values)))
    a, b = (PerQuery(ids, {"recall@10": np.array(v)}) for v in (values, others))
    (row,) = query_deltas({"a": a, "b": b}, [("a", "b")], metric="recall@10")
    assert (row["system"], row["against"], row["metric"]) == ("a", "b", "recall@10")
    assert row["values"] == sorted(row["values"], reverse=True)
    given_values = dict(zip(ids, np.subtract(values, others).tolist(), strict=True))
    assert dict(zip(row["query_ids"], row["values"], strict=True)) == given_values
    keys = [(-v, q) for q, v in zip(row["query_ids"], row["values"], strict=True)]
    assert keys == sorted(keys)
    assert math.isclose(np.mean(row["values"]), np.mean(values) - np.mean(others), abs_tol=1e-12)


def test_systems_that_are_unknown_or_of_other_queries_are_refused():
    a = PerQuery(("q1",), {"recall@10": np.zeros(1)})
    b = PerQuery(("q2", "q3"), {"recall@10": np.zeros(2)})
    with pytest.raises(DataError, match=r"different queries \(1 and 2\)"):
        query_deltas({"a": a, "b": b}, [("a", "b")], metric="recall@10")
    with pytest.raises(ConfigError, match="unknown system 'c'"):
        query_deltas({"a": a}, [("a", "c")], metric="recall@10")
    with pytest.raises(ConfigError, match="'map' was not measured"):
        query_deltas({"a": a}, [("a", "a")], metric="map")


CORPUS = Corpus(
    ("d1", "d2", "d3", "d4"),
    ("first  text\nof two lines", "x" * 900, "third", "fourth"),
    ("One", "Two", "", "Four"),
)
QUERIES = Queries(("q1", "q2", "q3", "q4"), ("one?", "two?", "three?", "four?"))
QRELS = Qrels(
    {"q1": {"d1": 2, "d2": 1, "d4": 0}, "q2": {"d2": 1}, "q3": {"d3": 1}, "q4": {"d4": 1}}
)


def shown_examples(**rest):
    filler = [f"x{i}" for i in range(12)]
    rankings = {
        # q1 wins both passages, q2 one at rank 1, q4 one at rank 2; q3 is a tie
        "new": ranking_of(
            {"q1": ["d1", "d2", "d4"], "q2": ["d2"], "q3": ["d3"], "q4": ["d1", "d4"]}
        ),
        "old": ranking_of({"q1": ["d4", "gone"], "q2": filler, "q3": ["d3"], "q4": filler}),
    }
    given_args = {"system": "new", "against": "old", "metric": "recall@10", **rest}
    return examples(
        rankings,
        per_query_of(rankings, QRELS),
        corpus=CORPUS,
        queries=QUERIES,
        qrels=QRELS,
        **given_args,
    )


def test_wins_are_ordered_by_gain_then_ndcg_then_id_and_ties_are_left_out():
    found = shown_examples()
    assert found["losses"] == []
    # All three gain 1.0; nDCG@10 gains 1, 1 and 1 / log2(3).
    assert [item["query_id"] for item in found["wins"]] == ["q1", "q2", "q4"]
    back = shown_examples(system="old", against="new")
    assert back["wins"] == []
    assert [item["query_id"] for item in back["losses"]] == ["q1", "q2", "q4"]
    assert all(item["delta"] < 0 for item in back["losses"])
    assert [item["query_id"] for item in shown_examples(count=1)["wins"]] == ["q1"]


def test_an_example_holds_texts_grades_and_both_rankings():
    first = shown_examples()["wins"][0]
    assert first["query"] == "one?"
    assert first["values"] == {"new": 1.0, "old": 0.0}
    assert [(p["id"], p["grade"]) for p in first["relevant"]] == [("d1", 2), ("d2", 1)]
    assert first["relevant"][0]["text"] == "first text of two lines"
    assert first["relevant"][1]["text"] == "x" * 399 + "…"
    assert [(p["id"], p["grade"], p["score"]) for p in first["hits"]["new"]] == [
        ("d1", 2, 3.0),
        ("d2", 1, 2.0),
        ("d4", 0, 1.0),  # judged, and not relevant
    ]
    assert first["hits"]["old"][1] == {
        "id": "gone",
        "title": "",
        "text": None,
        "score": 1.0,
        "grade": None,
    }
    few = shown_examples(shown=1)["wins"][0]
    assert (len(few["relevant"]), few["relevant_count"], len(few["hits"]["new"])) == (1, 2, 1)


def test_everything_is_json():
    rankings, qrels = random_case(3)
    per_query = per_query_of(rankings, qrels)
    values = [
        recall_curves(rankings, qrels, seed=0, resamples=20),
        query_deltas(per_query, [("s0", "s1")], metric="ndcg@10"),
        shown_examples(),
        separation({"base": (np.ones(3, np.float32), [0.5])}),
    ]
    assert json.loads(json.dumps(values, allow_nan=False)) == values


numbers = st.lists(st.floats(-5, 5).map(lambda x: round(x, 1)), min_size=1, max_size=30)


@given(numbers, numbers, st.integers(1, 12))
@settings(deadline=None)
def test_auc_is_that_of_mann_whitney_and_every_score_is_counted(positive, negative, bins):
    found = separation({"a": (positive, negative), "b": (negative, positive)}, bins=bins)
    u = mannwhitneyu(positive, negative).statistic
    assert found["a"]["auc"] == pytest.approx(u / (len(positive) * len(negative)))
    assert found["a"]["auc"] + found["b"]["auc"] == pytest.approx(1.0)
    assert found["a"]["edges"] == found["b"]["edges"]
    assert len(found["a"]["edges"]) == bins + 1
    assert sum(found["a"]["positive"]) == len(positive)
    assert sum(found["a"]["negative"]) == len(negative)


def test_sides_share_edges_from_the_lowest_to_the_highest_score_of_all():
    found = separation({"base": ([0.1, 0.2], [0.0]), "tuned": ([0.9, 1.0], [-1.0])}, bins=4)
    assert found["base"]["edges"] == found["tuned"]["edges"] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert found["base"]["positive"] == [0, 0, 2, 0]
    assert found["tuned"]["positive"] == [0, 0, 0, 2]
    assert found["tuned"]["auc"] == 1.0


def test_an_empty_side_has_no_auc_and_a_score_that_is_no_number_is_refused():
    found = separation({"base": ([], [0.5, 0.5])}, bins=3)["base"]
    assert found["auc"] is None
    assert sum(found["negative"]) == 2
    assert separation({"base": ([], [])}, bins=2)["base"]["positive"] == [0, 0]
    with pytest.raises(DataError, match="tuned: 2 scores are not finite"):
        separation({"tuned": ([math.nan, 1.0], [math.inf])})
    with pytest.raises(ConfigError, match="bins: found 0"):
        separation({}, bins=0)
