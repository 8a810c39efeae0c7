import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from retrieval_ft import artifacts
from retrieval_ft.encoder.encoder import load_encoder, load_model
from retrieval_ft.errors import ConfigError, DependencyError
from retrieval_ft.export.card import model_card
from retrieval_ft.export.model import export_encoder, export_model

TEXTS = ["the river rises", "a red kite", "", "the old fox " * 9]


def load(folder, **settings):
    return load_encoder(folder, device="cpu", precision="fp32", **settings)


def tuned(folder, **settings):
    """The model with other weights, as query-side training leaves it."""
    encoder = load(folder, **settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in encoder.model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return encoder


@pytest.fixture
def base(model_folder, tmp_path):
    return load(model_folder, passage_prompt="the ", max_length=16, cache_root=tmp_path / "cache")


@pytest.fixture
def pair(model_folder, base):
    return tuned(model_folder, passage_encoder=base)


def test_passages_are_the_bases_to_the_bit_and_queries_are_not(pair, base, model_folder):
    expected = base.encode(TEXTS, role="passage")
    assert (pair.encode(TEXTS, role="passage") == expected).all()
    alone = tuned(model_folder)
    assert (pair.encode(TEXTS, role="query") == alone.encode(TEXTS, role="query")).all()
    assert abs(pair.encode(TEXTS, role="query") - base.encode(TEXTS, role="query")).max() > 0.01


def test_prompt_and_length_of_passages_are_the_bases(pair, base):
    for role, other in (("passage", base), ("query", pair)):
        found, expected = pair.tokenize(TEXTS, role), other.tokenize(TEXTS, role)
        assert [row.tolist() for row in found.ids] == [row.tolist() for row in expected.ids]
    assert pair.tokenize(TEXTS, "passage").lengths.max() == 16
    assert pair.truncated_share(TEXTS, "passage") == 1 / 4
    assert pair.truncated_share(TEXTS, "query") == 0.0


def test_no_passage_that_the_base_encoded_is_encoded_anew(pair, base, model_folder, tmp_path):
    expected = base.encode(TEXTS, role="passage")
    export_encoder(pair, tmp_path / "out", card="")
    loaded = load(tmp_path / "out", cache_root=tmp_path / "cache")
    passes = []
    for encoder in (pair, loaded):
        for model in (encoder.model, encoder.passage_encoder.model):
            table = model[0].auto_model.embeddings.word_embeddings
            table.register_forward_hook(lambda *_: passes.append(1))
        assert (encoder.encode(TEXTS, role="passage") == expected).all()
    assert passes == []
    loaded.encode([*TEXTS, "a new one"], role="passage")
    assert len(passes) == 1


def test_the_exported_pair_is_the_same_encoder(pair, tmp_path):
    export_encoder(pair, tmp_path / "out", card="# A card\n")
    loaded = load(tmp_path / "out")
    assert loaded.fingerprint == pair.fingerprint
    assert loaded.passage_encoder.fingerprint == pair.passage_encoder.fingerprint
    for role in ("query", "passage"):
        np.testing.assert_array_equal(
            loaded.encode(TEXTS, role=role), pair.encode(TEXTS, role=role)
        )
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"


def test_the_fingerprint_is_of_both(model_folder, pair, base):
    same = tuned(model_folder, passage_encoder=base)
    longer = tuned(model_folder, passage_encoder=load(model_folder, passage_prompt="the "))
    untuned = load(model_folder, passage_encoder=base)
    swapped = load(model_folder, passage_encoder=tuned(model_folder))
    alone = tuned(model_folder)
    assert same.fingerprint == pair.fingerprint
    others = [each.fingerprint for each in (pair, longer, untuned, swapped, alone, base)]
    assert len(set(others)) == 6


def test_the_passage_side_of_a_pair_is_what_a_new_pair_keeps(pair, base, model_folder, tmp_path):
    again = load(model_folder, passage_encoder=pair)
    assert again.passage_encoder is base
    export_encoder(again, tmp_path / "out", card="")
    assert not (tmp_path / "out" / "passages" / "passages").exists()
    assert load(tmp_path / "out").passage_encoder.fingerprint == base.fingerprint


def test_settings_given_at_loading_are_for_both(pair, tmp_path):
    export_encoder(pair, tmp_path / "out", card="")
    loaded = load(tmp_path / "out", max_length=12, query_prompt="go ", passage_prompt="a ")
    assert (loaded.max_length, loaded.passage_encoder.max_length) == (12, 12)
    assert loaded.prompts["query"] == "go "
    assert loaded.passage_encoder.prompts["passage"] == "a "


def test_each_folder_is_a_model_for_sentence_transformers(pair, tmp_path):
    export_encoder(pair, tmp_path / "out", card="")
    queries = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    passages = SentenceTransformer(str(tmp_path / "out" / "passages"), device="cpu")
    for model, role, name in ((queries, "query", "query"), (passages, "passage", "document")):
        found = model.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(found, pair.encode(TEXTS, role=role), atol=1e-6)


def test_a_plain_model_takes_the_place_of_a_pair_as_a_whole(pair, base, tmp_path):
    export_encoder(pair, tmp_path / "out", card="")
    export_encoder(base, tmp_path / "out", card="")
    assert not (tmp_path / "out" / "passages").exists()
    assert load(tmp_path / "out").fingerprint == base.fingerprint


def test_a_failed_export_of_a_pair_leaves_what_was_there(pair, base, tmp_path):
    export_model(base.serving_model(), tmp_path / "out", card="old")
    other = base.serving_model()
    other[1].pooling_mode = "max"
    with pytest.raises(ConfigError, match=r"pooling 'max' .*cannot be exported"):
        export_model(pair.serving_model(), tmp_path / "out", card="new", passages=other)
    assert (tmp_path / "out" / "README.md").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["out"]


def test_models_of_other_dimensions_are_no_pair(pair, tmp_path, monkeypatch):
    export_encoder(pair, tmp_path / "out", card="")
    monkeypatch.setattr(tiny, "SIZE", 16)
    other = load(tiny.tiny_model(tmp_path / "other"))
    export_encoder(other, tmp_path / "out" / "passages", card="")
    with pytest.raises(
        DependencyError, match="32 dimensions, and its passages are given 16"
    ) as got:
        load(tmp_path / "out")
    assert got.value.exit_code == 5
    assert str(tmp_path / "out") in str(got.value)


def test_a_damaged_passage_model_is_named(pair, tmp_path):
    export_encoder(pair, tmp_path / "out", card="")
    (tmp_path / "out" / "passages" / "model.safetensors").unlink()
    with pytest.raises(DependencyError, match="passages: cannot be loaded as an embedding model"):
        load(tmp_path / "out")


def test_the_card_says_which_model_is_for_passages():
    words = {"title": "T", "origin": "O.", "query_prompt": "q", "max_length": 9, "facts": {}}
    card = model_card(**words, separate_passages=True)
    assert "Passages must be embedded with the model in `passages/`" in card
    assert 'passages = SentenceTransformer("PATH/TO/THIS/FOLDER/passages").encode([' in card
    plain = model_card(**words)
    assert "passages/" not in plain
    assert 'passages = model.encode(["a passage"], prompt_name="document")' in plain


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
def test_weights_saved_in_half_precision_are_loaded_in_float32(tmp_path, key):
    folder = tiny.tiny_model(tmp_path / "half")
    weights = {name: w.bfloat16() for name, w in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = artifacts.read_json(folder / "config.json")
    config.pop("dtype", None)
    artifacts.write_json(folder / "config.json", {**config, key: "bfloat16"})
    model = load_model(folder, device="cpu")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    backbone = model[0].auto_model.state_dict()
    assert all(torch.equal(backbone[name], weight.float()) for name, weight in weights.items())
    encoder = load(folder)
    export_encoder(encoder, tmp_path / "out", card="")
    assert load(tmp_path / "out").fingerprint == encoder.fingerprint
