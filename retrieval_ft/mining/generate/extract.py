"""Pairs from the corpus itself: what may be a query, what may not, and which of them are taken.

Everything is chosen by the seed and the ids of passages, never by their place in the corpus, so a
document more changes little in what the others give.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from retrieval_ft.config import PairsConfig
from retrieval_ft.console import progress
from retrieval_ft.dataset import Corpus, Link
from retrieval_ft.dataset.splits import normalize
from retrieval_ft.mining.generate import crop, words
from retrieval_ft.mining.generate.structure import (
    Anchors,
    Outline,
    anchors,
    heading_pair,
    title_pair,
)
from retrieval_ft.mining.generate.types import GeneratedPair

MIN_VIEW_WORDS = 8
MAX_PASSAGES = 3
"""A title, heading or anchor of more passages than this names none of them."""


@dataclass(frozen=True)
class Extraction:
    """Pairs by passage id, kind and query, and what became of everything that might have been one."""

    pairs: tuple[GeneratedPair, ...]
    account: Mapping[str, Mapping[str, int]]
    """Kind -> outcome -> count: taken, over_per_passage (the passage gave enough of other kinds), or
    why it was dropped."""
    passages: int
    passages_over_max_pairs: int
    """Passages that were not looked at, because there were enough pairs before."""


def extract(
    corpus: Corpus,
    config: PairsConfig,
    *,
    seed: int,
    links: Iterable[tuple[str, Iterable[Link]]] = (),
) -> Extraction:
    """Take queries from a corpus.

    Args:
        corpus: passages; `document`, `headings` and `span` of their metadata are used where present.
        config: kinds, pairs of a passage, pairs in all.
        seed: of every choice.
        links: (document id, links in it), for the kind "link".

    Returns:
        At most `config.max_pairs` pairs, the documents taking turns. A query text that stands for up
        to three passages (a title, a heading, an anchor) comes with each of them.
    """
    outline = Outline.of(corpus)
    anchored = anchors(outline, links if "link" in config.kinds else ())
    maker = _Maker(outline, anchored, config, seed, _shared_texts(outline, anchored, config))
    return maker.run()


@dataclass(frozen=True)
class _Shared:
    """Texts (as numbers, see `_number`) that stand in more than one passage."""

    names: Mapping[int, tuple[int, ...]]
    """Titles, headings and anchors of 2 or 3 passages -> the rows of these."""
    ambiguous: frozenset[int]
    """Those of more passages."""
    repeated: frozenset[int]
    """Sentences of more than one: what chunks overlap in, boilerplate."""


def _shared_texts(outline: Outline, anchored: Anchors, config: PairsConfig) -> _Shared:
    names, rows, sentences = array("Q"), array("Q"), array("Q")
    corpus = outline.corpus
    with progress("reading titles and sentences", len(corpus)) as bar:
        for row, text in enumerate(corpus.texts):
            here = {_number(pair.query) for pair in _named(outline, row, config)}
            here |= {_number(anchor) for anchor in anchored.texts.get(row, ())}
            names.extend(here)
            rows.extend([row] * len(here))
            if "first_sentence" in config.kinds or "crop" in config.kinds:
                sentences.extend({_number(found.query) for found in crop.sentences(text)})
            bar.advance()
    numbers = np.array(names, np.uint64)
    places, counts = np.unique(numbers, return_counts=True)
    few = np.isin(numbers, places[(counts > 1) & (counts <= MAX_PASSAGES)])
    shared: defaultdict[int, list[int]] = defaultdict(list)
    for place in np.flatnonzero(few).tolist():
        shared[names[place]].append(rows[place])
    repeated, times = np.unique(np.array(sentences, np.uint64), return_counts=True)
    return _Shared(
        {number: tuple(found) for number, found in shared.items()},
        frozenset(places[counts > MAX_PASSAGES].tolist()),
        frozenset(repeated[times > 1].tolist()),
    )


def _number(query: str) -> int:
    return words.key(0, normalize(query))


def _named(outline: Outline, row: int, config: PairsConfig) -> Iterator[GeneratedPair]:
    for kind, make in (("title", title_pair), ("heading", heading_pair)):
        pair = make(outline, row) if kind in config.kinds else None
        if pair is not None:
            yield pair


class _Maker:
    """Holds what was taken, and the account, while passages take their turns."""

    def __init__(
        self, outline: Outline, anchored: Anchors, config: PairsConfig, seed: int, shared: _Shared
    ) -> None:
        self.outline, self.corpus, self.anchored = outline, outline.corpus, anchored
        self.config, self.seed, self.shared = config, seed, shared
        self.taken: dict[tuple[int, int], GeneratedPair] = {}
        self.account: dict[str, Counter[str]] = {kind: Counter() for kind in config.kinds}

    def run(self) -> Extraction:
        """Look at passages in turn until there are enough pairs."""
        looked = 0
        for row in self._turns():
            if len(self.taken) >= self.config.max_pairs:
                break
            looked += 1
            for pair in self._choose(row):
                self._take(row, pair)
        for pair in self.taken.values():
            self.account[pair.kind]["taken"] += 1
        if "link" in self.account:
            self.account["link"].update(self.anchored.dropped)
        return Extraction(
            tuple(sorted(self.taken.values(), key=lambda p: (p.passage_id, p.kind, p.query))),
            {kind: dict(sorted(counts.items())) for kind, counts in self.account.items()},
            passages=len(self.corpus),
            passages_over_max_pairs=len(self.corpus) - looked,
        )

    def _turns(self) -> list[int]:
        """Every row: a seeded passage of each document, then another one of each, and so on."""
        keys = np.array([words.key(self.seed, "turn", i) for i in self.corpus.ids], np.uint64)
        turns = np.zeros(len(keys), np.int64)
        for rows in self.outline.rows_of.values():
            if len(rows) > 1:
                places = np.array(rows)
                turns[places[np.argsort(keys[places], kind="stable")]] = np.arange(len(rows))
        order: list[int] = np.lexsort((keys, turns)).tolist()
        return order

    def _choose(self, row: int) -> list[GeneratedPair]:
        """The pairs that a passage gives: `per_passage` of its kinds, the first of them seeded."""
        good: dict[int, GeneratedPair] = {}
        for pair, reason in self._candidates(row):
            if reason is None and good.setdefault(_number(pair.query), pair) is not pair:
                reason = "duplicate"
            if reason is not None:
                self.account[pair.kind][reason] += 1
        free = [pair for number, pair in good.items() if (row, number) not in self.taken]
        if not free:
            return []
        first = words.key(self.seed, "kind", self.corpus.ids[row]) % len(free)
        turned = free[first:] + free[:first]
        wanted = max(0, self.config.per_passage - (len(good) - len(free)))
        for pair in turned[wanted:]:
            self.account[pair.kind]["over_per_passage"] += 1
        return turned[:wanted]

    def _take(self, row: int, pair: GeneratedPair) -> None:
        """Take a pair and those of the other passages that its query names, or none of them."""
        number = _number(pair.query)
        group = {(row, number): pair}
        for other in self.shared.names.get(number, ()):
            for twin, reason in self._candidates(other):
                if reason is None and _number(twin.query) == number:
                    group.setdefault((other, number), twin)
        new = sum(place not in self.taken for place in group)
        if len(self.taken) + new > self.config.max_pairs:
            self.account[pair.kind]["over_max_pairs"] += 1
        else:
            self.taken |= group

    def _candidates(self, row: int) -> Iterator[tuple[GeneratedPair, str | None]]:
        """Every pair that a passage might give, in the order of the kinds, and what speaks against."""
        made = {pair.kind: (pair, self._name_fault(pair)) for pair in self._names(row)}
        made |= {pair.kind: (pair, fault) for pair, fault in self._sentences(row)}
        for kind in self.config.kinds:
            if kind in made:
                pair, fault = made[kind]
                if fault is None and words.count_words(self._seen(row, pair)) < MIN_VIEW_WORDS:
                    fault = "view_too_short"
                yield pair, fault

    def _seen(self, row: int, pair: GeneratedPair) -> str:
        return self.corpus.texts[row] if pair.view is None else pair.view

    def _names(self, row: int) -> Iterator[GeneratedPair]:
        yield from _named(self.outline, row, self.config)
        pair = self.anchored.pair(self.outline, row)
        if pair is not None:
            yield pair

    def _name_fault(self, pair: GeneratedPair) -> str | None:
        if _number(pair.query) in self.shared.ambiguous:
            return "ambiguous"
        return words.fault(pair.query)

    def _sentences(self, row: int) -> Iterator[tuple[GeneratedPair, str | None]]:
        passage_id, title, text = (
            column[row] for column in (self.corpus.ids, self.corpus.titles, self.corpus.texts)
        )
        found = crop.sentences(text)
        if "first_sentence" in self.config.kinds and found:
            view = crop.without(title, text, found[0])
            pair = GeneratedPair(found[0].query, passage_id, "first_sentence", view)
            yield pair, self._sentence_fault(pair.query)
        if "crop" in self.config.kinds and found:
            fit = [s for s in found[1:] if self._sentence_fault(s.query) is None]
            chosen = crop.choose(fit, seed=self.seed, passage_id=passage_id)
            if chosen is None:
                yield GeneratedPair("", passage_id, "crop"), "no_sentence"
            else:
                view = crop.without(title, text, chosen)
                yield GeneratedPair(chosen.query, passage_id, "crop", view), None

    def _sentence_fault(self, query: str) -> str | None:
        return "repeated" if _number(query) in self.shared.repeated else crop.fault(query)
