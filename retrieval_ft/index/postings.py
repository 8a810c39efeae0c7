"""The BM25 side of a segment: which passages hold a term, and how often.

What a term weighs depends on every passage of the index, so a segment keeps counts alone; weights
are made from them for the passages that are live when the index is opened (`lexical.py`). Merging
segments gives, byte for byte, what building from the texts of their live passages would give.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.index.strings import Arrays, Strings, Terms, starts
from retrieval_ft.index.tokens import LexicalSpec

_TEXTS = 50_000
"""Texts that are split into words at a time: the words of a million would take gigabytes."""
_COUNTS = (np.uint8, np.uint16, np.uint32)


@dataclass(frozen=True, eq=False)
class Postings:
    """Posting lists of a segment (a CSC matrix of counts, passages x terms).

    Attributes:
        terms: the terms, sorted; a term's number is its place.
        indptr: int64 [terms + 1]; list t is `[indptr[t], indptr[t + 1])` of the next two.
        passages: int32 [postings], positions in the segment, ascending within a list.
        frequencies: unsigned [postings], how often the passage has the term, in as few bytes as do.
        lengths: int32 [n], terms of each passage.
    """

    terms: Terms
    indptr: npt.NDArray[np.int64]
    passages: npt.NDArray[np.int32]
    frequencies: npt.NDArray[Any]
    lengths: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def build(cls, texts: Sequence[str], *, spec: LexicalSpec) -> Postings:
        """Count the terms of texts; one without a word is there, and in no list.

        Raises:
            ConfigError: the spec's stemmer or stop words are unknown.
        """
        blocks = [_block(texts[at : at + _TEXTS], spec) for at in range(0, len(texts), _TEXTS)]
        if len(blocks) == 1:
            return blocks[0]
        return cls.merge([(block, None) for block in blocks])

    @classmethod
    def merge(cls, parts: Sequence[tuple[Postings, npt.NDArray[np.bool_] | None]]) -> Postings:
        """Put the live passages (bool [n]; None for all) of segments one behind the other."""
        live = [(part, part.holders(alive), alive) for part, alive in parts]
        held: list[list[str]] = []
        for part, holders, _ in live:
            names = part.terms.table.tolist()
            held.append(list(itertools.compress(names, (holders > 0).tolist())))
        vocabulary = sorted(set(itertools.chain.from_iterable(held)))
        number = {term: i for i, term in enumerate(vocabulary)}
        places = [np.fromiter(map(number.__getitem__, row), np.int64, len(row)) for row in held]
        totals = np.zeros(len(vocabulary), np.int64)
        for (_, holders, _), place in zip(live, places, strict=True):
            totals[place] += holders[holders > 0]
        indptr = starts(totals)
        passages = np.empty(indptr[-1], np.int32)
        frequencies = np.empty(indptr[-1], _narrowest([p.frequencies for p, _, _ in live]))
        free, base = indptr[:-1].copy(), 0
        for (part, holders, alive), place in zip(live, places, strict=True):
            count = holders[holders > 0]
            # Each list goes behind what stands in it already.
            into = np.repeat(free[place] - starts(count)[:-1], count) + np.arange(count.sum())
            kept = slice(None) if alive is None else alive[part.passages]
            position = np.cumsum(alive, dtype=np.int32) - 1 if alive is not None else None
            own = part.passages[kept]
            passages[into] = (own if position is None else position[own]) + base
            frequencies[into] = part.frequencies[kept]
            free[place] += count
            base += len(part) if alive is None else int(alive.sum())
        lengths = [part.lengths if alive is None else part.lengths[alive] for part, alive in parts]
        return cls(
            Terms(Strings.of(vocabulary), known=number),
            indptr,
            passages,
            _narrow(frequencies),
            np.concatenate([np.zeros(0, np.int32), *lengths]).astype(np.int32),
        )

    def holders(self, alive: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """How many passages hold each term, of the live ones (bool [n]; None for all): int64 [terms]."""
        if alive is None:
            return np.diff(self.indptr)
        return np.diff(starts(alive[self.passages])[self.indptr])

    def arrays(self) -> Arrays:
        """What is stored; `of_arrays` makes the same again."""
        return {
            "terms": self.terms.table.blob,
            "term_offsets": self.terms.table.offsets,
            "indptr": self.indptr,
            "passages": self.passages,
            "frequencies": self.frequencies,
            "lengths": self.lengths,
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Postings:
        """The postings that `arrays` describes."""
        terms = Terms(Strings(arrays["terms"], arrays["term_offsets"]))
        rest = ("indptr", "passages", "frequencies", "lengths")
        return cls(terms, *(arrays[name] for name in rest))


def _block(texts: Sequence[str], spec: LexicalSpec) -> Postings:
    vocabulary, numbers, lengths = spec.count(texts)
    ordered = sorted(vocabulary)
    place = np.empty(len(ordered), np.int64)
    place[[vocabulary[term] for term in ordered]] = np.arange(len(ordered))
    # One sorted key a (term, passage) counts the term and lays out the lists in one go.
    stride = max(len(texts), 1)
    keys = place[numbers] * stride + np.repeat(np.arange(len(texts)), lengths)
    postings, frequencies = np.unique(keys, return_counts=True)
    terms, passages = np.divmod(postings, stride)
    return Postings(
        Terms.of(ordered),
        starts(np.bincount(terms, minlength=len(ordered))),
        passages.astype(np.int32),
        _narrow(frequencies),
        lengths.astype(np.int32),
    )


def _narrow(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    most = counts.max(initial=0)
    return counts.astype(next(kind for kind in _COUNTS if most <= np.iinfo(kind).max))


def _narrowest(counts: Sequence[npt.NDArray[Any]]) -> np.dtype[Any]:
    return np.result_type(*(row.dtype for row in counts), np.uint8)
