"""Word documents (.docx) to sections: headings by style, tables as rows, notes behind their place.

python-docx opens the package; the text is taken from the XML itself, for it passes over content
controls, text boxes, insertions under review and notes. The size that the file unpacks to is looked
up before anything is unpacked.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docx
from docx.document import Document as WordDocument
from docx.exceptions import PythonDocxError
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn
from docx.oxml.parser import parse_xml

from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.outline import Outline, one_line
from retrieval_ft.dataset.readers.reading import LIBRARY_ERRORS, Fault, Parsed, first_line

LARGEST = 512 << 20
"""Bytes that a document may unpack to."""
LARGEST_XML = 64 << 20
"""Bytes of these that may be XML: in memory it takes ten times as much."""

_OLE = b"\xd0\xcf\x11\xe0"
_ERRORS = (OpcError, PythonDocxError, zipfile.BadZipFile, *LIBRARY_ERRORS)
_HEADING = re.compile(r"heading (\d+)")
_GENERATED = 0
"""Level of the styles of a table of contents, which repeats the headings."""
_CHARACTERS = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_TEXT = frozenset((qn("w:t"), qn("m:t")))
_NOTES = {qn("w:footnoteReference"): "footnote", qn("w:endnoteReference"): "endnote"}
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
# Old text of a move, and a second copy of a text box for old programs; properties hold no text.
_UNSEEN = frozenset((qn("w:moveFrom"), qn("w:pPr"), qn("w:rPr"), f"{_MC}Fallback"))


def parse(path: Path, links: Links) -> Parsed:
    """Read a Word document; its title is the paragraph of that style, else that of its properties.

    Raises:
        Fault: it is encrypted or damaged, or unpacks to more than `LARGEST` or `LARGEST_XML`.
    """
    with path.open("rb") as file:
        if file.read(4) == _OLE:
            raise Fault("encrypted", "a password is needed to open it, or it is an old .doc file")
    try:
        _check_size(path)
        flow = _Flow(docx.Document(str(path)), links)
        flow.read()
    except _ERRORS as error:
        raise Fault("damaged", f"no .docx that can be read: {first_line(error)}") from error
    return flow.outline.parsed(flow.title)


def _check_size(path: Path) -> None:
    with zipfile.ZipFile(path) as package:
        sizes = [(member.filename, member.file_size) for member in package.infolist()]
    for what, size, limit in (
        ("", sum(size for _, size in sizes), LARGEST),
        ("XML of ", sum(size for name, size in sizes if _is_xml(name)), LARGEST_XML),
    ):
        if size > limit:
            raise Fault(
                "too large", f"unpacks to {what}{size >> 20:,} MiB; allowed are {limit >> 20:,} MiB"
            )


def _is_xml(name: str) -> bool:
    return name.lower().endswith((".xml", ".rels"))


class _Flow:
    """Walks the XML of a document and feeds the outline."""

    def __init__(self, document: WordDocument, links: Links) -> None:
        self.outline = Outline()
        self.title = document.core_properties.title or ""
        self._document, self._links = document, links
        self._titled = self._in_list = False
        self._levels = {style.style_id: _level(style) for style in document.styles}
        self._found: list[tuple[str, str]] = []
        self._after: list[str] = []
        self._notes: dict[tuple[str, str], str] = {}
        for kind in _NOTES.values():
            for number, note in _notes(document, kind):
                self._notes[kind, number] = "\n".join(self._texts(note))
        self._found.clear()  # addresses of links in notes are kept elsewhere

    def read(self) -> None:
        """Feed the whole body."""
        self._blocks(self._document.element.body)

    def _blocks(self, container: Any) -> None:
        for child in container:
            if child.tag == qn("w:p"):
                self._paragraph(child)
            elif child.tag == qn("w:tbl"):
                self._table(child)
            elif child.tag not in _UNSEEN:
                self._blocks(child)

    def _paragraph(self, paragraph: Any) -> None:
        text = "".join(self._pieces(paragraph)).strip()
        level = self._levels.get(paragraph.style or "")
        if level == _GENERATED:
            return
        if level is not None and text:
            if level == 1 and not self._titled:
                self.title, self._titled = text, True
            self.outline.heading(level, text)
        else:
            listed = paragraph.pPr is not None and paragraph.pPr.numPr is not None
            mark = "- " if listed and text else ""
            self.outline.block(mark + text, tight=listed and self._in_list)
            self._in_list = listed
        self._close()

    def _table(self, table: Any) -> None:
        self._in_list = False
        for i, row in enumerate(_nearest(table, qn("w:tr"))):
            cells = [one_line(" ".join(self._texts(tc))) for tc in _nearest(row, qn("w:tc"))]
            self.outline.block(" | ".join(cells) if any(cells) else "", tight=i > 0)
            self._close()

    def _close(self) -> None:
        """Add what belongs behind a block: its links, its notes, the text boxes it holds."""
        for words, address in self._found:
            self.outline.link(words, self._links.resolve(address))
        for text in self._after:
            self.outline.block(text)
        self._found.clear()
        self._after.clear()

    def _texts(self, container: Any) -> Iterator[str]:
        """Texts of all paragraphs below an element, in the order of reading."""
        for child in container:
            if child.tag == qn("w:p"):
                yield "".join(self._pieces(child))
                yield from self._after
                self._after.clear()
            elif child.tag not in _UNSEEN:
                yield from self._texts(child)

    def _pieces(self, element: Any) -> Iterator[str]:
        """Texts of all runs below an element; notes and text boxes wait until its end."""
        for child in element:
            if child.tag in _TEXT:
                yield child.text or ""
            elif child.tag in _CHARACTERS:
                yield _CHARACTERS[child.tag]
            elif child.tag in _NOTES:
                self._after.append(self._notes.get((_NOTES[child.tag], child.get(qn("w:id"))), ""))
            elif child.tag == qn("w:txbxContent"):
                self._after.append("\n".join(list(self._texts(child))))
            elif child.tag == qn("w:hyperlink"):
                words = "".join(self._pieces(child))
                self._found.append((words, self._address(child)))
                yield words
            elif child.tag not in _UNSEEN:
                yield from self._pieces(child)

    def _address(self, hyperlink: Any) -> str:
        relation = self._document.part.rels.get(hyperlink.get(qn("r:id")))
        anchor = hyperlink.get(qn("w:anchor"))
        target = relation.target_ref if relation is not None and relation.is_external else ""
        return target + (f"#{anchor}" if anchor else "")


def _nearest(parent: Any, tag: str) -> Iterator[Any]:
    """Elements of a tag below another, but none inside each other."""
    for child in parent:
        if child.tag == tag:
            yield child
        elif child.tag not in _UNSEEN:
            yield from _nearest(child, tag)


def _level(style: Any) -> int | None:
    """Level of a heading style or of one made from it: 1 for the title; None for other styles."""
    while style is not None:
        name = (style.name or "").lower()
        if name == "title":
            return 1
        if re.fullmatch(r"toc \d+", name):
            return _GENERATED
        if heading := _HEADING.fullmatch(name):
            return int(heading[1]) + 1
        style = getattr(style, "base_style", None)
    return None


def _notes(document: WordDocument, kind: str) -> Iterator[tuple[str, Any]]:
    """Number and element of each footnote or endnote."""
    for relation in document.part.rels.values():
        if relation.reltype.endswith(f"/{kind}s") and not relation.is_external:
            for note in parse_xml(relation.target_part.blob).iter(qn(f"w:{kind}")):
                if note.get(qn("w:type")) in (None, "normal"):  # the others are lines drawn above
                    yield note.get(qn("w:id")), note
