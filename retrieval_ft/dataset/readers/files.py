"""Documents of a folder, a glob or one file: what is faulty is passed over, counted and told.

A file is told by its suffix. Each is read whole, one at a time, up to the bound of its kind.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from retrieval_ft.dataset.documents import Document, Link, Section
from retrieval_ft.dataset.readers import code, docx, html, markdown, pdf, rst, text, walk
from retrieval_ft.dataset.readers.detect import ARCHIVES, ROW_SUFFIXES
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.reading import Account, Fault, Parsed, valid
from retrieval_ft.errors import DataError

_MIB = 1 << 20


@dataclass(frozen=True)
class _Kind:
    name: str
    largest: int
    """Bytes of a file at most. Trees of markup take up to 250 times as much memory."""
    text: Callable[[str, Links], Parsed] | None = None
    binary: Callable[[Path, Links], Parsed] | None = None


_MARKDOWN = _Kind("markdown", 16 * _MIB, text=markdown.parse)
_HTML = _Kind("html", 64 * _MIB, text=html.parse)
_RST = _Kind("rst", 16 * _MIB, text=rst.parse)
_TEXT = _Kind("text", 256 * _MIB, text=text.parse)
_CODE = _Kind("code", 256 * _MIB, text=code.parse)
_KINDS = {
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".html": _HTML,
    ".htm": _HTML,
    ".rst": _RST,
    ".txt": _TEXT,
    ".pdf": _Kind("pdf", 256 * _MIB, binary=pdf.parse),
    ".docx": _Kind("docx", 256 * _MIB, binary=docx.parse),
    **dict.fromkeys(code.SUFFIXES, _CODE),
}


def read_files(path: Path, account: Account) -> Iterator[Document]:
    """Yield the documents that a folder, a glob or the path of one file names, sorted by id.

    Raises:
        DataError: there is nothing there, or nothing of it can be read.
    """
    root, pattern = walk.split_glob(path)
    if root.is_dir():
        ids = walk.find(root, pattern, account)
    elif root.exists():
        root, ids = path.parent, [path.name]
    else:
        raise DataError(f"{path}: no such file or folder")
    known = frozenset(ids)
    for name in ids:
        try:
            kind = _kind(name)
            document = _read(root / name, kind, Links(name, known))
        except Fault as fault:
            account.skip(name, fault.reason, fault.detail)
            continue
        account.read[kind.name] += 1
        yield document
    if not account.read.total():
        raise DataError(_nothing(path, pattern, account))


def _kind(name: str) -> _Kind:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _KINDS:
        return _KINDS[suffix]
    if suffix in ARCHIVES:
        raise Fault("archive", "unpack it into the folder to read what it holds")
    if not suffix:
        raise Fault("no suffix", "documents are told by their suffix")
    if suffix in ROW_SUFFIXES:
        raise Fault(f"suffix {suffix}", "rows are read by themselves: give the file as data.path")
    raise Fault(f"suffix {suffix}", "no kind of document that is read")


def _read(path: Path, kind: _Kind, links: Links) -> Document:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Fault("no plain file", "a pipe, a socket or a device")
        if not status.st_size:
            raise Fault("empty", "0 bytes")
        if status.st_size > kind.largest:
            raise Fault(
                "too large",
                f"{status.st_size / _MIB:,.0f} MiB; {kind.name} is read up to "
                f"{kind.largest // _MIB} MiB: split it",
            )
        parsed = _parse(path, kind, links)
    except OSError as error:
        raise Fault("unreadable", error.strerror or str(error)) from error
    sections = tuple(_valid(section) for section in parsed.sections)
    if not any(section.text.strip() or section.headings for section in sections):
        raise Fault("no text", "nothing in it that a reader sees, but for a title or a menu")
    return Document(
        id=links.document,
        title=valid(parsed.title),
        sections=sections,
        where=str(path),
        metadata=parsed.metadata,
    )


def _parse(path: Path, kind: _Kind, links: Links) -> Parsed:
    if kind.binary is not None:
        return kind.binary(path, links)
    decoded = text.decode(path.read_bytes())
    if not decoded.strip():
        raise Fault("empty", "white space only")
    return kind.text(decoded, links) if kind.text is not None else Parsed("", ())


def _valid(section: Section) -> Section:
    return Section(
        tuple(map(valid, section.headings)),
        valid(section.text),
        tuple(Link(valid(link.text), valid(link.target)) for link in section.links),
    )


def _nothing(path: Path, pattern: str, account: Account) -> str:
    """Why a source gave no document at all."""
    readable = f"Read are {', '.join(sorted(set(_KINDS) - code.SUFFIXES))} and source code"
    if not account.skipped:
        return f"{path}: {'no file matches' if pattern else 'holds no files'}. {readable}"
    first = account.skipped[0]
    told = f" ({first.detail})" if first.detail else ""
    if not pattern and not path.is_dir():
        return f"{path}: cannot be read: {first.reason}{told}. {readable}"
    found = ", ".join(f"{count:,} {reason}" for reason, count in account.reasons.most_common())
    return (
        f"{path}: no document in it can be read. Found: {found}; the first: {first.path}: "
        f"{first.reason}{told}. {readable}"
    )
