"""From the flow of a document (headings, blocks of text, links) to a title and sections.

Every markup parser feeds one `Outline`, so that the rules are the same for all: a heading opens a
section, the lone first heading is the title, and no text that is fed is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retrieval_ft.dataset.documents import Link, Section
from retrieval_ft.dataset.readers.reading import Parsed

_SPACE = re.compile(r"\s+")


def one_line(text: str) -> str:
    """The text with every run of white space as one space, and none at its ends."""
    return _SPACE.sub(" ", text).strip()


@dataclass
class _Draft:
    level: int
    heading: str
    parts: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Outline:
    """Takes what a parser meets in the order of reading; `parsed` gives the sections."""

    def __init__(self) -> None:
        self._drafts = [_Draft(level=0, heading="")]

    def heading(self, level: int, text: str) -> None:
        """Open a section; `level` is 1 for the outermost. A heading without text opens none."""
        if heading := one_line(text):
            self._drafts.append(_Draft(level, heading))

    def block(self, text: str, *, tight: bool = False) -> None:
        """Add a paragraph, a list item, a row, code: on its own line if `tight`, else apart."""
        if not text.strip():
            return
        parts = self._drafts[-1].parts
        if parts:
            parts.append("\n" if tight else "\n\n")
        parts.append(text.strip("\n").rstrip())

    def link(self, text: str, target: str) -> None:
        """Add a link of the section that is open; one without words or place is none."""
        text = one_line(text)
        if text and target.strip():
            self._drafts[-1].links.append(Link(text, target.strip()))

    def parsed(self, title: str = "", metadata: Mapping[str, Any] | None = None) -> Parsed:
        """Close the document.

        `title` is what the format says beside the text. Where it says none, the first heading is
        the title if it stands before all text and no other is of its level or above. A heading that
        is the title stands in the title alone.
        """
        title = one_line(title)
        drafts = self._drafts if self._drafts[0].text else self._drafts[1:]
        if drafts and _leads(drafts) and title.casefold() in ("", drafts[0].heading.casefold()):
            title = title or drafts[0].heading
            drafts = [_Draft(0, "", drafts[0].parts, drafts[0].links), *drafts[1:]]
        return Parsed(title, tuple(_sections(drafts)), dict(metadata or {}))


def _leads(drafts: list[_Draft]) -> bool:
    """Whether the first heading stands before all text and above all other headings."""
    first, *others = drafts
    return first.level > 0 and all(other.level > first.level for other in others)


def _sections(drafts: list[_Draft]) -> Iterable[Section]:
    path: list[_Draft] = []
    for i, draft in enumerate(drafts):
        while path and path[-1].level >= draft.level:
            path.pop()
        if draft.level:
            path.append(draft)
        # A heading right above a deeper one stands in the path of that one already.
        above = i + 1 < len(drafts) and drafts[i + 1].level > draft.level
        if draft.text or draft.links or (draft.level and not above):
            yield Section(tuple(d.heading for d in path), draft.text, tuple(draft.links))
