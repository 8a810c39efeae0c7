"""HTML to sections: what a reader of the page sees, without its frame (navigation, banners).

selectolax parses; the tree is walked without recursion. Nesting is bounded before it is parsed:
lexbor looks through all open elements for each new one, so 100,000 open ones take a minute.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode

from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.outline import Outline, one_line
from retrieval_ft.dataset.readers.reading import Fault, Parsed

DEEPEST = 5_000
"""Elements inside each other; browsers stop at 512."""

_TAG = re.compile(r"<(/?)([A-Za-z][^\s/>]*)")
# End tags of these may be left out, or there are none: they do not nest by themselves.
_FLAT = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "source",
        "track",
        "wbr",
        "p",
        "li",
        "dt",
        "dd",
        "td",
        "th",
        "tr",
        "tbody",
        "thead",
        "tfoot",
        "colgroup",
        "option",
        "optgroup",
        "html",
        "head",
        "body",
    ]
)
_UNSEEN = frozenset(
    ["script", "style", "nav", "aside", "template", "noscript", "head", "svg", "iframe", "dialog"]
)
_ROLES = frozenset(["navigation", "banner", "complementary", "contentinfo", "search"])
_FRAME = frozenset(("header", "footer"))
_CONTENT = frozenset(("article", "main", "section"))
_INLINE = frozenset(
    [
        "a",
        "abbr",
        "acronym",
        "b",
        "bdi",
        "bdo",
        "big",
        "cite",
        "code",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "img",
        "ins",
        "kbd",
        "label",
        "mark",
        "output",
        "q",
        "rp",
        "rt",
        "ruby",
        "s",
        "samp",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "time",
        "tt",
        "u",
        "var",
        "wbr",
    ]
)
_TIGHT = frozenset(["li", "tr", "dt", "dd", "br", "option"])
_HEADING = re.compile(r"h([1-6])")


def parse(text: str, links: Links) -> Parsed:
    """Read a page; its title is that of `<title>`.

    Raises:
        Fault: elements are nested deeper than `DEEPEST`.
    """
    outline = Outline()
    tree = feed(outline, text, links)
    title = tree.css_first("head > title")
    return outline.parsed(title.text() if title else "")


def feed(outline: Outline, text: str, links: Links) -> LexborHTMLParser:
    """Feed a page or a piece of one to an outline that is under way."""
    depth = _depth(text)
    if depth > DEEPEST:
        raise Fault("too deep", f"over {DEEPEST:,} HTML elements inside each other")
    tree = LexborHTMLParser(text)
    if tree.body is not None:
        page = _Page(outline, links)
        for entering, node in _walk(tree.body, page.seen):
            (page.enter if entering else page.leave)(node)
        page.flush()
    return tree


def is_inline(tag: str) -> bool:
    """Whether an element runs with the text around it, so that no space belongs at its ends."""
    return tag in _INLINE


def _depth(text: str) -> int:
    """How deep elements nest at most, from the tags alone."""
    path: list[str] = []
    inside: Counter[str] = Counter()
    deepest = 0
    for match in _TAG.finditer(text):
        closing, tag = match[1], match[2].lower()
        if tag in _FLAT:
            continue
        if not closing:
            path.append(tag)
            inside[tag] += 1
            deepest = max(deepest, len(path))
        while closing and inside[tag]:
            last = path.pop()
            inside[last] -= 1
            if last == tag:
                break
    return deepest


def _walk(
    root: LexborNode, seen: Callable[[LexborNode], bool]
) -> Iterator[tuple[bool, LexborNode]]:
    """Yield (entering, node) for all that is seen below `root`, in document order."""
    path: list[LexborNode] = []
    node = root.first_child
    while node is not None or path:
        if node is None:
            node = path.pop()
            yield False, node
            node = node.next
        elif seen(node):
            yield True, node
            path.append(node)
            node = node.first_child
        else:
            node = node.next


@dataclass
class _Anchor:
    address: str
    start: int
    pieces: list[str] = field(default_factory=list)


class _Page:
    """What is open while a page is walked: a run of text, a heading, anchors."""

    def __init__(self, outline: Outline, links: Links) -> None:
        self._outline, self._links = outline, links
        self._run: list[str] = []
        self._found: list[tuple[str, str]] = []
        self._anchors: list[_Anchor] = []
        self._apart = True
        self._pre = self._content = self._heading = 0
        self._mark = ""

    def seen(self, node: LexborNode) -> bool:
        """Whether a node is read; else all below it is passed over as well."""
        tag = node.tag
        if node.is_text_node:
            return True
        if node.is_comment_node or tag is None or tag in _UNSEEN:
            return False
        attributes = node.attributes
        if "hidden" in attributes or attributes.get("role") in _ROLES:
            return False
        # The header of an article is part of it; that of the page is its frame.
        return tag not in _FRAME or self._content > 0

    def enter(self, node: LexborNode) -> None:
        """Take a text, or the begin of an element."""
        tag = node.tag or ""
        if node.is_text_node:
            self._add(node.text_content or "")
        elif tag == "img":
            self._add(f" {node.attributes.get('alt') or ''} ")
        elif tag == "a":
            self._anchors.append(_Anchor(node.attributes.get("href") or "", len(self._run)))
        elif tag in ("td", "th"):
            self._add(" | " if "".join(self._run).strip() else "")
        elif tag not in _INLINE:
            self._begin(tag)

    def _begin(self, tag: str) -> None:
        self._boundary(tag)
        self._content += tag in _CONTENT
        self._pre += tag == "pre"
        if tag == "li":
            self._mark = "- "
        if (level := _HEADING.fullmatch(tag)) and not self._heading and not self._pre:
            self._heading = int(level[1])

    def leave(self, node: LexborNode) -> None:
        """Take the end of an element."""
        tag = node.tag or ""
        if tag == "a":
            self._close_anchor()
        if tag in _INLINE or tag in ("td", "th") or node.is_text_node:
            return
        if self._heading and tag == f"h{self._heading}":
            self.flush()
        self._content -= tag in _CONTENT
        self._boundary(tag)
        if tag == "pre":
            if self._pre == 1:
                self.flush()
            self._pre -= 1

    def flush(self) -> None:
        """Close the run of text that is open: a block, or the heading."""
        text = "".join(self._run)
        if self._heading:
            self._outline.heading(self._heading, text)
            self._heading = 0
            self._found = [link for link in self._found if link[1][0] != "#"]  # to itself
        elif text.strip():
            text = text if self._pre else one_line(text)
            self._outline.block(self._mark + text, tight=not self._apart)
            self._mark, self._apart = "", False
        for words, address in self._found:
            self._outline.link(words, self._links.resolve(address))
        self._found.clear()
        self._run.clear()

    def _add(self, text: str) -> None:
        self._run.append(text)
        for anchor in self._anchors:
            anchor.pieces.append(text)

    def _boundary(self, tag: str) -> None:
        if self._heading:
            self._add(" ")
        elif self._pre:
            if self._run and not self._run[-1].endswith("\n"):
                self._add("\n")
        else:
            self.flush()
            self._apart |= tag not in _TIGHT

    def _close_anchor(self) -> None:
        anchor = self._anchors.pop()
        words = "".join(anchor.pieces)
        if anchor.address.startswith("#") and not any(map(str.isalnum, words)):
            del self._run[anchor.start :]  # the sign beside a heading that links to itself
        elif anchor.address:
            self._found.append((words, anchor.address))
