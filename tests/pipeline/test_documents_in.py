"""From nothing but documents, rows or another tool's labels to pairs, by the commands alone."""

import json
import os
import zipfile

import pytest
import tiny
from driver import cli, in_child

from retrieval_ft.config import DataConfig
from retrieval_ft.dataset import beir
from retrieval_ft.dataset.splits import normalize
from retrieval_ft.pipeline.generate import read_run
from retrieval_ft.pipeline.source import source_digest, source_name

THINGS, DOINGS = list(tiny.THINGS), list(tiny.DOINGS)


def sentence(i, j):
    """Of words that the tiny tokenizer knows; no two are equal."""
    thing, doing, place = THINGS[i % 8], DOINGS[(i // 8 + j) % 5], tiny.PLACES[(i + j) % 4]
    return f"the {thing} {doing} {place} why the {THINGS[(i + 3 * j + 1) % 8]} breaks to go."


def page(i):
    """A page with two sections of three sentences, and a link to the next."""
    thing, doing = THINGS[i % 8], DOINGS[i // 8 % 5]
    following = (i + 1) % 30
    return (
        f"# the {thing} {doing} near the town\n\n"
        + " ".join(sentence(i, j) for j in range(3))
        + f"\n\n## why the {thing} {doing}\n\n"
        + " ".join(sentence(i, j) for j in range(3, 6))
        + f" find [the {THINGS[following % 8]} in the cold town](page{following:02}.md)\n"
    )


@pytest.fixture
def settings(model_folder):
    words = [f"model.base={model_folder}", "model.max_length=64", "model.device=cpu"]
    words += ["model.precision=fp32", "chunking.tokens=62", "chunking.overlap=8"]
    words += ["pairs.max_overlap=1.0", "pairs.round_trip_k=100", "mining.negatives=2"]
    return [part for word in words for part in ("--set", word)]


@pytest.fixture
def documents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(30):
        (folder / f"page{i:02}.md").write_text(page(i), encoding="utf-8")
    return folder


def rows(path):
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def test_a_folder_of_documents_gives_pairs_negatives_and_splits_by_document(documents, settings):
    found = cli("mine", documents, *settings, "--json")
    assert found.code == 0, found.err
    assert "There are no labelled train pairs" in found.err
    assert "differences of recall@10 under about" in found.err
    assert "no person asked them" in found.err
    document = found.document
    assert document["dataset"]["passages"] >= 30
    dataset = read_run(documents.parent / "runs/docs")
    assert set(dataset.qrels) == {"train", "dev", "test"}
    corpus = dataset.corpus
    touched = {
        split: {corpus.document_of(p) for q in qrels.query_ids for p in qrels.relevant(q)}
        for split, qrels in dataset.qrels.items()
    }
    unseen = beir.artifacts.read_json(documents.parent / "runs/docs/generated/account.json")
    assert unseen["splits"]["unseen_test_queries"]
    for query_id in unseen["splits"]["unseen_test_queries"]:
        for passage_id in dataset.qrels["test"].relevant(query_id):
            assert corpus.document_of(passage_id) not in touched["train"] | touched["dev"]
    texts = {
        split: {normalize(t) for t in dataset.queries_of(split).texts} for split in dataset.qrels
    }
    assert not texts["train"] & (texts["dev"] | texts["test"])
    origins = {dataset.queries.metadata_of(q)["origin"] for q in dataset.queries.ids}
    assert {"heading", "first_sentence"} <= origins
    for query_id, views in dataset.views.items():
        query = dataset.queries.text_of[query_id]
        for view in views.values():
            origin = dataset.queries.metadata_of(query_id)["origin"]
            assert origin in ("title", "heading", "link") or query not in " ".join(view.split())
    pairs = rows(documents.parent / "runs/docs/mined/pairs.jsonl")
    assert len(pairs) == document["mining"]["pairs"] > 0
    rungs = document["mining"]["rungs"]  # the tiny model likes everything: some pairs stay short
    assert sum(rungs.values()) == len(pairs)
    assert rungs["short"] == sum(len(pair["negatives"]) < 2 for pair in pairs) < len(pairs)
    again = cli("mine", documents, *settings, "--json")
    assert again.redone == []


def test_what_cannot_be_read_is_listed_with_its_reason(documents, settings):
    with zipfile.ZipFile(documents / "old.zip", "w") as archive:
        archive.writestr("a.md", "# inside")
    (documents / "latin.txt").write_bytes("caf\xe9 au lait".encode("latin-1"))
    (documents / "empty.md").write_text("")
    (documents / "loop").symlink_to(documents)
    assert cli("mine", documents, *settings).code == 0
    skipped = rows(documents.parent / "runs/docs/dataset/hygiene/skipped.jsonl")
    reasons = {row["path"]: row["reason"] for row in skipped}
    assert reasons["old.zip"] == "archive"
    assert reasons["latin.txt"] == "not UTF-8"
    assert {"empty.md", "loop/"} <= set(reasons)


def test_personal_data_is_out_of_everything_that_a_run_writes(documents, settings):
    secret = "jo.doe@example.org"
    text = (
        documents / "page03.md"
    ).read_text() + f"\nWrite to {secret} or [{secret}](page01.md).\n"
    (documents / "page03.md").write_text(text)
    settings += ["--set", "hygiene.pii=scrub"]
    assert cli("mine", documents, *settings).code == 0
    run = documents.parent / "runs/docs"
    written = [path for path in run.rglob("*") if path.is_file()]
    assert not [path for path in written if secret.encode() in path.read_bytes()]
    assert any(b"<EMAIL>" in path.read_bytes() for path in written if path.name == "corpus.jsonl")
    (found,) = {row["kind"] for row in rows(run / "dataset/hygiene/pii_passages.jsonl")}
    assert found == "email"
    settings[-1] = "hygiene.pii=report"
    assert cli("mine", documents, *settings).code == 0
    assert secret in (run / "dataset/corpus.jsonl").read_text()
    assert secret not in (run / "dataset/hygiene/pii_passages.jsonl").read_text()


def test_the_whole_job_runs_on_documents_alone(documents, settings):
    words = ["training.epochs=2", "training.batch_size=8", "evaluation.resamples=1000"]
    settings += [part for word in words for part in ("--set", word)]
    found = cli("train", documents, *settings, "--json")
    assert found.code in (0, 4), found.err
    assert {row["name"] for row in found.document["slices"]}
    choices = found.document["choices"]  # made dev queries flatter the tuned side
    assert choices["tuned_fusion"] == choices["base_fusion"]
    report = (documents.parent / "runs/docs/report.md").read_text()
    for title in (
        "## Hygiene",
        "## Pairs",
        "## Where: slices of the test queries",
        "no person asked them",
    ):
        assert title in report
    again = cli("train", documents, *settings, "--json")
    assert again.redone == []
    assert cli("search", "the river rises", "--json").code == 0
    assert cli("evaluate", documents.parent / "runs/docs", "--json").code == 0


def test_a_look_before_writes_nothing(documents, settings):
    found = cli("train", documents, *settings, "--dry-run", "--json")
    assert found.code == 0, found.err
    assert found.document["dataset"]["tier"]["name"] == "corpus"
    assert found.document["dataset"]["train_pairs"] > 0
    assert not (documents.parent / "runs").exists()


@pytest.mark.parametrize("strike", ["views.jsonl", "links.jsonl"])
def test_an_interrupt_leaves_no_half_and_the_next_run_the_same_bytes(
    documents, settings, strike, tmp_path
):
    whole = cli("mine", documents, *settings, "--name", "whole")
    assert whole.code == 0, whole.err
    assert in_child("mine", documents, *settings, strike=f"write:{strike}").code == 130
    assert cli("mine", documents, *settings).code == 0
    for part in ("dataset", "generated", "mined"):
        one, other = tmp_path / "runs/whole" / part, tmp_path / "runs/docs" / part
        names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
        assert names == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
        for name in names:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_few_labels_are_joined_by_generated_pairs_which_leave_held_out_documents_alone(
    documents, settings
):
    labels = documents.parent / "labels.tsv"
    queries = documents.parent / "queries.tsv"
    asked = {f"q{i}": f"go find {THINGS[i % 8]} {DOINGS[i // 8]}" for i in range(30)}
    queries.write_text("".join(f"{q}\t{t}\n" for q, t in asked.items()))
    labels.write_text("".join(f"q{i} 0 page{i:02}.md 1\n" for i in range(30)))
    settings += ["--set", f"data.labels={labels}", "--set", f"data.queries={queries}"]
    found = cli("mine", documents, *settings, "--json")
    assert found.code == 0, found.err
    assert "are few (pairs.plentiful is 500)" in found.err
    run = documents.parent / "runs/docs"
    dataset = read_run(run)
    account = beir.artifacts.read_json(run / "dataset/account.json")
    held_out = account["splits"]["unseen_test_queries"]
    assert held_out
    assert set(dataset.qrels["test"].query_ids) <= set(asked)
    held = {p for q in held_out for p in dataset.qrels["test"].relevant(q)}
    made = [q for q in dataset.qrels["train"].query_ids if dataset.queries.metadata_of(q)]
    assert made
    assert not held & {p for q in made for p in dataset.qrels["train"].relevant(q)}


def test_labels_of_another_tool_are_a_target_of_their_own(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    lines = [
        {"query": f"go {i}", "pos": [sentence(i, 0)], "neg": [sentence(i, 9)]} for i in range(32)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings += ["--set", "pairs.tier=labels"]
    found = cli("mine", "pairs.jsonl", *settings, "--json")
    assert found.code == 0, found.err
    pairs = {p["query_id"]: p for p in rows(tmp_path / "runs/pairs/mined/pairs.jsonl")}
    dataset = read_run(tmp_path / "runs/pairs")
    assert len(pairs) == found.document["mining"]["pairs"]
    for query_id, pair in pairs.items():
        given = [p for p, grade in dataset.qrels["train"].grades[query_id].items() if grade == 0]
        assert [n["passage_id"] for n in pair["negatives"]][:1] == given


def test_rows_too_long_for_the_model_are_refused_before_they_are_cut(documents, settings):
    settings += ["--set", "chunking.tokens=320"]
    found = cli("mine", documents, *settings)
    assert found.code == 2
    assert "chunking.tokens: 320 tokens do not fit in model.max_length (64" in found.err


def test_a_corpus_that_gives_no_pair_says_why(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    lines = [{"_id": f"r{i}", "text": f"the {THINGS[i]} {DOINGS[i % 5]}"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = cli("mine", "rows.jsonl", *settings)
    assert found.code == 3
    assert "no pair could be made from the corpus" in found.err
    assert "data.labels" in found.err


def test_a_hub_data_set_does_not_depend_on_the_working_directory(documents, monkeypatch):
    data = DataConfig(name="some/set")
    assert source_digest(data) == {}
    monkeypatch.chdir(documents)
    assert source_name(data) == "set"


def test_what_a_source_holds_counts_and_not_where_it_is_or_what_is_hidden(documents, tmp_path):
    before = source_digest(DataConfig(path=documents))
    assert set(before) == {f"page{i:02}.md" for i in range(30)}
    moved = tmp_path / "elsewhere"
    documents.rename(moved)
    (moved / ".git").mkdir()
    (moved / ".git/config").write_text("x")
    os.mkfifo(moved / "pipe")
    assert source_digest(DataConfig(path=moved)) == before
    glob = source_digest(DataConfig(path=moved / "page0*.md"))
    assert glob == {name: before[name] for name in sorted(before)[:10]}


def test_an_index_of_documents_is_not_put_among_them(documents, settings):
    before = sorted(documents.rglob("*"))
    found = cli("index", documents, *settings, "--json")
    assert found.code == 0, found.err
    assert found.document["index"] == "runs/docs/index"
    assert sorted(documents.rglob("*")) == before
    hits = cli("search", "the river rises", "--index", "runs/docs/index", "--json").document["hits"]
    assert hits[0]["id"].startswith("page")
