"""The page as a whole: headline, sections in reading order, and the template that lays them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from retrieval_ft.evaluation.html import sections, sections_run
from retrieval_ft.evaluation.html.blocks import Block, Section, one_line
from retrieval_ft.evaluation.report import (
    COLUMNS,
    GATE_METRIC,
    Document,
    figure,
    interval,
    label,
    p_value,
    reference,
    signed,
)

Evidence = Mapping[str, Any]
Fill = Callable[[Document, Evidence], Iterator[Block]]

_SECTIONS: tuple[tuple[str, str, Fill], ...] = (
    ("systems", "Systems", sections.systems),
    ("curves", "Recall at k", sections.curves),
    ("differences", "Differences", sections.differences),
    ("deltas", "Query by query", sections.deltas),
    ("separation", "Separation of scores", sections.separation),
    ("training", "Training", sections_run.training),
    ("choices", "Choices made on dev", sections_run.choices),
    ("slices", "Where: slices of the queries", sections.slices),
    ("forgetting", "What it forgot", sections.forgetting),
    ("examples", "Biggest wins and losses", sections.examples),
    ("hygiene", "Data hygiene", sections_run.hygiene),
    ("efficiency", "Efficiency and costs", sections_run.efficiency),
    ("loading", "Load the model", sections_run.loading),
    ("definitions", "What the metrics mean", sections.definitions),
    ("repeat", "Repeat it", sections_run.repeat),
)
_VERDICTS = {
    "promote": ("✓", "Promote the tuned model"),
    "hold": ("■", "Hold: keep the base model"),
    "inconclusive": ("?", "Inconclusive"),
}
_PAIRS = (("tuned_hybrid", "base_hybrid"), ("tuned_dense", "base_dense"))
_SHOWN = 3
"""Differences in the headline of a document without a verdict, at most."""
_COUNTS = {
    "passages": "passages",
    "train_pairs": "train pairs",
    "dev_queries": "dev queries",
    "test_queries": "test queries",
    "queries": "test queries",
}


@dataclass(frozen=True)
class Gain:
    """One difference in the headline."""

    name: str
    metric: str
    before: str
    after: str
    delta: str
    interval: str
    p: str


@dataclass(frozen=True)
class Headline:
    """What the page opens with."""

    state: str
    """A class of the style sheet: a verdict, or `measured`."""
    sign: str
    title: str
    reason: str
    dataset: str
    about: str
    gains: tuple[Gain, ...]
    warnings: tuple[str, ...]


def report_html(document: Document, evidence: Evidence) -> str:
    """Render a results document, with what was gathered beside it, as one self-contained page.

    A pure function: the same two values give the same text. The page needs no script and no network
    and forbids both by its Content-Security-Policy. What neither value holds is left out.

    Args:
        document: A results document, of a run or of `retrieval-ft evaluate`; `systems` is a must.
        evidence: What `evaluation.evidence` makes and a run adds. All keys are optional: `curves`,
            `deltas`, `examples`, `separation`, `fusion`, `training`, `loading`, `config` (YAML),
            `environment`, `hashes`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"label": label, "figure": figure, "signed": signed}
    headline = headline_of(document)
    filled = (
        Section(key, title, tuple(fill(document, evidence))) for key, title, fill in _SECTIONS
    )
    page = environment.get_template("page.html.j2").render(
        title=one_line(f"{headline.title}: {headline.dataset}", 120),
        head=headline,
        sections=[section for section in filled if section.blocks],
        css=resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8"),
    )
    return f"{page.strip()}\n"


def headline_of(document: Document) -> Headline:
    """The verdict, or for a document without one what was measured, with the gains that decide."""
    verdict = document.get("verdict")
    data = document.get("dataset") or {}
    name = str(data.get("name", "the test queries"))
    if verdict is None:
        state, sign, title = "measured", "", f"Retrieval on {name}"
    else:
        state = verdict if verdict in _VERDICTS else "measured"
        sign, title = _VERDICTS.get(verdict, ("", f"Verdict: {verdict}"))
    counts = [f"{data[key]:,} {word}" for key, word in _COUNTS.items() if key in data]
    if model := document.get("base"):
        counts.append(f"base model {model}")
    elif model := document.get("model"):
        counts.append(f"model {model}")
    return Headline(
        state=state,
        sign=sign,
        title=title,
        reason=str(document.get("reason") or ""),
        dataset=name,
        about=" · ".join(counts),
        gains=_gains(document),
        warnings=tuple(map(str, document.get("warnings") or ())),
    )


def _gains(document: Document) -> tuple[Gain, ...]:
    rows = [r for r in document.get("differences") or () if r["metric"] == GATE_METRIC]
    gate = [r for pair in _PAIRS for r in rows if (r["system"], r["against"]) == pair]
    main = [r for r in rows if r["against"] == reference(document, r["system"])]
    return tuple(_gain(document, row) for row in gate or main[:_SHOWN])


def _gain(document: Document, row: Mapping[str, Any]) -> Gain:
    metric = row["metric"]
    before, after = (
        document["systems"].get(row[side], {}).get(metric) for side in ("against", "system")
    )
    return Gain(
        name=f"{label(row['system'])} over {label(row['against'])}",
        metric=COLUMNS.get(metric, metric),
        before=figure(before),
        after=figure(after),
        delta=signed(row["delta"]),
        interval=interval(row["ci"]),
        p=p_value(row.get("p_holm")),
    )
