"""PDF to one section: the text of its pages, words that a line end cut put together again.

pypdf reads; what it logs about odd files is not passed on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pypdf
from pypdf.errors import DependencyError as CipherMissing
from pypdf.errors import PyPdfError

from retrieval_ft.dataset.documents import Section
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.reading import LIBRARY_ERRORS, Fault, Parsed, first_line

_ENCRYPTED = "a password is needed to open it; save it without one"
_CUT = re.compile(r"(\w*[^\W\d_])(-|\u00ad)[ \t]*\n[ \t]*([^\W\d_]\w*)")
_WORD = re.compile(r"\w+(?:-\w+)*")


def parse(path: Path, links: Links) -> Parsed:
    """Read a PDF; title and number of pages are those of its metadata.

    Raises:
        Fault: it is encrypted, damaged, or holds no text (as a scan does).
    """
    del links
    try:
        with _quiet():
            reader = pypdf.PdfReader(path)
            _decrypt(reader)
            pages = [page.extract_text() for page in reader.pages]
            title = _title(reader.metadata)
    except CipherMissing as error:
        raise Fault("encrypted", f"{_ENCRYPTED} ({first_line(error)})") from error
    except (PyPdfError, *LIBRARY_ERRORS) as error:
        raise Fault("damaged", f"no PDF that can be read: {first_line(error)}") from error
    if not pages:
        raise Fault("damaged", "no PDF that can be read: it has no pages")
    text = join_lines("\n\n".join(page.replace("\0", "").strip() for page in pages)).strip()
    if not text:
        raise Fault("no text", f"none on its {len(pages)} pages: a scan? Recognise it (OCR) first")
    return Parsed(title, (Section((), text),), {"pages": len(pages)})


def join_lines(text: str) -> str:
    """Put words together that a hyphen at the end of a line cut.

    The hyphen stays where the text has the word with it elsewhere, where both parts are words of
    the text (a compound), and between anything but lower-case letters.
    """
    words = {word.lower() for word in _WORD.findall(_CUT.sub(" ", text))}

    def joined(match: re.Match[str]) -> str:
        left, hyphen, right = match.groups()
        if hyphen == "\u00ad":
            return left + right
        if not (left[-1].islower() and right[0].islower()):
            return match[0]
        whole = (left + right).lower()
        compound = f"{left}-{right}".lower() in words or {left.lower(), right.lower()} <= words
        return left + right if whole in words or not compound else f"{left}-{right}"

    return _CUT.sub(joined, text)


def _decrypt(reader: pypdf.PdfReader) -> None:
    """Open with the empty password, which locks only printing and the like."""
    if reader.is_encrypted and not reader.decrypt(""):
        raise Fault("encrypted", _ENCRYPTED)


def _title(metadata: Any) -> str:
    title = str((metadata.title if metadata else None) or "").replace("\0", "").strip()
    return "" if title.lower() == "untitled" else title


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what pypdf says about odd files off stderr."""
    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
