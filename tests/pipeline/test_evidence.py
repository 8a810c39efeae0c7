"""compare and advise on a finished run."""

import json

from driver import cli


def test_a_run_is_not_worse_than_itself(finished):
    found = cli("compare", "runs/tiny", "runs/tiny", "--json")
    assert found.code == 0, found.err
    assert found.document["outcome"] == "passed"
    assert all(row["delta"] == 0 for row in found.document["rows"])


def test_a_run_that_fell_ends_with_4(copied):
    worse = ["--name", "worse", "--set", "training.learning_rate=1e-9"]
    assert cli("train", "tiny.yaml", *worse).code == 4
    found = cli("compare", "runs/worse", "runs/tiny")
    assert found.code == 4
    assert "regressed" in found.err and "tuned_dense ndcg@10" in found.err
    assert cli("compare", "runs/worse", "runs/tiny", "--system", "bm25").code == 0


def test_runs_over_other_texts_are_not_compared(copied):
    other = ["--name", "other", "--set", "model.max_length=40"]
    assert cli("mine", "tiny.yaml", *other).code == 0
    found = cli("compare", "runs/other", "runs/tiny")
    assert found.code == 3 and "runs/other" in found.err


def test_advice_comes_with_its_reckoning(finished, tmp_path):
    found = cli("advise", "runs/tiny", "--json")
    assert found.code == 0, found.err
    document = found.document
    assert document["first"] in {one["action"] for one in document["options"]} | {"leave"}
    assert document["facts"]["passages"] == 40
    text = cli("advise", "runs/tiny", "--serves", "hybrid").out
    assert document["facts"]["serves"] != "hybrid" and "hybrid" in text
    inputs = tmp_path / "inputs.yaml"
    inputs.write_text("facts: {queries_per_month: 5}\nprices: {value_per_fin: 1}\n")
    wrong = cli("advise", "runs/tiny", "--inputs", inputs)
    assert wrong.code == 2 and "value_per_find" in wrong.err


def test_a_verdict_names_its_rule_and_thresholds(finished):
    verdict = json.loads((finished / "verdict.json").read_text())
    assert verdict["rule"] == "gain_is_sure"
    assert verdict["thresholds"]["min_gain"] == 0


def test_a_gain_under_the_threshold_holds(fresh):
    found = cli("train", "tiny.yaml", "--json", "--set", "evaluation.min_gain=0.9")
    assert found.code == 4
    assert json.loads((fresh / "runs/tiny/verdict.json").read_text())["rule"] == "gain_too_small"


def test_runs_that_differ_by_seed_are_summed_up(copied):
    assert cli("train", "tiny.yaml", "--name", "second", "--set", "seed=7").code in (0, 4)
    found = cli("seeds", "runs/tiny", "runs/second", "--json")
    assert found.code == 0, found.err
    document = found.document
    bm25 = document["systems"]["bm25"]["recall@10"]
    assert (bm25["std"], bm25["seeds"]) == (0.0, 2) and bm25["low"] == bm25["high"]
    tuned = document["systems"]["tuned_dense"]["recall@10"]
    assert tuned["low"] <= tuned["mean"] <= tuned["high"]
    text = cli("seeds", "runs/tiny", "runs/second").out
    assert "tuned dense" in text and "minus base dense, recall@10" in text


def test_a_run_is_no_second_seed_of_itself(copied):
    for runs in (["runs/tiny"], ["runs/tiny", "runs/tiny"]):
        found = cli("seeds", *runs)
        assert found.code == 3 and "two at least" in found.err
