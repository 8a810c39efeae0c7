"""Bytes to text, without a guess: UTF-8, or what a byte order mark says, and no binary."""

from __future__ import annotations

import codecs

from retrieval_ft.dataset.documents import Section
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.reading import Fault, Parsed

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode(data: bytes) -> str:
    """Decode a file; line ends become a line feed.

    Raises:
        Fault: the bytes are not UTF-8 (nor what their byte order mark says), or hold a NUL.
    """
    mark, encoding = next(((m, e) for m, e in BOMS if data.startswith(m)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in data and not mark:
            raise Fault("binary", "holds NUL bytes: no text, whatever its name says") from error
        at = error.start + len(mark)
        line = data.count(b"\n", 0, at) + 1
        raise Fault(
            "not UTF-8",
            f"byte 0x{data[at]:02x} at offset {at} (line {line}); convert the file to UTF-8",
        ) from error
    if "\0" in text:
        raise Fault("binary", "holds NUL bytes: no text, whatever its name says")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse(text: str, links: Links) -> Parsed:
    """A plain text is one section without a title."""
    del links
    return Parsed("", (Section((), text.strip("\n").rstrip()),))
