"""Which candidates become negatives: the filters, and the ladder for pairs that find too few.

Pairs are gone through by blocks; within a block everything is arrays, pairs by candidates, and of a
pair's candidates only as many are looked at as it takes to find its negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retrieval_ft.mining.calibration import cosines
from retrieval_ft.mining.candidates import IdOrder, Ints, Judged, Walks, union
from retrieval_ft.mining.words import WordSets

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]

Rung = Literal["given", "window", "own_positive", "deeper", "random"]
RUNGS: tuple[Rung, ...] = ("given", "window", "own_positive", "deeper", "random")
"""Where a negative came from, in the order in which they are asked: passages that the labels judge
irrelevant; the window, measured by the lowest score of the query's positives; the window, measured
by the score of the pair's own positive; as many ranks beyond the window; random passages."""
REASONS = ("known_positive", "over_margin", "duplicate_of_positive")
"""Why a candidate was dropped: the labels call it relevant; it scores too close to the positive; its
words are those of a positive."""

GIVEN, WINDOW, OWN_POSITIVE, DEEPER, RANDOM = range(5)
_UNSEEN, _FINE, _KNOWN, _OVER, _DUPLICATE = -1, 0, 1, 2, 3
_FIRST_LOOK = 8
_TRIES = 1_024
"""Random passages looked at for a pair before it stays short."""


@dataclass(frozen=True, eq=False)
class Task:
    """What selection reads; rows are those of the queries and of the corpus.

    Attributes:
        query_vectors: float32 [q, d].
        passage_vectors: float32 [p, d].
        rankings: one a source, int64 [q, any] each.
        order: of the passages' ids.
        in_scope: bool [p], the passages that may be negatives.
        positives: of each query.
        given: passages of each query that the labels judge irrelevant.
        queries: int64 [n], the query of each pair.
        ceilings: float64 [n], by the lowest score of the query's positives.
        own_ceilings: float64 [n], by the score of the pair's own positive.
        words: of the passages.
        jaccard: share of common words that makes a duplicate.
        walks: random passages of each query.
        low: the window of each ranking is (low, high].
        high: last rank of the window.
        keep: negatives of a pair.
    """

    query_vectors: Floats
    passage_vectors: Floats
    rankings: Sequence[Ints]
    order: IdOrder
    in_scope: Mask
    positives: Judged
    given: Judged
    queries: Ints
    ceilings: npt.NDArray[np.float64]
    own_ceilings: npt.NDArray[np.float64]
    words: WordSets
    jaccard: float
    walks: Walks
    low: int
    high: int
    keep: int


@dataclass(frozen=True, eq=False)
class Kept:
    """Negatives in columns, by pair, then in the order in which they were taken.

    Attributes:
        pairs: int64 [n], positions of pairs.
        passages: int64 [n], rows.
        scores: float32 [n], cosines to the query.
        rungs: int8 [n], indices of `RUNGS`.
    """

    pairs: Ints
    passages: Ints
    scores: Floats
    rungs: Codes


@dataclass(frozen=True, eq=False)
class Dropped:
    """Candidates that were looked at and not taken, in columns, by pair, then as they were met.

    Attributes:
        pairs: int64 [n], positions of pairs.
        passages: int64 [n], rows.
        scores: float32 [n], cosines to the query.
        reasons: int8 [n], indices of `REASONS`.
    """

    pairs: Ints
    passages: Ints
    scores: Floats
    reasons: Codes


def select(task: Task, pairs: range) -> tuple[Kept, Dropped]:
    """Find the negatives of a block of pairs, down the ladder until each has `task.keep`.

    What stands behind a pair's last negative was not looked at and is not counted as dropped.
    """
    block = _Block(task, np.arange(pairs.start, pairs.stop))
    block.take_given()
    block.take_window()
    block.take_deeper()
    block.take_random()
    return block.result()


