"""BM25 over segments, as compiled impacts: rank_bm25's numbers at a hundredth of its time.

What rank_bm25 computes for every query is computed once: a term's weight in each passage (its
impact) stands beside the posting, and a query adds up the lists of its words. Within one list the
passages are distinct, so `scores[passages] += impacts` is exact.

The statistics are those of the live passages of all segments, so that an index that was changed a
thousand times scores as one that was built anew, to the last bit. After a change only the postings
that queries touch are weighed; once that costs as much as weighing them all, all are.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.errors import DataError
from retrieval_ft.index import order
from retrieval_ft.index.postings import Postings
from retrieval_ft.index.strings import Ids, Joined, starts
from retrieval_ft.index.tokens import LexicalSpec

Mask = npt.NDArray[np.bool_]
"""Bool [n]: passages of a segment that may be found."""
_QUERIES, _POSTINGS = 128, 1 << 20
"""Queries that are searched together at most, and postings that they touch."""
_LIGHT = 6_000
"""Postings a query up to which it pays to sort those of many queries at once (measured)."""
_SPARSE = 24
"""A query that touches fewer than one in so many passages does without a score for each passage."""
_THREADS = min(4, os.cpu_count() or 1)
_BITS = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class LexicalPart:
    """A segment as BM25 sees it: its ids, its postings, and which passages live (None: all)."""

    ids: Ids
    postings: Postings
    alive: Mask | None = None

    @cached_property
    def holders(self) -> npt.NDArray[np.int64]:
        """How many live passages hold each term, int64 [terms]; kept for the next generation."""
        return self.postings.holders(self.alive)


class LexicalIndex:
    """BM25 over the live passages of some segments.

    A position counts through the segments, deleted passages included.

    Args:
        parts: the segments.
        spec: how texts were split and are weighed; queries are split the same way.
    """

    def __init__(self, parts: Sequence[LexicalPart], spec: LexicalSpec) -> None:
        self.parts = tuple(parts)
        self.spec = spec
        self.ids = Joined([part.ids for part in self.parts])
        """Passage ids by position."""
        live = [
            part.postings.lengths if part.alive is None else part.postings.lengths[part.alive]
            for part in self.parts
        ]
        self.total = sum(map(len, live))
        """Live passages."""
        tokens = sum(int(lengths.sum(dtype=np.int64)) for lengths in live)
        self.mean_length = tokens / self.total if self.total else 0.0
        """Terms of a live passage on average."""
        idf = _idf(self.parts, total=self.total, epsilon=spec.epsilon)
        self._weighed = [
            _Weighed(part, row, spec=spec, mean_length=self.mean_length)
            for part, row in zip(self.parts, idf, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(cls, ids: Sequence[str], texts: Sequence[str], *, spec: LexicalSpec) -> LexicalIndex:
        """Index texts in memory; empty ones are kept and never found.

        Raises:
            DataError: `ids` and `texts` differ in length.
            ConfigError: the spec's stemmer or stop words are unknown.
        """
        if len(ids) != len(texts):
            raise DataError(f"cannot index {len(texts)} texts under {len(ids)} ids; one id a text")
        return cls([LexicalPart(Ids.of(ids), Postings.build(texts, spec=spec))], spec)

    def score_texts(self, queries: Sequence[str], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Score text i for query i as if it were a passage; the statistics stay the corpus' own.

        Returns:
            float32 [n]; for a text that is a passage, what `scores` gives it.
        """
        spec, scores = self.spec, np.zeros(len(texts), np.float32)
        mean_length = self.mean_length or 1.0  # 0 where no passage has a word: all scores are 0
        rows = zip(spec.tokenize(queries), spec.tokenize(texts), strict=True)
        for row, (asked, terms) in enumerate(rows):
            frequency = Counter(terms)
            norm = spec.k1 * (1 - spec.b + spec.b * len(terms) / mean_length)
            scores[row] = sum(
                self._idf_of(term) * count * (spec.k1 + 1) / (count + norm)
                for term in asked
                if (count := frequency[term])
            )
        return scores

    def _idf_of(self, term: str) -> float:
        for part, weighed in zip(self.parts, self._weighed, strict=True):
            if (number := part.postings.terms.get(term)) is not None:
                return float(weighed.idf[number])
        return 0.0

    def frequency(self, term: str) -> int:
        """How many live passages hold a term."""
        numbers = ((part, part.postings.terms.get(term)) for part in self.parts)
        return sum(int(part.holders[number]) for part, number in numbers if number is not None)

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """Score every passage for a query, float32 [n]; a deleted one has 0.

        Equal to `rank_bm25.BM25Okapi.get_scores` on the same tokens: a term that stands twice in
        the query counts twice, and a score can be negative in a very small corpus.
        """
        terms = self.spec.tokenize([query])
        found = [weighed.scores(weighed.numbers(terms)[0]) for weighed in self._weighed]
        for part, scores in zip(self.parts, found, strict=True):
            if part.alive is not None:
                scores[~part.alive] = 0
        return np.concatenate([np.zeros(0, np.float32), *found])

    def search(
        self, queries: Sequence[str], *, k: int, allowed: Sequence[Mask | None] | None = None
    ) -> list[order.Found]:
        """Return for each query the positions (int64) and scores (float32) of its best passages.

        Sorted by score, then by id. Only scores above 0 are hits, so there may be fewer than `k`,
        and none for a query of unknown words.

        Args:
            queries: their texts.
            k: how many to return at most.
            allowed: the passages of each segment that may be found, live ones only; None for all
                live ones.

        Raises:
            ConfigError: `k` is below 1.
        """
        order.check_k(k)
        terms = self.spec.tokenize(queries)
        masks = allowed or [part.alive for part in self.parts]
        found = [
            weighed.search(weighed.numbers(terms), k=k, allowed=mask)
            for weighed, mask in zip(self._weighed, masks, strict=True)
        ]
        return order.merge(found, ids=self.ids, queries=len(queries), k=k)


