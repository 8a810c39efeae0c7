r"""How text becomes terms: words in any language, stop words out, stems.

`\w+` finds the words of Latin, Greek or Cyrillic text. In other scripts it fails without a sign: it
cuts a Hindi word at its vowel signs, and takes a Chinese sentence, where no space is written, for
one word. A text with such characters goes another way; all others pay one look for them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import chain, groupby, pairwise

import numpy as np
import numpy.typing as npt

from retrieval_ft.errors import ConfigError

_WORD = re.compile(r"\w+")
# EnglishAnalyzer.ENGLISH_STOP_WORDS_SET of Lucene.
_ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
_MISENCODED = {"turkish"}
"""Lists of `stop-words` 2025.11.4 that hold one letter for another."""
# Latin, Greek, Cyrillic, punctuation and symbols: nothing that `_Rules` acts on.
_USUAL = re.compile(
    r"[\x00-\xac\xae-\u02ff\u0370-\u0482\u048a-\u0590\u1d00-\u1dbf\u1e00-\u200a"
    r"\u2010-\u2029\u202f-\u205f\u2070-\u20cf\u2100-\u2cee]*+"
)
_LAST = 0x20000  # the marks and format characters beyond are in `selectors` below
_SPACELESS = (  # blocks of scripts that are written without spaces between words
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese; two more blocks below
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # Han radicals, kana, Bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),  # historic kana
    (0x20000, 0x323AF),  # Han
)
_ZERO_WIDTH_SPACE = "\u200b"  # a format character that parts words


@dataclass(frozen=True)
class LexicalSpec:
    r"""How text becomes terms and terms become weights.

    Attributes:
        k1: saturation of a term's frequency; this and the next two are rank_bm25's defaults.
        b: how far a passage's length counts, in [0, 1].
        epsilon: a term in over half of the passages gets `epsilon` x the mean idf.
        stemmer: name of a Snowball algorithm, or None.
        stop_words: "none", "english" (the list of Lucene's EnglishAnalyzer, 33 words), or the name
            of another language: the list of the package `stop-words`.
        bigrams: a run of letters of Chinese, Japanese, Thai, Lao, Khmer or Burmese, where words
            are not set apart, becomes its overlapping pairs, as in Lucene's CJKAnalyzer; a letter
            that stands alone stays. Other text is the same with and without.

    Raises:
        ConfigError: a value is out of its range.
    """

    k1: float = 1.5
    b: float = 0.75
    epsilon: float = 0.25
    stemmer: str | None = "english"
    stop_words: str = "english"
    bigrams: bool = True

    def __post_init__(self) -> None:
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise ConfigError(
                f"BM25 needs k1 >= 0 and b in [0, 1], found k1 = {self.k1} and b = {self.b}"
            )
        if self.stop_words not in ("none", "english") and self.stop_words not in stop_word_lists():
            raise ConfigError(
                f"unknown stop words {self.stop_words!r}; choose from "
                f"{', '.join(stop_word_lists())}"
            )

    def describe(self) -> str:
        """One line with what a BM25 figure depends on, to stand beside it."""
        words = "words case-folded, with their marks"
        if self.bigrams:
            words += ", pairs of letters where no spaces are written"
        source = ""
        if self.stop_words not in ("none", "english"):
            source = f" (stop-words {metadata.version('stop-words')})"
        return (
            f"BM25 (Okapi) k1={self.k1:g} b={self.b:g} epsilon={self.epsilon:g}, {words}, "
            f"stemmer {self.stemmer or 'none'}, stop words {self.stop_words}{source}"
        )

    def tokenize(self, texts: Sequence[str]) -> list[list[str]]:
        """Split texts into terms: NFKC, casefold, words, stop words out, stems.

        Raises:
            ConfigError: the stemmer is unknown.
        """
        words = self._words(texts)
        distinct = list(set(chain.from_iterable(words)) - self._stop_words)
        term_of = dict(zip(distinct, self._stems(distinct), strict=True))
        return [[term_of[word] for word in row if word in term_of] for row in words]

    def count(
        self, texts: Sequence[str]
    ) -> tuple[dict[str, int], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """What `tokenize` gives, as numbers: at a corpus, lists of strings cost twice the time.

        Returns:
            Terms in the order in which they are met, each with its number; the numbers of all
            tokens, int64 [tokens]; and how many each text has, int64 [n].

        Raises:
            ConfigError: the stemmer is unknown.
        """
        words = self._words(texts)
        sizes = np.fromiter(map(len, words), np.int64, len(words))
        number: defaultdict[str, int] = defaultdict()
        number.default_factory = number.__len__  # a new word gets the next number
        flat = map(number.__getitem__, chain.from_iterable(words))
        tokens = np.fromiter(flat, np.int64, int(sizes.sum()))
        stop_words = self._stop_words
        kept = [word for word in number if word not in stop_words]
        stems = self._stems(kept)
        vocabulary = {term: i for i, term in enumerate(dict.fromkeys(stems))}
        term_of = np.full(len(number), -1)
        term_of[[number[word] for word in kept]] = [vocabulary[stem] for stem in stems]
        terms = term_of[tokens]
        owners = np.repeat(np.arange(len(words)), sizes)[terms >= 0]
        return vocabulary, terms[terms >= 0], np.bincount(owners, minlength=len(words))

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        return [_split(text, self.bigrams) for text in texts]

    @property
    def _stop_words(self) -> frozenset[str]:
        return _stop_words(self.stop_words, self.bigrams)

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


@cache
def stop_word_lists() -> tuple[str, ...]:
    """Return what `LexicalSpec.stop_words` may be: "none", then languages in alphabetical order."""
    import stop_words

    return ("none", *sorted({"english", *stop_words.AVAILABLE_LANGUAGES} - _MISENCODED))


@cache
def _stop_words(name: str, bigrams: bool) -> frozenset[str]:
    """A list in the form that words of a text take; phrases are left out, as no word equals them."""
    if name == "none":
        return frozenset()
    if name == "english":
        return frozenset(_ENGLISH.split())
    import stop_words

    entries = [_split(entry, bigrams) for entry in stop_words.get_stop_words(name)]
    return frozenset(words[0] for words in entries if len(words) == 1)


def _split(text: str, bigrams: bool) -> list[str]:
    if text.isascii():
        return _WORD.findall(text.lower())
    text = unicodedata.normalize("NFKC", text).casefold()
    if _USUAL.fullmatch(text):
        return _WORD.findall(text)
    return _rules().split(text, bigrams)


@dataclass(frozen=True)
class _Rules:
    """What is done to text with unusual characters; patterns over all of Unicode.

    Attributes:
        hidden: what a reader does not see and a searcher does not type: format characters (soft
            hyphens, joiners, marks of direction: UAX #29 does not part words at them either),
            variation selectors and enclosing marks.
        word: letters and digits, and combining marks after the first.
        letter: one letter of a script without spaces, and its marks.
        run: such letters, or a word of others.
    """

    hidden: re.Pattern[str]
    word: re.Pattern[str]
    letter: re.Pattern[str]
    run: re.Pattern[str]

    def split(self, text: str, bigrams: bool) -> list[str]:
        """Words of a text after NFKC and casefold."""
        # Casefold writes the Turkish capital as i with a dot above, which nobody types, and takes
        # some Greek letters apart, which stemmers do not know.
        text = self.hidden.sub("", text).replace("i\u0307", "i")
        words = self.word.findall(unicodedata.normalize("NFKC", text))
        if not bigrams or not self.letter.search(text):
            return words
        return list(chain.from_iterable(map(self._pairs, words)))

    def _pairs(self, word: str) -> list[str]:
        if not self.letter.search(word):
            return [word]
        found: list[str] = []
        for run in self.run.findall(word):
            letters = self.letter.findall(run)
            found += [a + b for a, b in pairwise(letters)] or [run]
        return found


@cache
def _rules() -> _Rules:
    def is_mark(character: str) -> bool:
        return unicodedata.category(character) in ("Mn", "Mc")

    hidden = _ranges(
        lambda c: unicodedata.category(c) in ("Cf", "Me") and c != _ZERO_WIDTH_SPACE,
        range(0xAD, _LAST),
    )
    selectors = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0000-\U000e01ef"
    # Python looks up a class in no time up to U+FFFF, and range by range beyond.
    beyond = rf"(?![\x00-\uffff])[{_ranges(is_mark, range(0x10000, _LAST))}]"
    mark = f"(?:[{_ranges(is_mark, range(0x300, 0x10000))}]|{beyond})"
    letters = _ranges(
        lambda c: c.isalnum() and not c.isdecimal(),
        chain.from_iterable(range(first, last + 1) for first, last in _SPACELESS),
    )
    word = r"{0}+(?:{1}+{0}*)*"
    together, apart = word.format(f"[{letters}]", mark), word.format(rf"[^\W{letters}]", mark)
    return _Rules(
        hidden=re.compile(f"[{hidden}{selectors}]"),
        word=re.compile(word.format(r"\w", mark)),
        letter=re.compile(f"[{letters}]{mark}*"),
        run=re.compile(f"{together}|{apart}"),
    )


def _ranges(wanted: Callable[[str], bool], codes: Iterable[int]) -> str:
    """The characters that are wanted, as the inside of a regular expression's brackets."""
    found = [code for code in codes if wanted(chr(code))]
    runs = (
        [code for _, code in run]
        for _, run in groupby(enumerate(found), key=lambda pair: pair[1] - pair[0])
    )
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)
