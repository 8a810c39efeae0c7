"""From what a language model answered to queries that can be used, each refusal with its reason.

Models wrap JSON in code fences, think aloud before it, number lines, or say that they are sorry: what
can be read without guessing is read, the rest is garbage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

MAX_WORDS = 48
MAX_CHARACTERS = 400
COPY_CHARACTERS = 30
"""A query this long that stands in the passage word for word is a copy; a shorter one may be a name."""

_READ_CHARACTERS = 20_000
_BRACKETS_TRIED = 100
_THOUGHT = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THINKING = re.compile(r"<think(?:ing)?>.*", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*[ \t]*\n?(.*?)```", re.DOTALL)
_MARKUP = re.compile(r"\A\s*<(?:!doctype|html|\?xml|head|body)", re.IGNORECASE)
_BULLET = re.compile(r"\A\s*(?:[-*•]|\(?\d{1,3}[.)])\s+")
_SORRY = re.compile(
    r"(?:i['\u2019]m|i am) sorry\b|sorry, (?:but )?i\b|as an ai\b|i(?: cannot| can['\u2019]t| am unable to"
    r"|['\u2019]m unable to) (?:help|assist|write|create|generate|provide|fulfil|comply)",
    re.IGNORECASE,
)
_QUOTES = "\"'`\u201c\u201d"


def parse(answer: str, *, number: int) -> list[str]:
    """Read the queries in an answer; empty where there are none, or nothing that can be read.

    Read are JSON (`{"queries": [...]}`, or a list of strings) with or without words around it, and
    plain lines: all of a numbered or bulleted list, or at most `number` lines without marks (more of
    them are prose).

    Args:
        answer: What the model said.
        number: Queries that were asked for.
    """
    said = _THOUGHT.split(answer[:_READ_CHARACTERS])[-1]
    text = _THINKING.sub("", said).strip()
    if not text or _MARKUP.match(text):
        return []
    if fenced := _FENCE.search(text):
        text = fenced.group(1).strip() or text
    for value in _json_values(text):
        if any(map(_has_words, queries := _strings(value))):
            return queries
    if text[0] in "{[" or '"queries"' in text:  # JSON that was cut off, or of another form
        return []
    return _lines(text, number)


def refusal(query: str, *, passage: str, examples: Sequence[str]) -> str | None:
    """Why a query cannot be used: `empty`, `too_long`, `copies_example`, `copies_passage`; or None."""
    flat = normalised(query)
    if not _has_words(flat):
        return "empty"
    if len(flat) > MAX_CHARACTERS or len(flat.split()) > MAX_WORDS:
        return "too_long"
    if flat in {normalised(example) for example in examples}:
        return "copies_example"
    whole = normalised(passage)
    if flat == whole or (len(flat) >= COPY_CHARACTERS and flat.rstrip(".?!") in whole):
        return "copies_passage"
    return None


def normalised(text: str) -> str:
    """A text without its case and its runs of white space, for comparing."""
    return " ".join(text.casefold().split())


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def encodable(text: str) -> str:
    """A text with half surrogate pairs replaced: they can be neither sent nor saved as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _json_values(text: str) -> Iterator[object]:
    """Each JSON object or list that stands in a text, the outermost first."""
    decoder, at = json.JSONDecoder(), 0
    for _ in range(_BRACKETS_TRIED):
        if (start := _first_bracket(text, at)) < 0:
            return
        try:
            value, at = decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            at = start + 1
        except RecursionError:
            return
        else:
            yield value


def _first_bracket(text: str, at: int) -> int:
    found = [place for bracket in "{[" if (place := text.find(bracket, at)) >= 0]
    return min(found, default=-1)


def _strings(value: object) -> list[str]:
    """Queries of `{"queries": [...]}`, of a list, or of `{"query": "..."}`."""
    if isinstance(value, dict):
        value = value.get("queries", value.get("query"))
    if isinstance(value, str):
        return [_tidy(value)]
    if not isinstance(value, list):
        return []
    items = [item.get("query") if isinstance(item, dict) else item for item in value]
    return [_tidy(item) for item in items if isinstance(item, str)]


def _lines(text: str, number: int) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line for line in lines if _BULLET.match(line)]
    if not marked:
        lines = [line for line in lines if not line.endswith(":")]  # "Here are the queries:"
    chosen = [_tidy(_BULLET.sub("", line)) for line in marked or lines]
    prose = not marked and len(chosen) > number
    sorry = any(_SORRY.match(line) for line in chosen)
    return [] if prose or sorry or not any(map(_has_words, chosen)) else chosen


def _tidy(query: str) -> str:
    return " ".join(encodable(query).split()).strip(_QUOTES).strip()
