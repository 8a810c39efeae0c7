"""Metadata of a segment's passages, inverted: who has a value is looked up, not searched for.

For each key and kind of value (string, number, boolean) the distinct values stand in order, and
beside each the passages that have it, so one value or a range of values is one slice of an array.
The tables of all keys are joined: any key name goes into a file of plain arrays, and loading makes
no Python object a value.

What a passage has under a key:
- a nested object's values are under the dotted path: `{"a": {"b": 1}}` has 1 under `a.b`, as
  `{"a.b": 1}` has;
- a list gives each of its elements, so a list of tags is a passage with several tags; objects and
  lists inside a list are left out of filtering;
- null, an empty list and an empty object are the same as an absent key.

Numbers compare by value, integers exactly: a number is the nearest float64 and what an integer is
beyond it (0 for all but integers over 2**53), in the order of the two.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval_ft.errors import DataError
from retrieval_ft.index.strings import Arrays, Strings, starts

Scalar = str | int | float | bool
Comparison = Literal["$eq", "$gt", "$gte", "$lt", "$lte"]

_STRING, _NUMBER, _BOOLEAN = _KINDS = range(3)
_INTEGER_BITS = 100  # what remains beside the nearest float64 must fit an int64
_EXACT = 1 << 53  # float64 has every integer up to here
_TABLES = ("keys", "texts")
_ARRAYS = ("kinds", "values", "numbers", "rests", "holdings", "passages")


@dataclass(frozen=True, eq=False)
class Fields:
    """Which passages have which value under which key.

    Attributes:
        count: passages; a position is a place among them.
        keys: a field is a key with a kind of value; they stand in the order of kind, then key.
        kinds: int64 [4], the first field of each kind (string, number, boolean), and their end.
        values: int64 [fields + 1], the first value of each field; strings come before numbers.
        texts: the values of the string fields, sorted within a field.
        numbers: float64, the values of the other fields likewise; a boolean is 0 or 1.
        rests: int64, what an integer is beyond its float64.
        holdings: int64 [values + 1], where the passages of each value begin.
        passages: int32, positions, ascending within a value.
    """

    count: int
    keys: Strings
    kinds: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    texts: Strings
    numbers: npt.NDArray[np.float64]
    rests: npt.NDArray[np.int64]
    holdings: npt.NDArray[np.int64]
    passages: npt.NDArray[np.int32]

    @classmethod
    def build(cls, metadata: Sequence[Mapping[str, Any]], count: int) -> Fields:
        """Invert the metadata of `count` passages; none at all is the same as `{}` for each.

        Raises:
            DataError: there are more or fewer objects than passages, or one holds what JSON has no
                form for, or an integer of over 100 bits; the message names what and where.
        """
        if len(metadata) not in (0, count):
            raise DataError(f"{len(metadata)} metadata objects for {count} passages; one each")
        columns = _columns(metadata)
        fields = [_inverted(column, count=count) for column in columns]
        kinds = np.array([column.kind for column in columns], np.int64)
        return cls(
            count=count,
            keys=_table([column.key for column in columns]),
            kinds=starts(np.bincount(kinds, minlength=len(_KINDS))),
            values=starts(np.array([len(field.held) for field in fields], np.int64)),
            texts=_table([text for field in fields for text in field.texts]),
            numbers=_joined([field.numbers for field in fields], np.float64),
            rests=_joined([field.rests for field in fields], np.int64),
            holdings=starts(_joined([field.held for field in fields], np.int64)),
            passages=_joined([field.passages for field in fields], np.int32),
        )

    def arrays(self) -> Arrays:
        """All of it as plain numeric arrays under fixed names."""
        found: Arrays = {name: getattr(self, name) for name in _ARRAYS}
        for name in _TABLES:
            table: Strings = getattr(self, name)
            found |= {f"{name}.blob": table.blob, f"{name}.offsets": table.offsets}
        return found

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], *, count: int) -> Fields:
        """What `arrays` gave, of `count` passages; nothing is copied."""
        tables: Any = {
            name: Strings(arrays[f"{name}.blob"], arrays[f"{name}.offsets"]) for name in _TABLES
        }
        rest: Any = {name: arrays[name] for name in _ARRAYS}
        return cls(count=count, **tables, **rest)

    def having(self, key: str) -> npt.NDArray[np.int32]:
        """Positions of the passages with any value under a key, int32; one may stand repeatedly."""
        return np.concatenate([self._held(*self._field(kind, key)) for kind in _KINDS])

    def where(self, key: str, comparison: Comparison, value: Scalar) -> npt.NDArray[np.int32]:
        """Positions of the passages with a value under a key that compares so to the given one.

        Values of another kind never match: "1" and True are not 1. Strings compare by code point,
        which puts ISO 8601 dates in the order of time.

        Returns:
            int32, a view; ascending and distinct for "$eq", else one may stand repeatedly.

        Raises:
            ValueError: a number that is not finite, or an integer of over 100 bits.
        """
        kind = _kind_of(type(value))
        first, last = (0, 0) if kind is None else self._field(kind, key)
        if isinstance(value, str):
            low, high = self._text_place(value, first, last)
        else:
            low, high = self._number_place(value, first, last)
        stretches: dict[Comparison, tuple[int, int]] = {
            "$eq": (low, high),
            "$gt": (high, last),
            "$gte": (low, last),
            "$lt": (first, low),
            "$lte": (first, high),
        }
        return self._held(*stretches[comparison])

    def _field(self, kind: int, key: str) -> tuple[int, int]:
        """The first value of a field, and the end of its values; the same twice where none is."""
        begin, end, target = int(self.kinds[kind]), int(self.kinds[kind + 1]), key.encode()
        place = bisect.bisect_left(range(end), target, begin, key=self.keys.encoded)
        if place == end or self.keys.encoded(place) != target:
            return 0, 0
        return int(self.values[place]), int(self.values[place + 1])

    def _text_place(self, value: str, first: int, last: int) -> tuple[int, int]:
        """Of a field's values, the first that is not below the given one and the first above."""
        target = value.encode()
        low = bisect.bisect_left(range(last), target, first, key=self.texts.encoded)
        return low, low + (low < last and self.texts.encoded(low) == target)

    def _number_place(self, value: float, first: int, last: int) -> tuple[int, int]:
        """What `_text_place` is for strings."""
        number, rest = split_number(value)
        if first == last:
            return first, last
        shift = len(self.texts)
        within = self.numbers[first - shift : last - shift]
        alike = first + int(np.searchsorted(within, number, "left"))
        above = first + int(np.searchsorted(within, number, "right"))
        rests = self.rests[alike - shift : above - shift]
        low, high = (int(np.searchsorted(rests, rest, side)) for side in ("left", "right"))
        return alike + low, alike + high

    def _held(self, first: int, last: int) -> npt.NDArray[np.int32]:
        return self.passages[self.holdings[first] : self.holdings[last]]


