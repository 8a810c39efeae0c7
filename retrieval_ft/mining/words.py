"""Word sets of passages as numbers, so that near-duplicates of positives are found without loops."""

from __future__ import annotations

import re
from collections.abc import Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_WORD = re.compile(r"\w+")
_IN_WORD = np.array([chr(byte).isalnum() or byte >= 128 or byte == ord("_") for byte in range(256)])
"""Bytes of UTF-8 that words consist of, where letters beyond ASCII stand in words only."""
_BASE = np.uint64(0x9E37_79B9_7F4A_7C15)  # odd: 2^64 over the golden ratio
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))
_BITS = 31
"""Of a word's number: two words of a corpus share one so rarely that no duplicate hangs on it."""
_PAIRS = 1 << 16
"""Pairs of texts compared at a time."""


class WordSets:
    """The distinct lower-cased words of each text, read when a text is first compared.

    Threads may share one: what was read never changes.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._start = np.full(len(texts), -1, np.int64)
        self._size = np.zeros(len(texts), np.int64)
        self._words = np.zeros(0, np.int64)
        self._reading = Lock()

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
        """Number of common words of each pair; both have some."""
        asked, held = self._keys(left), self._keys(right)
        places = np.minimum(np.searchsorted(held, asked), len(held) - 1)
        hits = asked[held[places] == asked]
        return np.bincount(hits >> _BITS, minlength=len(left))

    def _keys(self, rows: Ints) -> Ints:
        """(place in `rows`, word) of every word as one number, ascending."""
        sizes = self._size[rows]
        owners = np.repeat(np.arange(len(rows)), sizes)
        offsets = self._start[rows] - (np.cumsum(sizes) - sizes)
        words: Ints = self._words[np.arange(len(owners)) + offsets[owners]]
        return owners << _BITS | words

    def _read(self, rows: Ints) -> None:
        with self._reading:
            self._add(rows)

    def _add(self, rows: Ints) -> None:
        new = np.unique(rows[self._start[rows] < 0])
        if not new.size:
            return
        owners, words = _numbered([self._texts[row] for row in new.tolist()])
        keys = owners << _BITS | words
        keys.sort()
        keys = keys[np.diff(keys, prepend=-1) > 0]  # each word once
        sizes = np.bincount(keys >> _BITS, minlength=len(new))
        self._start[new] = len(self._words) + np.cumsum(sizes) - sizes
        self._size[new] = sizes
        self._words = np.concatenate((self._words, keys & ((1 << _BITS) - 1)))


def _numbered(texts: list[str]) -> tuple[Ints, Ints]:
    r"""The words of some texts: the text that each stands in, and a number made from its bytes.

    Words are `\w+` of the lower-cased text. The number is a polynomial of the bytes modulo 2^64,
    read off the running sum of the whole buffer, and folded.
    """
    parts = [_plain(text.lower()).encode() for text in texts]
    buffer = np.frombuffer(b"\n".join(parts) + b"\n", np.uint8)
    ends_of_texts = np.cumsum([len(part) + 1 for part in parts])
    edges = np.flatnonzero(np.diff(_IN_WORD[buffer], prepend=False))
    starts, ends = edges[0::2], edges[1::2]
    powers = np.full(len(buffer), _BASE)
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(buffer * np.cumprod(powers))))
    powers[:] = _INVERSE
    hashes = (sums[ends] - sums[starts]) * np.cumprod(powers)[starts] * _BASE
    numbers = (hashes >> np.uint64(64 - _BITS)).astype(np.int64)
    return np.searchsorted(ends_of_texts, starts, side="right"), numbers


def _plain(text: str) -> str:
    """The same words, with nothing beyond ASCII between them."""
    return text if text.isascii() else " ".join(_WORD.findall(text))
