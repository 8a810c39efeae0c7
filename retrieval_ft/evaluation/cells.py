"""Tables of a results document as plain cells: what report.md and report.html both show, made once.

Nothing is escaped here: each report does that in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval_ft.evaluation.metrics import DEFINITIONS
from retrieval_ft.evaluation.report import (
    ABSENT,
    Document,
    figure,
    interval,
    label,
    p_value,
    signed,
)

METRICS_NOTE = (
    "Means over all judged queries; a query without results counts 0. A passage is relevant where its "
    "grade is above 0."
)
_NAMES: Mapping[str, str] = {
    "recall": "R@k, recall@k",
    "capped_recall": "capped R@k",
    "success": "S@k",
    "ndcg": "nDCG@k",
    "mrr": "MRR@k",
    "precision": "P@k",
    "map": "MAP",
    "hole": "hole@k",
}


@dataclass(frozen=True)
class Cells:
    """A table."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """What its columns mean."""


def difference_cells(rows: Sequence[Mapping[str, Any]]) -> Cells:
    """The paired tests of a document: the list `differences`, which is not empty."""
    header = ["system", "against", "metric", "Δ", "95% CI", "p", "p (Holm)", "win/tie/loss"]
    note = (
        "Δ is the mean difference per query. 95% CI: paired bootstrap, percentile. p: paired "
        "sign-flip test, two-sided; p (Holm): adjusted for all rows of this table."
    )
    if groups := rows[0].get("groups"):
        note += f" Resampled by document: {groups:,} groups of queries."
    if detectable := all("detectable" in row for row in rows):
        header.append("±")
        note += " ±: half-width of the interval that queries with such differences give."
    cells = (
        (
            label(row["system"]),
            label(row["against"]),
            row["metric"],
            signed(row["delta"]),
            interval(row["ci"]),
            p_value(row.get("p")),
            p_value(row.get("p_holm")),
            "/".join(str(row.get(key, ABSENT)) for key in ("wins", "ties", "losses")),
            *([figure(row["detectable"])] if detectable else []),
        )
        for row in rows
    )
    return Cells(tuple(header), tuple(cells), note)


def trial_cells(tuning: Mapping[str, Any]) -> Cells:
    """The recipes that `--tune` tried."""
    header = ("trial", "learning rate", "epochs", "dev R@10", "dev nDCG@10", "steps", "choice")
    chosen = tuning["chosen"]["number"]
    return Cells(
        header,
        tuple(
            (
                f"{trial['number']}",
                f"{trial['learning_rate']:.3g}",
                f"{trial['epochs']}",
                "failed" if trial["failed"] else figure(trial["recall"]),
                ABSENT if trial["failed"] else figure(trial["ndcg"]),
                f"{trial['steps']:,}",
                "chosen" if trial["number"] == chosen else "",
            )
            for trial in tuning["trials"]
        ),
    )


def stage_cells(stages: Sequence[Mapping[str, Any]]) -> Cells:
    """Seconds of each stage, and of all."""
    rows = [
        (stage["name"], f"{stage['seconds']:,.1f}", "yes" if stage["cached"] else "no")
        for stage in stages
    ]
    total = f"{sum(stage['seconds'] for stage in stages):,.1f}"
    return Cells(("stage", "seconds", "cached"), (*rows, ("all", total, "")))


def dimension_cells(rows: Sequence[Mapping[str, Any]]) -> Cells:
    """Dense retrieval by the leading components of the vectors alone, base and tuned."""
    sides = [side for side in ("base", "tuned") if side in rows[0]]
    metrics = list(rows[0][sides[0]]) if sides else []
    header = ("components", *(f"{side}, {metric}" for side in sides for metric in metrics))
    cells = (
        (f"{row['dimension']:,}", *(figure(row[s].get(m)) for s in sides for m in metrics))
        for row in rows
    )
    return Cells(header, tuple(cells))


def metric_definitions(document: Document) -> dict[str, str]:
    """What each kind of metric in a document means, by its name for people."""
    kinds = {metric.partition("@")[0] for means in document["systems"].values() for metric in means}
    return {_NAMES[kind]: f"{text}." for kind, text in DEFINITIONS.items() if kind in kinds}
