"""mine, evaluate, index and search on their own: on a run, a config, and bare folders."""

import json

import pytest
import yaml
from driver import cli, python

from retrieval_ft.dataset import beir

QUERY = "why ship climbs"


def test_mine_on_a_dataset_folder_leaves_pairs_and_their_account(
    fresh, dataset_folder, model_folder
):
    found = cli("mine", dataset_folder, "--set", f"model.base={model_folder}", "--json")
    assert found.code == 0, found.err
    run = fresh / "runs/tiny"
    assert found.document["run"] == "runs/tiny"
    pairs = [json.loads(line) for line in (run / "mined/pairs.jsonl").read_text().splitlines()]
    train = beir.read(dataset_folder).qrels["train"]
    assert {(pair["query_id"], pair["positive_id"]) for pair in pairs} == {
        (query_id, passage_id)
        for query_id in train.query_ids
        for passage_id in train.relevant(query_id)
    }
    assert found.document["mining"]["pairs"] == len(pairs) == train.pair_count
    assert not (run / "model").exists()


@pytest.mark.parametrize("target", ["runs/tiny", "tiny.yaml"])
def test_mine_on_a_run_is_done_already_and_prints_its_account(finished, target):
    found = cli("mine", target)
    document = yaml.safe_load(found.out)
    assert document["mining"]["pairs"] == 44
    assert [stage["cached"] for stage in document["stages"]] == [True, True]


@pytest.mark.parametrize("target", ["runs/tiny", "tiny.yaml"])
def test_evaluate_on_a_run_measures_its_promoted_model(finished, outcome, target):
    found = cli("evaluate", target, "--json")
    assert found.code == 0, found.err
    document = found.document
    assert document["model"] == "runs/tiny/model"
    sizes = {"passages": 40, "queries": 26, "train_pairs": 44}
    assert document["dataset"] == {"name": "tiny", **sizes, "dropped": {}}
    for system, of_run in (("bm25", "bm25"), ("dense", "tuned_dense"), ("hybrid", "tuned_hybrid")):
        assert document["systems"][system] == outcome.document["systems"][of_run]


def test_evaluate_on_another_config_or_a_dataset_measures_the_base(
    finished, outcome, dataset_folder, model_folder
):
    settings = ["--set", "model.max_length=48", "--set", "model.precision=fp32", "--json"]
    on_config = cli("evaluate", "tiny.yaml", "--set", "evaluation.resamples=1500", "--json")
    base = ["--set", f"model.base={model_folder}"]
    on_folder = cli("evaluate", dataset_folder, *base, *settings)
    for found in (on_config, on_folder):
        assert found.code == 0, found.err
        assert found.document["model"] == str(model_folder)
        dense = found.document["systems"]["dense"]
        assert dense == pytest.approx(outcome.document["systems"]["base_dense"])


def test_evaluate_takes_any_model_and_prints_a_table(finished):
    found = cli("evaluate", "runs/tiny", "--model", "runs/tiny/checkpoints/tuned")
    assert found.code == 0
    assert [line.split()[0] for line in found.out.splitlines()] == [
        "system",
        "BM25",
        "dense",
        "hybrid",
        "hybrid,",
    ]


def test_evaluate_counts_only_queries_that_can_be_measured(fresh, dataset_folder, model_folder):
    other = fresh / "odd"
    dataset = beir.read(dataset_folder)
    beir.write(dataset, other)
    (other / "qrels/train.tsv").unlink()  # its queries stay in queries.jsonl, as in a download
    first, *_ = dataset.qrels["test"].query_ids
    beir.write_qrels(other / "qrels/test.tsv", {**dataset.qrels["test"].grades, first: {"p00": 0}})
    words = ["evaluate", other, "--model", model_folder, "--json"]
    refused = cli(*words)
    assert refused.code == 3
    assert f"1 queries have no relevant passage: {first} (grade 0 only in test)" in refused.err
    found = cli(*words, "--set", "data.unjudged_queries=drop")
    assert found.document["dataset"]["queries"] == 25
    assert found.document["dataset"]["dropped"]["queries_without_relevant_passage"] == 1


def test_evaluate_needs_test_judgements(fresh, dataset_folder, model_folder):
    other = fresh / "no-test"
    beir.write(beir.read(dataset_folder), other)
    (other / "qrels/test.tsv").unlink()
    found = cli("evaluate", other, "--model", model_folder)
    assert found.code == 3 and "test.tsv" in found.err


