import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft import artifacts
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation import regression
from retrieval_ft.evaluation.metrics import PerQuery
from retrieval_ft.evaluation.regression import (
    Measured,
    check_regression,
    read_measured,
    read_per_query,
)
from retrieval_ft.evaluation.stats import Difference, holm

N = 200
IDENTITY = {"corpus": "c" * 64, "judgements": "j" * 64}
FAST = {"resamples": 1_000}


def measured(values, *, name="runs/main", ids=None, identity=IDENTITY):
    """Systems with the same values for both metrics."""
    per_query = {}
    for system, column in values.items():
        column = np.asarray(column, np.float64)
        queries = ids or tuple(f"q{i:04}" for i in range(len(column)))
        per_query[system] = PerQuery(queries, {"recall@10": column, "ndcg@10": column / 2})
    return Measured(name, per_query, identity)


def hits(count):
    return np.concatenate([np.ones(count), np.zeros(N - count)])


BEFORE = measured({"bm25": hits(100), "tuned_hybrid": hits(150)})


def changes(found):
    return {(row.system, row.metric): row.change for row in found.rows}


def test_the_same_values_pass_and_every_row_is_steady():
    found = check_regression(BEFORE, BEFORE, **FAST)
    assert found.outcome == "passed"
    assert set(changes(found).values()) == {"steady"}
    assert found.line() == (
        "passed: none of 4 figures fell by more than 0.010 beyond noise (200 queries, against "
        "runs/main)"
    )


def test_a_large_fall_of_one_system_is_named_with_its_figures():
    now = measured({"bm25": hits(100), "tuned_hybrid": hits(110)}, name="now")
    found = check_regression(now, BEFORE, **FAST)
    assert found.outcome == "regressed"
    fell = {key for key, change in changes(found).items() if change == "fell"}
    assert fell == {("tuned_hybrid", "recall@10"), ("tuned_hybrid", "ndcg@10")}
    assert found.line().startswith("regressed: 2 of 4 figures fell: tuned_hybrid recall@10 0.7500")
    assert "to 0.5500 (-0.2000 [" in found.line()


def test_a_fall_that_may_be_noise_passes_and_is_counted():
    # Three of 200 queries lost: 1.5 points, and p is 2 of 2**3 signs.
    now = measured({"bm25": hits(100), "tuned_hybrid": hits(147)})
    found = check_regression(now, BEFORE, metrics=("recall@10",), **FAST)
    assert changes(found) == {
        ("bm25", "recall@10"): "steady",
        ("tuned_hybrid", "recall@10"): "unclear",
    }
    assert found.outcome == "passed"
    assert "1 lost more than that, which may be noise" in found.line()


@pytest.mark.parametrize(("tolerance", "change"), [(0.2, "steady"), (0.199, "fell")])
def test_a_loss_equal_to_the_tolerance_passes(tolerance, change):
    now = measured({"bm25": hits(60), "tuned_hybrid": hits(150)})
    found = check_regression(now, BEFORE, tolerance=tolerance, metrics=("recall@10",), **FAST)
    assert changes(found)["bm25", "recall@10"] == change


@pytest.mark.parametrize(
    ("delta", "interval", "p", "change"),
    [
        (-0.2, (-0.3, -0.1), 0.05, "fell"),
        (-0.2, (-0.3, -0.1), 0.051, "unclear"),
        (-0.2, (-0.3, 0.0), 0.01, "unclear"),
        (0.2, (0.1, 0.3), 0.05, "rose"),
        (0.2, (0.0, 0.3), 0.01, "unclear"),
        (0.01, (0.005, 0.02), 0.01, "steady"),
    ],
)
def test_interval_and_p_must_both_speak_for_a_change(delta, interval, p, change):
    found = Difference(delta, *interval, p=p, wins=1, ties=1, losses=1, n=3)
    assert regression._change(found, p_holm=p, tolerance=0.01) == change


def test_five_losses_and_no_win_may_be_noise_though_the_bootstrap_lies_below_zero():
    before, now = (measured({"s": np.full(5, hit)}) for hit in (1.0, 0.0))
    assert {row.change for row in check_regression(now, before, **FAST).rows} == {"unclear"}


def test_a_gain_is_a_rise_and_passes():
    now = measured({"bm25": hits(100), "tuned_hybrid": hits(190)})
    found = check_regression(now, BEFORE, metrics=("recall@10",), **FAST)
    assert changes(found)["tuned_hybrid", "recall@10"] == "rose"
    assert found.outcome == "passed"


def test_p_is_adjusted_over_all_rows():
    now = measured({"bm25": hits(97), "tuned_hybrid": hits(140)})
    found = check_regression(now, BEFORE, **FAST)
    assert [row.p_holm for row in found.rows] == holm([row.difference.p for row in found.rows])


def test_a_system_that_is_no_longer_measured_does_not_pass_in_silence():
    found = check_regression(measured({"bm25": hits(100), "extra": hits(3)}), BEFORE, **FAST)
    assert (found.outcome, found.missing, found.new) == (
        "incomplete",
        ("tuned_hybrid",),
        ("extra",),
    )
    assert "not measured now: tuned_hybrid" in found.line()
    alone = check_regression(measured({"bm25": hits(100)}), BEFORE, systems=["bm25"], **FAST)
    assert alone.outcome == "passed"


@pytest.mark.parametrize(
    ("now", "what"),
    [
        (
            replace(BEFORE, identity={**IDENTITY, "corpus": "d" * 64}),
            r"corpus c{12} then, d{12} now",
        ),
        (replace(BEFORE, identity={**IDENTITY, "judgements": "k" * 64}), "judgements j"),
        (measured({"other": hits(3)}), "no system in common: other against bm25, tuned_hybrid"),
        (
            measured({"bm25": hits(3)}, ids=tuple(f"x{i:04}" for i in range(N))),
            r"different test queries, 200 only now \('x0000', 'x0001', 'x0002'\); 200 only then",
        ),
    ],
)
def test_runs_over_different_data_are_refused_and_told_what_differs(now, what):
    with pytest.raises(DataError, match=what):
        check_regression(now, BEFORE, **FAST)


