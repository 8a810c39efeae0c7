"""An audit of mined pairs for people: Markdown, and a drawing of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval_ft import artifacts
from retrieval_ft.console import markdown as escape
from retrieval_ft.mining.audit import RULE, Audit, Example, FalseNegatives, Histogram, Row

_LINE = "{:<6} {:>14} {:>14} {:>14}"


def audit_markdown(audit: Audit, *, figure: str | None = None) -> str:
    """The audit as Markdown; `figure` is the path of the drawn histogram, relative to it."""
    lines = ["## Audit of the mined pairs", "", "```", table_text(audit.table), "```", ""]
    if figure:
        lines += [f"![Scores of positives, negatives and random passages]({figure})", ""]
    lines += [_rate_text(audit.false_negatives), ""]
    if audit.dropped:
        reasons = [f"{escape(name)} {count:,}" for name, count in audit.dropped.items()]
        lines += [f"Dropped candidates: {', '.join(reasons)}.", ""]
    if audit.examples:
        lines += ["### Examples to read", ""]
        lines += [line for each in audit.examples for line in _example_lines(each)]
    return "\n".join(lines).rstrip() + "\n"


def table_text(table: Sequence[Row]) -> str:
    """The table as sentence-transformers prints it."""

    def cell(value: float | None, metric: str) -> str:
        if value is None:
            return ""
        return f"{value:,.0f}" if metric == "Count" else f"{value:.4f}"

    lines = [_LINE.format("Metric", "Positive", "Negative", "Difference")]
    for row in table:
        values = (row.positive, row.negative, row.difference)
        lines.append(_LINE.format(row.metric, *(cell(value, row.metric) for value in values)))
    return "\n".join(line.rstrip() for line in lines)


def _rate_text(found: FalseNegatives | None) -> str:
    if found is None:
        return (
            "False negatives: not measured. It takes a cross-encoder (`mining.cross_encoder`; "
            "`retrieval-ft models list` names one) and a sample (`mining.audit_sample` over 0)."
        )
    text = (
        f"False negatives: {found.rate:.1%} (95% interval {found.low:.1%} to {found.high:.1%}), "
        f"{found.found:,} of {found.sampled:,} sampled negatives. Rule: {RULE}."
    )
    if found.denoised:
        text += (
            " These had been denoised with a cross-encoder, which judges its own work here if it is "
            "the same one: read it as what its rule let pass."
        )
    return text


def _example_lines(each: Example) -> list[str]:
    teacher = ""
    if each.positive_teacher is not None and each.negative_teacher is not None:
        teacher = f"; cross-encoder {each.positive_teacher:.2f} and {each.negative_teacher:.2f}"
    return [
        f"- **{each.kind}**: cosine {each.positive_score:.3f} (positive) and "
        f"{each.negative_score:.3f} (negative){teacher}",
        f"  - query {escape(each.query_id)}: {escape(each.query)}",
        f"  - positive {escape(each.positive_id)}: {escape(each.positive)}",
        f"  - negative {escape(each.negative_id)}: {escape(each.negative)}",
    ]


def draw(histogram: Histogram, path: Path) -> None:
    """Draw the histogram as an SVG file; the same counts give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": "retrieval_ft", "svg.fonttype": "none"}
    with rc_context(style), artifacts.atomic_open(path) as file:
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.add_subplot()
        for name in ("random", "negative", "positive"):
            counts = np.array(getattr(histogram, name), np.float64)
            share = counts / max(counts.sum(), 1)
            axes.stairs(share, histogram.edges, label=f"{name} ({int(counts.sum()):,})", lw=1.5)
        axes.set(xlabel="cosine under the base model", ylabel="share")
        axes.legend(frameon=False)
        figure.savefig(file, format="svg", metadata={"Date": None})
