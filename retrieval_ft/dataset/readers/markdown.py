"""Markdown to sections: headings, paragraphs, lists, code and tables as text; links resolved.

CommonMark with tables, read by markdown-it-py; HTML inside it by the HTML reader. What stands in
front matter (YAML between `---`) becomes the title and metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.front_matter import front_matter_plugin

from retrieval_ft.dataset.readers import html
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.outline import Outline, one_line
from retrieval_ft.dataset.readers.reading import (
    LIBRARY_ERRORS,
    Fault,
    Parsed,
    first_line,
    metadata_of,
)

DEEPEST = 100
"""Lists and quotes inside each other; markdown-it drops what is nested deeper."""

_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9-]*)")
_HREF = re.compile(r"""<a\s[^>]*?\bhref\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_ROWS = re.compile(r"\s*</?(t[rdh]|thead|tbody|tfoot)\b", re.IGNORECASE)
_NOT_YAML = (yaml.YAMLError, ValueError, OverflowError, RecursionError)


@cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": DEEPEST})
    return parser.enable(["table", "strikethrough"]).use(front_matter_plugin)


def parse(text: str, links: Links) -> Parsed:
    """Read a Markdown text.

    Raises:
        Fault: lists or quotes are nested deeper than `DEEPEST`, or markdown-it stumbles over it.
    """
    environment: dict[str, Any] = {}
    deep = Fault("too deep", f"about {DEEPEST} lists or quotes inside each other")
    try:
        tokens = _markdown().parse(text, environment)
    except RecursionError as error:
        raise deep from error
    except LIBRARY_ERRORS as error:
        raise Fault("damaged", f"markdown-it cannot read it: {first_line(error)}") from error
    if any(token.level >= DEEPEST - 1 for token in tokens):
        raise deep
    flow = _Flow(links)
    for token in tokens:
        flow.take(token)
    for label, place in _places(environment):
        if label.startswith("^"):  # a footnote of one word looks like the place of a link
            flow.outline.block(f"[{label}] {unquote(place['href'])} {place['title']}".rstrip())
    return flow.outline.parsed(flow.title, flow.metadata)


class _Flow:
    """Takes block tokens in their order."""

    def __init__(self, links: Links) -> None:
        self.outline = Outline()
        self.title = ""
        self.metadata: dict[str, Any] = {}
        self._links = links
        self._found: list[tuple[str, str]] = []
        self._heading = self._lists = 0
        self._mark = ""
        self._cells: list[str] | None = None
        self._apart = True

    def take(self, token: Token) -> None:
        """Take the next token."""
        handler = getattr(self, f"_on_{token.type}", None)
        if handler is not None:
            handler(token)

    def _on_front_matter(self, token: Token) -> None:
        try:
            values = yaml.safe_load(token.content)
        except _NOT_YAML:
            values = None
        if not isinstance(values, dict):
            self._block(token.content)
            return
        self.title = str(values.pop("title", None) or "")
        # Flat values alone: an alias inside an alias can stand for more than a memory holds.
        flat = {key: value for key, value in values.items() if not _holds_lists(value)}
        self.metadata, _ = metadata_of(flat)

    def _on_heading_open(self, token: Token) -> None:
        # A heading inside a list or a quote is text of the section that these stand in.
        self._heading = int(token.tag[1]) if token.level == 0 else 0
        self._apart = True

    def _on_inline(self, token: Token) -> None:
        text = self._inline(token.children or [])
        if self._heading:
            self.outline.heading(self._heading, text)
            self._heading = 0
        elif self._cells is not None:
            self._cells.append(one_line(text))
            return
        else:
            self._block(text)
        self._add_links()

    def _on_paragraph_open(self, token: Token) -> None:
        self._apart |= not token.hidden

    def _on_fence(self, token: Token) -> None:
        self._apart = True
        self._block(token.content)

    _on_code_block = _on_fence

    def _on_html_block(self, token: Token) -> None:
        # Rows whose table began in an earlier block: outside a table their cells would run together.
        rows = _ROWS.match(token.content)
        html.feed(self.outline, f"<table>{token.content}" if rows else token.content, self._links)
        self._apart = True

    def _on_bullet_list_open(self, token: Token) -> None:
        self._apart |= self._lists == 0
        self._lists += 1

    _on_ordered_list_open = _on_bullet_list_open

    def _on_bullet_list_close(self, token: Token) -> None:
        self._lists -= 1
        self._apart |= self._lists == 0

    _on_ordered_list_close = _on_bullet_list_close

    def _on_list_item_open(self, token: Token) -> None:
        number = f"{token.info}{token.markup}" if token.info else "-"
        self._mark = f"{'  ' * (self._lists - 1)}{number} "

    def _on_table_open(self, token: Token) -> None:
        self._apart = True

    def _on_tr_open(self, token: Token) -> None:
        self._cells = []

    def _on_tr_close(self, token: Token) -> None:
        cells, self._cells = self._cells or [], None
        if any(cells):
            self._block(" | ".join(cells))
        self._add_links()

    def _block(self, text: str) -> None:
        if text.strip():
            self.outline.block(self._mark + text, tight=not self._apart)
            self._mark, self._apart = "", False

    def _add_links(self) -> None:
        for text, address in self._found:
            self.outline.link(text, self._links.resolve(address))
        self._found.clear()

    def _inline(self, children: list[Token]) -> str:
        """The text of inline tokens; their links are kept for the block."""
        pieces: list[str] = []
        anchors: list[tuple[str, int]] = []
        for child in children:
            pieces.append(self._piece(child))
            if address := _address(child):
                anchors.append((address, len(pieces)))
            elif anchors and (child.type == "link_close" or child.content.lower() == "</a>"):
                opened, start = anchors.pop()
                words = "".join(pieces[start:])
                if not words.startswith("^"):
                    self._found.append((words, opened))
        return "".join(pieces)

    def _piece(self, token: Token) -> str:
        if token.type == "softbreak":
            return " "
        if token.type == "hardbreak":
            return "\n"
        if token.type == "image":
            return self._inline(token.children or [])
        if token.type != "html_inline":
            return token.content
        tag = _TAG.match(token.content)
        if tag is None or html.is_inline(tag[1].lower()):
            return ""
        return "\n" if tag[1].lower() == "br" else " "


def _address(token: Token) -> str:
    """Where an opening link points; empty for every other token."""
    if token.type == "link_open":
        return str(token.attrs.get("href", ""))
    found = _HREF.match(token.content) if token.type == "html_inline" else None
    return found[1] if found else ""


def _places(environment: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What reference definitions (`[label]: place`) say; of equal labels the first one counts."""
    yield from environment.get("references", {}).items()
    yield from ((place["label"], place) for place in environment.get("duplicate_refs", ()))


def _holds_lists(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, (list, dict, set, tuple)) for item in items)
