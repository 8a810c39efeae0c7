"""Lines of judgements by id: TREC qrels (`query-id 0 passage-id grade`) and BEIR's TSV under its header."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval_ft.dataset import beir
from retrieval_ft.errors import DataError

_COLUMNS = 4
_GRADE = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(frozen=True)
class Judged:
    """One line."""

    where: str
    """`file:line`, for messages."""
    query_id: str
    passage_id: str
    grade: int


def has_header(line: str) -> bool:
    """Whether a line is the header of BEIR's TSV."""
    return tuple(line.rstrip("\r\n").split("\t")) == beir.QRELS_HEADER


def looks_like(line: str) -> bool:
    """Whether a line looks like the first of TREC qrels or of BEIR's TSV."""
    cells = line.split()
    return has_header(line) or (len(cells) == _COLUMNS and bool(_GRADE.fullmatch(cells[-1])))


def read_judgements(path: Path) -> Iterator[Judged]:
    """Read the lines of a file in order; nothing is looked at but their form.

    Columns are separated by tabs, which lets ids hold spaces, or by blanks. Grades may be 0 or below.

    Raises:
        DataError: the file is not UTF-8, a line has other columns, or a grade is no integer of at most
            9 digits.
    """
    tsv = False
    for number, line in beir.lines(path):
        if number == 1 and has_header(line):
            tsv = True
            continue
        yield _judged(line.rstrip("\r\n"), f"{path}:{number}", tsv=tsv)


def _judged(line: str, where: str, *, tsv: bool) -> Judged:
    tabs = tsv or line.count("\t") == _COLUMNS - 1
    cells = line.split("\t") if tabs else line.split()
    if len(cells) != (len(beir.QRELS_HEADER) if tsv else _COLUMNS):
        raise DataError(
            f"{where}: {len(cells)} columns; TREC qrels have {_COLUMNS} (query-id 0 passage-id "
            f"grade), BEIR's TSV has 3 under the header {'<tab>'.join(beir.QRELS_HEADER)}"
        )
    if not _GRADE.fullmatch(cells[-1]):
        raise DataError(f"{where}: grade {cells[-1]!r} is not an integer of at most 9 digits")
    return Judged(where, cells[0], cells[-2], int(cells[-1]))
