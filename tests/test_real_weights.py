"""The main job on real bge-small weights and a part of the real CWE set, as a user runs it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from retrieval_ft.dataset import Dataset, Qrels, beir
from retrieval_ft.dataset.builders import build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small_cwe(tmp_path_factory):
    """About 250 passages: every query of the first 120 train, 40 dev and 80 test ones, and theirs."""
    folder = tmp_path_factory.mktemp("cwe")
    build("cwe", folder / "cwe")
    whole = beir.read(folder / "cwe")
    sizes = {"train": 120, "dev": 40, "test": 80}
    qrels = {
        split: Qrels({q: whole.qrels[split].grades[q] for q in whole.qrels[split].query_ids[:size]})
        for split, size in sizes.items()
    }
    rows = [row for part in qrels.values() for row in part.grades.values()]
    corpus = whole.corpus.select(passage for row in rows for passage in row)
    queries = whole.queries.select(q for part in qrels.values() for q in part.query_ids)
    beir.write(Dataset("small", corpus, queries, qrels), folder / "small")
    return folder / "small"


@pytest.fixture(scope="module")
def run(small_cwe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    command = [sys.executable, "-m", "retrieval_ft.train", str(small_cwe), "--json"]
    for change in ("model.max_length=96", "training.max_length=64", "training.evaluations=2"):
        command += ["--set", change]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 4), done.stderr
    return folder / "runs" / "small", json.loads(done.stdout), done.returncode


def test_tuning_real_weights_helps_on_real_data(run):
    _, document, code = run
    base, tuned = document["systems"]["base_dense"], document["systems"]["tuned_dense"]
    assert tuned["recall@10"] > base["recall@10"]
    assert tuned["ndcg@10"] > base["ndcg@10"]
    assert (code == 0) == (document["verdict"] == "promote")


def test_sentence_transformers_loads_the_model_and_gives_the_vectors_of_the_index(run):
    import faiss
    from sentence_transformers import SentenceTransformer

    folder, _, _ = run
    model = SentenceTransformer(str(folder / "model"), device="cpu")
    corpus = beir.read_corpus(folder / "dataset" / "corpus.jsonl")
    (path,) = (folder / "index").rglob("vectors.faiss")
    stored = faiss.read_index(str(path))
    vectors = model.encode(list(corpus.passages[:20]), prompt_name="document")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    # The index was encoded in bf16 where the hardware has it.
    assert (vectors * stored.reconstruct_n(0, 20)).sum(axis=1).min() > 0.999


def test_a_query_that_was_trained_on_is_answered(run):
    folder, _, _ = run
    dataset = beir.read(folder / "dataset")
    query_id = dataset.qrels["train"].query_ids[0]
    command = [sys.executable, "-m", "retrieval_ft", "search", "--json", "-k", "20"]
    command += ["--index", str(folder / "index"), dataset.queries.text_of[query_id]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {hit["id"] for hit in json.loads(done.stdout)["hits"]}
    assert found & dataset.qrels["train"].relevant(query_id)
