"""Python code: from what a function is for to the function.

Query: the first sentence of a function's docstring. Passage: its source without that docstring.
Sources are taken out of pinned wheels and parsed, never run; all of a package is in one split.
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval_ft.dataset.builders.recipe import Judgement, Source, assemble, fold, normalise
from retrieval_ft.dataset.types import SPLITS, Corpus, Dataset, Qrels, Queries, Split
from retrieval_ft.packages import PackageSource, open_member

MIN_LINES, MAX_LINES = 4, 60
"""Lines of a passage that are not blank."""
MIN_WORDS = 4

_TESTS = re.compile(r"tests?|conftest\.py|test_.*\.py|.*_test\.py")
_FOREIGN = re.compile(
    r"extern|externals|_vendor|_vendored|array_api_compat|array_api_extra|cobyqa|pyprima|_uarray"
)
"""Folders of code that a package took over, under licences of its authors."""

_FIELD = re.compile(
    r"^\s*(?:[:@]\w|>>>|\.\.\s|[-=~^]{3,}\s*$"
    r"|(?:Args?|Arguments|Examples?|Notes?|Parameters|Raises|Returns?|Yields)\s*:?\s*$)",
    re.MULTILINE,
)
_MARKUP = (
    (re.compile(r":[\w:+.-]+:`~?([^`<]*?)\s*(?:<[^`]*>)?`"), r"\1"),  # :meth:`~a.b` of Sphinx
    (re.compile(r"\b[A-Z]\{([^{}<]*)(?:<[^{}]*>)?\}"), r"\1"),  # L{a.b<c>} of Epytext
    (re.compile(r"`+~?([^`<]*?)\s*(?:<[^`]*>)?`+_*"), r"\1"),
    (re.compile(r"\|(\w+)\|"), r"\1"),
)
_TEMPLATE = re.compile(r"%\(\w+\)s|\{\w*\}")
_SENTENCE_END = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)(?<!\bal)(?<!\bEq)(?<!\bFig)(?<!\bRef)(?<!\bresp)"
    r"[.!?][)\"'\]]*(?=\s+[^a-z\s]|$)"
)
_ELSEWHERE = re.compile(r"(?:see|refer to|inherit(?:ed|s)?|docstring)\b", re.IGNORECASE)

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Wheel:
    """One package: its archive, the split of its queries, and its licence."""

    package: PackageSource
    split: Split
    licence: str
    licence_member: str


@dataclass(frozen=True)
class CodeRecipe:
    """How a dataset is made of the functions of wheels; used by `build` as a `Recipe` is."""

    wheels: tuple[Wheel, ...]
    rule: str
    rule_version: int

    @property
    def packages(self) -> tuple[PackageSource, ...]:
        """The archives, in the order that `load` and `notice` take them."""
        return tuple(wheel.package for wheel in self.wheels)

    @property
    def origin(self) -> str:
        """What is read, for `source.json`."""
        return f"{'; '.join(map(str, self.packages))}: *.py"

    @property
    def licence(self) -> str:
        """The licence of each package."""
        return "; ".join(f"{wheel.package.name}: {wheel.licence}" for wheel in self.wheels)

    @property
    def attribution(self) -> str:
        """Whose code it is."""
        names = ", ".join(wheel.package.name for wheel in self.wheels)
        return f"Functions of {names}, their docstrings taken out"

    def load(self, archives: Sequence[Path]) -> Source:
        """Read the functions of all wheels."""
        return read(dict(zip(archives, self.wheels, strict=True)))

    def arrange(self, name: str, source: Source) -> Dataset:
        """Put every query into the split of its package."""
        split_of = {wheel.package.name: wheel.split for wheel in self.wheels}
        texts: dict[str, str] = {}
        qrels: dict[Split, Qrels] = {}
        for split in SPLITS:
            rows = tuple(row for row in source.judgements if split_of[row.group] == split)
            part = assemble(name, replace(source, judgements=rows), dev=0, test=0)
            texts |= part.queries.text_of
            if "train" in part.qrels:
                qrels[split] = part.qrels["train"]
        ids = tuple(sorted(texts))
        queries = Queries(ids, tuple(texts[query_id] for query_id in ids))
        return Dataset(name=name, corpus=source.corpus, queries=queries, qrels=qrels)

    def notice(self, archives: Sequence[Path]) -> str:
        """Return the licence text of every package, which copies must carry."""
        parts = [f"{self.attribution}."]
        for archive, wheel in zip(archives, self.wheels, strict=True):
            with open_member(archive, wheel.licence_member) as file:
                text = file.read().decode().strip()
            parts.append(f"{'=' * 80}\n{wheel.package.name} {wheel.package.version}\n\n{text}")
        return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Row:
    passage_id: str
    text: str
    query: str
    wheel: Wheel


def read(wheels: Mapping[Path, Wheel]) -> Source:
    """Read the functions of wheels (archive -> what it is) as passages with their queries.

    Functions of equal source are one passage. What would tie two splits is left out: a copy of a
    function of a package in another split, and a query that functions of two splits have.
    """
    left_out: Counter[str] = Counter()
    passages: dict[str, _Row] = {}
    judged: list[_Row] = []
    for archive, wheel in wheels.items():
        for row in _rows(archive, wheel, left_out):
            first = passages.setdefault(fold(row.text), row)
            if first.wheel.split != row.wheel.split:
                left_out["copies of functions of another split"] += 1
                continue
            if first is not row:
                left_out["copies of functions, their queries given to the first one"] += 1
            if reason := _why_no_query(row.query, row.text):
                left_out[reason] += 1
            else:
                judged.append(replace(row, passage_id=first.passage_id))
    splits: dict[str, set[Split]] = {}
    for row in judged:
        splits.setdefault(normalise(row.query), set()).add(row.wheel.split)
    kept = [row for row in judged if len(splits[normalise(row.query)]) == 1]
    left_out["queries of functions in two splits"] = len(judged) - len(kept)
    rows = passages.values()
    return Source(
        version=", ".join(f"{w.package.name} {w.package.version}" for w in wheels.values()),
        corpus=Corpus(
            ids=tuple(row.passage_id for row in rows),
            titles=("",) * len(passages),
            texts=tuple(row.text for row in rows),
        ),
        judgements=tuple(Judgement(r.query, r.passage_id, r.wheel.package.name) for r in kept),
        left_out=dict(left_out),
    )


def _rows(archive: Path, wheel: Wheel, left_out: Counter[str]) -> Iterator[_Row]:
    with zipfile.ZipFile(archive) as zipped:
        for member in sorted(name for name in zipped.namelist() if name.endswith(".py")):
            parts = member.split("/")
            if any(_TESTS.fullmatch(part) for part in parts):
                left_out["files of tests"] += 1
            elif any(_FOREIGN.fullmatch(part) for part in parts):
                left_out["files of other authors"] += 1
            else:
                for name, text, query in functions(zipped.read(member), left_out):
                    yield _Row(f"{member}:{name}", text, query, wheel)


def functions(source: bytes, left_out: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (line and qualified name, source without docstring, first sentence of the docstring).

    Functions of a module and methods of its classes; those inside a function are part of it.
    What is left out is counted in `left_out` by its reason.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        code = source.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes that Python will refuse one day
            tree = ast.parse(code)
    except (SyntaxError, ValueError):
        left_out["files that do not parse"] += 1
        return
    lines = code.split("\n")
    for name, node in _definitions(tree, ""):
        docstring = ast.get_docstring(node, clean=False)
        text = _without_docstring(node, lines) if docstring else ""
        if reason := _why_no_passage(node, docstring or "", text):
            left_out[reason] += 1
        else:
            yield f"{node.lineno}:{name}", text, first_sentence(docstring or "")


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, _Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _definitions(child, prefix)


def _without_docstring(node: _Function, lines: Sequence[str]) -> str:
    """Lines of a function, decorators included; empty where code shares a line of the docstring."""
    docstring = node.body[0]
    first, last = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
    before = lines[first].encode()[: docstring.col_offset]
    after = lines[last - 1].encode()[docstring.end_col_offset :].strip()
    if before.strip() or (after and not after.startswith(b"#")):
        return ""
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    kept = [*lines[start:first], *lines[last : node.end_lineno]]
    return textwrap.dedent("\n".join(kept)).strip("\n")


def _why_no_passage(node: _Function, docstring: str, text: str) -> str | None:
    decorators = {_last_name(decorator) for decorator in node.decorator_list}
    length = sum(bool(line.strip()) for line in text.split("\n"))
    reasons = {
        "functions without a docstring": not docstring.strip(),
        "overloads, setters and deleters": decorators & {"overload", "setter", "deleter"},
        "deprecated functions": decorators & {"deprecated", "_deprecated"}
        or "deprecated" in first_sentence(docstring).casefold()
        or ".. deprecated::" in docstring.partition("Parameters")[0],
        "functions without a body of their own": all(map(_is_stub, node.body[1:])),
        f"functions under {MIN_LINES} lines": length < MIN_LINES,
        f"functions over {MAX_LINES} lines": length > MAX_LINES,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _last_name(decorator: ast.expr) -> str:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return called.attr if isinstance(called, ast.Attribute) else ast.unparse(called)


def _is_stub(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise) and statement.exc:
        return _last_name(statement.exc) == "NotImplementedError"
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass)


def first_sentence(docstring: str) -> str:
    """Return the first sentence of the first paragraph, without markup; empty if there is none."""
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    text = fold(_FIELD.split(paragraph, maxsplit=1)[0])
    for markup, plain in _MARKUP:
        text = markup.sub(plain, text)
    end = _SENTENCE_END.search(text)
    return text[: end.end()] if end else text.rstrip(": ")


def _why_no_query(query: str, text: str) -> str | None:
    words = normalise(query).split()
    letters = [letter for letter in query if letter.isalpha()]
    reasons = {
        "docstrings without a sentence": not words,
        f"queries under {MIN_WORDS} words": len(words) < MIN_WORDS,
        "queries that point elsewhere": _ELSEWHERE.match(query),
        "queries with a gap to fill in": _TEMPLATE.search(query),
        "queries in other letters than English": 2 * sum(map(str.isascii, letters)) < len(letters),
        "queries that stand in the passage": f" {' '.join(words)} " in f" {normalise(text)} ",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
