"""The form of a text in which duplicates are equal, and what counts as a word of it."""

from __future__ import annotations

import re
import unicodedata

# Scripts that put no space between words: a character counts as a word.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])"
)
_SPOKEN = re.compile(r"[^\W_]")


def canonical(text: str) -> str:
    """NFKC, case folded, white space collapsed: passages equal in this form are the same passage."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """The words of a text: parted by white space; each character where a script has no spaces."""
    return (text if text.isascii() else _UNSPACED.sub(r" \1 ", text)).split()


def word_count(text: str) -> int:
    """Number of words with a letter or a digit in them; marks and rules alone are none."""
    return sum(_SPOKEN.search(word) is not None for word in words(text))
