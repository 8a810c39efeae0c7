"""The texts of a segment: a corpus.jsonl of which any line is read without the others.

A hit shows a passage, a change of metadata moves one, a new embedder reads them all: so the lines are
kept as they are, with the byte at which each begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset import Corpus
from retrieval_ft.dataset.types import whole_passage
from retrieval_ft.errors import DataError
from retrieval_ft.index.strings import starts

_COPY = 1 << 24


@dataclass(frozen=True)
class Passage:
    """One passage as it was given."""

    id: str
    title: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> str:
        """What is encoded and indexed."""
        return whole_passage(self.title, self.text)

    def line(self) -> bytes:
        """The line of corpus.jsonl that it is stored as."""
        row: dict[str, Any] = {"_id": self.id, "title": self.title, "text": self.text}
        if self.metadata:
            row["metadata"] = self.metadata
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True, eq=False)
class Passages:
    """Lines of passages by position.

    Attributes:
        data: uint8 [bytes], the lines, in memory or mapped.
        offsets: int64 [n + 1], where each begins.
        path: of the file, for messages; None in memory.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    path: Path | None = None

    @classmethod
    def of(cls, corpus: Corpus) -> Passages:
        """The passages of a corpus, in memory."""
        rows = [passage.line() for passage in of_corpus(corpus)]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return cls(np.frombuffer(b"".join(rows), np.uint8), starts(lengths))

    @classmethod
    def map(cls, path: Path, offsets: npt.NDArray[np.int64]) -> Passages:
        """The passages of a file.

        Raises:
            DataError: the file is missing, or has another size than the offsets say.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        size = path.stat().st_size
        if size != int(offsets[-1]):
            raise DataError(f"{path}: damaged, holds {size} bytes of {int(offsets[-1])}")
        data = np.asarray(np.memmap(path, np.uint8, "r")) if size else np.zeros(0, np.uint8)
        return cls(data, offsets, path)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, position: int) -> Passage:
        line = self.data[self.offsets[position] : self.offsets[position + 1]].tobytes()
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{self.path}:{position + 1}: damaged ({error})") from error
        return Passage(row["_id"], row["title"], row["text"], row.get("metadata", {}))

    def write_live(self, file: IO[bytes], alive: npt.NDArray[np.bool_] | None) -> None:
        """Append the lines of the live passages (bool [n]; None for all) to a file."""
        for first, last in _runs(alive, len(self)):
            begin, end = int(self.offsets[first]), int(self.offsets[last])
            for at in range(begin, end, _COPY):
                file.write(self.data[at : min(at + _COPY, end)].data)

    def live(self, alive: npt.NDArray[np.bool_] | None) -> Iterator[Passage]:
        """The live passages, one after another."""
        for position in range(len(self)):
            if alive is None or alive[position]:
                yield self[position]


def of_corpus(corpus: Corpus) -> Iterator[Passage]:
    """The rows of a corpus as passages."""
    metadata: Sequence[Mapping[str, Any]] = corpus.metadata or ({},) * len(corpus)
    columns = zip(corpus.ids, corpus.titles, corpus.texts, metadata, strict=True)
    return (Passage(*row) for row in columns)


def live_offsets(
    parts: Sequence[tuple[Passages, npt.NDArray[np.bool_] | None]],
) -> npt.NDArray[np.int64]:
    """Where the lines begin that `write_live` writes for some segments, one after another."""
    lengths = [
        np.diff(part.offsets) if alive is None else np.diff(part.offsets)[alive]
        for part, alive in parts
    ]
    return starts(np.concatenate([np.zeros(0, np.int64), *lengths]))


def _runs(alive: npt.NDArray[np.bool_] | None, count: int) -> list[tuple[int, int]]:
    """Stretches of neighbouring live passages: first, and behind the last."""
    if alive is None:
        return [(0, count)]
    edges = np.flatnonzero(np.diff(np.concatenate(([False], alive, [False])).astype(np.int8)))
    return [(first, last) for first, last in edges.reshape(-1, 2).tolist()]
