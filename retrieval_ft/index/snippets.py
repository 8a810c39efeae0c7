"""Where a passage speaks of a query: the part with most of its terms, and the words that match.

Terms are normalised and stemmed, and have no place in the text. So the text is cut into pieces that
are tokenized one by one: a piece matches where its terms include one of the query's, and a place in
the text is known from the start. Which characters join, part or stand alone is asked of the
tokenizer, so that both always agree.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval_ft.errors import ConfigError
from retrieval_ft.index.tokens import LexicalSpec

LENGTH = 240
_ASCII = re.compile(r"(\w+)")
_PROBE = "zqx"  # a word of no language: neither a stop word nor changed by a stemmer
_JOINER = "\u200d"
_SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")


@dataclass(frozen=True)
class Snippet:
    """A part of a passage, and where the query's terms are in it.

    Attributes:
        text: as it stands in the passage; nothing is escaped, added or left out.
        start: where it begins in the passage, in characters.
        spans: begin and end of each match in `text`, in characters; ascending, not touching.
        terms: which of the query's terms the whole passage holds, in the query's order.
    """

    text: str
    start: int
    spans: tuple[tuple[int, int], ...]
    terms: tuple[str, ...]


class _Matches(NamedTuple):
    """Matching pieces in the order of the text; `of` has each one's number among `terms`."""

    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    of: npt.NDArray[np.int64]
    terms: Sequence[frozenset[str]]


