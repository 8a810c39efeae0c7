"""Pieces of Markdown: tables, lists and code, with whatever is text escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_ft.console import markdown as escape
from retrieval_ft.evaluation.cells import Cells
from retrieval_ft.evaluation.report import shown, words


def fence(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}\n{text}\n{marks}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """A table from escaped cells; the first `left` columns are aligned left, the others right."""
    rule = [":---" if i < left else "---:" for i in range(len(header))]
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]


def bullets(facts: Mapping[str, Any]) -> list[str]:
    """Facts as a list, name and value."""
    return [f"- {escape(words(name))}: {escape(shown(value))}" for name, value in facts.items()]


def escaped(cells: Cells, *, left: int) -> list[str]:
    """A table of plain cells; the first `left` columns are aligned left, the others right."""
    rows = [[escape(cell) for cell in row] for row in cells.rows]
    return table([escape(cell) for cell in cells.header], rows, left=left)
