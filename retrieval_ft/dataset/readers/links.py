"""Where a link of a document points: the id of another document, or the address as it stands."""

from __future__ import annotations

import posixpath
from collections.abc import Set
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_SUFFIXES = (".md", ".markdown", ".rst", ".html", ".htm", ".txt")
_INDEXES = tuple(f"/{name}{suffix}" for name in ("index", "README") for suffix in _SUFFIXES)


@dataclass(frozen=True)
class Links:
    """Resolves the links of one document among the documents below one root."""

    document: str = ""
    """Id of the document that the links stand in."""
    known: Set[str] = field(default_factory=frozenset)
    """Ids of all documents below the root."""

    def resolve(self, address: str) -> str:
        """Return the target of a link.

        A relative address is taken from the document's folder and one that begins with `/` from the
        root; `guide` and `guide/` find guide.md, guide/index.html and the like. The fragment stays.
        An address with a scheme or a host, and one that leaves the root, stays as it is.
        """
        try:
            scheme, host, path, query, fragment = urlsplit(address.strip())
        except ValueError:
            return address
        if scheme or host or (query and not path):
            return address
        behind = f"#{fragment}" if fragment else ""
        if not path:
            return self.document + behind
        folder = "" if path.startswith("/") else posixpath.dirname(self.document)
        place = posixpath.normpath(posixpath.join(folder, unquote(path).lstrip("/") or "."))
        if place == ".." or place.startswith("../"):
            return address
        return self._nearest(place) + behind

    def _nearest(self, place: str) -> str:
        stem = "" if place == "." else place
        candidates = (place, *(stem + end for end in _SUFFIXES), *(stem + end for end in _INDEXES))
        return next((c.lstrip("/") for c in candidates if c.lstrip("/") in self.known), place)
