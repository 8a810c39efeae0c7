"""What every reader hands back: documents as they come, and the account of what was left out.

A parser gives `Parsed`; a file that cannot be read is a `Fault`, which a folder counts and passes
over. A faulty row of a row file is no `Fault` but a `DataError`: losing rows silently is worse.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from retrieval_ft.dataset.documents import Document, Section

RESERVED = frozenset({"document", "headings", "span"})
"""Metadata keys with a meaning of their own (see `Corpus`); a user's get an underscore behind."""


LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What parsers of binary formats run into on damaged bytes, beside errors of their own. For use
around calls of such a library alone."""

_ODD_BYTE = re.compile("[\udc80-\udcff]")  # what Python makes of a byte that is not UTF-8


class Fault(Exception):
    """One file cannot be read. `reason` is short and the same for all of its kind."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Parsed:
    """What a parser makes of one file."""

    title: str
    sections: tuple[Section, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """One thing that was left out: a file, a folder, a row (`file:line`) or a column."""

    path: str
    reason: str
    detail: str = ""


@dataclass
class Account:
    """What was read and what was not; complete once the last document has come."""

    read: Counter[str] = field(default_factory=Counter)
    """Documents by kind: markdown, html, text, rst, pdf, docx, code, row."""
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, path: str, reason: str, detail: str = "") -> None:
        """Count one thing that is left out; path and detail are made printable."""
        self.skipped.append(Skipped(printable(path), reason, printable(detail)))

    @property
    def reasons(self) -> Counter[str]:
        """How many things were left out for each reason."""
        return Counter(item.reason for item in self.skipped)

    def summary(self) -> dict[str, Any]:
        """The counts as JSON values, sorted by name."""
        return {
            "documents": self.read.total(),
            "read": dict(sorted(self.read.items())),
            "skipped": dict(sorted(self.reasons.items())),
        }

    def rows(self) -> Iterator[dict[str, str]]:
        """One row of `skipped.jsonl` for each thing that was left out, in the order of reading."""
        return (asdict(item) for item in self.skipped)


@dataclass(frozen=True)
class Reading:
    """Documents, to be taken once, and beside them the account, complete after the last one."""

    documents: Iterator[Document]
    account: Account


def printable(text: str) -> str:
    """The text in a form that UTF-8 can hold: an odd byte of a file name becomes its hex code."""
    return valid(_ODD_BYTE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text))


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def valid(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def metadata_of(values: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Keep what is a JSON value; dates become ISO 8601, nulls go.

    Returns:
        The metadata, and the names of the values that JSON cannot hold.
    """
    kept: dict[str, Any] = {}
    odd = []
    for name, given in values.items():
        value = given.isoformat() if isinstance(given, date) else given
        if value is None:
            continue
        if _is_json(value) and _is_json(name):
            kept[f"{name}_" if name in RESERVED else name] = value
        else:
            odd.append(printable(str(name)))
    return kept, tuple(odd)


def _is_json(value: Any) -> bool:
    if type(value) in (int, bool):
        return True
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True