def test_texts_of_queries_count_where_both_runs_kept_them():
    then = replace(BEFORE, identity={**IDENTITY, "query texts": "a"})
    assert check_regression(BEFORE, then, **FAST).outcome == "passed"
    with pytest.raises(DataError, match="query texts a then, b now"):
        check_regression(replace(then, identity={**IDENTITY, "query texts": "b"}), then, **FAST)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"tolerance": -0.1}, "tolerance -0.1"),
        ({"tolerance": float("nan")}, "tolerance nan"),
        ({"systems": ["bm26"]}, "unknown system 'bm26'; runs/main measured: bm25, tuned_hybrid"),
        ({"metrics": ["map"]}, "'map' was not measured"),
    ],
)
def test_wrong_questions_are_refused(wrong, what):
    with pytest.raises(ConfigError, match=what):
        check_regression(BEFORE, BEFORE, **wrong, **FAST)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_one_seed_gives_one_document_and_a_swap_turns_falls_into_rises(pairs):
    a, b = (measured({"s": [pair[i] for pair in pairs]}, name="é") for i in (0, 1))
    found = check_regression(a, b, **FAST)
    assert found.document() == check_regression(a, b, **FAST).document()
    json.dumps(found.document(), allow_nan=False)
    assert "\n" not in found.line()
    back = check_regression(b, a, **FAST)
    for row, other in zip(found.rows, back.rows, strict=True):
        assert row.difference.delta == -other.difference.delta
        assert not (row.change == "fell" and row.now >= row.before)


def write_run(folder, column, *, texts=("one", "two", "drei ü")):
    table = pa.table(
        {"system": ["bm25"] * 3, "query_id": ["q2", "q1", "ü3"], "recall@10": list(column)}
    )
    (folder / "eval").mkdir(parents=True)
    pq.write_table(table, folder / "eval" / "per_query.parquet")
    means = {"systems": {"bm25": {"recall@10": float(np.mean(column))}}}
    artifacts.write_json(folder / "eval" / "metrics.json", means)
    rows = [{"_id": i, "text": t} for i, t in zip(("q1", "q2", "ü3"), texts, strict=True)]
    artifacts.write_jsonl(folder / "dataset" / "queries.jsonl", rows)
    seal(folder)
    return folder


def seal(folder, **more):
    files = ("eval/metrics.json", "eval/per_query.parquet")
    outputs = {name: artifacts.sha256_file(folder / name) for name in files}
    outputs |= {"dataset/corpus.jsonl": "c", "dataset/qrels/test.tsv": "t", **more}
    artifacts.write_json(folder / "manifest.json", {"stages": {"evaluate": {"outputs": outputs}}})


def test_a_run_directory_is_read_back_by_query_id(tmp_path):
    found = read_measured(write_run(tmp_path / "run", [0.5, 1.0, 0.0]))
    assert found.per_query["bm25"].query_ids == ("q1", "q2", "ü3")
    assert found.per_query["bm25"].of("recall@10").tolist() == [1.0, 0.5, 0.0]
    assert set(found.identity) == {"corpus", "judgements", "query texts"}


def test_other_texts_under_the_same_ids_are_refused(tmp_path):
    before = read_measured(write_run(tmp_path / "a", [0.5, 1.0, 0.0]))
    now = read_measured(write_run(tmp_path / "b", [0.5, 1.0, 0.0], texts=("one", "two", "drei")))
    with pytest.raises(DataError, match=r"different data \(query texts"):
        check_regression(now, before, metrics=("recall@10",), **FAST)


def test_files_that_a_run_did_not_write_so_are_refused(tmp_path):
    run = write_run(tmp_path / "run", [0.5, 1.0, 0.0])
    artifacts.write_json(run / "eval" / "metrics.json", {"systems": {"bm25": {"recall@10": 0.9}}})
    with pytest.raises(DataError, match=r"metrics.json: damaged or edited"):
        read_measured(run)
    seal(run)
    with pytest.raises(
        DataError, match="recall@10 of bm25 is not the mean of its values per query"
    ):
        read_measured(run)
    (run / "eval" / "per_query.parquet").unlink()
    with pytest.raises(DataError, match=r"per_query.parquet: no such file; keep eval/"):
        read_measured(run)
    artifacts.write_json(run / "manifest.json", {"stages": {}})
    with pytest.raises(DataError, match="not the manifest of a run that was measured"):
        read_measured(run)
    with pytest.raises(DataError, match="no such file"):
        read_measured(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"system": ["a"], "recall@10": [1.0]}, "column query_id is missing"),
        (
            {"system": ["a", "a"], "query_id": ["q", "q"], "m": [1.0, 1.0]},
            "query 'q' stands twice for system 'a'",
        ),
        (
            {"system": ["a"], "query_id": ["q"], "m": [float("nan")]},
            "'m' holds a value that is not",
        ),
        ({"system": ["a"], "query_id": ["q"], "m": [None]}, "'m' holds a value that is not"),
    ],
)
def test_faulty_values_per_query_are_named(tmp_path, table, what):
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=what):
        read_per_query(tmp_path / "p.parquet")


def test_bytes_that_are_no_parquet_are_named(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="not a parquet file, or damaged"):
        read_per_query(tmp_path / "p.parquet")
    with pytest.raises(DataError, match="no such file"):
        read_per_query(tmp_path / "q.parquet")
