"""Where words go: results on stdout, progress and notes on stderr.

Progress is a bar on a terminal and a few plain lines elsewhere, so that a CI log stays readable.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_INTERVAL_S = 15.0
_MARKUP = re.compile(r"([\\`*_~|<>\[\]&$#])")


def markdown(text: object) -> str:
    """One line of text with every character that Markdown would act on escaped."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def stdout() -> Console:
    """A console on stdout, for results."""
    return _console(sys.stdout)


def stderr() -> Console:
    """A console on stderr, for progress and notes."""
    return _console(sys.stderr)


def _console(file: TextIO) -> Console:
    # No emoji codes: `corpus.jsonl:100:` would come out as a picture.
    return Console(file=file, highlight=False, emoji=False, soft_wrap=not file.isatty())


def note(message: str) -> None:
    """Print one line of progress to stderr."""
    stderr().print(message, markup=False)


class _Ticker:
    """What `progress` yields: call `advance` with the amount done."""

    def __init__(self, label: str, total: int, bar: Progress | None) -> None:
        self._label, self._total, self._bar = label, total, bar
        self._done = 0
        self._said = time.monotonic()
        self._task = bar.add_task(label, total=total) if bar else None

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, amount)
        elif time.monotonic() - self._said > _PLAIN_INTERVAL_S:
            self._said = time.monotonic()
            note(f"{self._label}: {self._done:,} of {self._total:,}")


@contextmanager
def progress(label: str, total: int) -> Iterator[_Ticker]:
    """Show progress over `total` units on stderr while the block runs."""
    if not sys.stderr.isatty():
        yield _Ticker(label, total, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), transient=True) as bar:
        yield _Ticker(label, total, bar)
