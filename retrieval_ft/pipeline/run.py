"""A run directory and its stages: a stage whose inputs and outputs stand as they were is not redone.

Each stage has a key, the sha256 of everything it depends on (its part of the config, the digests of
the outputs that it reads), and records the sha256 of every file it wrote. The next run with the same
key finds the files whole and takes the facts from the record; an interrupted stage left no record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from retrieval_ft import __version__, artifacts
from retrieval_ft.config import Config, dump
from retrieval_ft.console import note
from retrieval_ft.errors import DataError

CONFIG = "config.resolved.yaml"
_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage left: its key, its facts for the report, and its files."""

    key: str
    seconds: float
    facts: Mapping[str, Any]
    outputs: Mapping[str, str]
    """sha256 of each file, by path below the run directory."""

    @property
    def digest(self) -> str:
        """Identity of the outputs; what later stages depend on."""
        return artifacts.sha256_json(dict(self.outputs))


class Run:
    """An open run directory, held by this process alone. Use `open_run`."""

    def __init__(self, config: Config, *, resume: bool) -> None:
        self.config = config
        self.folder = config.run_folder
        self.resume = resume
        self.timings: list[dict[str, Any]] = []
        self._records = self._read_records()

    def stage(
        self,
        name: str,
        *,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        work: Callable[[str], Mapping[str, Any]],
    ) -> StageRecord:
        """Do a stage, or take it from the record where nothing that it depends on has changed.

        Args:
            name: of the stage; its record is replaced.
            inputs: everything the stage depends on, as JSON values.
            outputs: files and folders below the run directory that the stage writes.
            work: does it, given the stage's key, and returns facts for the report (JSON values).
                Where these say `incomplete`, the stage is done again the next time.
        """
        key = artifacts.sha256_json({"stage": name, "version": __version__, **inputs})
        record = self._records.get(name)
        cached = record is not None and record.key == key and self._stands(record)
        if record is None or not cached:
            self._records.pop(name, None)
            note(f"{name}: started")
            started = time.monotonic()
            facts = work(key)
            seconds = time.monotonic() - started
            record = StageRecord(key, seconds, facts, self._hashes(outputs))
            self._records[name] = record
            self._write_records()
            note(f"{name}: done in {seconds:.1f} s")
        self.timings.append({"name": name, "seconds": round(record.seconds, 2), "cached": cached})
        return record

    def record(self, name: str) -> StageRecord:
        """The record of a finished stage.

        Raises:
            DataError: the stage has not been done in this run directory.
        """
        if name not in self._records:
            raise DataError(f"{self.folder}: the {name} stage is not done; run the main job first")
        return self._records[name]

    def _stands(self, record: StageRecord) -> bool:
        return not record.facts.get("incomplete") and all(
            (self.folder / path).is_file() and artifacts.sha256_file(self.folder / path) == sha256
            for path, sha256 in record.outputs.items()
        )

    def _hashes(self, outputs: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for output in outputs:
            place = self.folder / output
            files = sorted(place.rglob("*")) if place.is_dir() else [place]
            for file in files:
                if file.is_file():
                    name = file.relative_to(self.folder).as_posix()
                    found[name] = artifacts.sha256_file(file)
        return found

    def _read_records(self) -> dict[str, StageRecord]:
        path = self.folder / artifacts.MANIFEST
        if not path.is_file():
            return {}
        manifest = artifacts.read_json(path)
        try:
            if manifest["schema_version"] != _SCHEMA_VERSION:
                note(f"{path}: of another version, its stages are done again")
                return {}
            return {name: StageRecord(**record) for name, record in manifest["stages"].items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not the manifest of a run, or damaged; remove it and every stage is done "
                "again"
            ) from error

    def _write_records(self) -> None:
        manifest = {
            "kind": "run",
            "schema_version": _SCHEMA_VERSION,
            "retrieval_ft": __version__,
            "stages": {name: asdict(record) for name, record in self._records.items()},
        }
        artifacts.write_json(self.folder / artifacts.MANIFEST, manifest)


@contextmanager
def open_run(config: Config, *, resume: bool) -> Iterator[Run]:
    """Open the run directory of a config for this process alone; created if need be.

    Raises:
        DataError: another process is using it.
    """
    remedy = "wait for it to end, or choose another name with --name"
    with artifacts.exclusive(config.run_folder, what="run directory", remedy=remedy):
        run = Run(config, resume=resume)
        artifacts.write_text(run.folder / CONFIG, dump(config))
        yield run
