"""What a section of the page is made of: values that the template knows how to lay out.

Sections decide what is said, the template how it looks. Every text in a block is plain text, which
the template escapes; only `Chart.svg` is markup, and `svg.inline` made it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from retrieval_ft.evaluation.report import ABSENT, shown, words


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    star: bool = False
    """A difference that is more than luck; the note below the table says by which rule."""
    best: bool = False
    """The best of its column."""
    more: str = ""
    """A second line, in smaller letters."""


@dataclass(frozen=True)
class Group:
    """Rows of a table below a heading of their own; no heading where it is empty."""

    heading: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its heading."""

    kind: ClassVar[str] = "table"
    caption: str
    header: tuple[str, ...]
    groups: tuple[Group, ...]
    left: int = 1
    """Columns of text, aligned left; the others hold numbers."""
    note: str = ""
    folded: str = ""
    """Where set, the table is folded away under this line."""


@dataclass(frozen=True)
class Key:
    """An entry of a chart's legend: the look of a line, or a plain swatch."""

    text: str
    colour: int | str
    dash: str = ""
    marker: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing, its legend, and its numbers as tables."""

    kind: ClassVar[str] = "chart"
    caption: str
    svg: str
    keys: tuple[Key, ...] = ()
    tables: tuple[Table, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Paragraph:
    """A sentence or a few."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading below that of the section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    kind: ClassVar[str] = "facts"
    items: tuple[tuple[str, str], ...]
    wide: bool = False
    """Long texts: each below its name."""


@dataclass(frozen=True)
class Code:
    """Text to copy, under a label; folded away where asked."""

    kind: ClassVar[str] = "code"
    label: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Examples:
    """Queries with both rankings, as `evidence.examples` gives them."""

    kind: ClassVar[str] = "examples"
    heading: str
    items: tuple[Mapping[str, Any], ...]
    system: str
    against: str
    metric: str


Block = Table | Chart | Paragraph | Heading | Facts | Code | Examples


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading, which the contents link to."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str | Cell]], **rest: Any
) -> Table:
    """A table of one group; plain texts become cells."""
    return Table(caption, tuple(header), (group("", rows),), **rest)


def group(heading: str, rows: Iterable[Sequence[str | Cell]]) -> Group:
    """Rows under a heading; plain texts become cells."""
    cells = (tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    return Group(heading, tuple(cells))


def facts(values: Mapping[str, Any], *, wide: bool = False) -> Facts:
    """Names and values of whatever type, for people."""
    return Facts(tuple((words(name), shown(v)) for name, v in values.items()), wide=wide)


def percent(share: float | None) -> str:
    """A share in percent: `12.5%`."""
    return ABSENT if share is None else f"{share:.1%}"


def one_line(text: object, most: int = 60) -> str:
    """A text fit for a drawing: one line, no character that XML cannot hold, cut with "…"."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text).split()))
    return line if len(line) <= most else line[: most - 1] + "…"
