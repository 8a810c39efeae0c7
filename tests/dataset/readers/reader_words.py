"""What the tests of the parsers share: words, and whether a parser kept them all."""

import re
from collections import Counter

from hypothesis import strategies as st

LETTERS = "abcdefghijklmnopqrstuvwxyzäßéжя中文"
words = st.text(alphabet=LETTERS, min_size=1, max_size=6)
phrases = st.lists(words, min_size=1, max_size=6).map(" ".join)


def of(text):
    return Counter(re.findall(r"\w+", text))


def kept(parsed):
    """Words of title, headings and sections, each heading once for each section below it."""
    sections = [" ".join((*section.headings, section.text)) for section in parsed.sections]
    return of(" ".join((parsed.title, *sections)))


def lost(source, parsed):
    """Words of a text that a parser did not keep, with how often."""
    return of(source) - kept(parsed)


def outline(parsed):
    return [(section.headings, section.text) for section in parsed.sections]
