import time

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset.types import Qrels, Ranking
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation import DEFINITIONS, METRICS, evaluate, parse_metric

PASSAGES = [f"p{i}" for i in range(12)] + ["é", "文", "with blank"]
QUERIES = ["q1", "q2", "ü"]
DEPTHS = (1, 3, 5, 10, 100)


def ranking_of(scores_by_query):
    hits = {}
    for query_id, scores in scores_by_query.items():
        ids = tuple(sorted(scores, key=lambda p: (-scores[p], p)))
        hits[query_id] = (ids, np.array([scores[p] for p in ids], np.float32))
    return Ranking(hits)


def pytrec_values(ranking, qrels, measures):
    # trec_eval ignores the order of a run: it sorts by score and breaks ties by DESCENDING id,
    # where a Ranking breaks them by ascending id. So that both score one and the same order, it
    # is given scores that are distinct and fall with our ranks.
    run = {
        query_id: {p: float(len(ranking.ids(query_id)) - i) for i, p in enumerate(ids)}
        for query_id, (ids, _) in ranking.hits.items()
        if ids
    }
    # pytrec_eval 0.5.11 crashes (a segmentation fault) on a query with negative grades only;
    # queries without a relevant passage are not compared anyway.
    judged = {q: dict(row) for q, row in qrels.grades.items() if qrels.relevant(q)}
    return pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(run)


def cut(ranking, k):
    return Ranking({q: (ids[:k], scores[:k]) for q, (ids, scores) in ranking.hits.items()})


grades = st.dictionaries(st.sampled_from(PASSAGES), st.integers(-2, 4), min_size=1)
judgements = st.dictionaries(st.sampled_from(QUERIES), grades, min_size=1).filter(
    lambda rows: any(grade > 0 for row in rows.values() for grade in row.values())
)
tied_scores = st.dictionaries(st.sampled_from(PASSAGES), st.sampled_from([0.0, 0.5, 0.75, 2.0]))
results = st.dictionaries(st.sampled_from([*QUERIES, "unjudged"]), tied_scores)


@given(judgements, results)
@settings(max_examples=300, deadline=None)
def test_equal_to_pytrec_eval(grades, scores):
    ranking, qrels = ranking_of(scores), Qrels(grades)
    kinds = {"recall": "recall", "ndcg": "ndcg_cut", "precision": "P", "success": "success"}
    ours = [f"{kind}@{k}" for kind in (*kinds, "mrr") for k in DEPTHS] + ["map"]
    found = evaluate(ranking, qrels, metrics=ours)

    depths = ",".join(map(str, DEPTHS))
    theirs = pytrec_values(ranking, qrels, {"map", *(f"{m}.{depths}" for m in kinds.values())})
    first = {k: pytrec_values(cut(ranking, k), qrels, {"recip_rank"}) for k in DEPTHS}
    assert found.query_ids == tuple(sorted(q for q in grades if qrels.relevant(q)))
    for row, query_id in enumerate(found.query_ids):
        there = theirs.get(query_id, {})
        assert found.values["map"][row] == pytest.approx(there.get("map", 0), abs=1e-9)
        for k in DEPTHS:
            reciprocal = first[k].get(query_id, {}).get("recip_rank", 0)
            assert found.values[f"mrr@{k}"][row] == pytest.approx(reciprocal, abs=1e-9)
            for kind, name in kinds.items():
                expected = there.get(f"{name}_{k}", 0)
                assert found.values[f"{kind}@{k}"][row] == pytest.approx(expected, abs=1e-9)


@given(judgements, results)
@settings(deadline=None)
def test_capped_recall_is_pytrec_evals_recall_over_what_k_can_hold(grades, scores):
    ranking, qrels = ranking_of(scores), Qrels(grades)
    found = evaluate(ranking, qrels, metrics=[f"capped_recall@{k}" for k in DEPTHS])
    theirs = pytrec_values(ranking, qrels, {"recall." + ",".join(map(str, DEPTHS))})
    for row, query_id in enumerate(found.query_ids):
        relevant = len(qrels.relevant(query_id))
        for k in DEPTHS:
            hits = theirs.get(query_id, {}).get(f"recall_{k}", 0) * relevant
            value = found.values[f"capped_recall@{k}"][row]
            assert value == pytest.approx(hits / min(k, relevant), abs=1e-9)


