"""A training pair that was made, not labelled: a query, its passage, and what training may see."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GeneratedPair:
    """A query that was taken from a passage, or written for it."""

    query: str
    passage_id: str
    kind: str
    """How it was made: a `pairs.kinds` or a `synthetic.kinds` of the configuration."""
    view: str | None = None
    """The passage's text as training sees it: without the words the query was taken from; None: the
    passage as it is."""


@dataclass(frozen=True)
class Dropped:
    """A pair that a filter dropped."""

    pair: GeneratedPair
    reason: str
    value: float
    """What was measured: the overlap, or the rank (inf where the view was not found)."""


@dataclass(frozen=True)
class Filtered:
    """What a filter kept and what it dropped, both in the order they came in."""

    kept: tuple[GeneratedPair, ...]
    dropped: tuple[Dropped, ...]
