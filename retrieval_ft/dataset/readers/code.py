"""Source code to sections: one a file; Python at its top-level functions and classes."""

from __future__ import annotations

import ast
import warnings

from retrieval_ft.dataset.documents import Section
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.reading import Parsed

SUFFIXES = frozenset(
    [
        ".bash",
        ".c",
        ".cc",
        ".clj",
        ".cpp",
        ".cs",
        ".cu",
        ".cxx",
        ".dart",
        ".ex",
        ".exs",
        ".erl",
        ".f90",
        ".go",
        ".groovy",
        ".h",
        ".hpp",
        ".hs",
        ".hxx",
        ".java",
        ".jl",
        ".js",
        ".jsx",
        ".kt",
        ".kts",
        ".lua",
        ".m",
        ".ml",
        ".mjs",
        ".mm",
        ".php",
        ".pl",
        ".pm",
        ".proto",
        ".ps1",
        ".py",
        ".pyi",
        ".r",
        ".rb",
        ".rs",
        ".scala",
        ".sh",
        ".sql",
        ".swift",
        ".tf",
        ".ts",
        ".tsx",
        ".vb",
        ".vue",
        ".zig",
    ]
)
_LARGEST_PARSED = 4 << 20
_NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)


def parse(text: str, links: Links) -> Parsed:
    """Read a source file; its title is its path."""
    cuts: list[tuple[int, str]] = []
    if links.document.lower().endswith((".py", ".pyi")) and len(text) <= _LARGEST_PARSED:
        cuts = _definitions(text)
    lines = text.split("\n")
    starts = [0, *(start for start, _ in cuts)]
    names = ["", *(name for _, name in cuts)]
    sections = []
    for start, end, name in zip(starts, [*starts[1:], len(lines)], names, strict=True):
        part = "\n".join(lines[start:end]).strip("\n").rstrip()
        if part.strip():
            sections.append(Section((name,) if name else (), part))
    return Parsed(links.document, tuple(sections))


def _definitions(text: str) -> list[tuple[int, str]]:
    """First line (from 0) and name of each top-level function and class.

    Comments right above belong to it. What follows one and is none has no name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except _NOT_PYTHON:
        return []
    lines = text.split("\n")
    cuts: list[tuple[int, str]] = []
    end = 0
    for statement in body:
        start, name = statement.lineno - 1, ""
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = statement.name
            start = min([start, *(decorator.lineno - 1 for decorator in statement.decorator_list)])
        while start > end and lines[start - 1].startswith("#"):
            start -= 1
        if start >= end and (name or (cuts and cuts[-1][1])):
            cuts.append((start, name))
        end = statement.end_lineno or end
    return cuts
