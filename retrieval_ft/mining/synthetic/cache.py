"""Every answer on disk from the moment it arrives, so that none is paid for twice.

One append-only file of JSON lines rather than a file for each answer: 100,000 answers are one file of
some 30 MB that is read in a second, not 100,000 inodes. A line goes out in one write and is synced; a
line that was torn by a crash is left out when the file is read, and the next one starts afresh.

The key has no base_url in it: the same model moves between ports, hosts and gateways, and its answers
stay what they are. Where another model hides behind the same name, use another cache folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from retrieval_ft.console import note
from retrieval_ft.mining.synthetic.budget import Usage

FILE = "answers.jsonl"


@dataclass(frozen=True)
class Answer:
    """What a model answered, as it came."""

    text: str
    """Empty where the model said nothing."""
    usage: Usage
    cut: bool = False
    """The model was stopped by the cap on answer tokens."""


class AnswerCache:
    """Answers by key in one folder: all are read when it is opened, each is written as it is added.

    A context manager; the folder is made when the first answer is added.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._file: BinaryIO | None = None
        self._torn = False
        self._answers = self._read()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer under a key, if there is one."""
        return self._answers.get(key)

    def add(self, key: str, answer: Answer) -> None:
        """Save an answer; on disk when this returns."""
        line = json.dumps({"key": key, **asdict(answer)}).encode() + b"\n"
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            if self._torn:
                line = b"\n" + line
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._answers[key] = answer

    def _read(self) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        if not self.path.is_file():
            return answers
        damaged, line = 0, b"\n"
        with self.path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                if (row := _row(line)) is None:
                    damaged += 1
                else:
                    answers[row[0]] = row[1]
        self._torn = not line.endswith(b"\n")
        if damaged:
            note(f"{self.path}: {damaged} damaged lines are left out; they will be asked again")
        return answers


def _row(line: bytes) -> tuple[str, Answer] | None:
    try:
        row = json.loads(line)
        usage = Usage(**{name: int(tokens) for name, tokens in row["usage"].items()})
        return str(row["key"]), Answer(str(row["text"]), usage, bool(row["cut"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
