import json

import numpy as np
import pytest

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation import PerQuery, compare, difference_rows, holm

RNG = np.random.default_rng(0)
QUERIES = tuple(f"q{i:02}" for i in range(60))


def per_query(lift=0.0, query_ids=QUERIES):
    values = {m: RNG.random(len(query_ids)) + lift for m in ("recall@10", "ndcg@10")}
    return PerQuery(query_ids=query_ids, values=values)


SYSTEMS = {"bm25": per_query(), "base_dense": per_query(), "tuned_dense": per_query(0.3)}
PAIRS = [("tuned_dense", "base_dense"), ("tuned_dense", "bm25"), ("base_dense", "bm25")]
METRICS = ["recall@10", "ndcg@10"]


def test_a_row_for_each_pair_and_metric_with_the_figures_of_compare():
    rows = difference_rows(SYSTEMS, PAIRS, metrics=METRICS, seed=3)
    keys = [(row["system"], row["against"], row["metric"]) for row in rows]
    assert keys == [(*pair, metric) for pair in PAIRS for metric in METRICS]
    for row in rows:
        alone = compare(
            SYSTEMS[row["system"]], SYSTEMS[row["against"]], metric=row["metric"], seed=3
        )
        assert row["delta"] == alone.delta
        assert row["ci"] == [alone.ci_low, alone.ci_high]
        assert row["p"] == alone.p
        assert (row["wins"], row["ties"], row["losses"]) == (alone.wins, alone.ties, alone.losses)


def test_p_is_adjusted_over_all_rows():
    rows = difference_rows(SYSTEMS, PAIRS, metrics=METRICS, seed=3)
    assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])


def test_rows_are_plain_json():
    rows = difference_rows(SYSTEMS, PAIRS, metrics=METRICS, seed=3)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_no_pairs_no_rows():
    assert difference_rows(SYSTEMS, [], metrics=METRICS, seed=0) == []


def test_an_unknown_system_is_named():
    with pytest.raises(ConfigError, match="unknown system 'splade'; measured: bm25, base_dense"):
        difference_rows(SYSTEMS, [("splade", "bm25")], metrics=METRICS, seed=0)


def test_a_metric_that_was_not_measured_is_named():
    with pytest.raises(ConfigError, match=r"'map' was not measured; measured: recall@10, ndcg@10"):
        difference_rows(SYSTEMS, PAIRS, metrics=["map"], seed=0)


def test_systems_measured_on_different_queries_are_refused():
    other = {**SYSTEMS, "bm25": per_query(query_ids=(*QUERIES[:-1], "another"))}
    with pytest.raises(DataError, match="found 60 and 60 queries, 59 of them in both") as info:
        difference_rows(other, PAIRS, metrics=METRICS, seed=0)
    assert info.value.exit_code == 3
