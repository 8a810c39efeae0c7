"""Which pairs stand in which batch, decided before training from the seed alone.

The whole run is laid out first, so that a resumed run sees the same batches, and no two pairs of one
query ever meet in a batch (each would be the other's false negative but for the mask, and the second
adds nothing).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_ft.dataset import Pairs


@dataclass(frozen=True)
class Example:
    """One row of a batch, by id."""

    query_id: str
    positive_id: str
    negative_ids: tuple[str, ...]
    bare: bool = False
    """The query is encoded without its prompt."""


@dataclass(frozen=True)
class Plan:
    """Every batch of a training run, in order."""

    batches: tuple[tuple[Example, ...], ...]

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.batches)

    @property
    def sizes(self) -> list[int]:
        """Pairs of each batch."""
        return [len(batch) for batch in self.batches]


def plan_batches(
    pairs: Pairs,
    *,
    epochs: int,
    batch_size: int,
    negatives_per_query: int,
    seed: int,
    max_steps: int | None = None,
    prompt_dropout: float = 0.0,
    groups: Sequence[str] | None = None,
) -> Plan:
    """Lay out `epochs` passes over the pairs, or the first `max_steps` batches of them.

    A pair that has more mined negatives than `negatives_per_query` uses the next ones in each pass,
    so that all of them are seen in turn.

    Args:
        pairs: to train on.
        epochs: passes over them.
        batch_size: pairs of a batch at most; batches of a pass (or of a group) differ by one.
        negatives_per_query: mined negatives that a pair brings.
        seed: of every draw.
        max_steps: batches at most.
        prompt_dropout: share of examples whose query goes without its prompt.
        groups: of each pair, so that only pairs of one group meet; groups smaller than a batch are
            taken together. By default any pairs meet.
    """
    generator = np.random.default_rng(seed)
    kinds = _pooled(groups, batch_size) if groups is not None else [""] * len(pairs)
    batches: list[tuple[Example, ...]] = []
    for epoch in range(epochs):
        order = generator.permutation(len(pairs)).tolist()
        of_kind: dict[str, list[int]] = {}
        for row in order:
            of_kind.setdefault(kinds[row], []).append(row)
        drawn = [
            batch
            for rows in of_kind.values()
            for batch in _disjoint(rows, [pairs.items[r].query_id for r in rows], batch_size)
        ]
        if len(of_kind) > 1:
            drawn = [drawn[i] for i in generator.permutation(len(drawn)).tolist()]
        bare = generator.random(len(pairs)) < prompt_dropout
        for batch in drawn:
            batches.append(
                tuple(
                    _example(pairs, row, epoch, negatives_per_query, bare=bool(bare[row]))
                    for row in batch
                )
            )
    return Plan(tuple(batches[:max_steps]))


def _example(pairs: Pairs, row: int, epoch: int, count: int, *, bare: bool) -> Example:
    pair = pairs.items[row]
    ids = [negative.passage_id for negative in pair.negatives]
    start = epoch * count
    chosen = [ids[(start + i) % len(ids)] for i in range(min(count, len(ids)))]
    return Example(pair.query_id, pair.positive_id, tuple(chosen), bare)


def _pooled(groups: Sequence[str], batch_size: int) -> list[str]:
    """Groups too small for a batch of their own become one."""
    size = Counter(groups)
    return [group if size[group] >= batch_size else "" for group in groups]


def _disjoint(rows: Sequence[int], query_ids: Sequence[str], batch_size: int) -> list[list[int]]:
    """Deal rows into batches of even size that hold each query once.

    Rows of one query are dealt one after another, each to the next batch; a query with more rows
    than there are batches leaves the rest to batches of its own kind.
    """
    batches: list[list[int]] = []
    while rows:
        count = max(1, -(-len(rows) // batch_size))
        of_query: dict[str, list[int]] = {}
        for row, query_id in zip(rows, query_ids, strict=True):
            of_query.setdefault(query_id, []).append(row)
        now = [(row, query) for query, own in of_query.items() for row in own[:count]]
        later = [(row, query) for query, own in of_query.items() for row in own[count:]]
        batches += [[row for row, _ in now[start::count]] for start in range(count)]
        rows, query_ids = [row for row, _ in later], [query for _, query in later]
    return batches