def test_index_on_a_folder_with_a_corpus_alone(fresh, dataset_folder, model_folder):
    folder = fresh / "texts"
    folder.mkdir()
    (folder / "corpus.jsonl").write_bytes((dataset_folder / "corpus.jsonl").read_bytes())
    built = cli("index", folder, "--model", model_folder, "--json")
    assert built.code == 0, built.err
    assert built.document["index"] == str(folder / "index")
    assert built.document["passages"] == 40
    found = cli("search", "the fox turns", "--index", folder / "index", "-k", "3", "--json")
    assert found.code == 0, found.err
    assert len(found.document["hits"]) == 3
    assert found.document["hits"][0]["dense_rank"] and found.document["mode"] == "hybrid"


def test_index_on_a_run_is_the_index_of_the_run(copied):
    before = (copied / "index/generations/000001/manifest.json").read_text()
    for target in ("runs/tiny", "tiny.yaml"):
        assert cli("index", target).code == 0
        assert (copied / "index/generations/000001/manifest.json").read_text() == before
        assert len(list((copied / "index/generations").iterdir())) == 1
    assert cli("train", "tiny.yaml", "--json").redone == []


def test_index_goes_where_it_is_told(finished, tmp_path):
    found = cli("index", "runs/tiny", "--out", tmp_path / "there", "--json")
    assert found.document["index"] == str(tmp_path / "there")
    assert cli("search", QUERY, "--index", tmp_path / "there").code == 0


def test_search_shows_what_each_side_thought(finished):
    found = cli("search", QUERY, "-k", "2", "--json")
    document = found.document
    assert (document["schema_version"], document["query"]) == (1, QUERY)
    assert [hit["rank"] for hit in document["hits"]] == [1, 2]
    assert document["hits"][0]["title"] == "boat"  # no word is shared: training taught it
    assert document["hits"][0]["score"] >= document["hits"][1]["score"]
    table = cli("search", QUERY, "-k", "2").out.splitlines()
    assert table[0].split() == ["#", "score", "BM25", "dense", "id", "passage"]
    assert len(table) == 3 and "boat: the boat" in table[1]


def test_search_gives_fewer_hits_than_asked_where_fewer_match(finished):
    assert len(cli("search", "fox", "-k", "100", "--mode", "bm25", "--json").document["hits"]) == 5
    assert (
        len(cli("search", "fox", "-k", "100", "--mode", "dense", "--json").document["hits"]) == 40
    )
    assert cli("search", "", "--mode", "bm25", "--json").document["hits"] == []


def test_search_by_bm25_loads_no_model(finished):
    script = (
        "import json, sys\n"
        "from retrieval_ft.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    found = python("-c", script, "search", "fox", "--mode", "bm25", "--json")
    assert found.code == 0, found.err
    assert found.document["hits"][0]["title"] == "fox"
    loaded = set(json.loads(found.err.splitlines()[-1]))
    assert not loaded & {"torch", "sentence_transformers", "transformers"}


def test_search_takes_the_newest_index_below_runs(copied):
    assert cli("train", "tiny.yaml", "--name", "later").code == 0
    assert cli("search", QUERY, "--json").document["index"] == "runs/later/index"


def test_search_without_an_index_says_what_to_do(fresh):
    found = cli("search", QUERY)
    assert found.code == 3
    assert "no index here; run the main job, or name one with --index" in found.err


def test_search_refuses_an_unknown_mode(finished):
    found = cli("search", QUERY, "--mode", "both")
    assert found.code == 2
    assert "--mode 'both': choose one of hybrid, dense, bm25" in found.err


def test_a_moved_run_still_finds_its_model(copied, tmp_path):
    copied.rename(tmp_path / "moved")
    assert cli("search", QUERY, "--index", tmp_path / "moved/index").code == 0
    (tmp_path / "moved/model").rename(tmp_path / "away")
    lost = cli("search", QUERY, "--index", tmp_path / "moved/index")
    assert lost.code == 5
    assert f"model folder {tmp_path / 'moved/model'} does not exist" in lost.err


def test_a_target_that_is_nothing_is_named(fresh):
    found = cli("train", "nowhere")
    assert found.code == 2
    assert "nowhere: no such config file, run directory, dataset folder or documents" in found.err
    assert "configs/quickstart.yaml is not below this folder" in cli("train").err
