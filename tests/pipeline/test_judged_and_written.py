"""Mining with a cross-encoder, in rounds, and with queries that a language model writes."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny
from chat_server import error, obliging, running
from driver import cli

from retrieval_ft.pipeline.generate import read_run


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    bert = tiny.bert_folder(tmp_path_factory.mktemp("bert"))
    return tiny.tiny_cross_encoder(tmp_path_factory.mktemp("judge"), bert)


@pytest.fixture
def server(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    with running() as one:
        yield one


def rows(path):
    return [json.loads(line) for line in Path(path).open(encoding="utf-8")]


def test_an_audit_lies_beside_the_pairs(finished):
    mined = finished / "mined"
    text = (mined / "audit.md").read_text()
    assert "False negatives: not measured" in text
    assert "Median" in text and "Examples to read" in text
    assert (mined / "scores.svg").read_text().startswith("<?xml")
    audit = json.loads((mined / "audit.json").read_text())
    pairs = rows(mined / "pairs.jsonl")
    assert sum(audit["histogram"]["negative"]) == sum(len(pair["negatives"]) for pair in pairs)
    dropped = pq.read_table(mined / "dropped.parquet").to_pylist()
    account = json.loads((mined / "account.json").read_text())
    assert len(dropped) == sum(account["dropped"].values())


def test_a_cross_encoder_doubts_negatives_and_its_scores_stay_on_the_pairs(copied, judge):
    words = ["--set", f"mining.cross_encoder={judge}", "--set", "mining.audit_sample=20"]
    found = cli("mine", "tiny.yaml", *words, "--json")
    assert found.code == 0, found.err
    assert found.redone == ["mine"]
    mining = found.document["mining"]
    assert mining["false_negatives"]["mined"]["sampled"] == 20
    assert mining["dropped"]["false_negative"] == len(rows(copied / "mined/denoised.jsonl")) > 0
    for pair in rows(copied / "mined/pairs.jsonl"):
        assert pair["positive_teacher"] is not None
        assert all(negative["teacher"] is not None for negative in pair["negatives"])
        assert len(pair["negatives"]) <= 2
    assert cli("mine", "tiny.yaml", *words, "--json").redone == []


def test_a_relabelled_passage_is_trained_on_as_a_positive(copied, judge):
    words = ["--set", f"mining.cross_encoder={judge}", "--set", "mining.denoise=relabel"]
    words += ["--set", "training.epochs=1", "--set", "evaluation.resamples=1000"]
    found = cli("train", "tiny.yaml", *words, "--json")
    assert found.code in (0, 4), found.err
    new = {(r["query_id"], r["passage_id"]) for r in rows(copied / "mined/relabelled.jsonl")}
    pairs = {(p["query_id"], p["positive_id"]) for p in rows(copied / "mined/pairs.jsonl")}
    assert new and new <= pairs
    assert found.document["training"]["pairs"] == len(pairs)


def test_a_second_round_mines_with_the_model_of_the_first(copied):
    words = ["--set", "mining.rounds=2", "--set", "training.epochs=4"]
    words += ["--set", "evaluation.resamples=1000"]
    found = cli("train", "tiny.yaml", *words, "--json")
    assert found.code in (0, 4), found.err
    assert found.redone[:4] == ["round-1/mine", "round-1/train", "mine", "train"]
    first, second = (rows(copied / part / "mined/pairs.jsonl") for part in ("round-1", "."))
    assert [p["positive_id"] for p in first] == [p["positive_id"] for p in second]
    assert [p["positive_score"] for p in first] != [p["positive_score"] for p in second]
    assert cli("train", "tiny.yaml", *words, "--json").redone == []


@pytest.fixture
def written(copied, server, request):
    """A command that mines the tiny dataset with queries from the endpoint as well."""
    words = ["pairs.tier=both", "pairs.kinds=[]", "pairs.max_overlap=1.0"]
    words += [f"synthetic.base_url={server.url}", f"synthetic.model={request.node.name}"]
    words += ["synthetic.kinds=[question]", "synthetic.retries=0"]
    return ["mine", "tiny.yaml", *(part for word in words for part in ("--set", word)), "--json"]


def test_queries_of_an_endpoint_join_the_labels_and_are_paid_for_once(copied, server, written):
    found = cli(*written)
    assert found.code == 0, found.err
    assert "Synthetic queries: 40 questions about 40 passages" in found.err
    assert "the texts leave this machine" in found.err
    sent = len(server.requests)
    assert sent == 40
    dataset = read_run(copied)
    origins = [dataset.queries.metadata_of(q).get("origin") for q in dataset.qrels["train"].grades]
    made = origins.count("synthetic:question")
    assert made > 0
    account = json.loads((copied / "generated/account.json").read_text())
    assert account["synthetic"]["answered"] == 40
    assert account["filters"]["synthetic:question"]["kept"] >= made
    again = cli(*written, "--set", "pairs.round_trip_k=50")
    assert again.code == 0 and "generate" in again.redone
    assert len(server.requests) == sent
    assert "in the cache already: 40 questions" in again.err


def test_an_endpoint_that_fails_half_way_is_asked_again_the_next_time(copied, server, written):
    server.answer = lambda number, body: (
        obliging(number, body) if number <= 10 else error(503, "overloaded")
    )
    found = cli(*written)
    assert found.code == 0, found.err
    account = json.loads((copied / "generated/account.json").read_text())
    assert account["synthetic"]["stopped_by"] == "endpoint"
    assert account["synthetic"]["answered"] >= 10
    server.answer = obliging
    again = cli(*written)
    assert "generate" in again.redone
    account = json.loads((copied / "generated/account.json").read_text())
    assert account["synthetic"]["stopped_by"] is None
    assert account["synthetic"]["from_cache"] >= 10
    assert cli(*written).redone == []


def test_an_endpoint_that_is_down_ends_the_command_with_its_name(copied, server, written):
    place = written.index(f"synthetic.base_url={server.url}")
    found = cli(*written[:place], "synthetic.base_url=http://127.0.0.1:9/v1", *written[place + 1 :])
    assert found.code == 5
    assert "http://127.0.0.1:9/v1" in found.err


def test_a_dry_run_shows_the_plan_and_sends_nothing(copied, server, written):
    found = cli("train", *written[1:-1], "--dry-run")
    assert found.code == 0, found.err
    assert "Synthetic queries: 40 questions about 40 passages" in found.out
    assert not server.requests
