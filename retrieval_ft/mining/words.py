"""Word sets of passages as numbers, so that near-duplicates of positives are found without loops."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BETWEEN = r"[^\pL\pN_]+"
"""What parts words: as `\\w` of Python sees it."""
_PAIRS = 1 << 16
"""Pairs of passages compared at a time."""


class WordSets:
    """The distinct lower-cased words of each text, read when a text is first compared."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._number: defaultdict[str, int] = defaultdict()
        self._number.default_factory = self._number.__len__  # a new word gets the next number
        self._number[""]  # what stands before a text that begins with a sign: 0, and no word
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
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = pc.utf8_lower(pa.array([self._texts[row] for row in new.tolist()], pa.string()))
        words = pc.split_pattern_regex(texts, _BETWEEN)
        encoded = words.values.dictionary_encode()
        numbers = np.array([self._number[word] for word in encoded.dictionary.to_pylist()])
        owners = np.repeat(np.arange(len(new)), np.diff(words.offsets.to_numpy()))
        tokens = numbers[encoded.indices.to_numpy()]
        stride = len(self._number)
        keys = np.unique(owners * stride + tokens)
        owners, tokens = np.divmod(keys, stride)
        owners, tokens = owners[tokens > 0], tokens[tokens > 0]
        sizes = np.bincount(owners, minlength=len(new))
        self._start[new] = len(self._words) + np.cumsum(sizes) - sizes
        self._size[new] = sizes
        self._words = np.concatenate((self._words, tokens))
