"""What the page says of the measurement itself: systems, differences, slices, forgetting, examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retrieval_ft.evaluation.cells import (
    METRICS_NOTE,
    difference_cells,
    dimension_cells,
    metric_definitions,
)
from retrieval_ft.evaluation.html.blocks import (
    Block,
    Cell,
    Examples,
    Group,
    Heading,
    Paragraph,
    Table,
    facts,
    group,
    table,
)
from retrieval_ft.evaluation.html.charts import (
    curves_chart,
    delta_chart,
    forest_chart,
    is_sure,
    separation_chart,
)
from retrieval_ft.evaluation.report import (
    ABSENT,
    COLUMNS,
    GATE_METRIC,
    Document,
    difference,
    figure,
    interval,
    label,
    ordered,
    p_value,
    signed,
)
from retrieval_ft.evaluation.slices import MINIMUM
from retrieval_ft.evaluation.stats import ALPHA

Blocks = Iterator[Block]
Evidence = Mapping[str, Any]
_MORE: Mapping[str, str] = {
    "precision@10": "P@10",
    "map": "MAP",
    "capped_recall@10": "capped R@10",
    "success@10": "S@10",
    "hole@10": "hole@10",
}
_DELTAS = 6
"""Charts of differences by query, at most."""
_WHOLE = "every query is ranked against the whole corpus"
STAR = f"★: differs from the system named below its Δ, p below {ALPHA:g} after Holm"


def systems(document: Document, _: Evidence) -> Blocks:
    """Every system at every metric, with its gain."""
    measured = {metric for means in document["systems"].values() for metric in means}
    columns = {m: heading for m, heading in COLUMNS.items() if m in measured}
    how = "a run file is taken as it stands" if document.get("runs") else _WHOLE
    caption = f"Means over the test queries; {how}"
    gain = ["Δ R@10 [95% CI]", "p (Holm)"]
    rows = [
        [*cells, *_gain(document, name)]
        for name, cells in zip(
            ordered(document["systems"]), _means(document, list(columns)), strict=True
        )
    ]
    note = f"{STAR} over all rows of the table of differences. Bold: the best of its column."
    yield table(caption, ["system", *columns.values(), *gain], rows, note=note)
    more = {m: heading for m, heading in _MORE.items() if m in measured}
    more |= {m: m for m in sorted(measured - columns.keys() - more.keys())}
    if more:
        yield table(
            "Further metrics, means over the test queries",
            ["system", *more.values()],
            _means(document, list(more)),
            folded="Further metrics",
        )
    if sizes := document.get("dimensions"):
        caption = "Dense retrieval by the first components of the vectors alone (Matryoshka)"
        cells = dimension_cells(sizes)
        yield table(caption, cells.header, cells.rows)


def _means(document: Document, metrics: Sequence[str]) -> list[list[Cell]]:
    found: Mapping[str, Mapping[str, float]] = document["systems"]
    best = {
        metric: max((means[metric] for means in found.values() if metric in means), default=None)
        for metric in metrics
        if not metric.startswith("hole") and len(found) > 1
    }
    rows = []
    for name in ordered(found):
        row = [Cell(label(name))]
        for metric in metrics:
            value = found[name].get(metric)
            test = difference(document, name, metric)
            row.append(
                Cell(
                    figure(value),
                    star=test is not None and is_sure(test),
                    best=value is not None and value == best.get(metric),
                )
            )
        rows.append(row)
    return rows


def _gain(document: Document, name: str) -> list[Cell]:
    row = difference(document, name, GATE_METRIC)
    if row is None:
        return [Cell(""), Cell("")]
    gain = f"{signed(row['delta'])} {interval(row['ci'])}"
    return [Cell(gain, more=f"against {label(row['against'])}"), Cell(p_value(row.get("p_holm")))]


def curves(_: Document, evidence: Evidence) -> Blocks:
    """Recall at each k."""
    found = evidence.get("curves")
    if found and found["systems"]:
        yield curves_chart(
            {**found, "systems": {n: found["systems"][n] for n in ordered(found["systems"])}}
        )


def differences(document: Document, _: Evidence) -> Blocks:
    """The forest plot and its table."""
    rows = document.get("differences") or ()
    if not rows:
        return
    yield forest_chart(rows)
    yield _tests(rows)


def _tests(rows: Sequence[Mapping[str, Any]]) -> Table:
    found = difference_cells(rows)
    delta = found.header.index("Δ")
    cells: list[list[str | Cell]] = [
        [*texts[:delta], Cell(texts[delta], star=is_sure(row)), *texts[delta + 1 :]]
        for texts, row in zip(found.rows, rows, strict=True)
    ]
    note = f"{found.note} ★: p (Holm) below {ALPHA:g}."
    return table("Differences between systems", found.header, cells, left=3, note=note)


def deltas(_: Document, evidence: Evidence) -> Blocks:
    """The gain of every query."""
    found = [one for one in evidence.get("deltas") or () if one["values"]]
    for number, one in enumerate(found[:_DELTAS], start=1):
        yield delta_chart(one, number=number)


def separation(_: Document, evidence: Evidence) -> Blocks:
    """Scores before and after."""
    if found := evidence.get("separation"):
        yield separation_chart(found)


def slices(document: Document, _: Evidence) -> Blocks:
    """The systems on parts of the test queries."""
    found = document.get("slices")
    if not found:
        return
    names = [name for name in ordered(document["systems"]) if name in found[0]["systems"]]
    pairs = dict.fromkeys(map(_pair, (row for one in found for row in one.get("differences", ()))))
    parts: dict[str, list[list[str | Cell]]] = {}
    for one in found:
        rows = {_pair(row): row for row in one.get("differences", ())}
        parts.setdefault(str(one["name"]), []).append(
            [
                str(one.get("value", ABSENT)),
                f"{one['queries']:,}",
                *(figure(one["systems"][name].get(GATE_METRIC)) for name in names),
                *(_slice_gain(rows.get(pair)) for pair in pairs),
            ]
        )
    header = ["test queries", "n", *map(label, names)]
    header += [f"Δ {label(system)} over {label(against)}" for system, against in pairs]
    yield Table(
        "Recall@10 on slices of the test queries, and differences with their 95% intervals",
        tuple(header),
        tuple(group(name, rows) for name, rows in parts.items()),
        note=f"★ marks a finding: {MINIMUM} queries at least, and p below {ALPHA:g} after Holm over all "
        "slices. What has no star may be luck.",
    )


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["system"], row["against"]


def _slice_gain(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell("")
    return Cell(signed(row["delta"]), star=bool(row.get("finding")), more=interval(row["ci"]))


def forgetting(document: Document, _: Evidence) -> Blocks:
    """Sets of other domains before and after."""
    found = document.get("forgetting")
    if found is None:
        return
    if not found.get("sets"):
        yield Paragraph(
            "Not measured: there was no set of another domain. “retrieval-ft data build hpo” (or “cwe”) "
            "builds one that every later run uses; evaluation.general names others."
        )
        return
    header = ["metric", "base", "tuned", "Δ", "95% CI", "p"]
    groups = (*_target(document), *(_general(one) for one in found["sets"]))
    yield Table(
        "Dense retrieval with the tuned weights against the base",
        tuple(header),
        groups,
        note="Other domains: test queries of a sample against a pool of its passages, so recall is higher "
        "than on the whole set. p as in the table of differences, not adjusted.",
    )


def _target(document: Document) -> tuple[Group, ...]:
    tests = [
        row
        for row in document.get("differences", ())
        if (row["system"], row["against"]) == ("tuned_dense", "base_dense")
    ]
    found, data = document["systems"], document.get("dataset", {})
    if not tests or not {"base_dense", "tuned_dense"} <= found.keys():
        return ()
    kinds = {kind: found[f"{kind}_dense"] for kind in ("base", "tuned")}
    return (_before_after(f"{data.get('name', 'target')} (target)", data, kinds, tests),)


def _general(one: Mapping[str, Any]) -> Group:
    remark = f"; {one['remark']}" if one.get("remark") else ""
    return _before_after(str(one["name"]), one, one["systems"], one["differences"], remark=remark)


def _before_after(
    name: str,
    sizes: Mapping[str, Any],
    kinds: Mapping[str, Mapping[str, float]],
    tests: Sequence[Mapping[str, Any]],
    *,
    remark: str = "",
) -> Group:
    counts = [
        f"{sizes[key]:,} {word}"
        for key, word in (("test_queries", "queries"), ("passages", "passages"))
        if key in sizes
    ]
    rows = [
        [
            row["metric"],
            figure(kinds["base"].get(row["metric"])),
            figure(kinds["tuned"].get(row["metric"])),
            signed(row["delta"]),
            interval(row["ci"]),
            p_value(row.get("p")),
        ]
        for row in tests
    ]
    return group(f"{name}{': ' if counts else ''}{', '.join(counts)}{remark}", rows)


def examples(_: Document, evidence: Evidence) -> Blocks:
    """The biggest wins and losses."""
    found = evidence.get("examples")
    if not found or not (found["wins"] or found["losses"]):
        return
    names = {key: found[key] for key in ("system", "against", "metric")}
    yield Paragraph(
        f"{label(names['system'])} against {label(names['against'])}, by the difference in "
        f"{names['metric']}; of equal ones the larger difference in nDCG@10 comes first."
    )
    for title, key in (("Biggest wins", "wins"), ("Biggest losses", "losses")):
        if found[key]:
            yield Examples(title, tuple(found[key]), **names)
        else:
            yield Heading(title)
            yield Paragraph(f"No query was {'won' if key == 'wins' else 'lost'}.")


def definitions(document: Document, _: Evidence) -> Blocks:
    """What each measured metric means."""
    if known := metric_definitions(document):
        yield Paragraph(METRICS_NOTE)
        yield facts(known, wide=True)