class _Weighed:
    """The postings of one segment under the statistics of the whole index."""

    def __init__(
        self, part: LexicalPart, idf: npt.NDArray[np.float64], *, spec: LexicalSpec,
        mean_length: float,
    ) -> None:  # fmt: skip
        self.idf = idf
        self._ids, self._postings = part.ids, part.postings
        self._spec, self._mean_length = spec, mean_length
        self._compiled: npt.NDArray[np.float32] | None = None
        self._weighed = 0

    def numbers(self, queries: Sequence[Sequence[str]]) -> list[list[int]]:
        """The numbers of the known terms of each query."""
        get = self._postings.terms.get
        return [[n for term in terms if (n := get(term)) is not None] for terms in queries]

    @cached_property
    def _norm(self) -> npt.NDArray[np.float64]:
        """BM25's k1 (1 - b + b |d| / mean |d|) of each passage."""
        k1, b, mean_length = self._spec.k1, self._spec.b, self._mean_length or 1.0
        lengths = self._postings.lengths.astype(np.float64)
        norm: npt.NDArray[np.float64] = k1 * (1 - b + b * lengths / mean_length)
        return norm

    def compile(self) -> npt.NDArray[np.float32]:
        """Weigh every posting, if that was not done; float32 [postings]."""
        if self._compiled is None:
            idf = np.repeat(self.idf, np.diff(self._postings.indptr))
            postings = self._postings
            self._compiled = self._weigh(postings.frequencies, postings.passages, idf)
        return self._compiled

    def _weigh(
        self, frequency: npt.NDArray[Any], passages: npt.NDArray[np.int32], idf: Any
    ) -> npt.NDArray[np.float32]:
        """BM25's idf x tf (k1 + 1) / (tf + norm) of some postings."""
        norm = self._norm[passages]
        counts = frequency.astype(np.float64)
        impacts: npt.NDArray[np.float64] = idf * (counts * (self._spec.k1 + 1) / (counts + norm))
        return impacts.astype(np.float32)

    def _ready(self, postings: int) -> bool:
        """Whether all are weighed; they are, once so many were weighed one query after another."""
        if self._compiled is None:
            self._weighed += postings
            if self._weighed > len(self._postings.passages):
                self.compile()
        return self._compiled is not None

    def _list(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Passages and impacts of a term."""
        at = slice(self._postings.indptr[number], self._postings.indptr[number + 1])
        passages = self._postings.passages[at]
        if self._ready(len(passages)):
            return passages, self.compile()[at]
        return passages, self._weigh(self._postings.frequencies[at], passages, self.idf[number])

    def scores(self, terms: Sequence[int]) -> npt.NDArray[np.float32]:
        """The score of every passage."""
        scores = np.zeros(len(self._postings))
        for number in terms:
            passages, impacts = self._list(number)
            scores[passages] += impacts
        return scores.astype(np.float32)

    def search(
        self, asked: Sequence[list[int]], *, k: int, allowed: Mask | None
    ) -> list[order.Found]:
        """The best of the segment for each query, under positions of the segment."""
        blocks = [asked[first:last] for first, last in pairwise(self._blocks(asked))]
        if len(blocks) == 1:
            return self._block(blocks[0], k=k, allowed=allowed)
        with ThreadPoolExecutor(_THREADS) as pool:  # most of the work is outside Python
            found = pool.map(lambda block: self._block(block, k=k, allowed=allowed), blocks)
            return list(chain.from_iterable(found))

    def _blocks(self, asked: Sequence[list[int]]) -> list[int]:
        """Where blocks of queries that are searched together begin, by the postings they touch."""
        indptr, flat = self._postings.indptr, _flat(asked)
        touched = starts(indptr[flat + 1] - indptr[flat])[starts(_lengths(asked))]
        most, bounds = min(_QUERIES, 1 << (33 - self._rank_bits)), [0]
        while (first := bounds[-1]) < len(asked):
            last = int(np.searchsorted(touched, touched[first] + _POSTINGS, side="right")) - 1
            bounds.append(min(max(last, first + 1), first + most, len(asked)))
        return bounds

    def _block(
        self, asked: Sequence[list[int]], *, k: int, allowed: Mask | None
    ) -> list[order.Found]:
        if len(asked) > 1 and self._touched(asked) <= _LIGHT * len(asked):
            return self._many(asked, k=k, allowed=allowed)
        found = []
        for positions, scores in map(self._one, asked):
            hits = scores > 0 if allowed is None else (scores > 0) & allowed[positions]
            best = order.best(positions[hits], scores[hits], ranks=self._ids.ranks, k=k)
            found.append(best)
        return found

    def _touched(self, asked: Sequence[list[int]]) -> int:
        """Postings of the terms of some queries."""
        indptr, flat = self._postings.indptr, _flat(asked)
        return int((indptr[flat + 1] - indptr[flat]).sum())

    def _one(self, terms: list[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Passages that a query touches and what they score."""
        if self._touched([terms]) * _SPARSE > len(self._postings):
            scores = self.scores(terms)
            positions = np.flatnonzero(scores != 0)  # twice as fast as of floats
            return positions, scores[positions]
        rows = [self._list(number) for number in terms]
        passages = np.concatenate([np.zeros(0, np.int32), *(row[0] for row in rows)])
        impacts = np.concatenate([np.zeros(0, np.float32), *(row[1] for row in rows)])
        distinct, place = np.unique(passages, return_inverse=True)
        sums = np.bincount(place, weights=impacts, minlength=len(distinct))
        return distinct.astype(np.int64), sums.astype(np.float32)

    @property
    def _rank_bits(self) -> int:
        return len(self._ids).bit_length()

    def _lists(
        self, terms: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Impacts and passages of some terms, and where each list begins."""
        store = self._postings
        held = store.indptr[terms + 1] - store.indptr[terms]
        begins = starts(held)
        at = np.repeat(store.indptr[terms] - begins[:-1], held) + np.arange(begins[-1])
        passages = store.passages[at]
        if self._ready(len(at)):
            return self.compile()[at], passages, begins
        idf = np.repeat(self.idf[terms], held)
        return self._weigh(store.frequencies[at], passages, idf), passages, begins

    def _many(
        self, asked: Sequence[list[int]], *, k: int, allowed: Mask | None
    ) -> list[order.Found]:
        """Search a block: one product of sparse matrices adds up, one sort puts in order."""
        from scipy.sparse import csr_array

        terms, entries = np.unique(_flat(asked), return_inverse=True)
        impacts, passages, begins = self._lists(terms)
        lists = csr_array(
            (impacts.astype(np.float64), passages, begins), shape=(len(terms), len(self._ids))
        )
        # A row is added up in the order of the query's words, in float64, as `scores` does.
        words = csr_array(
            (np.ones(len(entries)), entries, starts(_lengths(asked))),
            shape=(len(asked), len(terms)),
        )
        sums = words @ lists
        counts, scores, places = np.diff(sums.indptr), sums.data.astype(np.float32), sums.indices
        # Scores below 0 are only where half of a tiny corpus holds a term.
        if allowed is not None or scores.min(initial=1.0) <= 0:
            hits = scores > 0 if allowed is None else (scores > 0) & allowed[places]
            counts = np.bincount(
                np.repeat(np.arange(len(asked)), counts)[hits], minlength=len(asked)
            )
            scores, places = scores[hits], places[hits]
        # One number for (query, score downwards, rank of the id): a float above 0 sorts as its bits.
        keys = (_BITS - scores.view(np.int32)).astype(np.int64)
        keys <<= self._rank_bits
        keys |= self._ids.ranks[places]
        keys |= np.repeat(np.arange(len(asked)) << 31 + self._rank_bits, counts)
        keys.sort()
        firsts, lengths = np.cumsum(counts) - counts, np.minimum(counts, k)
        ends = np.cumsum(lengths)
        best = keys[np.repeat(firsts - (ends - lengths), lengths) + np.arange(ends[-1])]
        positions = self._ids.order[best & ((1 << self._rank_bits) - 1)].astype(np.int64)
        found = (_BITS - (best >> self._rank_bits & _BITS)).astype(np.int32).view(np.float32)
        return list(zip(np.split(positions, ends[:-1]), np.split(found, ends[:-1]), strict=True))


def _lengths(rows: Sequence[Sequence[Any]]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(len, rows), np.int64, len(rows))


def _flat(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(rows), np.int64)


def _idf(
    parts: Sequence[LexicalPart], *, total: int, epsilon: float
) -> list[npt.NDArray[np.float64]]:
    """BM25Okapi's idf of the terms of each segment, float64 [terms], by the live passages of all.

    ln((N - n + .5) / (n + .5)); where that is negative, `epsilon` x the mean over all live terms.
    """
    numbers, count = _shared_numbers(parts)
    holders = np.zeros(count, np.int64)
    for part, place in zip(parts, numbers, strict=True):
        holders[place] += part.holders
    # By distinct count: few logarithms, and a mean that does not depend on the order of the terms.
    distinct, place, terms = np.unique(holders, return_inverse=True, return_counts=True)
    idf: npt.NDArray[np.float64] = np.log(total - distinct + 0.5) - np.log(distinct + 0.5)
    live = distinct > 0
    if live.any():
        mean = math.fsum((idf * terms)[live].tolist()) / int(terms[live].sum())
        idf[(idf < 0) & live] = epsilon * mean
    idf[~live] = 0
    by_number = idf[place]
    return [by_number[row] for row in numbers]


def _shared_numbers(parts: Sequence[LexicalPart]) -> tuple[list[Any], int]:
    """One number for each term of all segments: int64 [terms] by segment, and how many there are."""
    if not parts:
        return [], 0
    base = max(range(len(parts)), key=lambda i: len(parts[i].postings.terms))
    first, more, numbers = parts[base].postings.terms, dict[str, int](), list[Any]()
    for i, part in enumerate(parts):
        if i == base:
            numbers.append(slice(None))  # the base keeps its own
            continue
        names = part.postings.terms.table.tolist()
        found = first.numbers(names)
        for place in np.flatnonzero(found < 0).tolist():
            found[place] = more.setdefault(names[place], len(first) + len(more))
        numbers.append(found)
    numbers[base] = np.arange(len(first))
    return numbers, len(first) + len(more)
