"""Which pairs stand in which batch, decided before training from the seed alone.

The whole run is laid out first, so that a resumed run sees the same batches, and no two pairs of one
query ever meet in a batch (each would be the other's false negative but for the mask, and the second
adds nothing).
"""

from __future__ import annotations

from collections import deque
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


@dataclass(frozen=True)
class Plan:
    """Every batch of a training run, in order."""

    batches: tuple[tuple[Example, ...], ...]

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.batches)


def plan_batches(
    pairs: Pairs,
    *,
    epochs: int,
    batch_size: int,
    negatives_per_query: int,
    seed: int,
    max_steps: int | None = None,
) -> Plan:
    """Lay out `epochs` passes over the pairs, or the first `max_steps` batches of them.

    Batches of a pass differ in size by one at most, but for small ones at its end where a query with
    many pairs is left over. A pair that has more mined negatives than `negatives_per_query` uses the
    next ones in each pass, so that all of them are seen in turn.
    """
    generator = np.random.default_rng(seed)
    batches: list[tuple[Example, ...]] = []
    for epoch in range(epochs):
        order = generator.permutation(len(pairs)).tolist()
        query_ids = [pairs.items[i].query_id for i in order]
        for rows in _disjoint(query_ids, batch_size=batch_size):
            batches.append(
                tuple(_example(pairs, order[row], epoch, negatives_per_query) for row in rows)
            )
    return Plan(tuple(batches[:max_steps]))


def _example(pairs: Pairs, row: int, epoch: int, count: int) -> Example:
    pair = pairs.items[row]
    ids = [negative.passage_id for negative in pair.negatives]
    start = epoch * count
    chosen = [ids[(start + i) % len(ids)] for i in range(min(count, len(ids)))]
    return Example(pair.query_id, pair.positive_id, tuple(chosen))


def _disjoint(query_ids: Sequence[str], *, batch_size: int) -> list[list[int]]:
    """Cut rows into batches of even size that hold each query once; late rows may make more."""
    count = max(1, -(-len(query_ids) // batch_size))
    sizes = [len(query_ids) * (i + 1) // count - len(query_ids) * i // count for i in range(count)]
    waiting = deque(range(len(query_ids)))
    batches: list[list[int]] = []
    while waiting:
        size = sizes[len(batches)] if len(batches) < count else batch_size
        batch: list[int] = []
        taken: set[str] = set()
        deferred: list[int] = []
        while waiting and len(batch) < size:
            row = waiting.popleft()
            if query_ids[row] in taken:
                deferred.append(row)
                continue
            taken.add(query_ids[row])
            batch.append(row)
        waiting.extendleft(reversed(deferred))
        batches.append(batch)
    return batches
