"""A suite's file: what is measured on what. Faults are told in one line, before anything is done."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from common import ROOT
from pydantic import Field, ValidationError, field_validator
from suite_systems import OURS, RIVALS

from retrieval_ft.config.section import Section
from retrieval_ft.dataset.builders import BUILDERS
from retrieval_ft.errors import ConfigError

SUITES = ROOT / "eval/suites"
DATA = ROOT / "data"


class SetSpec(Section):
    """One set of a suite."""

    set: str
    """A built-in name, or a folder in BEIR layout."""
    passages: int | None = Field(None, ge=10)
    """Cut to so many; queries that lose a relevant passage are left out."""

    @property
    def label(self) -> str:
        """How figures call it: `hpo`, or `hpo-6000` where it was cut."""
        name = Path(self.set).resolve().name
        return name if self.passages is None else f"{name}-{self.passages}"

    def of(self, passages: int) -> SetSpec:
        """The same set, cut."""
        return self.model_copy(update={"passages": passages})


class Suite(Section):
    """Which systems are measured on which sets, with which model."""

    name: str
    model: str = "BAAI/bge-small-en-v1.5"
    """A name that `retrieval-ft models` knows, or a folder."""
    systems: list[str] = Field(min_length=1)
    sets: list[SetSpec] = Field(min_length=1)

    @field_validator("sets", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        rows = given if isinstance(given, list) else [given]
        return [{"set": row} if isinstance(row, str) else row for row in rows]

    @field_validator("systems")
    @classmethod
    def _known(cls, given: list[str]) -> list[str]:
        known = [*OURS, *RIVALS]
        for name in given:
            if name not in known:
                raise ValueError(f"no system {name!r}; allowed: {', '.join(known)}")
        if len(set(given)) != len(given):
            raise ValueError("a system stands there twice")
        return given


def read_suite(given: str) -> Suite:
    """Read a suite by its name or file, and see that all of its sets are there.

    Raises:
        ConfigError: no such suite, a fault in it, or a set that is missing.
    """
    file = Path(given) if given.endswith((".yaml", ".yml")) else SUITES / f"{given}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in SUITES.glob("*.yaml")))
        raise ConfigError(f"{file}: no such suite; known by name: {known}, or give a YAML file")
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        suite = Suite.model_validate({"name": file.stem, **(raw or {})})
    except (yaml.YAMLError, TypeError, ValidationError) as error:
        raise ConfigError(f"{file}: {_first_fault(error)}") from error
    labels = [spec.label for spec in suite.sets]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"{file}: sets: two are called {twice[0]!r}; rename a folder")
    for spec in suite.sets:
        if missing := why_missing(spec):
            raise ConfigError(f"{file}: sets: {missing}")
    return suite


def folder_of(spec: SetSpec) -> Path:
    """Where a set stands."""
    return DATA / spec.set if spec.set in BUILDERS else Path(spec.set)


def why_missing(spec: SetSpec) -> str:
    """What is the matter with a set that is not there, and what to do; else empty."""
    corpus = folder_of(spec) / "corpus.jsonl"
    if corpus.is_file():
        return ""
    if spec.set in BUILDERS:
        return f"{spec.set!r} is not built here; run `retrieval-ft data build {spec.set}`"
    near = difflib.get_close_matches(spec.set, BUILDERS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"{spec.set!r} is no built-in set ({', '.join(BUILDERS)}) and no folder in BEIR layout "
        f"(there is no {corpus}).{hint}"
    )


def _first_fault(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        return f"{place}: {fault['msg']}"
    if isinstance(error, yaml.YAMLError):
        return " ".join(str(error).split())
    return "is no mapping with `systems` and `sets`"
