import json
import shutil

import numpy as np
import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from retrieval_ft.encoder import encoder as module
from retrieval_ft.encoder.encoder import load_encoder, load_model, saved_prompts
from retrieval_ft.errors import DependencyError

TEXTS = [
    "the river rises",
    "",
    "Ünknown 漢字 🚀, the SEA\n\tsinks!",
    "the old town " * 40,
    "the river rises",
    "fox",
    "a red kite over the red wall",
]
FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize(("role", "prompt_name"), [("query", "query"), ("passage", "document")])
def test_the_vectors_are_those_of_sentence_transformers(encoder, model_folder, role, prompt_name):
    reference = SentenceTransformer(str(model_folder), device="cpu")
    expected = reference.encode(TEXTS, prompt_name=prompt_name, normalize_embeddings=True)
    found = encoder.encode(TEXTS, role=role)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.abs(found[0] - found[5]).max() > 0.01  # else the comparison would say nothing


@FEW
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=12))
def test_each_vector_is_that_of_its_text_alone(encoder, texts):
    found = encoder.encode(texts, role="passage")
    assert found.shape == (len(texts), tiny.SIZE)
    for text, vector in zip(texts, found, strict=True):
        np.testing.assert_allclose(vector, encoder.encode([text], role="passage")[0], atol=1e-5)


def test_small_batches_keep_the_order(encoder):
    whole = encoder.encode(TEXTS, role="passage")
    encoder.token_budget = 16
    np.testing.assert_allclose(encoder.encode(TEXTS, role="passage"), whole, atol=1e-5)


def test_blocks_keep_the_order(encoder, monkeypatch):
    whole = encoder.encode(TEXTS, role="passage")
    monkeypatch.setattr(module, "_BLOCK", 2)
    np.testing.assert_allclose(encoder.encode(TEXTS, role="passage"), whole, atol=1e-5)


def test_the_prompt_belongs_to_the_query_alone(encoder):
    asked = encoder.encode(["the boat sinks"], role="query")
    stored = encoder.encode(["the boat sinks"], role="passage")
    assert np.abs(asked - stored).max() > 1e-3
    written_out = encoder.encode([tiny.QUERY_PROMPT + "the boat sinks"], role="passage")
    np.testing.assert_allclose(asked, written_out, atol=1e-6)


def test_prompts_given_at_loading_replace_the_saved_ones(model_folder):
    encoder = load_encoder(model_folder, device="cpu", query_prompt="", passage_prompt="the ")
    assert encoder.prompts == {"query": "", "passage": "the "}
    served = encoder.serving_model()
    assert served.prompts == {"query": "", "document": "the "}
    assert saved_prompts(served) == encoder.prompts


def test_a_prompt_saved_as_passage_is_read(model_folder):
    model = load_model(model_folder, device="cpu")
    model.prompts = {"query": None, "passage": "the "}
    assert saved_prompts(model) == {"query": "", "passage": "the "}


def test_encoding_leaves_the_mode_of_the_model(encoder):
    for training in (True, False):
        encoder.model.train(training)
        encoder.encode(TEXTS, role="query")
        assert encoder.model.training is training
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_the_truncated_share_counts_texts_that_are_cut(encoder):
    room = tiny.LENGTH - 2  # [CLS] and [SEP]
    texts = ["fox " * (room - 1), "fox " * room, "fox " * (room + 1), ""]
    assert encoder.truncated_share(texts, "passage") == 1 / 4
    assert encoder.truncated_share(texts, "query") == 2 / 4 + 1 / 4  # the prompt takes 2 tokens
    assert encoder.truncated_share([], "query") == 0.0
    lengths = encoder.tokenize(texts, "passage").lengths
    assert lengths.tolist() == [tiny.LENGTH - 1, tiny.LENGTH, tiny.LENGTH, 2]


def test_a_shorter_maximum_length_cuts_and_a_longer_one_does_not_stretch(model_folder):
    short = load_encoder(model_folder, device="cpu", precision="fp32", max_length=16)
    assert short.max_length == 16
    assert short.tokenize(["fox " * 99], "passage").lengths.tolist() == [16]
    assert load_encoder(model_folder, device="cpu", max_length=512).max_length == tiny.LENGTH
    assert short.serving_model().max_seq_length == 16
    served = short.model.encode(["the old fox " * 20], normalize_embeddings=True)
    found = short.encode(["the old fox " * 20], role="passage")
    np.testing.assert_allclose(found, served, atol=1e-5)


def out_of_memory_above(monkeypatch, rows):
    """Let forward passes of more rows fail; return the list of the sizes that were tried."""
    tried, embed = [], module.embed

    def wrapped(model, parts, precision):
        tried.append(sum(len(features["input_ids"]) for features in parts))
        if tried[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory (played)")
        return embed(model, parts, precision)

    monkeypatch.setattr(module, "embed", wrapped)
    return tried


def test_out_of_memory_halves_the_batch_and_gives_the_same_vectors(
    encoder, monkeypatch, capsys, one_thread
):
    texts = [" ".join(tiny.WORDS[: 1 + i % 20]) for i in range(100)]
    expected = encoder.encode(texts, role="passage")
    encoder.token_budget = 32 * 24
    tried = out_of_memory_above(monkeypatch, 10)
    np.testing.assert_allclose(encoder.encode(texts, role="passage"), expected, atol=1e-5)
    sizes = [size for size in tried if size <= 10]
    assert sum(sizes) == 100
    assert len(tried) - len(sizes) <= 5  # a halving or two by length, not one for every batch left
    assert "out of memory: batches are now at most" in capsys.readouterr().err
    before = len(tried)
    encoder.encode(texts, role="passage")
    assert max(tried[before:]) <= 10  # the smaller budget is kept


def test_one_row_that_does_not_fit_is_an_error(encoder, monkeypatch, one_thread):
    tried = out_of_memory_above(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        encoder.encode(TEXTS, role="passage")
    assert tried[-1] == 1


def test_a_folder_that_is_no_model_is_named(tmp_path, model_folder):
    with pytest.raises(DependencyError, match="cannot be loaded as an embedding model") as got:
        load_model(tmp_path / "nothing", device="cpu")
    assert got.value.exit_code == 5
    assert str(tmp_path / "nothing") in str(got.value)


def cut_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def weights_of_another_size(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))


def code_of_its_own(folder):
    module = {"idx": 0, "name": "0", "path": "", "type": "own_code.Module"}
    (folder / "modules.json").write_text(json.dumps([module]))
    (folder / "own_code.py").write_text("raise SystemExit('this was run')")


def no_pooling_mode(folder):
    (folder / "1_Pooling" / "config.json").write_text("{}")


def no_tokenizer(folder):
    for path in (*folder.glob("tokenizer*"), folder / "vocab.txt"):
        path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        cut_weights,
        no_weights,
        weights_of_another_size,
        code_of_its_own,
        no_pooling_mode,
        no_tokenizer,
    ],
)
def test_a_damaged_model_is_one_line_and_exit_code_5(tmp_path, model_folder, damage):
    folder = shutil.copytree(model_folder, tmp_path / "damaged")
    damage(folder)
    with pytest.raises(DependencyError, match="weights and a tokenizer is needed") as got:
        load_model(folder, device="cpu")
    assert got.value.exit_code == 5
    assert str(got.value).startswith(f"{folder}: cannot be loaded as an embedding model (")
    assert "\n" not in str(got.value)
