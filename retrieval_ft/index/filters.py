"""Filters on metadata, in the syntax that Chroma, Pinecone and LangChain share (MongoDB's).

    {"source": "manual"}                           has this value
    {"year": {"$gte": 2020, "$lt": 2024}}          $eq $ne $gt $gte $lt $lte
    {"tag": {"$in": ["a", "b"]}}                   $in $nin
    {"draft": {"$exists": false}}                  has no value under this key
    {"$or": [{...}, {...}]}   {"$not": {...}}      $and $or $not

Several keys in one object, and several comparisons of one key, mean "and". What a passage has under
a key is said in `fields`: a nested key is written with dots, and a list gives each of its elements.

- A passage without the key is matched by `$ne`, `$nin`, `{"$exists": false}`, and where `$not`
  turns one of the others round; by nothing else.
- Where a passage has a list, a comparison holds if any element fulfils it, each comparison by
  itself: `{"$gte": 2020, "$lt": 2024}` matches `[2010, 2030]`. `$ne` and `$nin` are the opposites of
  `$eq` and `$in`: no element is equal.
- Kinds do not mix: "1" is not 1, true is not 1, and a range of numbers matches no string.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.errors import ConfigError
from retrieval_ft.index.fields import Comparison, Fields, Scalar, split_number

_RANGES: Mapping[str, Comparison] = {"$gt": "$gt", "$gte": "$gte", "$lt": "$lt", "$lte": "$lte"}
_LISTS = ("$in", "$nin")
_OPPOSITES = ("$ne", "$nin")
_COMPARISONS = ("$eq", "$ne", *_RANGES, *_LISTS, "$exists")
_DEEPEST = 100  # levels of $and, $or and $not; far from where Python's own recursion ends
_EXAMPLE = '{"source": "manual"} or {"year": {"$gte": 2020}}'


class Filter(ABC):
    """A condition on a passage's metadata; two are equal if they have the same `words`."""

    @abstractmethod
    def allowed(self, fields: Fields) -> npt.NDArray[np.bool_]:
        """Which passages fulfil it, bool [n]; a new array."""

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """The filter as an object that `parse` reads."""

    def words(self) -> str:
        """Canonical JSON: the order of keys, conditions and listed values does not show."""
        return _words(self.as_json())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.words() == other.words()

    def __hash__(self) -> int:
        return hash(self.words())


@dataclass(frozen=True, eq=False)
class Compare(Filter):
    """A comparison of one key's values.

    Attributes:
        key: dotted path.
        operator: one of the comparisons, but for `$exists`.
        values: what to compare to: any number of values for `$in` and `$nin`, one for the others.
    """

    key: str
    operator: str
    values: tuple[Scalar, ...]

    def allowed(self, fields: Fields) -> npt.NDArray[np.bool_]:
        """See `Filter.allowed`."""
        opposite, comparison = self.operator in _OPPOSITES, _RANGES.get(self.operator, "$eq")
        mask = np.full(fields.count, opposite)
        for value in self.values:
            mask[fields.where(self.key, comparison, value)] = not opposite
        return mask

    def as_json(self) -> dict[str, Any]:
        """See `Filter.as_json`."""
        if self.operator == "$eq":
            return {self.key: self.values[0]}
        value = list(self.values) if self.operator in _LISTS else self.values[0]
        return {self.key: {self.operator: value}}


@dataclass(frozen=True, eq=False)
class Exists(Filter):
    """Whether there is any value under a key."""

    key: str
    wanted: bool

    def allowed(self, fields: Fields) -> npt.NDArray[np.bool_]:
        """See `Filter.allowed`."""
        mask = np.full(fields.count, not self.wanted)
        mask[fields.having(self.key)] = self.wanted
        return mask

    def as_json(self) -> dict[str, Any]:
        """See `Filter.as_json`."""
        return {self.key: {"$exists": self.wanted}}


@dataclass(frozen=True, eq=False)
class Not(Filter):
    """The opposite of a filter."""

    part: Filter

    def allowed(self, fields: Fields) -> npt.NDArray[np.bool_]:
        """See `Filter.allowed`."""
        return ~self.part.allowed(fields)

    def as_json(self) -> dict[str, Any]:
        """See `Filter.as_json`."""
        return {"$not": self.part.as_json()}


@dataclass(frozen=True, eq=False)
class Junction(Filter):
    """All of some filters ("$and"; of none, everything) or any of them ("$or")."""

    operator: str
    parts: tuple[Filter, ...]

    def allowed(self, fields: Fields) -> npt.NDArray[np.bool_]:
        """See `Filter.allowed`."""
        every = self.operator == "$and"
        mask, join = np.full(fields.count, every), np.logical_and if every else np.logical_or
        for part in self.parts:
            join(mask, part.allowed(fields), out=mask)
        return mask

    def as_json(self) -> dict[str, Any]:
        """See `Filter.as_json`."""
        return {self.operator: [part.as_json() for part in self.parts]} if self.parts else {}


EVERYTHING: Filter = Junction("$and", ())
"""Allows every passage; what `{}` reads as."""


def both(first: Filter, second: Filter) -> Filter:
    """The filter that allows what both allow."""
    return _join("$and", [first, second])


def parse(value: Any, *, where: str = "filter") -> Filter:
    """Read a filter expression; the top of this module has the syntax.

    Args:
        value: an object of JSON values.
        where: what messages call the expression.

    Raises:
        ConfigError: it is none; the message names the place in it, what was found, what is allowed.
    """
    return _object(value, where, depth=0)


