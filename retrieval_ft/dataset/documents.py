"""What readers give and the chunker takes: a document as its sections, in the order of reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Link:
    """A link as the author wrote it: words that stand for another place."""

    text: str
    target: str
    """Id of the document it points at (path below the root, `#fragment` kept), or a URL."""


@dataclass(frozen=True)
class Section:
    """A stretch of text under one heading; the heading itself is not part of `text`."""

    headings: tuple[str, ...]
    """Headings above the text, outermost first; empty before the first heading."""
    text: str
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Document:
    """One file, page or row. `id` is unique within a source and the same on every machine."""

    id: str
    """Path below the root with forward slashes, or the row's own id."""
    title: str
    """Empty where the document has none."""
    sections: tuple[Section, ...]
    where: str
    """`file` or `file:line`, for messages."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that go with every passage of the document."""

    @property
    def text(self) -> str:
        """Texts of all sections, parted by a blank line."""
        return "\n\n".join(section.text for section in self.sections)