@given(judgements, results)
@settings(deadline=None)
def test_hole_is_pytrec_evals_precision_at_finding_what_nobody_judged(grades, scores):
    ranking, qrels = ranking_of(scores), Qrels(grades)
    found = evaluate(ranking, qrels, metrics=[f"hole@{k}" for k in DEPTHS])
    unjudged = {q: {p: 1 for p in ranking.ids(q) if p not in grades[q]} for q in found.query_ids}
    inverse = {q: {**dict.fromkeys(grades[q], 0), **row} for q, row in unjudged.items() if row}
    measures = {"P." + ",".join(map(str, DEPTHS))}
    theirs = pytrec_values(ranking, Qrels(inverse), measures) if inverse else {}
    for row, query_id in enumerate(found.query_ids):
        for k in DEPTHS:
            expected = theirs.get(query_id, {}).get(f"P_{k}", 0)
            assert found.values[f"hole@{k}"][row] == pytest.approx(expected, abs=1e-9)


@given(judgements, results)
@settings(deadline=None)
def test_every_place_of_the_first_k_is_relevant_or_a_hole_or_judged_otherwise_or_empty(
    grades, scores
):
    ranking, qrels = ranking_of(scores), Qrels(grades)
    found = evaluate(ranking, qrels, metrics=["precision@5", "hole@5"])
    for row, query_id in enumerate(found.query_ids):
        first = ranking.ids(query_id)[:5]
        refused = sum(grades[query_id].get(p, 1) <= 0 for p in first)
        shares = found.values["precision@5"][row] + found.values["hole@5"][row]
        assert shares + refused / 5 + (5 - len(first)) / 5 == pytest.approx(1)


@given(judgements, results)
@settings(deadline=None)
def test_recall_is_at_most_capped_recall_which_is_at_most_success(grades, scores):
    kinds = ("recall", "capped_recall", "success")
    found = evaluate(
        ranking_of(scores), Qrels(grades), metrics=[f"{kind}@{k}" for kind in kinds for k in DEPTHS]
    )
    for k in DEPTHS:
        plain, capped, success = (found.of(f"{kind}@{k}") for kind in kinds)
        assert (plain <= capped).all() and (capped <= success).all()


@given(judgements, results)
@settings(deadline=None)
def test_values_lie_between_0_and_1_and_recall_grows_with_k(grades, scores):
    found = evaluate(ranking_of(scores), Qrels(grades))
    assert all(((v >= 0) & (v <= 1 + 1e-12)).all() for v in found.values.values())
    assert (found.of("recall@5") >= found.of("recall@1")).all()
    assert (found.of("recall@100") >= found.of("recall@50")).all()


@given(judgements)
@settings(deadline=None)
def test_the_ideal_order_has_ndcg_and_mrr_of_1(grades):
    found = evaluate(ranking_of(grades), Qrels(grades), metrics=["ndcg@10", "mrr@10", "map"])
    assert found.means() == pytest.approx({"ndcg@10": 1, "mrr@10": 1, "map": 1})


def test_formulas_on_one_graded_query():
    qrels = Qrels({"q": {"a": 3, "b": 1, "c": 0, "d": 1, "e": -1}})
    ranking = ranking_of({"q": {"e": 9.0, "a": 8.0, "x": 7.0, "b": 6.0}})
    metrics = ["recall@2", "recall@10", "precision@10", "mrr@1", "mrr@10", "map", "ndcg@10"]
    found = evaluate(ranking, qrels, metrics=metrics).means()
    ideal = 3 / np.log2(2) + 1 / np.log2(3) + 1 / np.log2(4)
    assert found == pytest.approx(
        {
            "recall@2": 1 / 3,
            "recall@10": 2 / 3,
            "precision@10": 2 / 10,
            "mrr@1": 0,
            "mrr@10": 1 / 2,
            "map": (1 / 2 + 2 / 4) / 3,
            "ndcg@10": (3 / np.log2(3) + 1 / np.log2(5)) / ideal,
        }
    )


def test_recall_is_not_capped_at_k():
    qrels = Qrels({"q": dict.fromkeys(PASSAGES[:4], 1)})
    ranking = ranking_of({"q": dict.fromkeys(PASSAGES[:4], 1.0)})
    assert evaluate(ranking, qrels, metrics=["recall@1"]).mean("recall@1") == 1 / 4