def parse_words(texts: Sequence[str]) -> Filter:
    """Read filters from a command line and join them by "and"; none allows everything.

    Each text is a JSON object or `key=value`. Space around key and value does not count, and a
    value that is JSON is read as it: `year=2020` is a number and `draft=false` a boolean,
    `version="1.10"` and `source=manual` are strings, `year={"$gte": 2020}` is a comparison.

    Raises:
        ConfigError: a text is neither, or no filter.
    """
    return _join("$and", [_of_words(text.strip()) for text in texts])


def _of_words(text: str) -> Filter:
    where = f"filter {text!r}"
    if text.startswith("{"):
        return parse(_json(text, where), where=where)
    key, equals, value = (part.strip() for part in text.partition("="))
    # `year>=2020` would be a key "year>" that no passage has.
    if not equals or not key or key[-1] in "<>!" or value.startswith("="):
        raise ConfigError(f"{where}: write key=value, or JSON such as {_EXAMPLE}")
    return parse({key: _json(value, where, plain=True)}, where=where)


def _json(text: str, where: str, *, plain: bool = False) -> Any:
    """Read JSON; `plain`: what is none is a string, unless it begins like an object or a list."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ConfigError(f"{where}: {twice!r} stands twice in one object; join the two")
        return found

    def no_number(word: str) -> Any:
        raise ValueError(f"{word} is no number")

    try:
        return json.loads(text, object_pairs_hook=distinct, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        if plain and not text.startswith(("{", "[")):
            return text
        raise ConfigError(f"{where}: not valid JSON ({error}); write {_EXAMPLE}") from error


def _object(value: Any, where: str, *, depth: int) -> Filter:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: found {_shown(value)}; write an object such as {_EXAMPLE}")
    if depth > _DEEPEST:
        raise ConfigError(f"{where[:80]}...: nested deeper than {_DEEPEST} levels")
    return _join("$and", [_entry(key, inner, where, depth) for key, inner in value.items()])


def _entry(key: Any, value: Any, where: str, depth: int) -> Filter:
    if not isinstance(key, str):
        raise ConfigError(f"{where}: found {_shown(key)} as a key; a string is needed")
    here = f"{where}.{_text(key, where)}"
    if key == "$not":
        return Not(_object(value, here, depth=depth + 1))
    if key in ("$and", "$or"):
        if not isinstance(value, list | tuple) or not value:
            raise ConfigError(f"{here}: found {_shown(value)}; write a list of one or more filters")
        return _join(
            key, [_object(v, f"{here}[{i}]", depth=depth + 1) for i, v in enumerate(value)]
        )
    if key.startswith("$"):
        raise ConfigError(
            f"{here}: unknown operator; allowed here are $and, $or, $not and keys of the metadata, "
            f"with comparisons inside them: {_EXAMPLE}"
        )
    if not isinstance(value, Mapping):
        return Compare(key, "$eq", (_scalar(value, here),))
    if not value:
        raise ConfigError(f"{here}: found {{}}; give a value or one of {', '.join(_COMPARISONS)}")
    return _join("$and", [_comparison(key, op, v, here) for op, v in value.items()])


def _comparison(key: str, operator: Any, value: Any, where: str) -> Filter:
    if operator not in _COMPARISONS:
        raise ConfigError(
            f"{where}: unknown comparison {_shown(operator)}; choose from "
            f"{', '.join(_COMPARISONS)}; a nested key is written with a dot, as {key}.name"
        )
    where = f"{where}.{operator}"
    if operator == "$exists":
        if not isinstance(value, bool):
            raise ConfigError(f"{where}: found {_shown(value)}; true or false is needed")
        return Exists(key, value)
    if operator in _LISTS:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: found {_shown(value)}; a list of values is needed")
        values = {_words(v): v for v in (_scalar(v, f"{where}[{i}]") for i, v in enumerate(value))}
        return Compare(key, operator, tuple(values[words] for words in sorted(values)))
    if operator in _RANGES and isinstance(value, bool):
        raise ConfigError(f"{where}: found {_shown(value)}; a number or a string is needed")
    return Compare(key, operator, (_scalar(value, where),))


def _scalar(value: Any, where: str) -> Scalar:
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int | float):
        try:
            split_number(value)
        except ValueError as error:
            raise ConfigError(f"{where}: found {error}") from error
        return value
    hint = ""
    if value is None:
        hint = '; for passages without the key write {"$exists": false}'
    elif isinstance(value, list | tuple):
        hint = '; for any of several values write {"$in": [...]}'
    raise ConfigError(
        f"{where}: found {_shown(value)}; a string, a number, true or false is needed{hint}"
    )


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{where}: found {value!r}, which is no valid Unicode (half of a pair)"
        ) from error
    return value


def _join(operator: str, parts: Sequence[Filter]) -> Filter:
    """One filter of several: nested ones of its own kind laid flat, sorted, each but once."""
    flat: dict[str, Filter] = {}
    for part in parts:
        inside: Sequence[Filter] = (part,)
        if isinstance(part, Junction) and part.operator == operator:
            inside = part.parts
        flat |= {inner.words(): inner for inner in inside}
    if len(flat) == 1:
        return next(iter(flat.values()))
    return Junction(operator, tuple(flat[words] for words in sorted(flat)))


def _words(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _shown(value: Any) -> str:
    """A value as messages show it: as JSON where it is, cut where it is long."""
    try:
        words = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        words = f"a value of type {type(value).__name__}"
    words = words if len(words) <= 60 else f"{words[:57]}..."
    return words.encode(errors="backslashreplace").decode()
