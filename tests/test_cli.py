import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import retrieval_ft
from retrieval_ft import cli

ROOT = Path(retrieval_ft.__file__).parents[1]
HEAVY = {"torch", "sentence_transformers", "transformers", "faiss", "datasets", "huggingface_hub"}
COMMANDS = [
    [],
    ["train"],
    ["mine"],
    ["evaluate"],
    ["index"],
    *(
        ["index", command]
        for command in (
            "build",
            "add",
            "upsert",
            "delete",
            "update-metadata",
            "compact",
            "rebuild",
            "verify",
            "info",
            "gc",
        )
    ),
    ["search"],
    ["compare"],
    ["advise"],
    ["models"],
    ["models", "list"],
    ["models", "fetch"],
    ["data"],
    ["data", "build"],
]


def python(*words, home=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    if home is not None:
        environment["RETRIEVAL_FT_HOME"] = str(home)
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def loaded_by(*words, home):
    """The modules that a command has loaded when it ends, and how it ended."""
    script = (
        "import json, sys\n"
        "from retrieval_ft.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    run = python("-c", script, *words, home=home)
    return set(json.loads(run.stderr.splitlines()[-1])), run


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["models", "list"]])
def test_help_and_lists_load_nothing_heavy(tmp_path, words):
    modules, run = loaded_by(*words, home=tmp_path)
    assert run.returncode == 0, run.stderr
    assert not modules & HEAVY


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "main")
def test_every_command_has_help_on_stdout(words):
    run = python("-m", "retrieval_ft", *words, "--help")
    assert run.returncode == 0, run.stderr
    assert "Usage:" in run.stdout and "--help" in run.stdout
    assert run.stderr == ""


@pytest.mark.parametrize("name", ["train", "mine", "evaluate"])
def test_an_entry_point_is_its_command(name):
    alone = python("-m", f"retrieval_ft.{name}", "--help")
    of_main = python("-m", "retrieval_ft", name, "--help")
    assert alone.returncode == 0, alone.stderr
    said = of_main.stdout.replace("python -m retrieval_ft", "retrieval-ft")
    assert alone.stdout.split() == said.split()


def test_the_command_that_a_report_names_is_the_whole_one(monkeypatch):
    named = []
    monkeypatch.setattr(cli, "app", lambda **_: named.append(cli._command()))
    monkeypatch.setattr(sys, "argv", ["train.py", "my config.yaml", "--set", "seed=1"])
    cli.run_command("train")
    assert named == ["retrieval-ft train 'my config.yaml' --set seed=1"]


@pytest.mark.parametrize(
    "words",
    [
        ["trane"],
        ["train", "--no-such-option"],
        ["train", "a.yaml", "b.yaml"],
        ["index", "rebuild", "folder"],
        ["index", "add", "folder"],
        ["search", "text", "-k", "0"],
        ["search", "text", "-k", "many"],
        ["models", "fetch"],
        ["train", "no-such-config.yaml"],
    ],
    ids=" ".join,
)
def test_a_usage_error_ends_with_2_and_says_so_on_stderr(tmp_path, words):
    run = python("-m", "retrieval_ft", *words, home=tmp_path)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr and "Traceback" not in run.stderr


def test_an_unknown_data_set_is_a_usage_error_with_a_hint(tmp_path):
    run = python("-m", "retrieval_ft", "data", "build", "cwee", home=tmp_path)
    assert run.returncode == 2
    assert "no builder named 'cwee'. Did you mean 'cwe'?" in run.stderr


def test_models_list_in_json_is_one_document(tmp_path):
    run = python("-m", "retrieval_ft", "models", "list", "--json", home=tmp_path)
    document = json.loads(run.stdout)
    assert run.stderr == ""
    assert document["schema_version"] == 1
    rows = {row["name"]: row for row in document["models"]}
    assert rows["BAAI/bge-small-en-v1.5"]["kind"] == "embedder"
    assert not any(row["on_disk"] for row in rows.values())


def test_json_is_one_document_on_stdout_and_progress_goes_to_stderr(
    tmp_path, model_folder, dataset_folder
):
    words = ["train", dataset_folder, "--json", "--set", f"runs={tmp_path / 'runs'}"]
    for change in (
        f"model.base={model_folder}",
        "model.max_length=48",
        "training.epochs=1",
        "training.learning_rate=1e-9",
        "evaluation.resamples=1000",
    ):
        words += ["--set", change]
    run = python("-m", "retrieval_ft", *words, home=tmp_path / "home")
    assert run.returncode == 4, run.stderr  # nothing was learnt, so nothing is promoted
    document = json.loads(run.stdout)
    assert document["verdict"] == "hold"
    assert "error: hold: " in run.stderr and "The base stays in" in run.stderr
    for stage in ("prepare", "mine", "train", "evaluate", "index", "report"):
        assert f"{stage}: started" in run.stderr
    assert "Traceback" not in run.stderr
