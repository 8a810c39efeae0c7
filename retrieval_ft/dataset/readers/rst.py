"""reStructuredText to sections, read by docutils with its hands tied.

No file is included, no raw output, no configuration file, nothing on stderr. Documents written for
Sphinx hold directives and roles that docutils does not know: their text is read all the same.
"""

from __future__ import annotations

import re
import textwrap

from docutils import ApplicationError, nodes
from docutils.core import publish_doctree

from retrieval_ft.dataset.readers import html
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.outline import Outline, one_line
from retrieval_ft.dataset.readers.reading import LIBRARY_ERRORS, Fault, Parsed, first_line

DEEPEST = 20
"""Unknown directives inside each other."""

_SETTINGS = {
    "_disable_config": True,
    "doctitle_xform": False,
    "docinfo_xform": False,
    "file_insertion_enabled": False,
    "halt_level": 5,
    "raw_enabled": False,
    "report_level": 5,
    "smart_quotes": False,
    "syntax_highlight": "none",
    "warning_stream": False,
}
_VERBATIM = frozenset(
    [
        "code",
        "code-block",
        "sourcecode",
        "parsed-literal",
        "math",
        "prompt",
        "doctest",
        "testcode",
        "testoutput",
        "graphviz",
        "mermaid",
        "csv-table",
    ]
)
_DIRECTIVE = re.compile(r"\.\.\s+(?:\|[^|\n]*\|\s*)?([\w:.+-]+)\s*::[ \t]*")
_ROLE = re.compile(r":([\w:.+-]+):`(.*)`|`(.*)`:([\w:.+-]+):", re.DOTALL)
_LOST = re.compile(r"`(.*)`__?|(?<=.)__?$", re.DOTALL)
_EMBEDDED = re.compile(r"(.*?)\s*<([^<>]+)>", re.DOTALL)
_UNSEEN = (nodes.comment, nodes.substitution_definition, nodes.target, nodes.pending, nodes.meta)


def parse(text: str, links: Links) -> Parsed:
    """Read a reStructuredText.

    Raises:
        Fault: it is nested too deep, or docutils stumbles over it.
    """
    outline = Outline()
    try:
        _Flow(outline, links, depth=0).read(text, level=0)
    except RecursionError as error:
        raise Fault("too deep", "lists or quotes inside each other without end") from error
    return outline.parsed()


