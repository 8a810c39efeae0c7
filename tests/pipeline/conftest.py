"""The whole job on the tiny model and dataset, once a session; tests that change it get a copy."""

import os
import shutil
import signal
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from driver import cli

from retrieval_ft import config as configs
from retrieval_ft.dataset import beir
from retrieval_ft.pipeline.workbench import Workbench


def tiny_config(model_folder, dataset_folder):
    """A config with which the tiny model surely learns the tiny dataset."""
    return {
        "name": "tiny",
        "data": {"path": str(dataset_folder)},
        "model": {
            "base": str(model_folder),
            "max_length": 48,
            "device": "cpu",
            "precision": "fp32",
        },
        "pairs": {"tier": "labels"},
        "mining": {"negatives": 2, "depth": 10},
        "training": {
            "epochs": 15,
            "batch_size": 10,
            "learning_rate": 3e-3,
            "max_length": 32,
            "patience": 10,
        },
        "evaluation": {"resamples": 1000},
    }


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """No test reads or writes the caches of this machine's user."""
    folder = tmp_path_factory.mktemp("home")
    before = os.environ.get("RETRIEVAL_FT_HOME")
    os.environ["RETRIEVAL_FT_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["RETRIEVAL_FT_HOME"]
    else:
        os.environ["RETRIEVAL_FT_HOME"] = before


@pytest.fixture(autouse=True)
def _signals_as_before():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory, model_folder, dataset_folder):
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(model_folder, dataset_folder)))
    with chdir(folder):
        outcome = cli("train", "tiny.yaml", "--json")
    assert outcome.code == 0, outcome.err
    return folder, outcome


@pytest.fixture
def outcome(_finished):
    """How the finished run ended."""
    return _finished[1]


@pytest.fixture
def finished(_finished, monkeypatch):
    """The finished, promoted run, in a working directory with its tiny.yaml; read only."""
    monkeypatch.chdir(_finished[0])
    return Path("runs/tiny")


@pytest.fixture
def copied(_finished, tmp_path, monkeypatch):
    """A copy of the finished run, in a working directory with its tiny.yaml."""
    shutil.copytree(_finished[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path("runs/tiny")


@pytest.fixture
def fresh(_finished, tmp_path, monkeypatch):
    """A working directory with tiny.yaml alone."""
    (tmp_path / "fresh").mkdir()
    shutil.copy(_finished[0] / "tiny.yaml", tmp_path / "fresh")
    monkeypatch.chdir(tmp_path / "fresh")
    return tmp_path / "fresh"


@pytest.fixture
def bench(model_folder, dataset_folder):
    raw = {
        "data": {"path": str(dataset_folder)},
        "model": {"base": str(model_folder), "device": "cpu", "precision": "fp32"},
    }
    return Workbench(configs.from_mapping(raw, source="test"), beir.read(dataset_folder))
