"""Rows of JSONL and CSV files, line by line: never more of a file in memory than one line.

A line has a bound, so that a file of one endless line is an error and not the end of the machine.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from retrieval_ft.dataset.readers.text import BOMS
from retrieval_ft.errors import DataError

LONGEST = 64 << 20
"""Bytes of a line at most."""


def jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file:line`, object) of each line that is not blank.

    Raises:
        DataError: a line is no JSON object, too long, or not UTF-8.
    """
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: not JSON ({error.msg}); each line is one object"
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: JSON that cannot be read ({error})") from error
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise DataError(f"{path}:{number}: a JSON object is needed, found {kind}")
        yield f"{path}:{number}", row


def csv_rows(path: Path, *, tabs: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file:line`, row by column) below the header row.

    In .tsv a quote is a character like any other (IANA's text/tab-separated-values); in .csv it may
    enclose a cell (RFC 4180). A .csv whose header has no comma may be parted by `;` or tabs.

    Raises:
        DataError: a faulty header, a row with more or fewer cells, a quote that is not closed, or a
            line that is too long or not UTF-8.
    """
    before = csv.field_size_limit(LONGEST)
    try:
        yield from _records(path, tabs=tabs)
    finally:
        csv.field_size_limit(before)


def _records(path: Path, *, tabs: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = _lines(path)
    last, first = next(((n, line) for n, line in lines if line.strip()), (0, ""))
    if not first:
        return
    delimiter = "\t" if tabs else next((mark for mark in ",;\t" if mark in first), ",")
    quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    columns = next(csv.reader([first], delimiter=delimiter, quoting=quoting))
    if not all(column.strip() for column in columns) or len(set(columns)) != len(columns):
        raise DataError(
            f"{path}:{last}: the header must name each column once, found {first.strip()!r}"
        )

    def counted() -> Iterator[str]:
        nonlocal last
        for number, line in lines:
            last = number
            yield line

    reader = csv.reader(counted(), delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        start = last + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{path}:{start}: not CSV ({error}); a quote in a cell is written twice, and the "
                "cell enclosed in quotes"
            ) from error
        if cells is None:
            return
        if not cells:  # a blank line
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"{path}:{start}: {len(cells)} cells, but the header names {len(columns)} columns "
                f"({', '.join(columns)})"
            )
        yield f"{path}:{start}", dict(zip(columns, cells, strict=True))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number from 1 and text of each line; one that is too long is never held as a whole."""
    number = 0
    try:
        with _open(path) as file:
            start = file.peek(4)
            mark, encoding = next((b for b in BOMS if start.startswith(b[0])), (b"", "utf-8"))
            file.read(len(mark))
            wide = encoding != "utf-8"
            stream = io.TextIOWrapper(file, encoding, newline="\n") if wide else file
            while line := stream.readline(LONGEST + 1):
                number += 1
                yield number, _checked(line, f"{path}:{number}")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged after line {number} ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: after line {number} not what its byte order mark says; convert it to UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _checked(line: str | bytes, where: str) -> str:
    if len(line) > LONGEST:
        raise DataError(
            f"{where}: a line of over {LONGEST >> 20} MiB; a row is one line that ends in a line feed"
        )
    if isinstance(line, bytes):
        try:
            line = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: not UTF-8 (byte 0x{line[error.start]:02x} at {error.start} of the line); "
                "convert the file to UTF-8"
            ) from error
    if "\0" in line:
        raise DataError(f"{where}: holds a NUL: no text, or damaged")
    return line
