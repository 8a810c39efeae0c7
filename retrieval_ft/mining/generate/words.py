"""What counts as a word, and as a query: the checks that every text taken from a corpus passes."""

from __future__ import annotations

import hashlib
import re

MAX_WORDS = 40

# Scripts written without spaces: each of these characters counts as a word where words are counted.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_WORD = re.compile(r"\w+")
_PATH = re.compile(r"\S*[/\\]\S*|\S+\.\w{1,5}|.*\.(?:md|txt|html?|pdf|docx?|rst)", re.IGNORECASE)
_URL = re.compile(r"\w+://\S|www\.\S", re.IGNORECASE)
# "3.2 ", "1) ", "- ", "> ", "## " before the words; a permalink sign or a colon after them.
_LEAD = re.compile(r"\A(?:(?:\d+(?:\.\d+)+\.?|\d+[.):]|[-*+•>#]+)\s+)+")
_TRAIL = " ¶:;,"

_ENGLISH = (
    "a about after all also am an and any are as at be because been before being between both but "
    "by can could did do does doing done down during each few for from had has have having he her "
    "here hers him his how i if in into is it its just may me might more most must my no nor not "
    "of off on once only or other our out over own s same shall she should so some such t than "
    "that the their them then there these they this those through to too under until up upon us "
    "very was we were what when where which while who whom whose why will with would you your"
)
_EMPTY = (
    "abstract answer answers appendix arguments article background basics begin changelog chapter "
    "click conclusion contents contributing description detail details discussion document "
    "documentation download example examples faq faqs figure first further general getting guide "
    "history home important index info information intro introduction know learn license link links "
    "list main misc miscellaneous need next note notes options overview page parameters part "
    "prerequisites question questions quick read reading reference references related release "
    "remarks requirements results return returns section see start started step steps summary table "
    "tip tips title toc todo topic topics untitled usage use using version view warning warnings"
)

STOP_WORDS = frozenset(_ENGLISH.split())
# They name a part of a document, or ask for a click, and not what it is about.
_GENERIC = frozenset(_EMPTY.split())


def clean(text: str) -> str:
    """White space collapsed; numbering, list marks and permalink signs around the text removed."""
    return _LEAD.sub("", " ".join(text.split()), count=1).rstrip(_TRAIL)


def count_words(text: str) -> int:
    """How many words a text has; a character of a script without spaces counts as one."""
    return len(_UNIT.findall(text))


def content_words(text: str) -> frozenset[str]:
    r"""The distinct words (`\w+`, case folded) of a text that are no English stop words."""
    return frozenset(_WORD.findall(text.casefold())) - STOP_WORDS


def informative(text: str) -> int:
    """How many distinct words say what a text is about: no stop words, numbers, or "overview"."""
    return sum(not word.isnumeric() for word in content_words(text) - _GENERIC)


def fault(query: str) -> str | None:
    """Why a text is no query, or None.

    Returns:
        path (a file, a path or a URL), no_words (none that says what it is about), too_short (one
        word), too_long (over 40), or None.
    """
    if _PATH.fullmatch(query) or _URL.match(query):
        return "path"
    if informative(query) == 0:
        return "no_words"
    count = count_words(query)
    # What has no space is one word, "json.dumps" and "re-use" too, but not in unspaced scripts.
    if count < 2 or (" " not in query and query.isascii()):
        return "too_short"
    return "too_long" if count > MAX_WORDS else None


def key(seed: int, *parts: str) -> int:
    """A number of 64 bits from a seed and ids: the same whatever else the corpus holds."""
    text = "\0".join((str(seed), *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
