"""Sections of `report.md` on how it was made and what it costs: search, choices, hygiene, speed, advice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrieval_ft.console import markdown as escape
from retrieval_ft.evaluation.cells import dimension_cells, stage_cells, trial_cells
from retrieval_ft.evaluation.markdown_blocks import bullets, escaped, fence, table
from retrieval_ft.evaluation.report import ABSENT, Document, label


def tuning(document: Document) -> list[str]:
    """The recipes that `--tune` tried."""
    found = document.get("tuning")
    if not found:
        return []
    return ["## Search over recipes", "", *escaped(trial_cells(found), left=1)]


def hygiene(document: Document) -> list[str]:
    """What the checks of the data touched, and what was done."""
    rows = [
        [
            escape(row["check"]),
            f"{row['touched']:,}",
            f"{row['of']:,}",
            escape(row["what was done"]),
        ]
        for row in document.get("hygiene") or ()
    ]
    if not rows:
        return []
    header = ["check", "touched", "of", "what was done"]
    return ["## Hygiene", "", *table(header, rows, left=1)]


def choices(document: Document) -> list[str]:
    """What was chosen on dev."""
    found = document.get("choices")
    if not found:
        return []
    return [
        "## Choices",
        "",
        "Whatever was chosen among candidates was chosen on the dev split; the test split was "
        "looked at once, for the tables above.",
        "",
        *bullets(found),
    ]


def account(document: Document, key: str, title: str) -> list[str]:
    """The facts of one stage under a title."""
    facts = document.get(key)
    return [f"## {title}", "", *bullets(facts)] if facts else []


def stages(document: Document) -> list[str]:
    """Seconds of each stage."""
    found = document.get("stages")
    if not found:
        return []
    return ["## Stages", "", *escaped(stage_cells(found), left=1)]


def command(document: Document) -> list[str]:
    """The command that made the document."""
    found = document.get("command")
    return ["## Made by", "", fence(str(found))] if found else []


def dimensions(document: Document) -> list[str]:
    """Both models by the first components of their vectors alone."""
    rows = document.get("dimensions")
    if not rows:
        return []
    return [
        "## Shorter vectors",
        "",
        "Dense retrieval by the leading components, normalised again.",
        "",
        *escaped(dimension_cells(rows), left=0),
    ]


def efficiency(document: Document) -> list[str]:
    """Latencies by system, throughput, bytes and memory."""
    found = document.get("efficiency")
    if not found:
        return []
    steps = {"encode_ms": "encode", "search_ms": "search", "rerank_ms": "rerank", "total_ms": "all"}
    shown = [key for key in steps if any(key in times for times in found["systems"].values())]
    rows = [
        [
            escape(label(name)),
            *(_percentiles(times.get(key)) for key in shown),
            f"{times['queries_per_s']:,.0f}",
        ]
        for name, times in found["systems"].items()
    ]
    header = ["system", *(f"{steps[key]}, ms" for key in shown), "queries/s"]
    facts = {
        key.replace("_bytes", ", MB").replace("_", " "): f"{found[key] / 1e6:,.1f}"
        for key in ("index_bytes", "vector_bytes", "bm25_bytes", "text_bytes", "peak_memory_bytes")
        if key in found
    }
    if "passages_per_s" in found:
        facts["passages encoded a second"] = f"{found['passages_per_s']:,.0f}"
    if check := found.get("latency_check"):
        facts["encoding a query, tuned over base, p95"] = _latency(check)
    return [
        "## Speed and size",
        "",
        "p50 / p95 / p99 of one query at a time, the median of three rounds each, without caches. "
        "Times are this machine's, and change from run to run.",
        "",
        *table(header, rows, left=1),
        "",
        *bullets(facts),
    ]


def _percentiles(times: Mapping[str, float] | None) -> str:
    return ABSENT if times is None else " / ".join(f"{times[p]:.2f}" for p in ("p50", "p95", "p99"))


def _latency(check: Mapping[str, Any]) -> str:
    budget = check["budget"]
    held = "no budget is set" if budget is None else f"budget {budget:.0%}"
    state = "within it" if check["passed"] else "over it"
    return f"{check['growth']:+.1%} ({held}{'' if budget is None else ', ' + state})"


def advice(document: Document) -> list[str]:
    """What to do first, and what each option costs under the default prices."""
    rows = document.get("advice")
    if not rows:
        return []
    return [
        "## What to do first",
        "",
        "By `retrieval-ft advise`, with assumed prices and dense search served today; give your own "
        "with `--inputs` and `--serves`.",
        "",
        *(f"- {escape(row['option'])}: {escape(row['text'])}" for row in rows),
    ]
