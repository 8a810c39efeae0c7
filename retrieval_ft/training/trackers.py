"""Trackers that get the log as well: TensorBoard, Weights & Biases, MLflow and whatever transformers has."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from retrieval_ft.errors import ConfigError, DependencyError


def trackers(names: Sequence[str], *, folder: Path) -> list[Any]:
    """The Trainer callbacks of trackers.

    Each is set up through the environment variables that its own documentation names.

    Args:
        names: as transformers calls them (`training.report_to`).
        folder: for TensorBoard's event files, where TENSORBOARD_LOGGING_DIR does not say otherwise.

    Raises:
        ConfigError: transformers knows no such tracker.
        DependencyError: a tracker's package is not installed.
    """
    found = []
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ConfigError(f"training.report_to: no tracker {name!r}; transformers has {known}")
        try:
            if name == "mlflow":  # its callback prints a traceback of its own where this fails
                import_module(name)
            callback = INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            raise DependencyError(
                f"training.report_to: {name} cannot be used here ({error}); pip install {name}, or "
                "take it out"
            ) from error
        if name == "tensorboard":
            callback.logging_dir = callback.logging_dir or str(folder)
        found.append(callback)
    return found
