"""BM25 as a compiled impact matrix: rank_bm25's numbers at a hundredth of its time.

What rank_bm25 computes for every query is computed once: a term's weight in each passage (its
impact) stands in a posting list, and a query adds up the lists of its words. Within one list the
passages are distinct, so `scores[passages] += impacts` is exact.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import order

StopWords = Literal["none", "english"]

_QUERIES, _POSTINGS = 128, 1 << 20
"""Queries that are searched together at most, and postings that they touch."""
_THREADS = min(4, os.cpu_count() or 1)
_BITS = (1 << 31) - 1
_WORD = re.compile(r"\w+")
# EnglishAnalyzer.ENGLISH_STOP_WORDS_SET of Lucene.
_ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
_STOP_WORDS: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "english": frozenset(_ENGLISH.split()),
}


@dataclass(frozen=True)
class LexicalSpec:
    r"""How text becomes terms and terms become weights.

    Attributes:
        k1: saturation of a term's frequency; this and the next two are rank_bm25's defaults.
        b: how far a passage's length counts, in [0, 1].
        epsilon: a term in over half of the passages gets `epsilon` x the mean idf.
        stemmer: name of a Snowball algorithm, or None.
        stop_words: "english" is the list of Lucene's EnglishAnalyzer (33 words).

    Raises:
        ConfigError: a value is out of its range.
    """

    k1: float = 1.5
    b: float = 0.75
    epsilon: float = 0.25
    stemmer: str | None = "english"
    stop_words: StopWords = "english"

    def __post_init__(self) -> None:
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise ConfigError(
                f"BM25 needs k1 >= 0 and b in [0, 1], found k1 = {self.k1} and b = {self.b}"
            )
        if self.stop_words not in _STOP_WORDS:
            raise ConfigError(
                f"unknown stop words {self.stop_words!r}; choose from {', '.join(_STOP_WORDS)}"
            )

    def describe(self) -> str:
        """One line with what a BM25 figure depends on, to stand beside it."""
        return (
            rf"BM25 (Okapi) k1={self.k1:g} b={self.b:g}, words \w+ lower-cased, "
            f"stemmer {self.stemmer or 'none'}, stop words {self.stop_words}"
        )

    def tokenize(self, texts: Sequence[str]) -> list[list[str]]:
        """Split texts into terms: NFKC, casefold, words, stop words out, stems.

        Raises:
            ConfigError: the stemmer is unknown.
        """
        words = self._words(texts)
        distinct = list(set(chain.from_iterable(words)) - _STOP_WORDS[self.stop_words])
        term_of = dict(zip(distinct, self._stems(distinct), strict=True))
        return [[term_of[word] for word in row if word in term_of] for row in words]

    def count(
        self, texts: Sequence[str]
    ) -> tuple[dict[str, int], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """What `tokenize` gives, as numbers: at a corpus, lists of strings cost twice the time.

        Returns:
            Terms in the order in which they are met, each with its number; the numbers of all
            tokens, int64 [tokens]; and how many each text has, int64 [n].
        """
        words = self._words(texts)
        sizes = _lengths(words)
        number: defaultdict[str, int] = defaultdict()
        number.default_factory = number.__len__  # a new word gets the next number
        flat = map(number.__getitem__, chain.from_iterable(words))
        tokens = np.fromiter(flat, np.int64, int(sizes.sum()))
        kept = [word for word in number if word not in _STOP_WORDS[self.stop_words]]
        stems = self._stems(kept)
        vocabulary = {term: i for i, term in enumerate(dict.fromkeys(stems))}
        term_of = np.full(len(number), -1)
        term_of[[number[word] for word in kept]] = [vocabulary[stem] for stem in stems]
        terms = term_of[tokens]
        owners = np.repeat(np.arange(len(words)), sizes)[terms >= 0]
        return vocabulary, terms[terms >= 0], np.bincount(owners, minlength=len(words))

    @staticmethod
    def _words(texts: Sequence[str]) -> list[list[str]]:
        return [_WORD.findall(unicodedata.normalize("NFKC", text).casefold()) for text in texts]

    def _stems(self, words: list[str]) -> list[str]:
        if self.stemmer is None:
            return words
        import Stemmer

        if self.stemmer not in Stemmer.algorithms():
            raise ConfigError(
                f"unknown stemmer {self.stemmer!r}; choose from {', '.join(Stemmer.algorithms())}"
            )
        # A new one each time: a stemmer must not be shared between threads, and costs microseconds.
        stems: list[str] = Stemmer.Stemmer(self.stemmer).stemWords(words)
        return stems


@dataclass(frozen=True, eq=False)
class LexicalIndex:
    """Posting lists with ready-made BM25 weights (a CSC matrix, passages x terms).

    Attributes:
        ids: passage ids; a position in this index is a place in `ids`.
        spec: how texts were split and weighed; queries are split the same way.
        vocabulary: term -> its posting list's number.
        indptr: int64 [terms + 1]; list t is `[indptr[t], indptr[t + 1])` of the next two.
        passages: int32 [postings], positions, ascending within a list.
        impacts: float32 [postings], the term's BM25 weight in that passage.
        mean_length: terms of a passage on average.
    """

    ids: tuple[str, ...]
    spec: LexicalSpec
    vocabulary: Mapping[str, int]
    indptr: npt.NDArray[np.int64]
    passages: npt.NDArray[np.int32]
    impacts: npt.NDArray[np.float32]
    mean_length: float

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _ranks(self) -> npt.NDArray[np.int64]:
        return order.id_ranks(self.ids)

    @classmethod
    def build(cls, ids: Sequence[str], texts: Sequence[str], *, spec: LexicalSpec) -> LexicalIndex:
        """Index texts; empty ones are kept and never found.

        Raises:
            DataError: `ids` and `texts` differ in length.
            ConfigError: the spec's stemmer is unknown.
        """
        if len(ids) != len(texts):
            raise DataError(f"cannot index {len(texts)} texts under {len(ids)} ids; one id a text")
        vocabulary, terms, lengths = spec.count(texts)
        # One sorted key a (term, passage) counts the term and lays out the lists in one go.
        stride = max(len(ids), 1)
        keys = terms * stride + np.repeat(np.arange(len(ids)), lengths)
        postings, frequency = np.unique(keys, return_counts=True)
        terms, passages = np.divmod(postings, stride)
        holders = np.bincount(terms, minlength=len(vocabulary))
        impacts = _idf(holders, total=len(ids), epsilon=spec.epsilon)[terms]
        impacts *= _saturation(frequency, lengths[passages], lengths, spec=spec)
        return cls(
            ids=tuple(ids),
            spec=spec,
            vocabulary=vocabulary,
            indptr=np.concatenate(([0], np.cumsum(holders))).astype(np.int64),
            passages=passages.astype(np.int32),
            impacts=impacts.astype(np.float32),
            mean_length=float(lengths.mean()) if len(lengths) else 0.0,
        )

    def score_texts(self, queries: Sequence[str], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Score text i for query i as if it were a passage; the statistics stay the corpus' own.

        Returns:
            float32 [n]; for a text that is a passage, what `scores` gives it.
        """
        idf = _idf(np.diff(self.indptr), total=len(self), epsilon=self.spec.epsilon)
        spec, scores = self.spec, np.zeros(len(texts), np.float32)
        mean_length = self.mean_length or 1.0  # 0 where no passage has a word: all scores are 0
        rows = zip(spec.tokenize(queries), spec.tokenize(texts), strict=True)
        for row, (asked, terms) in enumerate(rows):
            frequency = Counter(terms)
            norm = spec.k1 * (1 - spec.b + spec.b * len(terms) / mean_length)
            scores[row] = sum(
                idf[self.vocabulary[term]] * count * (spec.k1 + 1) / (count + norm)
                for term in asked
                if term in self.vocabulary and (count := frequency[term])
            )
        return scores

    @cached_property
    def _by_rank(self) -> npt.NDArray[np.int64]:
        return np.argsort(self._ranks)

    @property
    def _rank_bits(self) -> int:
        return len(self.ids).bit_length()

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """Score every passage for a query, float32 [n].

        Equal to `rank_bm25.BM25Okapi.get_scores` on the same tokens: a term that stands twice in
        the query counts twice, and a score can be negative in a very small corpus.
        """
        return self._add_up(self._numbers([query])[0])

    def _numbers(self, queries: Sequence[str]) -> list[list[int]]:
        """The numbers of the known terms of each query."""
        return [
            [number for term in terms if (number := self.vocabulary.get(term)) is not None]
            for terms in self.spec.tokenize(queries)
        ]

    def _add_up(self, terms: Sequence[int]) -> npt.NDArray[np.float32]:
        scores = np.zeros(len(self.ids))
        for number in terms:
            postings = slice(self.indptr[number], self.indptr[number + 1])
            scores[self.passages[postings]] += self.impacts[postings]
        return scores.astype(np.float32)

    def search(self, queries: Sequence[str], *, k: int) -> list[order.Found]:
        """Return for each query the positions (int64) and scores (float32) of its best passages.

        Sorted by score, then by id. Only scores above 0 are hits, so there may be fewer than `k`,
        and none for a query of unknown words.

        Raises:
            ConfigError: `k` is below 1.
        """
        order.check_k(k)
        asked = self._numbers(queries)
        blocks = [asked[first:last] for first, last in pairwise(self._blocks(asked))]
        if len(blocks) == 1:
            return self._block(blocks[0], k=k)
        with ThreadPoolExecutor(_THREADS) as pool:  # most of the work is outside Python
            return list(
                chain.from_iterable(pool.map(lambda block: self._block(block, k=k), blocks))
            )

    def _blocks(self, asked: list[list[int]]) -> list[int]:
        """Where blocks of queries that are searched together begin, by the postings they touch."""
        sizes, flat = _lengths(asked), _flat(asked)
        touched = np.concatenate(([0], np.cumsum(self.indptr[flat + 1] - self.indptr[flat])))
        touched = touched[np.concatenate(([0], np.cumsum(sizes)))]
        most, bounds = min(_QUERIES, 1 << (33 - self._rank_bits)), [0]
        while (first := bounds[-1]) < len(asked):
            last = int(np.searchsorted(touched, touched[first] + _POSTINGS, side="right")) - 1
            bounds.append(min(max(last, first + 1), first + most, len(asked)))
        return bounds

    def _block(self, asked: list[list[int]], *, k: int) -> list[order.Found]:
        if len(asked) > 1:
            return self._many(asked, k=k)
        scores = self._add_up(asked[0])
        positions = np.flatnonzero(scores > 0)
        return [order.best(positions, scores[positions], ranks=self._ranks, k=k)]

    def _many(self, asked: list[list[int]], *, k: int) -> list[order.Found]:
        """Search a block: one product of sparse matrices adds up, one sort puts in order."""
        from scipy.sparse import csr_array

        terms, entries = np.unique(_flat(asked), return_inverse=True)
        held = self.indptr[terms + 1] - self.indptr[terms]
        starts = np.concatenate(([0], np.cumsum(held)))
        postings = np.repeat(self.indptr[terms] - starts[:-1], held) + np.arange(starts[-1])
        lists = csr_array(
            (self.impacts[postings].astype(np.float64), self.passages[postings], starts),
            shape=(len(terms), len(self)),
        )
        # A row is added up in the order of the query's words, in float64, as `_add_up` does.
        words = csr_array(
            (np.ones(len(entries)), entries, np.concatenate(([0], np.cumsum(_lengths(asked))))),
            shape=(len(asked), len(terms)),
        )
        sums = words @ lists
        counts, scores, places = np.diff(sums.indptr), sums.data.astype(np.float32), sums.indices
        if scores.min(initial=1.0) <= 0:  # only where half of a tiny corpus holds a term
            hits = scores > 0
            counts = np.bincount(
                np.repeat(np.arange(len(asked)), counts)[hits], minlength=len(asked)
            )
            scores, places = scores[hits], places[hits]
        # One number for (query, score downwards, rank of the id): a float above 0 sorts as its bits.
        keys = (_BITS - scores.view(np.int32)).astype(np.int64)
        keys <<= self._rank_bits
        keys |= self._ranks[places]
        keys |= np.repeat(np.arange(len(asked)) << 31 + self._rank_bits, counts)
        keys.sort()
        firsts, lengths = np.cumsum(counts) - counts, np.minimum(counts, k)
        ends = np.cumsum(lengths)
        best = keys[np.repeat(firsts - (ends - lengths), lengths) + np.arange(ends[-1])]
        positions = self._by_rank[best & ((1 << self._rank_bits) - 1)]
        found = (_BITS - (best >> self._rank_bits & _BITS)).astype(np.int32).view(np.float32)
        return list(zip(np.split(positions, ends[:-1]), np.split(found, ends[:-1]), strict=True))

    def save(self, folder: Path) -> None:
        """Write the index into a folder, as .npy arrays and JSON."""
        artifacts.write_json(folder / "spec.json", asdict(self.spec))
        artifacts.write_json(folder / "statistics.json", {"mean_length": self.mean_length})
        artifacts.write_json(folder / "ids.json", self.ids)
        artifacts.write_json(folder / "vocabulary.json", list(self.vocabulary))
        for name in ("indptr", "passages", "impacts"):
            artifacts.write_array(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """Read what `save` wrote; the arrays stay on disk and are mapped into memory.

        Raises:
            DataError: a JSON file is missing or holds no JSON.
        """
        terms = artifacts.read_json(folder / "vocabulary.json")
        return cls(
            ids=tuple(artifacts.read_json(folder / "ids.json")),
            spec=LexicalSpec(**artifacts.read_json(folder / "spec.json")),
            vocabulary={term: number for number, term in enumerate(terms)},
            indptr=_mapped(folder / "indptr.npy"),
            passages=_mapped(folder / "passages.npy"),
            impacts=_mapped(folder / "impacts.npy"),
            mean_length=artifacts.read_json(folder / "statistics.json")["mean_length"],
        )


def _lengths(rows: Sequence[Sequence[Any]]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(len, rows), np.int64, len(rows))


def _flat(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(rows), np.int64)


def _mapped(path: Path) -> npt.NDArray[Any]:
    # A plain view of the map: slices of np.memmap itself are several times slower to make.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _idf(holders: npt.NDArray[np.int64], *, total: int, epsilon: float) -> npt.NDArray[np.float64]:
    """BM25Okapi's idf of each term from the number of passages that hold it (float64 [terms]).

    ln((N - n + .5) / (n + .5)); where that is negative, `epsilon` x the mean over all terms.
    """
    idf: npt.NDArray[np.float64] = np.log(total - holders + 0.5) - np.log(holders + 0.5)
    if idf.size:
        idf[idf < 0] = epsilon * idf.mean()
    return idf


def _saturation(
    frequency: npt.NDArray[np.int64],
    length: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    *,
    spec: LexicalSpec,
) -> npt.NDArray[np.float64]:
    """BM25's tf (k1 + 1) / (tf + k1 (1 - b + b |d| / mean |d|)) of each posting (float64)."""
    if not frequency.size:
        return np.zeros(0)
    norm: npt.NDArray[np.float64] = 1 - spec.b + spec.b * length / lengths.mean()
    weight: npt.NDArray[np.float64] = frequency * (spec.k1 + 1) / (frequency + spec.k1 * norm)
    return weight
