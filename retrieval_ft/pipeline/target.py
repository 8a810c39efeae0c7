"""What a command was pointed at: a config, a run directory, a dataset, documents or labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrieval_ft import config as configs
from retrieval_ft.config import Config
from retrieval_ft.dataset.labels import brings_texts
from retrieval_ft.errors import ConfigError
from retrieval_ft.pipeline.run import CONFIG
from retrieval_ft.pipeline.workbench import lexical_spec

_YAML = (".yaml", ".yml")
_ROWS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
DEFAULT = Path("configs/quickstart.yaml")


def is_run(target: Path) -> bool:
    """Whether a path is a run directory."""
    return (target / CONFIG).is_file()


def resolve_config(
    target: Path | None, overrides: Sequence[str], *, name: str | None = None
) -> Config:
    """The configuration that a target and overrides mean.

    A YAML file is read as it is; a run directory gives the config it was run with; anything else
    that can be read (a dataset folder, a folder, a glob or a file of documents or rows, a file of
    labels that brings its texts) gives the defaults on it.

    Raises:
        ConfigError: the target is none of these, or the configuration is not valid.
    """
    if target is None:
        if not DEFAULT.is_file():
            raise ConfigError(
                f"{DEFAULT} is not below this folder; name a config, a run or a dataset folder"
            )
        target = DEFAULT
    if target.suffix in _YAML:
        raw = configs.read(target)
    elif is_run(target):
        # The run is where it is now, not where it was when its config was written.
        place = target if target.name not in ("", "..") else target.resolve()
        raw = {**configs.read(target / CONFIG), "runs": str(place.parent), "name": place.name}
    elif target.exists() or set("*?[") & set(target.name):
        raw = {"name": _run_name(target), "data": {_part(target): str(target)}}
    else:
        raise ConfigError(
            f"{target}: no such config file, run directory, dataset folder or documents"
        )
    config = configs.from_mapping(raw, overrides, name=name, source=str(target))
    lexical_spec(config.lexical).tokenize([""])  # says now what it does not know
    return config


def _part(target: Path) -> str:
    """Whether a target is what is searched, or labels that bring it along."""
    rows = target.is_file() and target.suffix in _ROWS
    return "labels" if rows and brings_texts(target) else "path"


def _run_name(target: Path) -> str:
    name = target.stem if target.is_file() else target.resolve().name
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    return kept.strip("._-") or "run"
