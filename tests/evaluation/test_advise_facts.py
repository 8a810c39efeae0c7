import json

import pytest

from retrieval_ft.dataset.power import PAIRED_DEVIATION, smallest_difference
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation.facts import (
    Facts,
    Gain,
    Limits,
    Prices,
    assemble,
    facts_of,
    read_inputs,
)

MEASURED = {
    "passages": 1_000,
    "test_queries": 400,
    "bm25_recall_10": 0.5,
    "base_dense_recall_10": 0.55,
    "base_hybrid_recall_10": 0.6,
    "base_hybrid_recall_100": 0.9,
}
ROW = {
    "system": "tuned_hybrid",
    "against": "base_hybrid",
    "metric": "recall@10",
    "delta": 0.1,
    "ci": [0.05, 0.15],
    "p": 0.001,
}


def document(**more):
    return {
        "systems": {
            "bm25": {"recall@10": 0.5},
            "base_dense": {"recall@10": 0.55},
            "base_hybrid": {"recall@10": 0.6, "recall@100": 0.9},
            "tuned_hybrid": {"recall@10": 0.7, "recall@100": 0.9},
        },
        "dataset": {"passages": 1_000, "test_queries": 400, "train_pairs": 700},
        "differences": [{**ROW, "metric": "ndcg@10", "delta": 0.9}, ROW],
        "truncation": {"passage": 0.25, "query": 0.0},
        **more,
    }


def test_a_report_gives_every_measured_fact():
    assert facts_of(document(), source="r") == {
        **MEASURED,
        "train_labels": 700,
        "truncated_passages": 0.25,
        "tuned": Gain(0.1, 0.05, 0.15, 0.001),
    }


def test_the_document_of_evaluate_gives_the_facts_of_one_model():
    systems = document()["systems"]
    standalone = {
        "systems": {
            "bm25": systems["bm25"],
            "dense": systems["base_dense"],
            "hybrid": systems["base_hybrid"],
        },
        "dataset": {"passages": 1_000, "queries": 400},
        "differences": [],
    }
    assert facts_of(standalone, source="r") == MEASURED


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"systems": {}},
        document(dataset={}),
        document(differences=[{"system": "x"}]),
        {"systems": 3},
    ],
)
def test_a_document_without_systems_or_counts_is_refused(wrong):
    with pytest.raises(DataError, match=r"runs/x: not a results document .*give report.json"):
        facts_of(wrong, source="runs/x")


def test_an_edited_file_wins_over_what_was_measured(tmp_path):
    path = tmp_path / "inputs.yaml"
    path.write_text(
        "facts: {serves: bm25, queries_per_month: 7, reranked: {delta: .1, low: .05, high: .2, p: .01}}\n"
        "prices: {currency: €, engineer_hour: 80}\nlimits: {enough: .9}\n"
    )
    facts, prices, limits = assemble(MEASURED, read_inputs(path), source=str(path))
    assert (facts.serves, facts.queries_per_month) == ("bm25", 7)
    assert facts.reranked == Gain(0.1, 0.05, 0.2, 0.01)
    assert (prices.currency, prices.engineer_hour, limits.enough) == ("€", 80, 0.9)
    assert prices.label_hour == Prices().label_hour


def test_json_is_read_too_and_an_empty_file_changes_nothing(tmp_path):
    path = tmp_path / "inputs.json"
    path.write_text(json.dumps({"facts": {"train_labels": 3}}))
    assert assemble(MEASURED, read_inputs(path), source="")[0].train_labels == 3
    path.write_text("")
    expected = (Facts(**MEASURED), Prices(), Limits())
    assert assemble(MEASURED, read_inputs(path), source="") == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("price: {}", "unknown section 'price'; allowed: facts, limits, prices"),
        ("prices: 3", "prices: a mapping is needed, found 3"),
        (
            "prices: {engineer_our: 3}",
            r"prices.engineer_our: unknown key; did you mean engineer_hour",
        ),
        ("facts: {sevres: bm25}", r"facts.sevres: unknown key; did you mean serves"),
        ("facts: {serves: google}", r"facts.serves: found 'google'; allowed: bm25, dense, hybrid"),
        ("prices: {core_hour: -1}", r"prices.core_hour: found -1; a number from 0 to 1e\+12"),
        ("prices: {core_hour: .nan}", r"prices.core_hour: found nan"),
        ("prices: {core_hour: true}", r"prices.core_hour: found True"),
        ("prices: {core_hour: cheap}", r"prices.core_hour: found 'cheap'"),
        ("prices: {retune_after: 0}", r"prices.retune_after: found 0; a number from 1e-06"),
        ("prices: {currency: 3}", r"prices.currency: found 3"),
        ("limits: {enough: 2}", r"limits.enough: found 2; a number from 0 to 1 is allowed"),
        ("facts: {tuned: {delta: .1}}", r"facts.tuned: found \['delta'\]; delta, low, high and p"),
        ("facts: {tuned: {delta: .1, low: .3, high: .2, p: .1}}", "low 0.3 is above high 0.2"),
        ("facts: {tuned: 3}", r"facts.tuned: found 3"),
        ("facts: {base_hybrid_recall_100: .1}", "0.1 is below base_hybrid_recall_10 0.6"),
        ("facts: {test_queries: 0}", r"facts.test_queries: found 0; a number from 1"),
    ],
)
def test_a_faulty_input_is_told_by_its_path(tmp_path, text, what):
    path = tmp_path / "inputs.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what):
        assemble(MEASURED, read_inputs(path), source=str(path))


def test_a_fact_that_nobody_brings_is_asked_for():
    with pytest.raises(
        ConfigError, match=r"here: facts.passages is needed; needed are passages, test"
    ):
        assemble({}, {}, source="here")


def test_what_is_detectable_follows_the_measured_interval_where_there_is_one():
    assert Facts(**MEASURED).detectable == smallest_difference(400)
    tuned = Facts(**MEASURED, tuned=Gain(0.1, 0.05, 0.15, 0.001))
    # Half-width .05 over 400 queries: sd = .05 * 20 / 1.96, and 2.8 sd / 20 = 2.8 * .05 / 1.96.
    assert tuned.detectable == pytest.approx(2.8 * 0.05 / 1.96)
    flat = Facts(**MEASURED, tuned=Gain(0.1, 0.1, 0.1, 0.001))
    assert flat.deviation == PAIRED_DEVIATION


@pytest.mark.parametrize(
    ("gain", "shown"),
    [
        (Gain(0.1, 0.05, 0.2, 0.05), True),
        (Gain(0.1, 0.0, 0.2, 0.01), False),
        (Gain(0.1, 0.05, 0.2, 0.051), False),
    ],
)
def test_a_gain_is_shown_as_the_gate_would_have_it(gain, shown):
    assert gain.shown == shown
