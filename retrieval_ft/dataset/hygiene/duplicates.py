"""Which passages are the same: equal ones, and near-duplicates by MinHash with an exact check.

Passages equal in canonical form (title and text) are one content. Contents of 20 words or more are
sketched (MinHash over their word 3-grams: Broder 1997), candidates come from banding the sketches
(Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, ch. 3), and a candidate pair counts only if
the exact Jaccard similarity of its 3-gram sets reaches the threshold. Chance can miss a pair
(`Clusters.recall`); it never makes one.

The sketches are datasketch's: pure Python over numpy, kept for years, and with schemes that have
names and stay. rensa sketches three times as fast, about a minute at 1M passages, but is a young
binary with one scheme that its last release replaced. The banding is done here because an LSH index
that answers with all that share a bucket takes quadratic time where thousands of passages are
near-equal: here a passage is compared with the `_WINDOW` before it in a bucket at most, in the order
of the sketches.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from retrieval_ft.console import progress
from retrieval_ft.dataset.hygiene.words import canonical, words
from retrieval_ft.dataset.types import Corpus

MIN_WORDS = 20
"""Passages with fewer words have only equal duplicates: one word more or less is much of them."""
_SHINGLE = 3
_PERMUTATIONS = 128
_RECALL = 0.999
_WINDOW = 32
_SETS_KEPT = 8_192


@dataclass(frozen=True)
class Duplicate:
    """A passage that says what another one says."""

    passage_id: str
    representative: str
    """The passage that stands for the cluster."""
    jaccard: float
    """Of the 3-gram sets of the two, in [0, 1]. It can lie below the threshold where a third passage
    links them."""
    equal: bool
    """Whether the two are equal in canonical form."""


@dataclass(frozen=True)
class Clusters:
    """Sets of passages that say the same. A passage in none of them stands for itself."""

    jaccard: float
    """The threshold."""
    recall: float
    """Probability that a pair of exactly this similarity is found; more similar ones are surer."""
    duplicates: tuple[Duplicate, ...]
    """Every passage that another one represents, in corpus order."""

    @cached_property
    def representative_of(self) -> Mapping[str, str]:
        """Representative of each passage that has another one for it."""
        return {found.passage_id: found.representative for found in self.duplicates}

    def representative(self, passage_id: str) -> str:
        """The passage that stands for a passage: itself where it is in no cluster."""
        return self.representative_of.get(passage_id, passage_id)

    @cached_property
    def members(self) -> Mapping[str, tuple[str, ...]]:
        """Each representative and those it stands for: itself first, then in corpus order."""
        found: dict[str, list[str]] = {}
        for duplicate in self.duplicates:
            row = found.setdefault(duplicate.representative, [duplicate.representative])
            row.append(duplicate.passage_id)
        return {representative: tuple(row) for representative, row in found.items()}


def clusters(
    corpus: Corpus, *, jaccard: float, labelled: Collection[str] = frozenset()
) -> Clusters:
    """Find the passages that are equal or nearly so.

    Linear in the passages, however many are alike. The clusters do not depend on the order of the
    corpus; which of its passages stands for a cluster does.

    Args:
        corpus: passages; title and text together are compared.
        jaccard: threshold on the sets of word 3-grams, in (0, 1].
        labelled: ids of judged passages. The representative is the first of these in corpus order,
            or the first passage where a cluster has none.
    """
    contents = _Contents(corpus)
    sets = _DisjointSets(len(contents))
    rows, recall = banding(jaccard)
    long = contents.long()
    sketches = _sketches(contents, long)
    for start in range(0, _PERMUTATIONS - rows + 1, rows):
        for bucket in _buckets(sketches, start, rows):
            _link(long[bucket].tolist(), contents, sets, jaccard)
    return Clusters(jaccard, recall, tuple(_duplicates(corpus, contents, sets, set(labelled))))


def banding(jaccard: float) -> tuple[int, float]:
    """Rows of a band: the most with which a pair at the threshold is found with probability .999.

    Returns:
        The rows, and the probability 1 - (1 - jaccard ** rows) ** bands that they give.
    """
    recall = 0.0
    for rows in range(_PERMUTATIONS, 0, -1):
        recall = 1 - (1 - jaccard**rows) ** (_PERMUTATIONS // rows)
        if recall >= _RECALL:
            return rows, recall
    return 1, recall


def _similarity(first: frozenset[str], second: frozenset[str]) -> float:
    """Jaccard similarity of two sets that are not empty."""
    both = len(first & second)
    return both / (len(first) + len(second) - both)


class _Contents:
    """The distinct canonical texts of a corpus, numbered in an order that its own does not change.

    Texts are made when asked for: 1M of them beside the corpus would double the memory.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in self._all()]
        number = {digest: place for place, digest in enumerate(sorted(set(digests)))}
        self.of_passage: list[int] = [number[digest] for digest in digests]
        """Number of the content of each passage of the corpus."""
        self._passage = np.empty(len(number), np.int64)
        self._passage[self.of_passage] = np.arange(len(digests))
        self.shingles = lru_cache(maxsize=_SETS_KEPT)(self._shingles)

    def __len__(self) -> int:
        return len(self._passage)

    def _text(self, passage: int) -> str:
        return canonical(f"{self._corpus.titles[passage]} {self._corpus.texts[passage]}")

    def _all(self) -> Iterator[str]:
        return (self._text(passage) for passage in range(len(self._corpus)))

    def _words(self, content: int) -> list[str]:
        return words(self._text(int(self._passage[content])))

    def _shingles(self, content: int) -> frozenset[str]:
        """Word 3-grams of a content; itself where it has fewer words."""
        found = self._words(content)
        if len(found) < _SHINGLE:
            return frozenset([" ".join(found)])
        return frozenset(map(" ".join, zip(*(found[i:] for i in range(_SHINGLE)), strict=False)))

    def long(self) -> npt.NDArray[np.int64]:
        """Numbers of the contents with at least `MIN_WORDS` words."""
        return np.array(
            [i for i in range(len(self)) if len(self._words(i)) >= MIN_WORDS], dtype=np.int64
        )