def snippet(text: str, terms: Sequence[str], *, spec: LexicalSpec, length: int = LENGTH) -> Snippet:
    """Return the part of a passage with most of a query's terms.

    Most means: of all parts that fit, the one with the most distinct terms, then with the most
    matches, then the first. Without any match it is the beginning of the passage. Words at its
    edges are whole where spaces allow it.

    Args:
        text: the passage.
        terms: the query's, `spec.tokenize([query])[0]`.
        spec: how the passage is tokenized.
        length: characters of the snippet at most.

    Raises:
        ConfigError: `length` is below 1, or the spec's stemmer is unknown.
    """
    if length < 1:
        raise ConfigError(f"length = {length}: a snippet must have at least 1 character")
    matches = _matches(text, frozenset(terms), spec)
    if not matches.terms:
        begin = len(text) - len(text.lstrip())
        end = _end(text, begin + length, after=begin)
        return Snippet(text[begin:end], begin, (), ())
    first, last = _densest(matches, length=length)
    centred = min(first - (length - (last - first)) // 2, len(text) - length)
    begin = _begin(text, max(centred, 0), before=first)
    end = _end(text, max(centred, 0) + length, after=last)
    found = frozenset().union(*matches.terms)
    return Snippet(
        text=text[begin:end],
        start=begin,
        spans=_spans(matches, begin, end),
        terms=tuple(term for term in dict.fromkeys(terms) if term in found),
    )


def _matches(text: str, wanted: frozenset[str], spec: LexicalSpec) -> _Matches:
    pieces = _pieces(text, wanted, spec)
    met = pieces.findall(text) if wanted else []  # of pairs where the pattern has two groups
    distinct = sorted(set(met) if pieces.groups == 1 else set(chain.from_iterable(met)))
    held: Mapping[str, frozenset[str]] = {
        piece: found
        for piece, row in zip(distinct, spec.tokenize(distinct), strict=True)
        if (found := wanted.intersection(row))
    }
    number = {piece: n for n, piece in enumerate(held)}
    spots = [
        (*m.span(m.lastindex or 0), number[piece])
        for m in (pieces.finditer(text) if held else ())
        if (piece := m[m.lastindex or 0]) in number
    ]
    starts, ends, of = np.array(spots, np.int64).reshape(-1, 3).T
    return _Matches(starts, ends, of, list(held.values()))


def _pieces(text: str, wanted: frozenset[str], spec: LexicalSpec) -> re.Pattern[str]:
    """A pattern that finds the pieces of a text; each is the group that took part.

    A piece is a word: characters that the tokenizer keeps together. Letters of scripts without
    spaces, of which it makes overlapping pairs, are pieces by twos, and one that is alone by itself;
    these are so many that only letters of the wanted terms are looked for.
    """
    if text.isascii():
        return _ASCII
    characters = sorted(character for character in set(text) if not character.isascii())
    alone, *probed = spec.tokenize([_PROBE, *(f"{_PROBE}{c}{_PROBE}" for c in characters)])
    sought = _parts(wanted)
    words, marks, letters, here = "", "", "", ""
    for character, row in zip(characters, probed, strict=True):
        if len(row) > 2 and [row[0], row[-1]] == alone * 2:
            letters += character
            here += "" if sought.isdisjoint(_parts(row[1:-1])) else character
        elif row != alone * 2 and _adds_to_another(character):
            marks += character
        elif row != alone * 2:
            words += character
    word = f"([0-9A-Za-z_{words}][0-9A-Za-z_{words}{marks}]*)"
    if not here:
        return re.compile(word)
    mark = f"[{marks}]" if marks else "(?!)"
    letter, after = f"[{here}]{mark}*", "".join(f"(?<![{letters}]{mark * n})" for n in range(4))
    return re.compile(
        f"{word}|(?=({letter}{letter}|{after}{letter}(?![{letters}{marks}])))[{here}]"
    )


def _parts(terms: Iterable[str]) -> set[str]:
    """The characters of some terms, and apart those that were composed of several."""
    return set(unicodedata.normalize("NFKD", "".join(terms)))


def _adds_to_another(character: str) -> bool:
    """Whether it is a mark on the character before, or an invisible one."""
    category = unicodedata.category(unicodedata.normalize("NFKC", character)[0])
    return category[0] == "M" or category == "Cf"


def _densest(matches: _Matches, *, length: int) -> tuple[int, int]:
    """Begin and end of the best part: from the start of a match to the end of one."""
    firsts = np.arange(len(matches.starts))
    lasts = np.searchsorted(matches.ends, matches.starts + length, "right")
    lasts = np.maximum(lasts, firsts + 1)  # one match can be longer than all that is to be shown
    scores = lasts - firsts
    for term in sorted(frozenset().union(*matches.terms)):
        has = np.array([term in terms for terms in matches.terms])[matches.of]
        running = np.concatenate(([0], np.cumsum(has)))
        scores += (len(firsts) + 1) * (running[lasts] > running[firsts])
    best = int(scores.argmax())
    begin = int(matches.starts[best])
    return begin, min(int(matches.ends[lasts[best] - 1]), begin + length)


def _spans(matches: _Matches, begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """The matches between two places, counted from the first; those that touch become one."""
    near = slice(
        int(np.searchsorted(matches.ends, begin, "right")),
        int(np.searchsorted(matches.starts, end, "left")),
    )
    starts = np.maximum(matches.starts[near], begin) - begin
    ends = np.minimum(matches.ends[near], end) - begin
    spans: list[tuple[int, int]] = []
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        if spans and first <= spans[-1][1]:
            first = spans.pop()[0]
        spans.append((first, last))
    return tuple(spans)


def _begin(text: str, earliest: int, *, before: int) -> int:
    """The first place from `earliest` on where a word begins, or at least a whole character."""
    places = range(earliest, before + 1)
    whole = (place for place in places if not place or text[place - 1].isspace())
    found = next(whole, None)
    if found is None:
        found = next((place for place in places[:-1] if not _glued(text, place)), earliest)
    return next((place for place in range(found, before) if not text[place].isspace()), before)


def _end(text: str, latest: int, *, after: int) -> int:
    """The last place up to `latest` where a word ends, or at least a whole character."""
    latest = min(latest, len(text))
    places = range(latest, after - 1, -1)
    whole = (place for place in places if place == len(text) or text[place].isspace())
    found = next(whole, None)
    if found is None:
        found = next((place for place in places[:-1] if not _glued(text, place)), latest)
    return next(
        (place for place in range(found, after, -1) if not text[place - 1].isspace()), after
    )


def _glued(text: str, place: int) -> bool:
    """Whether the characters on both sides of a place are seen as one; the usual cases."""
    return (
        _adds_to_another(text[place])
        or text[place - 1] == _JOINER
        or _SKIN_TONES[0] <= text[place] <= _SKIN_TONES[1]
    )
