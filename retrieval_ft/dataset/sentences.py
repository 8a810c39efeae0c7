"""Where a text may be cut: sentences first, then lines and words, then tokens; nothing is lost.

All positions are characters of the whole text. The base model's tokens come from outside as
offsets, so that this needs no tokenizer.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sentencex

# sentencex 1.0.32 panics where white space of several bytes stands before a full stop.
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
_SENTENCE_END = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+|(?<=[\u3002\uff01\uff1f])|\n\s*\n")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Cut a text into sentences; the spans follow each other and cover all of it.

    `sentencex` decides, with its rules for English, which hold for most languages; if its segments
    do not give the text back, a full stop and white space end a sentence.
    """
    plain = _WIDE_SPACE.sub(" ", text)
    segments = sentencex.segment("en", plain)
    if "".join(segments) == plain:
        ends = np.cumsum([len(segment) for segment in segments]).tolist()
    else:
        ends = _plain_ends(text)
    return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []


def _plain_ends(text: str) -> list[int]:
    ends = {match.end() for match in _SENTENCE_END.finditer(text)} | {len(text)}
    return sorted(ends - {0})


class Tokens:
    """The tokens of a text by their place in it."""

    def __init__(self, offsets: npt.NDArray[np.int64]) -> None:
        """Take int64 [tokens, 2]: start and end of each token, in the order of the text."""
        self.starts: list[int] = offsets[:, 0].tolist()
        self.ends: list[int] = offsets[:, 1].tolist()

    def count(self, start: int, end: int) -> int:
        """Number of tokens that have a character in [start, end)."""
        return bisect_left(self.starts, end) - bisect_right(self.ends, start)


@dataclass(frozen=True)
class Span:
    """A stretch of text for one passage: [start, end), of which [start, fresh) is overlap."""

    start: int
    fresh: int
    end: int


@dataclass(frozen=True)
class _Unit:
    start: int
    end: int
    whole: bool
    """False for a piece of a sentence that is too long."""


@dataclass(frozen=True)
class Packed:
    """What `pack` made of a stretch of text."""

    spans: tuple[Span, ...]
    cut_sentences: int
    """Sentences longer than the room, cut at lines, words or tokens."""


def pack(text: str, tokens: Tokens, *, start: int, end: int, room: int, overlap: int = 0) -> Packed:
    """Fill spans of at most `room` tokens with whole sentences of text[start:end], in order.

    Each span begins with the last whole sentences of the one before it, `overlap` tokens at most and
    never so many that no new sentence fits. A sentence longer than the room is cut.
    """
    units: list[_Unit] = []
    cut_sentences = 0
    for first, last in sentence_spans(text[start:end]):
        pieces = _pieces(text, tokens, start=start + first, end=start + last, room=room)
        cut_sentences += len(pieces) > 1
        units += pieces
    spans: list[Span] = []
    first, fresh = 0, 0
    while fresh < len(units):
        last = fresh
        while (
            last + 1 < len(units) and tokens.count(units[first].start, units[last + 1].end) <= room
        ):
            last += 1
        spans.append(Span(units[first].start, units[fresh].start, units[last].end))
        first, fresh = _next_first(units, tokens, first, last, room, overlap), last + 1
    return Packed(tuple(spans), cut_sentences)


def _next_first(
    units: list[_Unit], tokens: Tokens, first: int, last: int, room: int, overlap: int
) -> int:
    """First unit of the span after units[first..last]: one of its last sentences, or new text."""
    begin = last + 1
    if begin == len(units):
        return begin
    while begin - 1 > first and units[begin - 1].whole:
        start = units[begin - 1].start
        repeated = tokens.count(start, units[last].end)
        if repeated > overlap or tokens.count(start, units[last + 1].end) > room:
            break
        begin -= 1
    return begin


def _pieces(text: str, tokens: Tokens, *, start: int, end: int, room: int) -> list[_Unit]:
    """One sentence without the white space around it, in as many pieces as the room asks for."""
    cuts = [start]
    while tokens.count(cuts[-1], end) > room:
        cut = _cut(text, tokens, start=cuts[-1], end=end, room=room)
        if cut is None:
            break
        cuts.append(cut)
    whole = len(cuts) == 1
    units = []
    for left, right in zip(cuts, [*cuts[1:], end], strict=True):
        piece = text[left:right]
        if body := piece.strip():
            left += len(piece) - len(piece.lstrip())
            units.append(_Unit(left, left + len(body), whole))
    return units


def _cut(text: str, tokens: Tokens, *, start: int, end: int, room: int) -> int | None:
    """The last place for a cut within the room: in its second half at a line, else at a word.

    Returns:
        A token's start, after `start` and before `end`; None where all tokens share one character.
    """
    starts, base = tokens.starts, bisect_right(tokens.ends, start)
    last = base + max(room, 1)
    word = None
    for token in range(last, base + room // 2, -1):
        place = starts[token]
        if place <= start:
            break
        gap = text[tokens.ends[token - 1] : place + 1]
        if "\n" in gap:
            return place
        if word is None and (gap[:1].isspace() or gap[-1:].isspace()):
            word = place
    if word is not None:
        return word
    if starts[last] > start:
        return starts[last]
    following = bisect_right(starts, start)
    return starts[following] if following < len(starts) and starts[following] < end else None