class _Flow:
    """Walks the tree of docutils and feeds the outline."""

    def __init__(self, outline: Outline, links: Links, *, depth: int) -> None:
        self._outline, self._links, self._depth = outline, links, depth
        self._mark = ""
        self._tight = False
        self._found: list[tuple[str, str]] = []

    def read(self, text: str, *, level: int) -> None:
        """Feed a whole text; its sections lie below `level`."""
        try:
            tree = publish_doctree(text, settings_overrides=_SETTINGS)
        except RecursionError:
            raise
        except (ApplicationError, *LIBRARY_ERRORS) as error:
            raise Fault("damaged", f"docutils cannot read it: {first_line(error)}") from error
        self._visit_all(tree, level)

    def _visit_all(self, parent: nodes.Element, level: int) -> None:
        for child in parent.children:
            if isinstance(child, nodes.Element):
                self._visit(child, level)

    def _visit(self, node: nodes.Element, level: int) -> None:
        if isinstance(node, _UNSEEN) or "contents" in node.get("classes", ()):
            return
        handler = getattr(self, f"_on_{node.tagname}", None)
        if handler is not None:
            handler(node, level)
        elif isinstance(node, nodes.TextElement):
            text = self._inline(node)
            self._block(text if isinstance(node, nodes.FixedTextElement) else one_line(text))
        else:
            self._visit_all(node, level)

    def _on_section(self, node: nodes.Element, level: int) -> None:
        self._visit_all(node, level + 1)

    def _on_title(self, node: nodes.Element, level: int) -> None:
        text = self._inline(node)
        if not isinstance(node.parent, nodes.section):
            self._block(one_line(text))
            return
        self._outline.heading(level, text)
        self._add_links()

    def _on_bullet_list(self, node: nodes.Element, level: int) -> None:
        for i, item in enumerate(_elements(node)):
            self._item("- ", item, level, first=i == 0)

    def _on_enumerated_list(self, node: nodes.Element, level: int) -> None:
        start = int(node.get("start", 1))
        for i, item in enumerate(_elements(node)):
            mark = f"{start + i}. " if node.get("enumtype") == "arabic" else "- "
            self._item(mark, item, level, first=i == 0)

    def _on_definition(self, node: nodes.Element, level: int) -> None:
        self._tight = True
        self._visit_all(node, level)

    def _on_field(self, node: nodes.Element, level: int) -> None:
        name, body = _elements(node)
        self._item(f"{one_line(self._inline(name))}: ", body, level)

    def _on_option_list_item(self, node: nodes.Element, level: int) -> None:
        options, body = _elements(node)
        names = ", ".join(option.astext() for option in _elements(options))
        self._item(f"{names} ", body, level)

    def _on_footnote(self, node: nodes.Element, level: int) -> None:
        self._item("", node, level)

    _on_citation = _on_footnote

    def _on_label(self, node: nodes.Element, level: int) -> None:
        self._mark += f"[{node.astext()}] "

    def _on_line(self, node: nodes.Element, level: int) -> None:
        self._block(one_line(self._inline(node)))
        self._tight = True

    def _on_image(self, node: nodes.Element, level: int) -> None:
        self._block(node.get("alt", ""))

    def _on_row(self, node: nodes.Element, level: int) -> None:
        # A cell may hold anything: it is read apart and put on the line of its row.
        cells = []
        for entry in _elements(node):
            cell = Outline()
            _Flow(cell, self._links, depth=self._depth)._visit_all(entry, 0)
            section = next(iter(cell.parsed().sections), None)
            cells.append(one_line(section.text) if section else "")
            self._found += [(link.text, link.target) for link in section.links] if section else []
        self._block(" | ".join(cells) if any(cells) else "")
        self._tight = True

    def _on_system_message(self, node: nodes.Element, level: int) -> None:
        # docutils quotes what it could not read: an unknown directive, a broken table or title.
        # Below an error it quotes texts that it read all the same, but for directives.
        for quoted in node.findall(nodes.literal_block):
            text = quoted.astext()
            if directive := _DIRECTIVE.match(text):
                self._directive(directive[1], text[directive.end() :], level)
            elif node["level"] >= 3:
                self._block(text)

    def _directive(self, name: str, rest: str, level: int) -> None:
        """Read an unknown directive: what stands on its first line, then its body."""
        first, _, body = rest.partition("\n")
        body = textwrap.dedent(body).strip("\n")
        if name == "raw" and "html" in first:
            html.feed(self._outline, body, self._links)
        elif name in ("include", "literalinclude"):
            return  # the name of another file, which is a document itself or none
        elif name in _VERBATIM or self._depth >= DEEPEST:
            self._block(f"{first}\n{body}")
        else:
            nested = _Flow(self._outline, self._links, depth=self._depth + 1)
            nested.read(f"{first}\n\n{body}", level=level)

    def _item(self, mark: str, node: nodes.Element, level: int, *, first: bool = False) -> None:
        self._mark += mark
        self._tight = not first
        self._visit_all(node, level)
        if self._mark.strip(" -"):  # nothing stands behind it
            self._block(" ")
        self._mark = ""

    def _block(self, text: str) -> None:
        if text.strip() or (text and self._mark):
            self._outline.block(self._mark + text, tight=self._tight)
            self._mark, self._tight = "", False
        self._add_links()

    def _add_links(self) -> None:
        for text, target in self._found:
            self._outline.link(text, target)
        self._found.clear()

    def _inline(self, node: nodes.Element) -> str:
        """The text of inline nodes; their links are kept for the block."""
        pieces = []
        for child in node.children:
            if isinstance(child, nodes.Text):
                pieces.append(child.astext())
            elif isinstance(child, nodes.image):
                pieces.append(f" {child.get('alt', '')} ")
            elif isinstance(child, nodes.problematic):
                pieces.append(self._problematic(child.astext()))
            elif isinstance(child, nodes.footnote_reference | nodes.citation_reference):
                pieces.append(f"[{child.astext()}]")
            elif isinstance(child, nodes.Element):
                text = self._inline(child)
                pieces.append(text)
                if isinstance(child, nodes.reference) and (address := _address(child)):
                    self._found.append((text, self._links.resolve(address)))
        return "".join(pieces)

    def _problematic(self, source: str) -> str:
        """What docutils could not make out, as a reader sees it: a role of Sphinx, a lost target."""
        if not (role := _ROLE.fullmatch(source)):
            return _LOST.sub(r"\1", source)
        name, text = (role[1], role[2]) if role[1] else (role[4], role[3])
        if not (embedded := _EMBEDDED.fullmatch(text)):
            return text
        if name == "doc":
            self._found.append((embedded[1], self._links.resolve(embedded[2])))
        return embedded[1]


def _elements(node: nodes.Element) -> list[nodes.Element]:
    return [child for child in node.children if isinstance(child, nodes.Element)]


def _address(reference: nodes.Element) -> str:
    if "refuri" in reference:
        return str(reference["refuri"])
    return f"#{reference['refid']}" if "refid" in reference else ""
