"""A model whose query side alone was tuned: its passages keep the base model's vectors."""

import shutil

import numpy as np
import pytest
import tiny
import torch
from driver import cli

from retrieval_ft.config import ModelConfig
from retrieval_ft.encoder import encoder as encoders
from retrieval_ft.export.model import export_encoder
from retrieval_ft.index import HybridIndex
from retrieval_ft.pipeline.workbench import encoder_of, model_digest

QUERY = "why ship climbs"
CPU = ["--set", "model.device=cpu", "--set", "model.precision=fp32"]


@pytest.fixture
def pair(model_folder, tmp_path):
    """The tiny model, its query side changed; `passages/` holds it as it was."""
    config = ModelConfig(device="cpu", precision="fp32")
    base = encoder_of(model_folder, config)
    encoder = encoder_of(model_folder, config, cached=False, passage_encoder=base)
    torch.manual_seed(2)
    with torch.no_grad():
        for weight in encoder.model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    export_encoder(encoder, tmp_path / "pair", card="")
    return tmp_path / "pair"


@pytest.fixture
def encoded(monkeypatch):
    """How many texts each forward pass encoded from here on."""
    rows, embed = [], encoders.embed

    def counting(model, parts, precision):
        rows.extend(len(features["input_ids"]) for features in parts)
        return embed(model, parts, precision)

    monkeypatch.setattr(encoders, "embed", counting)
    return rows


@pytest.fixture
def indexed(tmp_path, pair, dataset_folder, model_folder):
    """Indexes of the base model (built first) and of the pair over the tiny corpus."""
    for model, name in ((model_folder, "of-base"), (pair, "of-pair")):
        words = ["index", dataset_folder, "--model", model, "--out", tmp_path / name, *CPU]
        assert cli(*words).code == 0
    return tmp_path


def test_the_index_is_built_without_encoding_a_passage_and_holds_the_bases_vectors(
    indexed, pair, dataset_folder, encoded
):
    found = cli("index", dataset_folder, "--model", pair, "--out", indexed / "new", "--json", *CPU)
    assert found.code == 0, found.err
    assert found.document["passages"] == 40
    assert encoded == []
    base, ours = (indexed / "of-base", indexed / "new")
    vectors = [sorted(folder.rglob("*.faiss")) for folder in (base, ours)]
    assert len(vectors[0]) == len(vectors[1]) == 1
    assert vectors[0][0].read_bytes() == vectors[1][0].read_bytes()
    specs = [HybridIndex.load(folder).spec for folder in (base, ours)]
    assert specs[0].encoder_fingerprint != specs[1].encoder_fingerprint


def test_search_asks_the_query_side_and_scores_the_bases_passages(indexed, pair, model_folder):
    found = cli("search", QUERY, "--index", indexed / "of-pair", "--mode", "dense", "--json")
    assert found.code == 0, found.err
    config = ModelConfig(device="cpu", precision="fp32")
    query = encoder_of(pair, ModelConfig()).encode([QUERY], role="query")[0]  # as search loads it
    corpus = tiny.dataset().corpus
    base = encoder_of(model_folder, config)
    scores = base.encode(corpus.passages, role="passage") @ query
    order = np.argsort(-scores, kind="stable")[: len(found.document["hits"])]
    assert [hit["id"] for hit in found.document["hits"]] == [corpus.ids[i] for i in order]
    np.testing.assert_allclose(
        [hit["score"] for hit in found.document["hits"]], scores[order], atol=1e-5
    )


def test_a_search_with_another_query_side_is_refused(indexed, pair, model_folder):
    alone = shutil.copytree(pair, indexed / "alone")
    shutil.rmtree(alone / "passages")
    for model in (alone, model_folder, pair / "passages"):
        found = cli("search", QUERY, "--index", indexed / "of-pair", "--model", model)
        assert found.code == 3, model
        assert "another" in found.err
    found = cli("search", QUERY, "--index", indexed / "of-base", "--model", pair)
    assert found.code == 3


def test_evaluate_encodes_the_queries_alone(indexed, pair, dataset_folder, model_folder, encoded):
    found = cli("evaluate", dataset_folder, "--model", pair, "--json", *CPU)
    assert found.code == 0, found.err
    qrels = tiny.dataset().qrels
    assert sum(encoded) == len(qrels["dev"].query_ids) + len(qrels["test"].query_ids)
    base = cli("evaluate", dataset_folder, "--model", model_folder, "--json", *CPU)
    assert found.document["systems"]["bm25"] == base.document["systems"]["bm25"]
    assert found.document["systems"]["dense"] != base.document["systems"]["dense"]


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "vocab.txt", "config.json", "1_Pooling/config.json", "modules.json"],
)
def test_the_digest_of_a_model_sees_both_sides(pair, name):
    before = model_digest(pair, ModelConfig())
    for side in ("", "passages"):
        file = pair / side / name
        content = file.read_bytes()
        file.write_bytes(content + b" ")
        assert model_digest(pair, ModelConfig()) != before
        file.write_bytes(content)
    (pair / "README.md").write_text("another card")
    assert model_digest(pair, ModelConfig()) == before
