import json
import shutil

import pytest
import tiny
import torch
from transformers import BertJapaneseTokenizer

from retrieval_ft.encoder.encoder import load_encoder
from retrieval_ft.export.model import export_model

TEXTS = ["the river rises", "fox"]


def load(folder, **settings):
    return load_encoder(folder, device="cpu", precision="fp32", **settings)


def test_two_loads_and_any_use_give_one_fingerprint(model_folder):
    first, second = load(model_folder), load(model_folder)
    second.encode(TEXTS, role="query")
    second.model.encode(TEXTS, prompt_name="query")
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 64


@pytest.mark.parametrize("settings", [{}, {"max_length": 16, "query_prompt": "go to: "}])
def test_the_exported_model_has_the_same_fingerprint(model_folder, tmp_path, settings):
    encoder = load(model_folder, **settings)
    encoder.encode(TEXTS, role="query")
    export_model(encoder.serving_model(), tmp_path / "out", card="")
    assert load(tmp_path / "out").fingerprint == encoder.fingerprint


def test_one_weight_changes_it(model_folder):
    changed = load(model_folder)
    with torch.no_grad():
        next(changed.model.parameters())[5, 3] += 1e-6
    assert changed.fingerprint != load(model_folder).fingerprint


def test_each_setting_changes_it(model_folder):
    found = [
        load(model_folder, **settings).fingerprint
        for settings in (
            {},
            {"query_prompt": "x"},
            {"passage_prompt": "x"},
            {"passage_prompt": tiny.QUERY_PROMPT, "query_prompt": ""},
            {"max_length": 63},
        )
    ]
    assert len(set(found)) == len(found)


def test_pooling_and_tokenizer_change_it(model_folder, tmp_path):
    mean = tiny.tiny_model(tmp_path / "mean", pooling="mean")
    assert load(mean).fingerprint != load(model_folder).fingerprint
    other = shutil.copytree(model_folder, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["river"], vocabulary["boat"] = vocabulary["boat"], vocabulary["river"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load(other).fingerprint != load(model_folder).fingerprint


def test_a_tokenizer_written_in_python_has_one_too(model_folder, tmp_path):
    encoder, other = load(model_folder), load(model_folder)
    words = (model_folder / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:-2], words[-1], words[-2]]))
    for found, vocabulary in (
        (encoder, model_folder / "vocab.txt"),
        (other, tmp_path / "vocab.txt"),
    ):
        found.model[0].processor = BertJapaneseTokenizer(
            str(vocabulary), word_tokenizer_type="basic", do_lower_case=True
        )
    texts = ["The river rises", "fox " * 99, ""]
    plain = load(model_folder)
    found, expected = encoder.tokenize(texts, "query"), plain.tokenize(texts, "query")
    assert [row.tolist() for row in found.ids] == [row.tolist() for row in expected.ids]
    assert found.truncated.tolist() == expected.truncated.tolist() == [False, True, False]
    assert len({encoder.fingerprint, other.fingerprint, plain.fingerprint}) == 3


def test_how_it_runs_does_not_change_it(model_folder, tmp_path):
    other = load_encoder(model_folder, device="cpu", precision="bf16", cache_root=tmp_path)
    assert other.fingerprint == load(model_folder).fingerprint