def split_number(value: float) -> tuple[float, int]:
    """A number as the nearest float64 and what an integer is beyond it; exact, and ordered so.

    Raises:
        ValueError: it is NaN or infinite, or an integer of over 100 bits.
    """
    if isinstance(value, int):
        if value.bit_length() > _INTEGER_BITS:
            raise ValueError(
                f"an integer of {value.bit_length()} bits (up to {_INTEGER_BITS} are allowed; "
                "write it as a string)"
            )
        return float(value), value - int(float(value))
    if not math.isfinite(value):
        raise ValueError(f"{value}, which is not a finite number")
    return value, 0


class _Column(NamedTuple):
    """The values of one kind under one key, and the position of the passage that has each."""

    kind: int
    key: str
    values: list[Any]
    rows: list[int]


class _Field(NamedTuple):
    """The distinct values of a column in order, how many passages have each, and which."""

    texts: list[str]
    numbers: npt.NDArray[np.float64]
    rests: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]
    passages: npt.NDArray[np.int32]


def _kind_of(type_: type) -> int | None:
    for kind, known in ((_STRING, str), (_BOOLEAN, bool), (_NUMBER, (int, float))):
        if issubclass(type_, known):
            return kind
    return None


def _scalars(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    pending = [("", metadata)]
    while pending:
        prefix, mapping = pending.pop()
        for key, value in mapping.items():
            if not isinstance(key, str):
                raise DataError(f"a metadata key must be a string, found {key!r}")
            if isinstance(value, dict):
                pending.append((f"{prefix}{key}.", value))
            elif isinstance(value, list | tuple):
                for element in value:
                    if element is not None and not isinstance(element, dict | list | tuple):
                        yield prefix + key, element
            elif value is not None:
                yield prefix + key, value


def _columns(metadata: Sequence[Mapping[str, Any]]) -> list[_Column]:
    """The values by kind and key, in that order."""
    found: defaultdict[tuple[str, type], tuple[list[Any], list[int]]]
    found = defaultdict(lambda: ([], []))
    for row, mapping in enumerate(metadata):
        for key, value in _scalars(mapping):
            values, rows = found[key, type(value)]
            values.append(value)
            rows.append(row)
    columns: dict[tuple[int, str], _Column] = {}
    for (key, type_), (values, rows) in found.items():
        kind = _kind_of(type_)
        if kind is None:
            raise DataError(
                f"the metadata of passage {rows[0]} (counted from 0) has a {type_.__name__} under "
                f"{key!r}; allowed are strings, numbers, true, false, null, and lists and objects "
                "of them"
            )
        column = columns.setdefault((kind, key), _Column(kind, key, [], []))
        column.values.extend(values)
        column.rows.extend(rows)
    return [columns[place] for place in sorted(columns)]


def _inverted(column: _Column, *, count: int) -> _Field:
    texts: list[str] = []
    numbers, rests = np.zeros(0), np.zeros(0, np.int64)
    if column.kind == _STRING:
        texts = sorted(set(column.values))
        number = {text: code for code, text in enumerate(texts)}
        codes = np.fromiter(map(number.__getitem__, column.values), np.int64, len(column.values))
    else:
        numbers, rests, codes = _distinct(*_numbers(column))
    holdings = np.sort(codes * count + np.array(column.rows))  # np.unique takes ten times as long
    value, passages = np.divmod(holdings[np.diff(holdings, prepend=-1) > 0], count)
    held = np.bincount(value, minlength=len(texts) + len(numbers))
    return _Field(texts, numbers, rests, held, passages.astype(np.int32))


def _numbers(column: _Column) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The numbers of a column in two parts; see `split_number`."""
    try:
        numbers = np.fromiter(column.values, np.float64, len(column.values))
    except OverflowError:  # an integer beyond every float64: each is looked at below
        numbers = np.full(len(column.values), np.inf)
    rests = np.zeros(len(numbers), np.int64)
    for place in np.flatnonzero(~(np.abs(numbers) < _EXACT)).tolist():  # NaN fails any comparison
        try:
            numbers[place], rests[place] = split_number(column.values[place])
        except ValueError as error:
            raise DataError(
                f"the metadata of passage {column.rows[place]} (counted from 0) has {error} under "
                f"{column.key!r}"
            ) from error
    return numbers, rests


def _distinct(
    numbers: npt.NDArray[np.float64], rests: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The distinct pairs in order, and which of them each is, int64 [n]."""
    order = np.lexsort((rests, numbers))
    numbers, rests = numbers[order], rests[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (numbers[1:] != numbers[:-1]) | (rests[1:] != rests[:-1])
    codes = np.empty(len(order), np.int64)
    codes[order] = np.cumsum(new) - 1
    return numbers[new], rests[new], codes


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *parts])


def _table(texts: list[str]) -> Strings:
    try:
        return Strings.of(texts)
    except UnicodeEncodeError as error:
        raise DataError(
            f"metadata holds {error.object!r}, which is no valid Unicode (half of a pair)"
        ) from error
