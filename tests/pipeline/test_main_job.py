import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from driver import cli, python

from retrieval_ft.config import load
from retrieval_ft.dataset import Qrels, Ranking, beir
from retrieval_ft.evaluation import METRICS, evaluate, read_trec_run
from retrieval_ft.index import HybridIndex
from retrieval_ft.pipeline.ranking import fusion_curve

SYSTEMS = ["bm25", "base_dense", "base_hybrid", "tuned_dense", "tuned_hybrid"]
SYSTEMS += ["base_hybrid_rrf", "tuned_hybrid_rrf", "base_dense_no_prompt", "tuned_dense_no_prompt"]
STAGES = ["prepare", "mine", "train", "evaluate", "index", "report"]


def fingerprint(folder, **settings):
    from retrieval_ft.encoder.encoder import load_encoder

    return load_encoder(folder, device="cpu", precision="fp32", **settings).fingerprint


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_run_directory_holds_what_the_architecture_says(finished):
    expected = {
        ".": ["config.resolved.yaml", "env.json", "manifest.json", "report.md", "verdict.json"],
        "dataset": ["corpus.jsonl", "queries.jsonl", "account.json"],
        "dataset/qrels": ["train.tsv", "dev.tsv", "test.tsv"],
        "mined": ["pairs.jsonl", "dropped.parquet", "account.json"],
        "checkpoints": ["log.jsonl", "tuned/model.safetensors"],
        "model": ["model.safetensors", "modules.json", "README.md"],
        "index": ["CURRENT", "generations/000001/manifest.json"],
        "eval": ["metrics.json", "per_query.parquet", *(f"{name}.trec" for name in SYSTEMS)],
    }
    paths = [finished / folder / name for folder, names in expected.items() for name in names]
    assert [path for path in paths if not path.is_file()] == []
    assert not list(finished.rglob("*.tmp")) and not list(finished.rglob("checkpoint-*"))


def test_the_document_has_the_promised_shape(finished, outcome):
    document = outcome.document
    assert document["schema_version"] == 1
    assert document["verdict"] == "promote"
    assert document["run"] == "runs/tiny"
    assert list(document["systems"]) == SYSTEMS
    for figures in document["systems"].values():
        assert set(figures) == set(METRICS)
        assert all(0 <= value <= 1 for value in figures.values())
    for row in document["differences"]:
        assert {"system", "against", "metric", "delta", "ci", "p"} <= set(row)
        low, high = row["ci"]
        assert low <= row["delta"] <= high and 0 < row["p"] <= 1
    asked = {(row["system"], row["against"], row["metric"]) for row in document["differences"]}
    assert {
        ("tuned_dense", "base_dense", "recall@10"),
        ("tuned_hybrid", "base_hybrid", "recall@10"),
    } <= asked
    assert [stage["name"] for stage in document["stages"]] == STAGES
    assert not any(stage["cached"] for stage in document["stages"])


def test_every_figure_follows_from_the_rankings_that_lie_beside_it(finished, outcome):
    qrels = beir.read(finished / "dataset").qrels["test"]
    table = pq.read_table(finished / "eval/per_query.parquet").to_pydict()
    for system in SYSTEMS:
        found = evaluate(read_trec_run(finished / f"eval/{system}.trec"), qrels)
        assert outcome.document["systems"][system] == pytest.approx(found.means())
        rows = [i for i, name in enumerate(table["system"]) if name == system]
        assert [table["query_id"][i] for i in rows] == list(qrels.query_ids)
        assert [table["recall@10"][i] for i in rows] == found.of("recall@10").tolist()


def test_the_verdict_the_report_and_the_metrics_say_the_same(finished, outcome):
    document = outcome.document
    verdict = json.loads((finished / "verdict.json").read_text())
    metrics = json.loads((finished / "eval/metrics.json").read_text())
    report = (finished / "report.md").read_text()
    assert verdict["verdict"] == document["verdict"] and verdict["reason"] == document["reason"]
    assert metrics["systems"] == document["systems"]
    assert report.startswith("# Verdict: promote")
    assert "tiny, 40 passages, 40 train queries" in report


