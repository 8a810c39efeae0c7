import json

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tiny import VOCABULARY, bert_folder

from retrieval_ft.errors import ConfigError
from retrieval_ft.export.model import export_model

TEXTS = ["the river rises", "A RED kite, over the hill!", "zebra", "", "ünknown 漢字 the sea " * 9]
PROMPTS = {"query": "go to: ", "document": ""}


def make(folder, *extra, pooling="cls"):
    transformer = Transformer(str(bert_folder(folder)))
    transformer.max_seq_length = 24
    modules = [transformer, Pooling(32, pooling), *extra]
    return SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.filterwarnings("error::DeprecationWarning", "error::FutureWarning")
def test_the_exported_model_gives_the_same_bits(tmp_path, pooling):
    model = make(tmp_path / "base", Normalize(), pooling=pooling)
    before = model.encode(TEXTS)
    export_model(model, tmp_path / "out", card="# A card\n")
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert (loaded.encode(TEXTS) == before).all()
    assert (model.encode(TEXTS) == before).all()
    assert loaded.prompts == PROMPTS
    assert loaded.max_seq_length == 24
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"
    queries = loaded.encode(TEXTS, prompt_name="query")
    assert (queries == model.encode(TEXTS, prompt_name="query")).all()
    assert not (queries == before).all()


def test_the_layout_is_the_older_one(tmp_path):
    export_model(make(tmp_path / "base", Normalize()), tmp_path / "out", card="")
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    kinds = [m["type"].removeprefix("sentence_transformers.models.") for m in modules]
    assert kinds == ["Transformer", "Pooling", "Normalize"]
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not list((tmp_path / "out").rglob("*.bin"))
    vocabulary = (tmp_path / "out" / "vocab.txt").read_text().splitlines()
    assert vocabulary == VOCABULARY


def test_what_a_call_left_in_the_tokenizer_is_not_saved(tmp_path):
    model = make(tmp_path / "base", Normalize())
    export_model(model, tmp_path / "fresh", card="")
    model.encode(TEXTS)
    export_model(model, tmp_path / "used", card="")
    for path in (tmp_path / "fresh").rglob("*"):
        if path.is_file():
            other = tmp_path / "used" / path.relative_to(tmp_path / "fresh")
            assert other.read_bytes() == path.read_bytes(), path.name


def test_a_bfloat16_model_is_saved_in_float32(tmp_path):
    model = make(tmp_path / "base", Normalize()).to(torch.bfloat16)
    export_model(model, tmp_path / "out", card="")
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    for saved, held in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(saved, held.float())


def test_without_normalisation_vectors_keep_their_length(tmp_path):
    model = make(tmp_path / "base")
    export_model(model, tmp_path / "out", card="")
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert (loaded.encode(TEXTS) == model.encode(TEXTS)).all()


def test_a_failed_export_leaves_the_model_that_was_there(tmp_path):
    model = make(tmp_path / "base", Normalize())
    export_model(model, tmp_path / "out", card="old")
    with pytest.raises(TypeError):
        export_model(model, tmp_path / "out", card=None)
    assert (tmp_path / "out" / "README.md").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "out"]


def test_what_the_layout_cannot_say_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"pooling 'max' .*cannot be exported; cls, mean") as got:
        export_model(make(tmp_path / "a", pooling="max"), tmp_path / "out", card="")
    assert got.value.exit_code == 2
    with pytest.raises(ConfigError, match=r"Transformer \+ Pooling \+ Dense cannot be exported"):
        export_model(make(tmp_path / "b", Dense(32, 8)), tmp_path / "out", card="")
    assert not (tmp_path / "out").exists()