class _Block:
    """Pairs while they are filled: `rows` are positions in the block, always of pairs still short."""

    def __init__(self, task: Task, pairs: Ints) -> None:
        self.task, self.pairs, self.queries = task, pairs, task.queries[pairs]
        self.taken = np.zeros(len(pairs), np.int64)
        self.seen = np.zeros((len(pairs), 0), np.int64)
        self._kept: list[tuple[Any, ...]] = []
        self._dropped: list[tuple[Any, ...]] = []

    def take_given(self) -> None:
        """Judged negatives, hardest first; no margin applies to them."""
        passages, owners = self.task.given.of_each(self.queries)
        counts = np.bincount(owners, minlength=len(self.pairs))
        wide = np.full((len(self.pairs), int(counts.max(initial=0))), -1)
        wide[np.arange(wide.shape[1]) < counts[:, None]] = passages
        scores = cosines(self.task.query_vectors, self.task.passage_vectors, self.queries, wide)
        hardest = np.lexsort((self.task.order.places[wide], np.where(wide < 0, 2, -scores)))
        wide, scores = (np.take_along_axis(each, hardest, axis=1) for each in (wide, scores))
        reasons = np.where(wide < 0, _UNSEEN, _FINE).astype(np.int8)
        rows = np.arange(len(self.pairs))
        reasons[self._duplicates(rows, wide, reasons == _FINE)] = _DUPLICATE
        in_time = self._take(rows, wide, scores, reasons == _FINE, rung=GIVEN)
        self._drop(rows, wide, scores, np.where(in_time, reasons, _FINE))

    def take_window(self) -> None:
        """The window by the query's ceiling; where that leaves too few, again by the pair's own."""
        everyone = np.arange(len(self.pairs))
        passages = self.seen = self._ranked(everyone, low=self.task.low, high=self.task.high)
        scores, reasons = self._look(everyone, passages, self.task.ceilings)
        in_time = self._take(everyone, passages, scores, reasons == _FINE, rung=WINDOW)
        reasons[~in_time] = _UNSEEN
        rows = self._short()
        own = self.task.own_ceilings[self.pairs[rows], None]
        again = (reasons[rows] == _OVER) & (scores[rows] <= own)
        duplicates = self._duplicates(rows, passages[rows], again)
        fine = again & ~duplicates
        in_time = self._take(rows, passages[rows], scores[rows], fine, rung=OWN_POSITIVE)
        decided = np.where(duplicates, _DUPLICATE, _FINE)
        reasons[rows] = np.where(again & in_time, decided, reasons[rows])
        self._drop(everyone, passages, scores, reasons)

    def take_deeper(self) -> None:
        """As many ranks again, beyond the window."""
        rows = self._short()
        passages = self._ranked(rows, low=self.task.high, high=2 * self.task.high)
        passages[_among(passages, self.seen[rows])] = -1
        scores, reasons = self._look(rows, passages, self.task.own_ceilings)
        in_time = self._take(rows, passages, scores, reasons == _FINE, rung=DEEPER)
        self._drop(rows, passages, scores, np.where(in_time, reasons, _FINE))
        wide = np.full((len(self.pairs), passages.shape[1]), -1)
        wide[rows] = passages
        self.seen = np.concatenate((self.seen, wide), axis=1)

    def take_random(self) -> None:
        """Random passages that were not candidates before."""
        for first in range(0, min(_TRIES, len(self.task.walks.pool)), _FIRST_LOOK):
            rows = self._short()
            if not rows.size:
                return
            queries = self.queries[rows]
            passages = self.task.walks.passages(queries, first=first, last=first + _FIRST_LOOK)
            passages[
                _among(passages, self.seen[rows])
                | self.task.positives.holds(queries, passages)
                | self.task.given.holds(queries, passages)
            ] = -1
            scores, reasons = self._judge(rows, passages, self.task.own_ceilings)
            in_time = self._take(rows, passages, scores, reasons == _FINE, rung=RANDOM)
            self._drop(rows, passages, scores, np.where(in_time, reasons, _FINE))

    def result(self) -> tuple[Kept, Dropped]:
        """Everything that was taken and dropped, pair by pair."""
        rows, *kept = (np.concatenate(each) for each in zip(*self._kept, strict=True))
        order = np.argsort(rows, kind="stable")
        columns = [self.pairs[rows], *kept]
        lost, *dropped = (np.concatenate(each) for each in zip(*self._dropped, strict=True))
        lost_order = np.argsort(lost, kind="stable")
        lost_columns = [self.pairs[lost], *dropped]
        return (
            Kept(*(column[order] for column in columns)),
            Dropped(*(column[lost_order] for column in lost_columns)),
        )

    def _short(self) -> Ints:
        return np.flatnonzero(self.taken < self.task.keep)

    def _ranked(self, rows: Ints, *, low: int, high: int) -> Ints:
        """Ranked candidates of some pairs, int64 [rows, c], without judged negatives."""
        queries = self.queries[rows]
        rankings = [ranking[queries] for ranking in self.task.rankings]
        passages = union(rankings, low=low, high=high, order=self.task.order)
        out = ~self.task.in_scope[passages] | self.task.given.holds(queries, passages)
        passages[out] = -1
        return passages

    def _look(
        self, rows: Ints, passages: Ints, ceilings: npt.NDArray[np.float64]
    ) -> tuple[Floats, Codes]:
        """Judge candidates from the first on, each pair's until it has enough."""
        scores = np.zeros(passages.shape, np.float32)
        reasons = np.full(passages.shape, _UNSEEN, np.int8)
        fine = self.taken[rows]
        first, width = 0, _FIRST_LOOK
        while first < passages.shape[1]:
            short = np.flatnonzero(fine < self.task.keep)
            if not short.size:
                break
            part = slice(first, first + width)
            score, reason = self._judge(rows[short], passages[short, part], ceilings)
            scores[short, part], reasons[short, part] = score, reason
            fine[short] += (reason == _FINE).sum(axis=1)
            first, width = first + width, 2 * width
        return scores, reasons

    def _judge(
        self, rows: Ints, passages: Ints, ceilings: npt.NDArray[np.float64]
    ) -> tuple[Floats, Codes]:
        """Score candidates, int64 [rows, c], and say what speaks against each."""
        task, queries = self.task, self.queries[rows]
        scores = cosines(task.query_vectors, task.passage_vectors, queries, passages)
        reasons = np.where(passages < 0, _UNSEEN, _FINE).astype(np.int8)
        over = scores > ceilings[self.pairs[rows], None]
        reasons[over & (reasons == _FINE)] = _OVER
        reasons[task.positives.holds(queries, passages)] = _KNOWN
        reasons[self._duplicates(rows, passages, reasons == _FINE)] = _DUPLICATE
        return scores, reasons

    def _duplicates(self, rows: Ints, passages: Ints, asked: Mask) -> Mask:
        """Which of the candidates asked for have the words of one of their query's positives."""
        at, column = np.nonzero(asked)
        # Pairs of one query share candidates: each is compared once.
        stride = len(self.task.in_scope)
        keys = self.queries[rows[at]] * stride + passages[at, column]
        distinct, where = np.unique(keys, return_inverse=True)
        queries, candidates = np.divmod(distinct, stride)
        positives, owners = self.task.positives.of_each(queries)
        same = self.task.words.similar(candidates[owners], positives, jaccard=self.task.jaccard)
        found = np.zeros(asked.shape, np.bool_)
        found[at, column] = np.bincount(owners[same], minlength=len(distinct))[where] > 0
        return found

    def _take(self, rows: Ints, passages: Ints, scores: Floats, fine: Mask, *, rung: int) -> Mask:
        """Keep what is fine, in order, until a pair has enough; True for candidates before that."""
        before = self.taken[rows, None] + np.cumsum(fine, axis=1) - fine
        in_time = before < self.task.keep
        at, column = np.nonzero(fine & in_time)
        rungs = np.full(len(at), rung, np.int8)
        self._kept.append((rows[at], passages[at, column], scores[at, column], rungs))
        self.taken += np.bincount(rows[at], minlength=len(self.taken))
        return in_time

    def _drop(self, rows: Ints, passages: Ints, scores: Floats, reasons: Codes) -> None:
        at, column = np.nonzero(reasons > _FINE)
        codes = (reasons[at, column] - 1).astype(np.int8)
        self._dropped.append((rows[at], passages[at, column], scores[at, column], codes))


def _among(passages: Ints, seen: Ints) -> Mask:
    """Which passages, int64 [n, c], stand in their row of `seen`, int64 [n, s]."""
    return np.asarray((passages[:, :, None] == seen[:, None, :]).any(axis=2))