class _DisjointSets:
    """Union-find with path halving; the smaller number is the root."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, item: int) -> int:
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.find(first), self.find(second)))
        self._parent[high] = low


def _sketches(contents: _Contents, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """MinHash of each chosen content, uint32 [chosen, permutations]."""
    from datasketch import MinHash

    shingles = ([s.encode() for s in contents.shingles(i)] for i in chosen.tolist())
    made = MinHash.generator(
        shingles, num_perm=_PERMUTATIONS, seed=1, hashfunc=zlib.crc32, scheme="affine32"
    )
    sketches = np.empty((len(chosen), _PERMUTATIONS), np.uint32)
    with progress("near-duplicates", len(chosen)) as ticker:
        for row, sketch in enumerate(made):
            sketches[row] = sketch.hashvalues
            ticker.advance()
    return sketches


def _buckets(
    sketches: npt.NDArray[np.uint32], start: int, rows: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the rows of each set of sketches that agree in one band, two of them or more.

    The rows of a bucket wider than the window lie in the order of their sketches read from the band
    on: the more alike two are, the longer the stretch they share, and the nearer they lie.
    """
    keys = _as_keys(sketches[:, start : start + rows])
    order = np.argsort(keys, kind="stable")
    changes = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    starts = np.concatenate([[0], changes])
    sizes = np.diff(np.concatenate([starts, [len(order)]]))
    for place in np.flatnonzero(sizes > 1):
        bucket = order[starts[place] : starts[place] + sizes[place]]
        if len(bucket) > _WINDOW:
            whole = _as_keys(np.roll(sketches[bucket], -start, axis=1))
            bucket = bucket[np.argsort(whole, kind="stable")]
        yield bucket


def _as_keys(columns: npt.NDArray[np.uint32]) -> npt.NDArray[np.void]:
    """One comparable value for each row."""
    rows = np.ascontiguousarray(columns)
    return rows.view(f"V{rows.itemsize * rows.shape[1]}").ravel()


def _link(bucket: Sequence[int], contents: _Contents, sets: _DisjointSets, jaccard: float) -> None:
    """Join those of a bucket that are near-duplicates and not yet in one cluster."""
    for place, content in enumerate(bucket):
        for other in bucket[max(0, place - _WINDOW) : place]:
            if sets.find(content) != sets.find(other) and _alike(contents, content, other, jaccard):
                sets.join(content, other)


def _alike(contents: _Contents, first: int, second: int, jaccard: float) -> bool:
    a, b = contents.shingles(first), contents.shingles(second)
    if min(len(a), len(b)) < jaccard * max(len(a), len(b)):
        return False
    return _similarity(a, b) >= jaccard


def _duplicates(
    corpus: Corpus, contents: _Contents, sets: _DisjointSets, labelled: set[str]
) -> Iterator[Duplicate]:
    roots = [sets.find(content) for content in contents.of_passage]
    standing: dict[int, int] = {}
    for passage, root in enumerate(roots):
        other = standing.setdefault(root, passage)
        if corpus.ids[passage] in labelled and corpus.ids[other] not in labelled:
            standing[root] = passage
    for passage, root in enumerate(roots):
        if (other := standing[root]) != passage:
            content, kept = contents.of_passage[passage], contents.of_passage[other]
            alike = (
                1.0
                if content == kept
                else _similarity(contents.shingles(content), contents.shingles(kept))
            )
            yield Duplicate(corpus.ids[passage], corpus.ids[other], alike, content == kept)
