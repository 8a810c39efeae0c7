"""What a user gets wrong: one clear line, the exit code of its kind, no traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from driver import cli

import retrieval_ft
from retrieval_ft.dataset import beir

JSONL = ("corpus.jsonl", "queries.jsonl")


@pytest.fixture
def broken(fresh, dataset_folder):
    """A writable copy of the tiny dataset."""
    return Path(shutil.copytree(dataset_folder, fresh / "broken"))


def train(folder, *words):
    return cli("train", "tiny.yaml", "--set", f"data.path={folder}", *words)


def refused(found, code, *parts):
    assert found.code == code, found.err
    assert found.out == ""
    assert found.err.startswith("error: ") or "\nerror: " in found.err
    assert "Traceback" not in found.err
    message = found.err[found.err.index("error: ") :]
    assert all(part in message for part in parts), message


def append(path, line):
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_such_dataset_folder(fresh):
    refused(train("nowhere"), 3, "nowhere: no such file or folder")


@pytest.mark.parametrize("command", ["train", "mine", "index", "evaluate"])
def test_a_missing_corpus(broken, model_folder, command):
    (broken / "corpus.jsonl").unlink()
    found = cli(command, broken, "--set", f"model.base={model_folder}")
    refused(found, 3, "broken/corpus.jsonl: no such file; a dataset folder holds corpus.jsonl")


@pytest.mark.parametrize("command", ["train", "mine", "index", "evaluate"])
@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_an_empty_corpus(broken, model_folder, command, content):
    (broken / "corpus.jsonl").write_text(content)
    found = cli(command, broken, "--set", f"model.base={model_folder}")
    refused(found, 3, "broken/corpus.jsonl: is empty; retrieval needs at least two passages")


def test_one_passage(broken):
    (broken / "corpus.jsonl").write_text('{"_id": "p00", "text": "alone"}\n')
    refused(train(broken), 3, "corpus.jsonl: holds one passage", "at least two passages")


@pytest.mark.parametrize("name", JSONL)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "a JSON object is needed, found list"),
        ('{"text": "a fox"}', 'lacks "_id" (keys found: text)'),
        ('{"_id": "new"}', 'lacks "text" (keys found: _id)'),
        ('{"_id": 7, "text": "a fox"}', '"_id" must be a string'),
        ('{"_id": "new", "text": ["a"]}', "must be strings"),
        ('{"_id": "new", "text": "  "}', "empty text"),
    ],
)
def test_a_faulty_line_is_named_by_file_and_line(broken, name, line, words):
    append(broken / name, line)
    refused(train(broken), 3, f"broken/{name}:{lines_of(broken / name)}: ", words)


@pytest.mark.parametrize("name", JSONL)
def test_an_id_that_stands_twice_names_both_lines(broken, name):
    first = json.loads((broken / name).read_text().splitlines()[0])["_id"]
    append(broken / name, json.dumps({"_id": first, "text": "again"}))
    where = f"broken/{name}:{lines_of(broken / name)}: "
    refused(train(broken), 3, where, f"{first!r} stands already at line 1")


def test_a_line_number_is_never_shown_as_a_picture(broken):
    path = broken / "corpus.jsonl"
    rows = [json.dumps({"_id": f"n{i}", "text": f"text {i}"}) for i in range(99)]
    path.write_text("\n".join([*rows, "{"]) + "\n")
    refused(train(broken), 3, "broken/corpus.jsonl:100: not JSON")


def test_a_file_that_is_no_text(broken):
    (broken / "queries.jsonl").write_bytes(b'{"_id": "q", "text": "\xff"}\n')
    refused(train(broken), 3, "broken/queries.jsonl: not UTF-8 text")


@pytest.mark.parametrize("split", ["train", "dev", "test"])
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("nobody\tp00\t1", "query id 'nobody' is not in queries.jsonl"),
        ("q00\tnothing\t1", "passage id 'nothing' is not in corpus.jsonl"),
        ("q00\tp01\tgood", "score 'good' is not an integer"),
        ("q00\tp01\t1.5", "score '1.5' is not an integer"),
        ("q00 p01 1", "1 columns, 3 are needed"),
    ],
)
def test_a_faulty_judgement_is_named_by_file_and_line(broken, split, row, words):
    path = broken / "qrels" / f"{split}.tsv"
    append(path, row)
    refused(train(broken), 3, f"broken/qrels/{split}.tsv:{lines_of(path)}: ", words)


def test_qrels_without_a_header(broken):
    path = broken / "qrels/train.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\n")
    refused(train(broken), 3, "qrels/train.tsv:1: bad header", "query-id<tab>corpus-id<tab>score")


def test_a_query_without_a_relevant_passage(broken):
    append(broken / "queries.jsonl", '{"_id": "lost", "text": "why"}')
    append(broken / "queries.jsonl", '{"_id": "zero", "text": "to"}')
    append(broken / "qrels/dev.tsv", "zero\tp00\t0")
    refused(
        train(broken),
        3,
        "2 queries have no relevant passage: lost (in no qrels); zero (grade 0 only in dev)",
        "--set data.unjudged_queries=drop",
    )


@pytest.mark.parametrize("command", ["train", "mine"])
def test_no_train_pairs(broken, model_folder, command):
    (broken / "qrels/train.tsv").unlink()
    words = ["--set", f"model.base={model_folder}", "--set", "data.unjudged_queries=drop"]
    refused(cli(command, broken, *words), 3, "no pair could be made from the corpus", "data.labels")
    words += ["--set", "pairs.tier=labels"]
    refused(cli(command, broken, *words), 2, "pairs.tier=labels: there are no labelled train pairs")


def test_no_judgements_at_all(broken):
    shutil.rmtree(broken / "qrels")
    refused(train(broken), 3, "broken/qrels: no train.tsv, dev.tsv or test.tsv found")


def test_too_few_queries_to_carve_from(broken):
    dataset = beir.read(broken)
    for split in ("dev", "test"):
        (broken / "qrels" / f"{split}.tsv").unlink()
    some = dict(list(dataset.qrels["train"].grades.items())[:2])
    beir.write_qrels(broken / "qrels/train.tsv", some)
    found = train(broken, "--set", "data.unjudged_queries=drop")
    refused(found, 3, "2 train queries are too few to carve a", "bring qrels/")


def test_a_query_text_in_train_and_test(broken):
    dataset = beir.read(broken)
    train_id, test_id = dataset.qrels["train"].query_ids[0], dataset.qrels["test"].query_ids[0]
    rows = [json.loads(line) for line in (broken / "queries.jsonl").read_text().splitlines()]
    for row in rows:
        if row["_id"] == test_id:  # the same but for case and spaces
            row["text"] = f"  {dataset.queries.text_of[train_id].upper()} "
    (broken / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    refused(train(broken), 3, "a leak", f"train {train_id} = test {test_id} (")


@pytest.mark.parametrize("command", ["train", "mine", "evaluate", "index"])
def test_an_unknown_config_key(fresh, command):
    found = cli(command, "tiny.yaml", "--set", "training.learnin_rate=1")
    refused(
        found,
        2,
        "tiny.yaml: training.learnin_rate: unknown key; did you mean training.learning_rate?",
    )


def test_a_model_folder_without_weights(fresh, model_folder):
    bare = Path(shutil.copytree(model_folder, fresh / "bare"))
    (bare / "model.safetensors").unlink()
    found = cli("train", "tiny.yaml", "--set", f"model.base={bare}")
    refused(found, 5, "bare: no weights (model.safetensors) in this model folder; found: ")


def test_a_model_folder_that_is_not_there(fresh):
    found = cli("train", "tiny.yaml", "--set", "model.base=./gone")
    refused(found, 5, "model folder gone does not exist")


@pytest.mark.parametrize(
    "name", ["passages.jsonl", "vectors.faiss", "arrays.safetensors", "manifest.json"]
)
@pytest.mark.parametrize("mode", ["hybrid", "bm25"])
def test_an_index_with_one_byte_changed(copied, name, mode):
    (path,) = (copied / "index").rglob(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = cli("search", "fox", "--index", "runs/tiny/index", "--mode", mode)
    refused(found, 3, "runs/tiny/index/", f"/{name}: ", "damaged")


@pytest.mark.parametrize("setting", ["lexical.stemmer=klingon", "lexical.stop_words=klingon"])
def test_a_language_that_there_is_not(fresh, setting):
    refused(cli("train", "tiny.yaml", "--set", setting), 2, "'klingon'", "english", "german")


def test_an_index_with_a_file_gone(copied):
    (path,) = (copied / "index").rglob("segment.json")
    path.unlink()
    refused(cli("search", "fox"), 3, "runs/tiny/index/segments/", "/segment.json: missing")


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
def test_a_search_with_another_model_than_the_index_was_built_with(finished, model_folder, mode):
    found = cli("search", "fox", "--model", model_folder, "--mode", mode)
    refused(found, 3, "the index was built with", "load that model, or build the index again")


@pytest.mark.parametrize("command", ["train", "mine"])
def test_a_run_directory_in_use_by_another_process(fresh, command):
    script = (
        "import sys, pathlib\n"
        "from retrieval_ft.artifacts import exclusive\n"
        "with exclusive(pathlib.Path('runs/tiny'), what='run directory', remedy='wait'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    root = str(Path(retrieval_ft.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    ) as other:
        assert other.stdout.readline() == b"held\n"
        found = cli(command, "tiny.yaml")
        other.stdin.close()
    refused(
        found,
        3,
        f"runs/tiny: this run directory is in use by another process (pid {other.pid} on ",
        "--name",
    )
    assert cli("mine", "tiny.yaml").code == 0


def test_a_gpu_that_is_not_there(fresh):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    found = cli("train", "tiny.yaml", "--set", "model.device=cuda")
    refused(found, 2, "model.device: 'cuda' was asked for", "sees no GPU; use auto or cpu")
