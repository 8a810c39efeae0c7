"""Tables of strings in flat arrays, mapped from disk: ids, terms and metadata values by the million.

A million Python strings take a second to load and a hundred megabytes to hold; these take neither.
UTF-8 sorts as code points do, so the order of the bytes is the order of the strings.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
_BISECT = 30
"""How many entries of a table can be listed in the time that one takes to be found by bisection."""


@dataclass(frozen=True, eq=False)
class Strings:
    """Strings by position.

    Attributes:
        blob: uint8 [bytes], all strings in UTF-8, one behind the other.
        offsets: int64 [n + 1], where each begins.
    """

    blob: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: Sequence[str]) -> Strings:
        """A table of some strings, in their order."""
        encoded = [value.encode() for value in values]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, position: int) -> str:
        return self.encoded(position).decode()

    @cached_property
    def _bytes(self) -> memoryview:
        return self.blob.data

    def encoded(self, position: int) -> bytes:
        """One string in UTF-8."""
        return bytes(self._bytes[self.offsets[position] : self.offsets[position + 1]])

    def take(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """The strings at some positions, in their order."""
        begin, end = self.offsets[positions].tolist(), self.offsets[positions + 1].tolist()
        return [bytes(self._bytes[a:b]).decode() for a, b in zip(begin, end, strict=True)]

    def tolist(self) -> list[str]:
        """All of them."""
        whole, bounds = self.blob.tobytes(), self.offsets.tolist()
        return [whole[a:b].decode() for a, b in itertools.pairwise(bounds)]


def starts(lengths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each of some rows begins, and where the last one ends: int64 [n + 1]."""
    found = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=found[1:])
    return found


class Terms:
    """Distinct strings in their own order, each found by its number or its text."""

    def __init__(self, table: Strings, *, known: Mapping[str, int] | None = None) -> None:
        self.table = table
        self._known: dict[str, int] = dict(known or {})

    @classmethod
    def of(cls, ordered: Sequence[str]) -> Terms:
        """Of strings that are sorted already."""
        known = {term: number for number, term in enumerate(ordered)}
        return cls(Strings.of(ordered), known=known)

    def __len__(self) -> int:
        return len(self.table)

    def get(self, term: str) -> int | None:
        """The number of a string, None where it is not there."""
        if (found := self._known.get(term)) is not None or len(self._known) == len(self.table):
            return found
        target = term.encode()
        place = bisect.bisect_left(range(len(self)), target, key=self.table.encoded)
        if place == len(self) or self.table.encoded(place) != target:
            return None
        self._known[term] = place
        return place

    def numbers(self, terms: Sequence[str]) -> npt.NDArray[np.int64]:
        """The numbers of many strings, -1 for those not there: int64 [n]."""
        if len(terms) * _BISECT > len(self) > len(self._known):
            self._known = {term: number for number, term in enumerate(self.table.tolist())}
        found = map(self.get, terms)
        return np.fromiter((-1 if n is None else n for n in found), np.int64, len(terms))


class Ids:
    """The distinct passage ids of a segment: by position, by text, and in their own order."""

    def __init__(self, table: Strings, order: npt.NDArray[np.int32]) -> None:
        self.table = table
        self.order = order
        """int32 [n]: positions, sorted by id."""
        self._listed: tuple[str, ...] | None = None

    @classmethod
    def of(cls, ids: Sequence[str]) -> Ids:
        """Of ids in the order of their passages."""
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int32)
        found = cls(Strings.of(ids), order)
        found._listed = tuple(ids)
        return found

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def ranks(self) -> npt.NDArray[np.int64]:
        """The place of each id among the sorted ones, int64 [n]."""
        ranks = np.empty(len(self), np.int64)
        ranks[self.order] = np.arange(len(self))
        return ranks

    def take(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """The ids at some positions, in their order."""
        if self._listed is None:
            return self.table.take(positions)
        listed = self._listed
        return [listed[position] for position in positions.tolist()]

    def tolist(self) -> tuple[str, ...]:
        """All of them."""
        return self._listed or tuple(self.table.tolist())

    def find(self, passage_id: str) -> int | None:
        """The position of an id, None where it is not there."""
        target = passage_id.encode(errors="surrogatepass")  # no id has half a pair

        def at(place: int) -> bytes:
            return self.table.encoded(int(self.order[place]))

        place = bisect.bisect_left(range(len(self)), target, key=at)
        if place == len(self) or at(place) != target:
            return None
        return int(self.order[place])


class Joined:
    """The ids of segments one behind the other; a position counts through them all."""

    def __init__(self, parts: Sequence[Ids]) -> None:
        self.parts = tuple(parts)
        self.begins = starts(np.array([len(part) for part in self.parts], np.int64))

    def __len__(self) -> int:
        return int(self.begins[-1])

    def take(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """The ids at some positions, in their order."""
        if len(self.parts) == 1:
            return self.parts[0].take(positions)
        found = [""] * len(positions)
        owner = np.searchsorted(self.begins, positions, side="right") - 1
        for at in np.unique(owner).tolist():
            places = np.flatnonzero(owner == at)
            names = self.parts[at].take(positions[places] - self.begins[at])
            for place, name in zip(places.tolist(), names, strict=True):
                found[place] = name
        return found

    def tolist(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(passage_id for part in self.parts for passage_id in part.tolist())
