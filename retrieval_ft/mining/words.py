"""Word sets of passages as numbers, so that near-duplicates of positives are found without loops."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_WORD = re.compile(r"\w+")
_PAIRS = 1 << 16
"""Pairs of passages compared at a time."""


class WordSets:
    """The distinct lower-cased words of each text, read when a text is first compared."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._number: defaultdict[str, int] = defaultdict()
        self._number.default_factory = self._number.__len__  # a new word gets the next number
        self._start = np.full(len(texts), -1, np.int64)
        self._size = np.zeros(len(texts), np.int64)
        self._words = np.zeros(0, np.int64)

    def similar(self, left: Ints, right: Ints, *, jaccard: float) -> Mask:
        """Whether texts are near-duplicates: |both| >= jaccard x |either|, and a word in either.

        Args:
            left: int64 [n], rows of texts.
            right: int64 [n], rows of the texts beside them.
            jaccard: the share of common words from which they count as the same.

        Returns:
            bool [n].
        """
        self._read(np.concatenate((left, right)))
        small, large = np.sort((self._size[left], self._size[right]), axis=0)
        found: Mask = (small >= jaccard * large) & (large > 0)  # fewer cannot be similar enough
        maybe = np.flatnonzero(found)
        for start in range(0, len(maybe), _PAIRS):
            part = maybe[start : start + _PAIRS]
            both = self._common(left[part], right[part])
            found[part] = both >= jaccard * (small[part] + large[part] - both)
        return found

    def _common(self, left: Ints, right: Ints) -> Ints:
        """Number of common words of each pair; the sizes are above 0."""
        asked, held = self._keys(left), self._keys(right)
        places = np.searchsorted(held, asked)
        hits = asked[held[np.minimum(places, len(held) - 1)] == asked]
        return np.bincount(hits // len(self._number), minlength=len(left))

    def _keys(self, rows: Ints) -> Ints:
        """(place in `rows`, word) of every word as one number, ascending."""
        sizes = self._size[rows]
        owners = np.repeat(np.arange(len(rows)), sizes)
        offsets = self._start[rows] - (np.cumsum(sizes) - sizes)
        words = self._words[np.arange(len(owners)) + offsets[owners]]
        return owners * len(self._number) + words

    def _read(self, rows: Ints) -> None:
        new = np.unique(rows[self._start[rows] < 0])
        if not new.size:
            return
        texts = (self._texts[row].lower() for row in new.tolist())
        sets = [dict.fromkeys(_WORD.findall(text)) for text in texts]
        sizes = np.fromiter(map(len, sets), np.int64, len(sets))
        numbers = map(self._number.__getitem__, chain.from_iterable(sets))
        words = np.fromiter(numbers, np.int64, int(sizes.sum()))
        keys = np.repeat(np.arange(len(sets)), sizes) * (len(self._number) or 1) + words
        words = np.sort(keys) % (len(self._number) or 1)  # ascending within each text
        self._start[new] = len(self._words) + np.cumsum(sizes) - sizes
        self._size[new] = sizes
        self._words = np.concatenate((self._words, words))