def test_the_resolved_config_means_the_same_run(finished):
    assert load(finished / "config.resolved.yaml") == load(finished.parents[1] / "tiny.yaml")


def test_a_promoted_model_is_the_candidate_and_the_index_is_its_own(finished):
    from sentence_transformers import SentenceTransformer

    assert files(finished / "model") == files(finished / "checkpoints/tuned")
    model = SentenceTransformer(str(finished / "model"), device="cpu")
    assert model.prompts == {"query": "find: ", "document": ""}
    assert model.max_seq_length == 48
    assert np.linalg.norm(model.encode("a fox"), ord=2) == pytest.approx(1, abs=1e-5)
    index = HybridIndex.load(finished / "index")
    assert index.spec.encoder_fingerprint == fingerprint(finished / "model")
    assert index.spec.encoder_path == "../model"
    assert index.spec.prompts == {"query": "find: ", "passage": ""}


def test_a_second_run_does_nothing_again_and_loads_no_torch(finished, outcome):
    script = (
        "import json, sys\n"
        "from retrieval_ft.cli import run_command\n"
        "try:\n    run_command('train')\n"
        "finally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    again = python("-c", script, "tiny.yaml", "--json")
    assert again.code == 0, again.err
    assert again.redone == []
    for key in ("verdict", "systems", "differences", "choices", "training", "dataset"):
        assert again.document[key] == outcome.document[key]
    loaded = set(json.loads(again.err.splitlines()[-1]))
    assert not loaded & {"torch", "sentence_transformers", "transformers", "faiss", "datasets"}


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("mining.margin=0.9", "mine"),
        ("lexical.b=0.5", "mine"),
        ("model.max_length=40", "mine"),
        ("training.learning_rate=2e-3", "train"),
        ("evaluation.resamples=2000", "evaluate"),
    ],
)
def test_a_changed_config_redoes_only_what_it_touches(copied, override, first):
    found = cli("train", "tiny.yaml", "--json", "--set", override)
    assert found.code in (0, 4)
    redone = found.redone
    before = STAGES[: STAGES.index(first)]
    assert redone[0] == first and not set(before) & set(redone)
    if first != "evaluate":  # other resamples leave the model and so its index as they are
        assert {"train", "evaluate", "index"} <= set(redone)
    assert cli("train", "tiny.yaml", "--json", "--set", override).redone == []


@pytest.mark.parametrize("split", ["dev", "test"])
def test_other_judgements_are_measured_anew(copied, dataset_folder, tmp_path, split):
    other = tmp_path / "tiny"  # the same name: only the judgements differ
    dataset = beir.read(dataset_folder)
    grades = {query_id: {dataset.corpus.ids[0]: 1} for query_id in dataset.qrels[split].query_ids}
    beir.write(dataset, other)
    beir.write_qrels(other / "qrels" / f"{split}.tsv", grades)
    found = cli("train", "tiny.yaml", "--json", "--set", f"data.path={other}")
    assert {"evaluate"} <= set(found.redone)
    assert ("train" in found.redone) or split == "test"


def test_indexing_a_dataset_folder_does_not_make_it_another_dataset(
    copied, dataset_folder, tmp_path
):
    other = tmp_path / "tiny"
    beir.write(beir.read(dataset_folder), other)
    assert cli("index", other, "--set", "model.base=x", "--model", copied / "model").code == 0
    again = cli("train", "tiny.yaml", "--json", "--set", f"data.path={other}")
    assert again.redone == []


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("dataset/queries.jsonl", "prepare"),
        ("mined/pairs.jsonl", "mine"),
        ("checkpoints/tuned/model.safetensors", "train"),
        ("eval/metrics.json", "evaluate"),
        ("model/config.json", "evaluate"),
        ("verdict.json", "evaluate"),
        ("index/CURRENT", "index"),
        ("index/generations/000001/manifest.json", "index"),
        ("index/segments/*/vectors.faiss", "index"),
        ("report.md", "report"),
    ],
)
@pytest.mark.parametrize("damage", ["gone", "one byte"])
def test_a_stage_whose_output_is_damaged_is_done_again(copied, outcome, name, stage, damage):
    (path,) = copied.glob(name)
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = cli("train", "tiny.yaml", "--json")
    assert found.code == 0, found.err
    assert found.redone[0] == stage
    assert path.is_file()
    assert found.document["systems"] == outcome.document["systems"]


