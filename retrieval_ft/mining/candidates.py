"""What may become a negative of a query, in order: ranked passages, judged ones, random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

RRF_K = 60  # Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion", SIGIR 2009
_BITS = 36
"""Of what a ranking adds to a passage's strength, in units of 2^-40; three times 1 / 61 fit."""
_LAST = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class IdOrder:
    """Passages by their ids, to settle ties.

    Attributes:
        places: int64 [p + 1], the place of each row's id; the last entry, that of row -1, is p.
        rows: int64 [p + 1], the row at each place; the last entry, that of place p, is -1.
    """

    places: Ints
    rows: Ints

    @classmethod
    def of(cls, ids: Sequence[str]) -> IdOrder:
        """Sort ids."""
        rows = np.array([*sorted(range(len(ids)), key=ids.__getitem__), -1], np.int64)
        places = np.empty(len(rows), np.int64)
        places[rows] = np.arange(len(rows))
        return cls(places, rows)


def union(rankings: Sequence[Ints], *, low: int, high: int, order: IdOrder) -> Ints:
    """Unite the window (low, high] of some rankings, by reciprocal rank sum, then by id.

    The strength of a passage is the sum of 1 / (60 + rank) over the rankings whose window holds it,
    to within 2^-31; sums of two ranks up to 100 that differ do so by more.

    Args:
        rankings: one to three, each with rows of passages, int64 [n, any], best first, -1 at the
            end, a passage once in a row.
        low: ranks that are passed over.
        high: the last rank that counts.
        order: of the passages' ids.

    Returns:
        Rows of passages, int64 [n, widths of the windows together], -1 at the end.
    """
    windows = [ranking[:, low:high] for ranking in rankings]
    ranks = np.concatenate([low + 1 + np.arange(window.shape[1]) for window in windows])
    added = np.rint(2.0**40 / (RRF_K + ranks)).astype(np.int64)
    # One number for (place, added): the same passage from two rankings comes to stand together.
    keys = order.places[np.concatenate(windows, axis=1)] << _BITS | added
    keys.sort(axis=1)
    places, strength = keys >> _BITS, keys & ((1 << _BITS) - 1)
    total = strength.copy()
    for shift in range(1, len(windows)):
        same = places[:, shift:] == places[:, :-shift]
        total[:, :-shift] += np.where(same, strength[:, shift:], 0)
    left_out = places == len(order.places) - 1
    left_out[:, 1:] |= places[:, 1:] == places[:, :-1]
    # One number for (strength, place), the strongest first.
    keys = (-((total + 256) >> 9)) << _BITS | places
    keys[left_out] = _LAST
    keys.sort(axis=1)
    places = np.where(keys == _LAST, len(order.places) - 1, keys & ((1 << _BITS) - 1))
    rows: Ints = order.rows[places]
    return rows


@dataclass(frozen=True, eq=False)
class Judged:
    """Passages of each query that the labels put into one class.

    Attributes:
        starts: int64 [q + 1]; those of query i are `rows[starts[i] : starts[i + 1]]`.
        rows: int64 [n], rows of passages.
        keys: int64 [n], ascending: query x `stride` + row.
        stride: more than any row.
    """

    starts: Ints
    rows: Ints
    keys: Ints
    stride: int

    @classmethod
    def of(cls, judged: Ints, *, shape: tuple[int, int]) -> Judged:
        """Lay out rows of (query, passage), int64 [n, 2], of so many queries and passages."""
        queries, passages = shape
        keys = np.unique(judged[:, 0] * passages + judged[:, 1])
        owners, rows = np.divmod(keys, max(1, passages))
        counts = np.bincount(owners, minlength=queries)
        return cls(np.concatenate(([0], np.cumsum(counts))), rows, keys, passages)

    def holds(self, queries: Ints, passages: Ints) -> npt.NDArray[np.bool_]:
        """Whether passages, int64 [n, c], are among those of their queries, int64 [n]."""
        if not len(self.keys):
            return np.zeros(passages.shape, np.bool_)
        asked = queries[:, None] * self.stride + passages
        places = np.minimum(np.searchsorted(self.keys, asked), len(self.keys) - 1)
        return np.asarray((self.keys[places] == asked) & (passages >= 0))

    def of_each(self, queries: Ints) -> tuple[Ints, Ints]:
        """All passages of some queries, and beside each the position of its query in `queries`."""
        counts = self.starts[queries + 1] - self.starts[queries]
        owners = np.repeat(np.arange(len(queries)), counts)
        offsets = self.starts[queries] - (np.cumsum(counts) - counts)
        return self.rows[np.arange(len(owners)) + offsets[owners]], owners


@dataclass(frozen=True, eq=False)
class Walks:
    """A seeded order of all passages for each query, of which any stretch is computed at once.

    Place i of a query's walk is passage (start + i x step) modulo their number; step and number
    have no common divisor, so a walk meets every passage once.

    Attributes:
        pool: int64 [n], the rows that may be met.
        start: int64 [q].
        step: int64 [q].
    """

    pool: Ints
    start: Ints
    step: Ints

    @classmethod
    def of(cls, pool: Ints, *, queries: int, seed: int) -> Walks:
        """Draw a walk for each query."""
        generator = np.random.default_rng(seed)
        start = generator.integers(max(1, len(pool)), size=queries)
        step = generator.integers(max(1, len(pool)), size=queries)
        while (bad := np.gcd(step, len(pool)) != 1).any() and len(pool):
            step[bad] += 1
        return cls(pool, start, step)

    def passages(self, queries: Ints, *, first: int, last: int) -> Ints:
        """Places [first, last) of the walks of some queries, int64 [n, at most last - first]."""
        at = np.arange(first, min(last, len(self.pool)))
        places = self.start[queries, None] + at * self.step[queries, None]
        rows: Ints = self.pool[places % max(1, len(self.pool))]
        return rows
