"""Checkpoints that are whole or not there: sealed, then moved to their place.

A run may be killed at any moment, also while it writes or deletes a checkpoint; what a resumed run
goes on from must be what was written, to the byte.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

from retrieval_ft import artifacts
from retrieval_ft.console import note
from retrieval_ft.errors import DataError

_NAME = "checkpoint-"


def place_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return folder / f"{_NAME}{step}"


def staged(folder: Path, step: int) -> Path:
    """Where the files of a checkpoint are written before it is finished."""
    return folder / f".{_NAME}{step}"


def finish(folder: Path, step: int, *, best: int) -> None:
    """Seal what was staged, move it to its place, and keep none but this and the best checkpoint."""
    artifacts.seal(staged(folder, step), {"kind": "checkpoint", "step": step})
    staged(folder, step).rename(place_of(folder, step))
    _keep_only(folder, {step, best})


def newest(folder: Path, *, until: int) -> Path | None:
    """The last checkpoint up to a step."""
    steps = [step for step in map(_step, _all(folder)) if step <= until]
    return place_of(folder, max(steps)) if steps else None


def resumable(folder: Path) -> Path | None:
    """The newest checkpoint that is whole, as is the best one that it names; others are deleted."""
    whole = {_step(path) for path in _all(folder) if _is_whole(path)}
    for step in sorted(whole, reverse=True):
        best = best_step(place_of(folder, step))
        if best in whole:
            _keep_only(folder, {step, best})
            return place_of(folder, step)
    _keep_only(folder, set())
    return None


def best_step(checkpoint: Path) -> int:
    """The step of the best checkpoint at the time of this one; its own where dev was not yet scored."""
    state = artifacts.read_json(checkpoint / TRAINER_STATE_NAME)
    return int(state["best_global_step"] or state["global_step"])


def _keep_only(folder: Path, steps: set[int]) -> None:
    kept = {place_of(folder, step) for step in steps}
    for path in folder.glob(f".{_NAME}*"):
        shutil.rmtree(path)
    for path in _all(folder):
        if path not in kept:
            shutil.rmtree(path.rename(path.with_name(f".{path.name}.old")))


def _all(folder: Path) -> list[Path]:
    return list(folder.glob(f"{_NAME}*"))


def _step(path: Path) -> int:
    return int(path.name.removeprefix(_NAME))


def _is_whole(path: Path) -> bool:
    try:
        artifacts.verify(path, what="checkpoint")
    except DataError as error:
        note(f"passing over a checkpoint: {error}")
        return False
    return True
