"""Lines that many documents share: licence headers, menus, footers.

Two passes over a source that can be read twice: `add` every document, then `strip` every document.
The first document that holds a boilerplate line keeps it, so no line is lost to the corpus: where
the documents are versions of one text the first stays whole. Memory is bounded: counts are kept by
the hash of a line, and when there are too many the rare half goes (frequent items with a median
decrement: Anderson et al., "A High-Performance Algorithm for Identifying Frequent Items in Data
Streams", IMC 2017).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from retrieval_ft.config import HygieneConfig
from retrieval_ft.dataset.documents import Document, Section
from retrieval_ft.dataset.hygiene.account import Check
from retrieval_ft.dataset.hygiene.words import canonical, word_count

MIN_DOCUMENTS = 5
_MIN_WORDS = 3
_CODE_ENDS = (":", ";", ",", "{", "}", "(", "[")
_SHOWN = 200


@dataclass
class _Line:
    """A boilerplate line: its first words, the document that keeps it, how often it was removed."""

    text: str
    kept_in: str
    removed: int = 0


class _Stripped(NamedTuple):
    lines: int
    empty: bool


class BoilerplateCounter:
    """Counts in how many documents a line stands, then removes the boilerplate.

    A line is compared in canonical form. It needs three words, and must not end as lines of code do
    (a colon, a bracket that opens): `else:` and `return x` stand in many files and are no
    boilerplate. Documents of equal text count as one.

    Args:
        config: `boilerplate_share`.
        capacity: distinct lines that are counted at a time. A count is too low by at most twice the
            number of lines read over the capacity, so the share that a line needs is met within
            2 x (lines of a document, on average) / capacity; it is never overstated.
    """

    def __init__(self, config: HygieneConfig, *, capacity: int = 1 << 20) -> None:
        self._share, self._capacity = config.boilerplate_share, capacity
        self._counts: dict[bytes, int] = {}
        self._texts: set[bytes] = set()
        self._documents = 0
        self._lines: dict[bytes, _Line] = {}
        self._stripped: dict[str, _Stripped] = {}

    def add(self, document: Document) -> None:
        """Count the lines of a document: each one once."""
        self._documents += 1
        text = _key(canonical(document.text))
        if text in self._texts:
            return
        self._texts.add(text)
        for key in map(_key, _candidates(document)):
            self._counts[key] = self._counts.get(key, 0) + 1
        if len(self._counts) > self._capacity:
            self._thin()

    def strip(self, document: Document) -> Document:
        """Return a document without the boilerplate; sections stay, and may have an empty text.

        Links whose words went with a line go too. `checks` lists what was removed.
        """
        found = self._boilerplate(document)
        if not found:
            return document
        sections = tuple(_without(section, found) for section in document.sections)
        empty = not any(section.text.strip() for section in sections)
        self._stripped[document.id] = _Stripped(len(found), empty)
        return replace(document, sections=sections)

    def checks(self) -> list[Check]:
        """`boilerplate` (documents touched, a row for each line) and `emptied_documents`."""
        lines = sorted(self._lines.items(), key=lambda item: (-self._counts[item[0]], item[1].text))
        rows: list[dict[str, Any]] = [
            {
                "line": line.text,
                "documents": self._counts[key],
                "kept_in": line.kept_in,
                "removed_from": line.removed,
            }
            for key, line in lines
        ]
        removed = sum(line.removed for _, line in lines)
        of = self._documents
        done = f"{removed} lines removed that stand in {self._needed} documents or more"
        emptied = tuple(
            {"document": name, "lines_removed": stripped.lines}
            for name, stripped in self._stripped.items()
            if stripped.empty
        )
        return [
            Check("boilerplate", len(self._stripped), of, done, tuple(rows)),
            Check("emptied_documents", len(emptied), of, "every line stands in others", emptied),
        ]

    @property
    def _needed(self) -> int:
        # A share of .3 of 10 documents is 3.0000000000000004 of them in floating point.
        return max(MIN_DOCUMENTS, math.ceil(round(self._share * len(self._texts), 6)))

    def _boilerplate(self, document: Document) -> set[str]:
        """Canonical lines that go from this document."""
        needed = self._needed
        found: set[str] = set()
        for line, written in _candidates(document).items():
            key = _key(line)
            if self._counts.get(key, 0) < needed:
                continue
            known = self._lines.setdefault(key, _Line(written[:_SHOWN], document.id))
            if known.kept_in != document.id:
                known.removed += 1
                found.add(line)
        return found

    def _thin(self) -> None:
        middle = int(np.median(np.fromiter(self._counts.values(), np.int64)))
        self._counts = {key: n - middle for key, n in self._counts.items() if n > middle}


def _candidates(document: Document) -> dict[str, str]:
    """Lines that could be boilerplate: canonical form -> as written first, in order."""
    lines: dict[str, str] = {}
    for section in document.sections:
        for line in section.text.splitlines():
            lines.setdefault(canonical(line), line.strip())
    return {
        line: written
        for line, written in lines.items()
        if not line.endswith(_CODE_ENDS) and word_count(line) >= _MIN_WORDS
    }


def _without(section: Section, found: set[str]) -> Section:
    lines = section.text.splitlines(keepends=True)
    kept = [line for line in lines if canonical(line) not in found]
    if len(kept) == len(lines):
        return section
    text = "".join(kept)
    return replace(section, text=text, links=tuple(x for x in section.links if x.text in text))


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
