"""A batch as its distinct texts, and a matrix of who may be whose negative.

In a small corpus a batch is full of passages that are relevant to more than one of its queries, and
the same passage stands in it several times: each distinct text is encoded once, and a known positive
is no negative, whichever row it came with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retrieval_ft.dataset import Pairs, Qrels
from retrieval_ft.encoder.batching import pad, token_batches
from retrieval_ft.training.plan import Example

Column = tuple[str, str]
"""A passage as one query sees it: (query id, passage id), or ("", passage id) as it stands."""
TokenLists = Mapping[str, npt.NDArray[np.int32]]
Teacher = Callable[[Sequence[str], Sequence[Column]], npt.NDArray[np.float32]]
"""Scores of queries (by id) and columns, float32 [queries, columns], NaN where it has none."""


@dataclass(frozen=True)
class Collator:
    """Turns planned examples into the tensors of a batch: distinct texts, targets and the mask.

    The texts of a batch are cut into micro-batches of similar length, `token_budget` tokens each.
    A positive that has a view for its query (`Dataset.views`) is encoded as that view; to every
    other query a view is its passage.
    """

    query_tokens: TokenLists
    passage_tokens: TokenLists
    qrels: Qrels
    pad_id: int
    token_budget: int
    view_tokens: Mapping[Column, npt.NDArray[np.int32]] = field(default_factory=dict)
    """(query id, passage id) -> tokens of what is encoded in place of the passage."""
    bare_query_tokens: TokenLists = field(default_factory=dict)
    """Tokens of each query without its prompt, for examples that drop it."""
    cluster_of: Mapping[str, int] = field(default_factory=dict)
    """Cluster of passages that are nearly equal to another; all of one are relevant if one is."""
    frozen: Callable[[Sequence[Column]], npt.NDArray[np.float32]] | None = None
    """Vectors of passages that are not trained, float32 [columns, d]; no passage is encoded then."""
    teacher: Teacher | None = None

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Collate examples; see `BatchLoss.forward` for the keys."""
        asked = [(example.query_id, example.bare) for example in examples]
        row_of = {query: row for row, query in enumerate(dict.fromkeys(asked))}
        columns: dict[Column, int] = {}
        for example in examples:
            for column in (self._positive(example), *(("", p) for p in example.negative_ids)):
                columns.setdefault(column, len(columns))
        target = np.array([columns[self._positive(example)] for example in examples])
        rows = [(self.bare_query_tokens if bare else self.query_tokens)[q] for q, bare in row_of]
        if self.frozen is None:
            rows += [self.view_tokens[c] if c[0] else self.passage_tokens[c[1]] for c in columns]
        groups = token_batches(np.array([len(row) for row in rows]), budget=self.token_budget)
        batch = {
            "micro_batches": [
                pad([rows[i] for i in group], pad_id=self.pad_id) for group in groups
            ],
            "place": torch.from_numpy(np.argsort(np.concatenate(groups), kind="stable")),
            "query_rows": torch.tensor([row_of[query] for query in asked]),
            "passages": len(columns),
            "target": torch.from_numpy(target),
            "masked": torch.from_numpy(self._masked(examples, list(columns), target)),
        }
        if self.frozen is not None:
            batch["frozen"] = torch.from_numpy(self.frozen(list(columns)))
        if self.teacher is not None:
            scores = self.teacher([example.query_id for example in examples], list(columns))
            batch["teacher"] = torch.from_numpy(scores)
        return batch

    def _masked(
        self, examples: Sequence[Example], columns: Sequence[Column], target: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Bool [examples, columns]: a known positive of the query, or nearly equal to one."""
        places: dict[str | int, list[int]] = {}
        for place, (_, passage_id) in enumerate(columns):
            for key in self._names(passage_id):
                places.setdefault(key, []).append(place)
        masked = np.zeros((len(examples), len(columns)), np.bool_)
        for row, example in enumerate(examples):
            for passage_id in self.qrels.relevant(example.query_id) | {example.positive_id}:
                for key in self._names(passage_id):
                    masked[row, places.get(key, [])] = True
            masked[row, target[row]] = False
        return masked

    def _names(self, passage_id: str) -> tuple[str | int, ...]:
        cluster = self.cluster_of.get(passage_id)
        return (passage_id,) if cluster is None else (passage_id, cluster)

    def _positive(self, example: Example) -> Column:
        column = (example.query_id, example.positive_id)
        return column if column in self.view_tokens else ("", example.positive_id)


class PairTeacher:
    """The scores that a cross-encoder gave to mined pairs: a query's positives and negatives."""

    def __init__(self, pairs: Pairs) -> None:
        self._rows: dict[str, dict[str, float]] = {}
        for pair in pairs.items:
            row = self._rows.setdefault(pair.query_id, {})
            scores = [(pair.positive_id, pair.positive_teacher)]
            scores += [(negative.passage_id, negative.teacher) for negative in pair.negatives]
            row.update({passage: score for passage, score in scores if score is not None})

    def __len__(self) -> int:
        """Queries with two scores or more: those there is something to learn from."""
        return sum(len(row) > 1 for row in self._rows.values())

    def __call__(
        self, query_ids: Sequence[str], columns: Sequence[Column]
    ) -> npt.NDArray[np.float32]:
        """Scores, float32 [queries, columns], NaN where the cross-encoder was not asked."""
        rows = [self._rows.get(query_id, {}) for query_id in query_ids]
        return np.array(
            [[row.get(passage_id, np.nan) for _, passage_id in columns] for row in rows], np.float32
        )
