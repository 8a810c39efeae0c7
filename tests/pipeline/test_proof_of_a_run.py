"""What a finished run shows besides its figures: the page, its evidence, speed, weight and groups."""

import json

import pytest
from driver import cli
from tiny import bert_folder, tiny_cross_encoder


def test_an_index_is_timed_and_weighed(outcome, finished):
    found = outcome.document["efficiency"]
    assert set(found["systems"]) == {"bm25", "tuned_dense", "tuned_hybrid"}
    for system, times in found["systems"].items():
        assert ("encode_ms" in times) == (system != "bm25")
        for name in ("search_ms", "total_ms"):
            assert 0 < times[name]["p50"] <= times[name]["p95"] <= times[name]["p99"]
        assert times["queries_per_s"] > 0
    files = [file for file in (finished / "index").rglob("*") if file.is_file()]
    assert found["index_bytes"] == sum(file.stat().st_size for file in files)
    parts = ("vector_bytes", "bm25_bytes", "text_bytes")
    assert 0 < sum(found[name] for name in parts) <= found["index_bytes"]
    assert all(found[name] > 0 for name in parts)
    assert found["peak_memory_bytes"] > 1e8 and found["passages_per_s"] > 0


def test_the_tuned_model_is_held_against_the_latency_budget(outcome, finished):
    check = outcome.document["efficiency"]["latency_check"]
    assert check["budget"] == 0.1 and check["passed"]
    verdict = json.loads((finished / "verdict.json").read_text())
    assert verdict["unchecked"] == []
    assert verdict["figures"]["latency"]["growth"] == check["growth"]


def test_figures_hold_no_times(finished):
    """The same command gives the same metrics to the last digit, and other times."""
    assert "latency" not in json.loads((finished / "eval/metrics.json").read_text())
    assert "_ms" not in (finished / "eval/evidence.json").read_text()


def test_both_fusions_and_all_systems_are_measured(outcome):
    systems = outcome.document["systems"]
    sides = [f"{side}_{kind}" for side in ("base", "tuned") for kind in ("dense", "hybrid")]
    assert {"bm25", *sides, "base_hybrid_rrf", "tuned_hybrid_rrf"} <= set(systems)


def test_evidence_is_about_the_systems_of_the_run(outcome, finished):
    evidence = json.loads((finished / "eval/evidence.json").read_text())
    systems = outcome.document["systems"]
    at_ten = evidence["curves"]["k"].index(10)
    for name, curve in evidence["curves"]["systems"].items():
        assert curve["mean"][at_ten] == pytest.approx(systems[name]["recall@10"])
    (hybrid, _) = evidence["deltas"]
    gain = systems["tuned_hybrid"]["recall@10"] - systems["base_hybrid"]["recall@10"]
    assert sum(hybrid["values"]) / len(hybrid["values"]) == pytest.approx(gain)
    assert evidence["separation"]["tuned"]["auc"] > evidence["separation"]["base"]["auc"]
    for curve, side in zip(evidence["fusion"], ("base", "tuned"), strict=True):
        assert curve["side"] == side and max(curve["values"]) <= 2
        chosen = outcome.document["choices"][f"{side}_fusion"]
        assert chosen["method"] == curve["chosen"]["kind"]


def test_the_page_and_the_text_have_the_same_verdict(outcome, finished):
    page = (finished / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    gain = outcome.document["differences"][0]["delta"]
    assert f"{gain:+.3f}".replace("0.", ".") in page
    assert str(finished) in page


def test_queries_about_one_document_are_drawn_as_one(copied):
    found = cli("train", "tiny.yaml", "--json", "--set", "evaluation.cluster=true")
    assert found.code in (0, 4), found.err
    assert found.redone[0] == "evaluate"
    for row in found.document["differences"]:
        assert 1 < row["groups"] <= row["wins"] + row["ties"] + row["losses"]


def test_shorter_vectors_are_measured_where_training_aimed_at_them(fresh):
    found = cli("train", "tiny.yaml", "--json", "--set", "training.matryoshka=[16,8]")
    assert found.code in (0, 4), found.err
    rows = found.document["dimensions"]
    assert [row["dimension"] for row in rows] == [32, 16, 8]
    whole, systems = rows[0], found.document["systems"]
    for side in ("base", "tuned"):
        assert whole[side]["recall@10"] == pytest.approx(systems[f"{side}_dense"]["recall@10"])


def test_reranking_makes_systems_of_its_own_and_is_timed(fresh, tmp_path, model_folder):
    reader = tiny_cross_encoder(tmp_path / "reader", bert_folder(tmp_path / "bert"))
    asked = ["--set", "evaluation.rerank=5", "--set", f"evaluation.cross_encoder={reader}"]
    found = cli("train", "tiny.yaml", "--json", *asked)
    assert found.code in (0, 4), found.err
    document = found.document
    reranked = {name for name in document["systems"] if name.endswith("_rerank")}
    assert reranked == {"bm25_rerank", "base_hybrid_rerank", "tuned_hybrid_rerank"}
    compared = {(row["system"], row["against"]) for row in document["differences"]}
    assert ("base_hybrid_rerank", "base_hybrid") in compared
    assert ("tuned_hybrid_rerank", "base_hybrid_rerank") in compared
    # The first five are put in another order, nothing comes in from behind them.
    for name in reranked:
        plain = document["systems"][name.removesuffix("_rerank")]
        assert document["systems"][name]["recall@5"] == pytest.approx(plain["recall@5"])
    times = document["efficiency"]["systems"]
    (timed,) = [name for name in times if name.endswith("_rerank")]
    assert times[timed]["total_ms"]["p50"] >= times[timed]["rerank_ms"]["p50"] > 0
    assert cli("train", "tiny.yaml", "--json", *asked).redone == []


def test_times_of_a_model_come_where_they_are_asked_for(finished, tmp_path):
    out = tmp_path / "measured"
    found = cli("evaluate", "tiny.yaml", "--time", "--json", "--out", out)
    assert found.code == 0, found.err
    assert set(found.document["efficiency"]["systems"]) == {"bm25", "dense", "hybrid"}
    assert "## Speed and size" in (out / "report.md").read_text()
    assert (
        "Speed" in (out / "report.html").read_text()
        or "Efficiency" in (out / "report.html").read_text()
    )
    refused = cli("evaluate", "tiny.yaml", "--time", "--model", "none")
    assert refused.code == 2 and "--time" in refused.err
    advised = cli("advise", out, "--json")
    assert advised.code == 0, advised.err
    assert advised.document["facts"]["hybrid"]["delta"] == pytest.approx(
        found.document["systems"]["hybrid"]["recall@10"]
        - found.document["systems"]["dense"]["recall@10"]
    )


def test_the_tuned_weights_alone_are_measured_beside_their_soup(fresh, monkeypatch):
    monkeypatch.setattr("retrieval_ft.pipeline.soup.choose", lambda tried, *, floor: tried[-1])
    asked = ["--set", "training.soup_alphas=[1.0,0.5]", "--set", "evaluation.unmixed=true"]
    found = cli("train", "tiny.yaml", "--json", *asked)
    assert found.code in (0, 4), found.err
    assert found.document["choices"]["soup_alpha"] == 0.5
    whole = cli("train", "tiny.yaml", "--json", "--set", "training.soup_alphas=[1.0]")
    alone = found.document["systems"]["tuned_dense_unmixed"]
    assert alone == pytest.approx(whole.document["systems"]["tuned_dense"])
    assert alone != found.document["systems"]["tuned_dense"]
