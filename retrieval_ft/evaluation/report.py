"""The systems table of a results document: for a terminal, for a pipe, and as cells for report.md.

A results document is the `--json` of the main job, or of `evaluate`. Only `systems` and `differences`
are always there; a figure that is absent is shown as "-". Where it has `references`, what each system is
compared with, these are what the column of differences shows; else that is the base.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

Document = Mapping[str, Any]

GATE_METRIC = "recall@10"
ABSENT = "-"

_FIRST = ("bm25", "base_dense", "base_hybrid", "tuned_dense", "tuned_hybrid")
"""Systems of a run, in the order of a table."""
_VARIANTS: Mapping[str, str] = {
    "_rrf": ", RRF",
    "_rerank": ", reranked",
    "_no_prompt": ", no prompt",
    "_unmixed": ", before the soup",
}
"""Ends of a system's name, and what they say; a name may have several."""
COLUMNS: Mapping[str, str] = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "recall@20": "R@20",
    "recall@50": "R@50",
    "recall@100": "R@100",
    "ndcg@10": "nDCG@10",
    "mrr@10": "MRR@10",
}
"""Metrics that fit a terminal, with their headings."""
_FEW: Mapping[str, str] = {
    name: COLUMNS[name] for name in ("recall@1", "recall@10", "recall@100", "ndcg@10")
}
"""Those that fit one beside long names of systems and of what they are compared with."""


def label(system: str) -> str:
    """A system's name for people: `base_dense` -> `base dense`, `hybrid_rrf` -> `hybrid, RRF`."""
    for end, words in _VARIANTS.items():
        if system.endswith(end) and system != end:
            return label(system.removesuffix(end)) + words
    return "BM25" if system == "bm25" else system.replace("_", " ")


def figure(value: float | None) -> str:
    """A metric in [0, 1] to three places without the leading zero: `.691`."""
    return ABSENT if value is None else f"{value:.3f}".removeprefix("0")


def signed(value: float | None) -> str:
    """A difference to three places with its sign: `+.021`; what rounds to nothing is `+.000`."""
    if value is None:
        return ABSENT
    rounded = round(value, 3) + 0.0  # no -0.0
    return f"{rounded:+.3f}".replace("0.", ".", 1) if abs(rounded) < 1 else f"{rounded:+.3f}"


def interval(ci: Sequence[float] | None) -> str:
    """The two ends of an interval: `[+.010, +.032]`."""
    return ABSENT if ci is None else f"[{signed(ci[0])}, {signed(ci[1])}]"


def p_value(p: float | None) -> str:
    """A p value to four places."""
    return ABSENT if p is None else f"{p:.4f}"


def words(name: str) -> str:
    """A key as words: `best_step` -> `best step`."""
    return str(name).replace("_", " ")


def shown(value: Any) -> str:
    """A setting or a count, of whatever type, for people; keys stay as they are, they may be names."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return str(value)


def ordered(systems: Iterable[str]) -> list[str]:
    """The systems of every run first, then the others as they come, those without a prompt last."""
    names = list(systems)
    rest = [name for name in names if name not in _FIRST]
    known = [name for name in _FIRST if name in names]
    return known + sorted(rest, key=lambda name: name.endswith("_no_prompt"))


def reference(document: Document, system: str) -> str | None:
    """What a system is compared with: what the document says, else its base, the one of its kind first."""
    if "references" in document:
        named: str | None = document["references"].get(system)
        return named
    met = [row["against"] for row in document.get("differences", ()) if row["system"] == system]
    bases = [name for name in met if name.startswith("base_")]
    kind = f"base_{system.partition('_')[2]}"
    return kind if kind in bases else (bases or met or [None])[0]


def difference(document: Document, system: str, metric: str) -> Mapping[str, Any] | None:
    """The row of a system against its reference at a metric."""
    against = reference(document, system)
    rows = (
        row
        for row in document.get("differences", ())
        if (row["system"], row["against"], row["metric"]) == (system, against, metric)
    )
    return next(rows, None)


def _over_base(document: Document, system: str) -> Mapping[str, Any] | None:
    """The difference for a column that is headed by what it is over: the named reference, or a base."""
    found = difference(document, system, GATE_METRIC)
    named = "references" in document
    return found if found and (named or found["against"].startswith("base_")) else None


def systems_header(document: Document, columns: Mapping[str, str] = COLUMNS) -> list[str]:
    """Headings of the systems table, for metrics with their headings."""
    if "references" in document:
        return ["system", *columns.values(), "Δ R@10 [95% CI]", "p", "vs"]
    return ["system", *columns.values(), "Δ R@10 vs base [95% CI]", "p"]


def systems_rows(document: Document, columns: Mapping[str, str] = COLUMNS) -> list[list[str]]:
    """Cells of the systems table: the known systems first, then others as they come."""
    systems: Mapping[str, Mapping[str, float]] = document["systems"]
    rows = []
    for name in ordered(systems):
        row = [label(name), *(figure(systems[name].get(metric)) for metric in columns)]
        found = _over_base(document, name)
        if found is None:
            row += ["", ""]
        else:
            row += [f"{signed(found['delta'])} {interval(found['ci'])}", p_value(found.get("p"))]
        if "references" in document:
            row.append(label(found["against"]) if found else "")
        rows.append(row)
    return rows


def verdict_line(document: Document) -> str:
    """The verdict with its reason, on one line."""
    reason = " ".join(str(document.get("reason", "")).split())
    return f"{document['verdict']}: {reason}" if reason else str(document["verdict"])


def systems_table(document: Document) -> Table:
    """The systems of a results document as a table for a terminal."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    columns = _FEW if "references" in document else COLUMNS
    last = len(columns)
    folds = {0, last + 1, last + 3} if "references" in document else {last + 1}
    for i, heading in enumerate(systems_header(document, columns)):
        # Headings take two lines, so that all columns fit 80 characters; where there are fewer,
        # the column of intervals folds, and that of names where they may be of any length.
        text = heading.replace("@", "\n@") if i <= last else heading.replace(" [", "\n[")
        table.add_column(text, justify="right" if i else "left", no_wrap=i not in folds)
    for name, *cells in systems_rows(document, columns):
        # Text: brackets in a name or an interval are no markup. A label of two parts takes two lines.
        table.add_row(*map(Text, (name.replace(", ", ",\n"), *cells)))
    return table


def systems_text(document: Document) -> str:
    """The same table in plain aligned columns, for what is no terminal; ends with a line break."""
    rows = [systems_header(document), *systems_rows(document)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines) + "\n"