def test_formulas_of_capped_recall_success_and_hole():
    qrels = Qrels({"q": {"a": 2, "b": 1, "c": 1, "zero": 0, "junk": -2}})
    ranking = ranking_of({"q": {"new": 9.0, "a": 8.0, "zero": 7.0, "junk": 6.0, "newer": 5.0}})
    metrics = ["success@1", "success@2", "capped_recall@2", "capped_recall@10", "recall@2"]
    metrics += ["hole@1", "hole@4", "hole@5", "hole@10"]
    found = evaluate(ranking, qrels, metrics=metrics).means()
    expected = [0, 1, 1 / 2, 1 / 3, 1 / 3, 1, 1 / 4, 2 / 5, 2 / 10]
    assert found == pytest.approx(dict(zip(metrics, expected, strict=True)))


def test_2000_queries_with_100_hits_and_44_metrics_take_under_a_second():
    rng = np.random.default_rng(0)
    ids = [f"passage {i}" for i in range(5000)]
    grades, hits = {}, {}
    for i in range(2000):
        rows = rng.choice(5000, 104, replace=False)
        grades[f"q{i}"] = {ids[row]: 1 for row in rows[98:]}
        hits[f"q{i}"] = (tuple(ids[row] for row in rows[:100]), np.zeros(100, np.float32))
    metrics = [f"{kind}@{k}" for kind in set(DEFINITIONS) - {"map"} for k in (1, 3, 5, 10, 20, 50)]
    start = time.perf_counter()
    evaluate(Ranking(hits), Qrels(grades), metrics=[*metrics, "recall@100", "map"])
    assert time.perf_counter() - start < 1


def test_a_query_without_results_counts_0_and_one_without_a_relevant_passage_is_left_out():
    qrels = Qrels({"absent": {"a": 1}, "empty": {"a": 1}, "hit": {"a": 1}, "none": {"a": 0}})
    found = evaluate(ranking_of({"hit": {"a": 1.0}, "empty": {}, "none": {"a": 1.0}}), qrels)
    assert found.query_ids == ("absent", "empty", "hit")
    assert list(found.of("recall@1")) == [0, 0, 1]
    assert found.mean("recall@10") == 1 / 3
    assert tuple(found.means()) == METRICS


def test_values_are_float64_one_for_each_query():
    found = evaluate(Ranking({}), Qrels({"q": {"a": 1}}))
    assert {(v.dtype, v.shape) for v in found.values.values()} == {(np.dtype(np.float64), (1,))}


def test_names_are_parsed_and_every_kind_is_defined():
    assert parse_metric("recall@10") == ("recall", 10)
    assert parse_metric("map") == ("map", 0)
    assert parse_metric("capped_recall@100") == ("capped_recall", 100)
    assert {parse_metric(name)[0] for name in METRICS} == set(DEFINITIONS)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "recall",
        "recall@0",
        "recall@-1",
        "recall@x",
        "Recall@10",
        "map@10",
        "f1@5",
        "\n",
        "hole",
    ],
)
def test_an_unknown_metric_names_the_allowed_ones(name):
    with pytest.raises(ConfigError, match=r"allowed: recall@k, ndcg@k, mrr@k, precision@k") as info:
        evaluate(Ranking({}), Qrels({"q": {"a": 1}}), metrics=[name])
    assert repr(name) in str(info.value)
    assert info.value.exit_code == 2


def test_a_metric_that_was_not_measured_is_named_with_those_that_were():
    found = evaluate(Ranking({}), Qrels({"q": {"a": 1}}), metrics=["map", "recall@5"])
    with pytest.raises(ConfigError, match=r"'recall@7' was not measured; measured: map, recall@5"):
        found.mean("recall@7")


@pytest.mark.parametrize("grades", [{}, {"q": {"a": 0}}, {"q": {"a": -1}, "r": {}}])
def test_nothing_relevant_is_a_data_error(grades):
    with pytest.raises(DataError, match=f"none of the {len(grades)} judged queries") as info:
        evaluate(Ranking({}), Qrels(grades))
    assert info.value.exit_code == 3


def test_a_passage_ranked_twice_is_refused():
    twice = Ranking({"q": (("a", "b", "a"), np.ones(3, np.float32))})
    with pytest.raises(DataError, match="query 'q' holds passage 'a' twice"):
        evaluate(twice, Qrels({"q": {"a": 1}}))