def test_a_damaged_record_of_stages_is_refused_by_name(copied):
    for content in ("{", "[]", '{"schema_version": 1, "stages": {"mine": {"key": 3}}}'):
        (copied / "manifest.json").write_text(content)
        found = cli("train", "tiny.yaml")
        assert found.code == 3
        assert "runs/tiny/manifest.json" in found.err and "damaged" in found.err


def test_a_model_that_is_not_better_is_held_and_the_base_stays(fresh, model_folder):
    found = cli("train", "tiny.yaml", "--json", "--set", "training.learning_rate=1e-9")
    run = fresh / "runs/tiny"
    assert found.code == 4
    assert found.document["verdict"] == "hold"
    assert "The base stays in runs/tiny/model" in found.err
    assert fingerprint(run / "model") == fingerprint(model_folder, max_length=48)
    assert "not better" in (run / "model/README.md").read_text()
    hits = cli("search", "the sea turns", "--json").document["hits"]
    assert hits[0]["id"] and HybridIndex.load(run / "index").spec.encoder_path == "../model"
    again = cli("train", "tiny.yaml", "--json", "--set", "training.learning_rate=1e-9")
    assert again.code == 4 and again.redone == []


def test_the_base_that_stays_carries_the_prompts_of_the_config(fresh, model_folder):
    settings = ["--set", "model.query_prompt='ask: '", "--set", "model.passage_prompt='say: '"]
    assert cli("train", "tiny.yaml", *settings, "--set", "training.learning_rate=1e-9").code == 4
    given = {"query_prompt": "ask: ", "passage_prompt": "say: ", "max_length": 48}
    assert fingerprint(fresh / "runs/tiny/model") == fingerprint(model_folder, **given)
    assert cli("search", "the sea turns").code == 0


def test_missing_splits_are_carved_and_counted(fresh, dataset_folder):
    other = fresh / "train-only"
    beir.write(beir.read(dataset_folder), other)
    for split in ("dev", "test"):
        (other / "qrels" / f"{split}.tsv").unlink()
    settings = ["--set", f"data.path={other}", "--set", "data.unjudged_queries=drop"]
    found = cli("mine", "tiny.yaml", "--json", *settings)
    assert found.code == 0, found.err
    account = json.loads((fresh / "runs/tiny/dataset/account.json").read_text())
    assert account["carved"] == {"test": 8, "dev": 4}
    assert account["dropped"]["queries_in_no_qrels"] == 34
    assert found.document["dataset"]["train_queries"] == 28


def ranking(*ids):
    return Ranking({"q": (ids, np.linspace(1, 0.1, len(ids)).astype(np.float32))})


def test_fusion_leans_on_the_side_that_is_right_on_dev():
    right, wrong = ranking("c", "b", "a"), ranking("a", "b", "c")
    qrels = Qrels({"q": {"c": 1}})
    assert fusion_curve(wrong, right, qrels, k=10).best.dense_weight > 0.5
    assert fusion_curve(right, wrong, qrels, k=10).best.dense_weight < 0.5


def test_fusion_stays_even_where_both_sides_are_equally_right():
    same = ranking("a", "b", "c")
    assert fusion_curve(same, same, Qrels({"q": {"a": 1}}), k=10).best.dense_weight == 0.5


def test_a_run_can_be_moved_and_named_by_its_place(copied, tmp_path):
    place = tmp_path / "elsewhere" / "moved"
    place.parent.mkdir()
    copied.rename(place)
    found = cli("train", place, "--json")
    assert found.code == 0 and found.redone in ([], ["report"])
    assert found.document["run"] == str(place)
    assert yaml.safe_load((place / "config.resolved.yaml").read_text())["name"] == "moved"
    assert not copied.exists()


def test_a_name_is_taken_as_it_is_written(fresh):
    assert cli("mine", "tiny.yaml", "--name", "2024").code == 0
    assert (fresh / "runs/2024/mined").is_dir()
    assert cli("mine", "tiny.yaml", "--name", "a/b").code == 2
