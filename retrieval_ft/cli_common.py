"""What the commands share: options, how a command ends, how a document is printed."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from retrieval_ft.console import note, stderr
from retrieval_ft.errors import DataError, RetrievalFTError

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""A disk that is full, or that must not be written."""
_DISK_REMEDY = "what was there before is whole; make room, or choose a place that can be written"

Target = Annotated[
    Path | None,
    typer.Argument(
        help="A config (YAML), a run directory, a dataset folder in BEIR layout, a folder, glob or "
        "file of documents or rows, or a file of labels that brings its texts. "
        "Default: configs/quickstart.yaml.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Change one config value; may be repeated."),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help='A filter on metadata: KEY=VALUE, or JSON such as {"year": {"$gte": 2020}}; all hold.'
    ),
]
Wait = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="Wait for another writer to end.")
]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command end in its exit code and one clear message instead of a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, _interrupt)
        # Spinning barriers make runs on shared cores many times slower; read when torch loads.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            command(*args, **kwargs)
        except RetrievalFTError as error:
            stderr().print(f"error: {error}", markup=False)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno not in _DISK:
                raise
            where = f"{error.filename}: " if error.filename else ""
            stderr().print(f"error: {where}{error.strerror}; {_DISK_REMEDY}", markup=False)
            raise typer.Exit(DataError.exit_code) from error
        except KeyboardInterrupt as error:
            note("interrupted; the same command goes on from the last finished stage, and with")
            note("--resume from the last training checkpoint")
            raise typer.Exit(130) from error

    return run


def led(command: Callable[..., None]) -> Callable[..., None]:
    """Under torchrun or accelerate launch, let the first process run a command and the others help."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        from retrieval_ft.pipeline.workers import is_first, launched, lead_or_follow

        if launched() and not kwargs.get("dry_run"):
            raise typer.Exit(lead_or_follow(functools.partial(command, *args, **kwargs)))
        if is_first():
            command(*args, **kwargs)

    return run


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def show(document: Any, as_json: bool, how: Any) -> None:
    """Print a document as JSON, or as `how` shows it."""
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    else:
        how(document)


def as_yaml(document: dict[str, Any]) -> None:
    """Print a document as YAML."""
    import yaml

    sys.stdout.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
