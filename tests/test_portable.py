import json

import pytest

from retrieval_ft import portable
from retrieval_ft.errors import DataError


def load(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("pooling", "key"),
    [
        ("cls", "pooling_mode_cls_token"),
        ("mean", "pooling_mode_mean_tokens"),
        ("lasttoken", "pooling_mode_lasttoken"),
    ],
)
def test_pooling_is_written_as_one_true_boolean(tmp_path, pooling, key):
    portable.write_portable(
        tmp_path, pooling=pooling, dimension=8, max_seq_length=16, prompts={"query": "q: "}
    )
    config = load(tmp_path / "1_Pooling" / "config.json")
    modes = {name for name, value in config.items() if name.startswith("pooling_mode_") and value}
    assert modes == {key}
    assert config["word_embedding_dimension"] == 8


def test_the_module_types_are_the_older_ones_and_their_folders_exist(tmp_path):
    portable.write_portable(tmp_path, pooling="cls", dimension=8, max_seq_length=16, prompts={})
    modules = load(tmp_path / "modules.json")
    assert [m["type"] for m in modules] == [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Normalize",
    ]
    assert all((tmp_path / m["path"]).is_dir() for m in modules)
    config = load(tmp_path / "config_sentence_transformers.json")
    assert config["prompts"] == {"query": "", "document": ""}
    assert config["default_prompt_name"] is None
    assert config["similarity_fn_name"] == "cosine"


def test_without_normalisation_there_is_no_such_module(tmp_path):
    portable.write_portable(
        tmp_path, pooling="cls", dimension=8, max_seq_length=16, prompts={}, normalize=False
    )
    assert [m["path"] for m in load(tmp_path / "modules.json")] == ["", "1_Pooling"]
    assert not (tmp_path / "2_Normalize").exists()


def test_the_tokenizer_files_agree_with_the_tokenizer(tmp_path):
    tokenizer = {
        "model": {"vocab": {"zebra": 0, "ä": 2, "[PAD]": 1}},
        "normalizer": {"lowercase": False, "strip_accents": True, "handle_chinese_chars": True},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    portable.write_bert_tokenizer(tmp_path, model_max_length=64)
    assert (tmp_path / "vocab.txt").read_text() == "zebra\n[PAD]\nä\n"
    config = load(tmp_path / "tokenizer_config.json")
    assert config["tokenizer_class"] == "BertTokenizer"
    assert (config["do_lower_case"], config["strip_accents"]) == (False, True)
    assert config["model_max_length"] == 64


def test_a_folder_without_tokenizer_is_told(tmp_path):
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file"):
        portable.write_bert_tokenizer(tmp_path, model_max_length=64)
