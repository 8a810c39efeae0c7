"""The frozen, id-keyed values that every room speaks: Corpus, Queries, Qrels, Pairs, Ranking.

A text is never identified by its position: positions exist only inside one object, through
`index_of`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def whole_passage(title: str, text: str) -> str:
    """What is encoded and indexed: title and text joined by a space, as BEIR does."""
    return f"{title} {text}".strip()


@dataclass(frozen=True)
class Corpus:
    """Passages in columns: `ids`, `titles` and `texts` have one length and one order.

    `metadata` has the same, or is empty where no passage has any. Its keys are the user's, but for
    `document` (id of the document that a passage was cut from), `headings` (those above it) and
    `span` (its start and end in the document's text, in characters).
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    titles: tuple[str, ...]
    metadata: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _check_metadata(self.metadata, rows=len(self.ids))
        if not len(self.ids) == len(self.texts) == len(self.titles):
            raise ValueError(
                f"corpus columns differ in length: {len(self.ids)} ids, {len(self.texts)} texts, "
                f"{len(self.titles)} titles"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index_of(self) -> Mapping[str, int]:
        """Position of each passage id in this object."""
        return {passage_id: i for i, passage_id in enumerate(self.ids)}

    def select(self, ids: Iterable[str]) -> Corpus:
        """Return the named passages, in this object's order."""
        rows = sorted(self.index_of[passage_id] for passage_id in set(ids))
        return Corpus(
            tuple(self.ids[row] for row in rows),
            tuple(self.texts[row] for row in rows),
            tuple(self.titles[row] for row in rows),
            tuple(self.metadata[row] for row in rows) if self.metadata else (),
        )

    def metadata_of(self, passage_id: str) -> Mapping[str, Any]:
        """Metadata of one passage; empty where it has none."""
        return self.metadata[self.index_of[passage_id]] if self.metadata else {}

    def document_of(self, passage_id: str) -> str:
        """Id of the document that a passage was cut from: its own where it is a whole one."""
        return str(self.metadata_of(passage_id).get("document", passage_id))

    @cached_property
    def passages(self) -> tuple[str, ...]:
        """What is encoded and indexed of each: see `whole_passage`."""
        return tuple(map(whole_passage, self.titles, self.texts))


@dataclass(frozen=True)
class Queries:
    """Queries in columns: `ids` and `texts` have one length and one order.

    `metadata` has the same, or is empty where no query has any. Its keys are the user's, but for
    `origin` (how a query was generated; absent from one that a person asked), `time` and `last_time`
    (ISO 8601, of the first and the last time it was asked).
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    metadata: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _check_metadata(self.metadata, rows=len(self.ids))
        if len(self.ids) != len(self.texts):
            raise ValueError(
                f"query columns differ in length: {len(self.ids)} ids, {len(self.texts)} texts"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def text_of(self) -> Mapping[str, str]:
        """Text of each query id."""
        return dict(zip(self.ids, self.texts, strict=True))

    def select(self, ids: Iterable[str]) -> Queries:
        """Return the named queries, in the order of `ids`."""
        chosen = tuple(ids)
        return Queries(
            chosen,
            tuple(self.text_of[query_id] for query_id in chosen),
            tuple(self.metadata_of(query_id) for query_id in chosen) if self.metadata else (),
        )

    @cached_property
    def index_of(self) -> Mapping[str, int]:
        """Position of each query id in this object."""
        return {query_id: i for i, query_id in enumerate(self.ids)}

    def metadata_of(self, query_id: str) -> Mapping[str, Any]:
        """Metadata of one query; empty where it has none."""
        return self.metadata[self.index_of[query_id]] if self.metadata else {}


@dataclass(frozen=True)
class Qrels:
    """Judgements: query id -> passage id -> grade (an integer; above 0 is relevant)."""

    grades: Mapping[str, Mapping[str, int]]

    def __len__(self) -> int:
        return len(self.grades)

    @cached_property
    def query_ids(self) -> tuple[str, ...]:
        """The judged queries, sorted."""
        return tuple(sorted(self.grades))

    def relevant(self, query_id: str) -> frozenset[str]:
        """Ids of the passages with a grade above 0 for a query; empty for an unknown query."""
        return frozenset(p for p, grade in self.grades.get(query_id, {}).items() if grade > 0)

    @property
    def pair_count(self) -> int:
        """Number of (query, relevant passage) pairs."""
        return sum(grade > 0 for row in self.grades.values() for grade in row.values())


@dataclass(frozen=True)
class Dataset:
    """A corpus with queries and judgements by split. `name` is for messages and reports."""

    name: str
    corpus: Corpus
    queries: Queries
    qrels: Mapping[Split, Qrels]
    views: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Query id -> passage id -> the text that training sees in place of the passage. A query taken
    from a passage has one: the passage without the query's words, or finding it teaches nothing."""

    def queries_of(self, split: Split) -> Queries:
        """The queries that a split judges, sorted by id."""
        return self.queries.select(self.qrels[split].query_ids)


@dataclass(frozen=True)
class Negative:
    """A mined negative: where it came from and what each side thought of it."""

    passage_id: str
    score: float
    """Cosine of query and passage under the base model, in [-1, 1]."""
    dense_rank: int | None
    """Rank from 1 in the dense candidates; None where BM25 alone proposed it."""
    bm25_rank: int | None
    teacher: float | None = None
    """Raw score (logit) of query and passage by the cross-encoder; None where none was asked."""


@dataclass(frozen=True)
class Pair:
    """One training example: a query, one of its positives, and mined negatives (hardest first)."""

    query_id: str
    positive_id: str
    positive_score: float
    """Cosine of query and positive under the base model, in [-1, 1]."""
    negatives: tuple[Negative, ...] = ()
    positive_teacher: float | None = None
    """Raw score (logit) of query and positive by the cross-encoder; None where none was asked."""


@dataclass(frozen=True)
class Pairs:
    """Training examples in a fixed order, with the account of what mining dropped, by reason."""

    items: tuple[Pair, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Ranking:
    """Search results: for each query, passage ids and float32 scores, best first.

    Sorted by score, then by id, so that ties have one order. A query may have fewer hits than were
    asked for, and none at all.
    """

    hits: Mapping[str, tuple[tuple[str, ...], npt.NDArray[np.float32]]]

    def __len__(self) -> int:
        return len(self.hits)

    def ids(self, query_id: str) -> tuple[str, ...]:
        """Ranked passage ids of a query; empty where the query is absent."""
        return self.hits[query_id][0] if query_id in self.hits else ()

    def scores(self, query_id: str) -> npt.NDArray[np.float32]:
        """Scores beside `ids`, float32 [hits]."""
        if query_id in self.hits:
            return self.hits[query_id][1]
        return np.zeros(0, np.float32)


def _check_metadata(metadata: tuple[Mapping[str, Any], ...], *, rows: int) -> None:
    if metadata and len(metadata) != rows:
        raise ValueError(f"{len(metadata)} rows of metadata for {rows} ids")
