"""The gate on real weights: what was trained on noise never takes the base's place."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from retrieval_ft.dataset import Dataset, Qrels, beir
from retrieval_ft.dataset.builders import build
from retrieval_ft.models import resolve

pytestmark = pytest.mark.slow

SIZES = {"train": 120, "dev": 30, "test": 60}
PASSAGES = 300


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Part of CWE whose train queries have each other's passages; dev and test are as they were."""
    folder = tmp_path_factory.mktemp("noise")
    build("cwe", folder / "cwe")
    whole = beir.read(folder / "cwe")
    grades = {
        split: {q: whole.qrels[split].grades[q] for q in whole.qrels[split].query_ids[:size]}
        for split, size in SIZES.items()
    }
    names = list(grades["train"])
    order = np.random.default_rng(3).permutation(len(names))
    grades["train"] = {
        name: grades["train"][names[i]] for name, i in zip(names, order.tolist(), strict=True)
    }
    judged = [p for rows in grades.values() for row in rows.values() for p in row]
    some = list(dict.fromkeys([*judged, *whole.corpus.ids]))[: max(PASSAGES, len(set(judged)))]
    corpus = whole.corpus.select(some)
    queries = whole.queries.select(q for rows in grades.values() for q in rows)
    qrels = {split: Qrels(rows) for split, rows in grades.items()}
    beir.write(Dataset("noise", corpus, queries, qrels), folder / "noise")
    return folder / "noise"


def test_shuffled_labels_end_in_base_kept(noise, tmp_path):
    command = [sys.executable, "-m", "retrieval_ft.train", str(noise), "--json"]
    # Labels alone: pairs made from the corpus would be no noise.
    changes = ("pairs.tier=labels", "model.max_length=64", "training.max_length=48")
    changes += ("training.batch_size=16", "training.max_steps=20", "training.evaluations=1")
    changes += ("training.soup_alphas=[1.0]", "mining.negatives=1", "evaluation.resamples=2000")
    for change in changes:
        command += ["--set", change]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] in ("hold", "inconclusive")
    assert "The base stays in runs/noise/model" in done.stderr
    run = tmp_path / "runs/noise"
    base = load_file(resolve("BAAI/bge-small-en-v1.5").path / "model.safetensors")
    kept = load_file(run / "model/model.safetensors")
    tuned = load_file(run / "checkpoints/tuned/model.safetensors")
    assert same(kept, base)
    assert not same(tuned, base)  # there was something to hold back
    assert document["systems"]["tuned_dense"] != document["systems"]["base_dense"]


def same(one, other):
    """Equal in every weight; buffers of token positions need not be in both."""
    shared = {name for name in one.keys() & other.keys() if one[name].dtype == np.float32}
    assert len(shared) > 100
    return all(np.array_equal(one[name], other[name]) for name in shared)
