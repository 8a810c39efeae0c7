"""A segment: a batch of passages with all that search needs of them, written once, never changed.

    segment.json         how many passages, facts of the approximate index
    arrays.safetensors   ids, posting lists, metadata by key and value, where each line begins
    passages.jsonl       the passages, a line of corpus.jsonl each
    vectors.faiss        their vectors
    ann.faiss            an approximate index over these, where there is one

Everything is mapped from disk, so a segment of a million passages opens in no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.dataset import Corpus
from retrieval_ft.index.ann import Approximate, Facts
from retrieval_ft.index.ann_recall import MEASURED_QUERIES
from retrieval_ft.index.dense import DensePart
from retrieval_ft.index.fields import Fields
from retrieval_ft.index.lexical import LexicalPart
from retrieval_ft.index.passages import Passages, live_offsets
from retrieval_ft.index.postings import Postings
from retrieval_ft.index.strings import Arrays, Ids, Strings
from retrieval_ft.index.tokens import LexicalSpec
from retrieval_ft.index.vectors import (
    Mask,
    Vectors,
    copy_live,
    empty_like,
    load_storage,
    save_faiss,
)

FACTS = "segment.json"
ARRAYS, PASSAGES, VECTORS = "arrays.safetensors", "passages.jsonl", "vectors.faiss"
ANN = "ann.faiss"


@dataclass(frozen=True, eq=False)
class Segment:
    """A batch of passages, in memory or mapped from a folder."""

    ids: Ids
    postings: Postings
    fields: Fields
    passages: Passages
    storage: Any
    """Their vectors: FAISS Flat or 8-bit scalar quantizer."""
    approximate: Approximate | None = None
    queries: Vectors | None = None
    """Real queries, float32 [q, d], that an approximate index is measured on."""
    kept: Mapping[str, Any] | None = None
    """What int8 or fewer dimensions leave of recall@10, as measured; None where nothing is lost."""
    name: str = ""
    """Of its folder; empty in memory."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(cls, corpus: Corpus, storage: Any, *, spec: LexicalSpec) -> Segment:
        """A segment in memory of passages and the storage that holds their vectors, in their order."""
        return cls(
            ids=Ids.of(corpus.ids),
            postings=Postings.build(corpus.passages, spec=spec),
            fields=Fields.build(corpus.metadata, len(corpus)),
            passages=Passages.of(corpus),
            storage=storage,
        )

    def save(self, folder: Path) -> None:
        """Write the files of the segment into an empty folder."""
        write(
            folder,
            [Live(self)],
            approximate=self.approximate,
            queries=self.queries,
            kept=self.kept,
        )

    @classmethod
    def map(cls, folder: Path) -> Segment:
        """Open what was written.

        Raises:
            DataError: a file is missing or damaged; the message names it.
        """
        facts = artifacts.read_json(folder / FACTS)
        count, ann = facts["passages"], facts["ann"]
        arrays = artifacts.map_arrays(folder / ARRAYS)
        return cls(
            ids=Ids(Strings(arrays["ids"], arrays["id_offsets"]), arrays["id_order"]),
            postings=Postings.of_arrays(_named(arrays, "postings.")),
            fields=Fields.of_arrays(_named(arrays, "fields."), count=count),
            passages=Passages.map(folder / PASSAGES, arrays["lines"]),
            storage=load_storage(folder / VECTORS, count=count),
            approximate=Approximate.load(folder / ANN, Facts(**ann)) if ann else None,
            queries=arrays.get("queries"),
            kept=facts["kept"],
            name=folder.name,
        )


@dataclass(frozen=True, eq=False)
class Live:
    """A segment and which of its passages are not deleted (bool [n]; None: none is)."""

    segment: Segment
    alive: Mask | None = None

    def __len__(self) -> int:
        return len(self.segment) if self.alive is None else int(np.count_nonzero(self.alive))

    @cached_property
    def lexical(self) -> LexicalPart:
        """As BM25 sees it."""
        return LexicalPart(self.segment.ids, self.segment.postings, self.alive)

    @property
    def dense(self) -> DensePart:
        """As dense search sees it."""
        segment = self.segment
        return DensePart(segment.ids, segment.storage, segment.approximate, self.alive)

    def find(self, passage_id: str) -> int | None:
        """The position of a live passage, None where there is none of that id."""
        position = self.segment.ids.find(passage_id)
        dead = position is not None and self.alive is not None and not self.alive[position]
        return None if dead else position

    def without(self, positions: Sequence[int]) -> Live:
        """The same with some passages deleted."""
        alive = np.ones(len(self.segment), bool) if self.alive is None else self.alive.copy()
        alive[list(positions)] = False
        return Live(self.segment, alive)

    @property
    def deleted(self) -> npt.NDArray[np.int32]:
        """Positions of the passages that are deleted."""
        none = np.zeros(0, np.int32)
        return none if self.alive is None else np.flatnonzero(~self.alive).astype(np.int32)


def write(
    folder: Path,
    parts: Sequence[Live],
    *,
    storage: Any = None,
    approximate: Approximate | None = None,
    queries: Vectors | None = None,
    kept: Mapping[str, Any] | None = None,
) -> None:
    """Write the live passages of some segments as one.

    Args:
        folder: empty.
        parts: the segments, at least one.
        storage: vectors for these passages in their order, instead of their own.
        approximate: an index over the vectors.
        queries: see `Segment`.
        kept: see `Segment`.
    """
    whole = len(parts) == 1 and parts[0].alive is None
    first = parts[0].segment
    passages = [(live.segment.passages, live.alive) for live in parts]
    if storage is None and not whole:
        storage = empty_like(first.storage)
        copy_live(storage, [(live.segment.storage, live.alive) for live in parts])
    save_faiss(first.storage if storage is None else storage, folder / VECTORS)
    with artifacts.atomic_open(folder / PASSAGES) as file:
        for part, alive in passages:
            part.write_live(file, alive)
    ids = first.ids if whole else Ids.of(_ids(parts))
    postings, fields = first.postings, first.fields
    if not whole:
        postings = Postings.merge([(live.segment.postings, live.alive) for live in parts])
        metadata = [passage.metadata for part, alive in passages for passage in part.live(alive)]
        fields = Fields.build(metadata, len(ids))
    arrays: Arrays = {
        "ids": ids.table.blob,
        "id_offsets": ids.table.offsets,
        "id_order": ids.order,
        "lines": live_offsets(passages),
        **{f"postings.{name}": array for name, array in postings.arrays().items()},
        **{f"fields.{name}": array for name, array in fields.arrays().items()},
    }
    if queries is not None:
        arrays["queries"] = queries[:MEASURED_QUERIES]
    artifacts.write_arrays(folder / ARRAYS, arrays)
    ann = None
    if approximate is not None:
        approximate.save(folder / ANN)
        ann = asdict(approximate.facts)
    artifacts.write_json(folder / FACTS, {"passages": len(ids), "ann": ann, "kept": kept})


def _ids(parts: Sequence[Live]) -> list[str]:
    found: list[str] = []
    for live in parts:
        count = len(live.segment)
        kept = np.arange(count) if live.alive is None else np.flatnonzero(live.alive)
        found += live.segment.ids.take(kept)
    return found


def _named(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
