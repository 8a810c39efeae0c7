"""Queries that are sentences of the passage: its first one, or one from within (inverse cloze task).

Training sees the passage without the sentence, so that it must learn what belongs together and not
which words are equal. In one case of ten the sentence stays, so that equal words keep their worth:
the share of Lee et al., "Latent Retrieval for Weakly Supervised Open Domain Question Answering"
(arXiv 1906.00300).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from retrieval_ft.dataset.sentences import sentence_spans
from retrieval_ft.mining.generate import words
from retrieval_ft.mining.generate.types import GeneratedPair

MIN_WORDS = 5
WHOLE_SHARE = 0.1
# A blank line, or a line that starts a list item, a table row or a heading, ends a sentence too.
_BREAK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+•|>#]|\d+[.)])\s)")
# A sentence that starts with one of these says little without the one before it.
_LEANS = re.compile(r"(?:its?|th(?:is|at|ese|ose|ey|eir)|such|s?he)\b", re.IGNORECASE)
_ENDS = re.compile(r"[.!?\u2026\u3002\uff01\uff1f\u0964\u061f\u06d4][\"'\u2019\u201d)\]\u300d]*$")
_LEAST_LETTERS = 0.6  # of what is not space: below it a "sentence" is a table, a formula or code


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and its place in the text; `query` is the text in `[start, end)`, cleaned."""

    query: str
    start: int
    end: int


def sentences(text: str) -> list[Sentence]:
    """Split a text into sentences, in the order of reading; those without a word are left out."""
    found, begin = [], 0
    for stop in [*(match.end() for match in _BREAK.finditer(text)), len(text)]:
        for start, end in sentence_spans(text[begin:stop]):
            query = words.clean(text[begin + start : begin + end])
            if query:
                found.append(Sentence(query, begin + start, begin + end))
        begin = stop
    return found


def fault(sentence: str) -> str | None:
    """Why a sentence is no query, or None: what `words.fault` says, too_short, no_prose.

    Prose ends in a full stop or the like and is mostly letters; list items, tables and code are not.
    """
    if words.count_words(sentence) < MIN_WORDS:
        return "too_short"
    if not _ENDS.search(sentence):
        return "no_prose"
    solid = sentence.replace(" ", "")
    if sum(map(str.isalpha, solid)) < _LEAST_LETTERS * len(solid):
        return "no_prose"
    return words.fault(sentence)


def without(title: str, text: str, sentence: Sentence) -> str:
    """Title and text as they are indexed, the sentence taken out."""
    rest = (text[: sentence.start] + text[sentence.end :]).strip()
    return f"{title} {rest}".strip()


def choose(found: Sequence[Sentence], *, seed: int, passage_id: str) -> Sentence | None:
    """One of some sentences, by the seed and the passage's id; None where there are none.

    Sentences that start with "this", "it" and the like are taken only where there are no others.
    """
    fit = [sentence for sentence in found if not _LEANS.match(sentence.query)] or found
    return fit[words.key(seed, "crop", passage_id) % len(fit)] if fit else None


def leave_some_whole(pairs: Iterable[GeneratedPair], *, seed: int) -> tuple[GeneratedPair, ...]:
    """Give back the sentence to a seeded tenth of the cropped passages (their view becomes None).

    To be called after the filters: a query that stands in what it must find passes none of them.
    """
    return tuple(replace(pair, view=None) if _stays(pair, seed=seed) else pair for pair in pairs)


def _stays(pair: GeneratedPair, *, seed: int) -> bool:
    share = words.key(seed, "whole", pair.passage_id, pair.query) / 2**64
    return pair.kind == "crop" and share < WHOLE_SHARE
