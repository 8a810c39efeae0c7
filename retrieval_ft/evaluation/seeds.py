"""Several runs of one experiment that differ by seed: is a gain that of the method or of the draw?

Two kinds of luck are kept apart. The standard deviation over seeds is that of training: what another
run would give on the same queries. The interval of a difference is that of the queries: what other
queries would give, tested after each query was averaged over the seeds, so that ten seeds do not pass
for ten times as many queries. Reimers and Gurevych 2017, "Reporting Score Distributions Makes a
Difference", on why one seed proves little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrieval_ft.errors import DataError
from retrieval_ft.evaluation.compare import difference_rows
from retrieval_ft.evaluation.metrics import PerQuery
from retrieval_ft.evaluation.regression import METRICS, Measured, check_same
from retrieval_ft.evaluation.report import figure, interval, label, p_value, signed

_COMPARED = (
    ("tuned_dense", "base_dense"),
    ("tuned_hybrid", "base_hybrid"),
    ("tuned_hybrid", "bm25"),
    ("hybrid", "dense"),
    ("hybrid", "bm25"),
)


@dataclass(frozen=True)
class OverSeeds:
    """One figure over the runs of an experiment."""

    mean: float
    std: float | None
    """Standard deviation over runs, of a sample (n - 1); None of a single run."""
    low: float
    """The smallest."""
    high: float
    """The largest."""
    seeds: int
    """Number of runs."""


def summarise(figures: Sequence[float]) -> OverSeeds:
    """Mean and spread of one figure of each run.

    Raises:
        ValueError: there is no figure.
    """
    if not figures:
        raise ValueError("at least one run is needed, found none")
    column = np.asarray(figures, np.float64)
    return OverSeeds(
        mean=float(column.mean()),
        std=float(column.std(ddof=1)) if len(column) > 1 else None,
        low=float(column.min()),
        high=float(column.max()),
        seeds=len(column),
    )


def average(runs: Sequence[PerQuery]) -> PerQuery:
    """Average each query over the runs; the metrics are those that all runs have.

    Raises:
        DataError: there is no run, the runs were measured on different queries, or no metric is
            common to them.
    """
    if not runs:
        raise DataError("averaging over seeds needs at least one run, found none")
    query_ids = runs[0].query_ids
    for number, run in enumerate(runs[1:], start=2):
        if run.query_ids != query_ids:
            raise DataError(
                f"runs that differ by seed are measured on the same queries; run 1 has "
                f"{len(query_ids)}, run {number} has {len(run.query_ids)}, "
                f"{len(set(query_ids) & set(run.query_ids))} of them in both"
            )
    metrics = [metric for metric in runs[0].values if all(metric in run.values for run in runs)]
    if not metrics:
        found = "; ".join(", ".join(run.values) or "none" for run in runs)
        raise DataError(f"the runs have no metric in common, measured were: {found}")
    columns = {metric: np.stack([run.of(metric) for run in runs]) for metric in metrics}
    # Sorted, so that no order of the runs makes a tie a win by the last bit of a sum.
    return PerQuery(
        query_ids, {m: np.sort(rows, axis=0).mean(axis=0) for m, rows in columns.items()}
    )


def seed_document(
    runs: Mapping[str, Sequence[PerQuery]],
    pairs: Sequence[tuple[str, str]],
    *,
    metrics: Sequence[str],
    seed: int,
    resamples: int = 10_000,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Summarise several runs of each system, and test the systems after averaging over the runs.

    Args:
        runs: System -> its values in each run, in the order of the seeds; a system without training,
            such as BM25, may have one run.
        pairs: `(system, against)` each; the difference is system minus against.
        metrics: Metrics to summarise and to test.
        seed: Seed of the tests; not one of the runs'.
        resamples: Of the sign-flip test and of the bootstrap.
        groups: Group of each query id, where queries are to be resampled by group.

    Returns:
        `systems`: system -> metric -> fields of `OverSeeds`. `differences`: rows of `difference_rows`
        on the averages, each with `over_seeds`: the difference of the means of each run of `system`,
        run by run where `against` has as many runs, else against the average of its runs.

    Raises:
        ConfigError: a pair names an unknown system, or a metric was not measured.
        DataError: the runs of a system, or two systems of a pair, were measured on different queries.
    """
    averaged = {name: average(own) for name, own in runs.items()}
    rows = difference_rows(
        averaged, pairs, metrics=metrics, seed=seed, resamples=resamples, groups=groups
    )
    for row in rows:
        own, other = (
            [run.mean(row["metric"]) for run in runs[row[s]]] for s in ("system", "against")
        )
        if len(own) != len(other):
            other = [averaged[row["against"]].mean(row["metric"])] * len(own)
        row["over_seeds"] = asdict(summarise([a - b for a, b in zip(own, other, strict=True)]))
    systems = {
        name: {metric: asdict(summarise([run.mean(metric) for run in own])) for metric in metrics}
        for name, own in runs.items()
    }
    return {"systems": systems, "differences": rows}


def summarise_runs(
    runs: Sequence[Measured], *, seed: int = 13, resamples: int = 10_000
) -> dict[str, Any]:
    """Summarise measured runs that differ by seed: what `seed_document` says of their systems.

    Raises:
        DataError: fewer than two runs, one of them twice, runs on different data, or no system that
            all of them measured.
    """
    names = [run.name for run in runs]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise DataError(
            f"runs that differ by seed are summarised, two at least and each once; found "
            f"{', '.join(names) or 'none'}"
        )
    first, *others = runs
    systems = [name for name in first.per_query if all(name in run.per_query for run in others)]
    if not systems:
        raise DataError(f"{', '.join(names)}: no system was measured in all of these runs")
    for run in others:
        check_same(run, first, systems)
    pairs = [pair for pair in _COMPARED if set(pair) <= set(systems)]
    found = seed_document(
        {name: [run.per_query[name] for run in runs] for name in systems},
        pairs,
        metrics=METRICS,
        seed=seed,
        resamples=resamples,
    )
    return {"schema_version": 1, "runs": names, "metrics": list(METRICS), **found}


def seeds_text(document: Mapping[str, Any]) -> str:
    """The summary in plain aligned lines; ends with a line break."""
    metrics = document["metrics"]
    rows = [["system", *(f"{metric} mean ± std [low, high]" for metric in metrics)]]
    for name, found in document["systems"].items():
        rows.append([label(name), *(_spread(found[metric]) for metric in metrics)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for row in document["differences"]:
        spread = row["over_seeds"]
        lines.append(
            f"{label(row['system'])} minus {label(row['against'])}, {row['metric']}: "
            f"{signed(row['delta'])} {interval(row['ci'])}, p (Holm) {p_value(row['p_holm'])}; "
            f"run by run {signed(spread['low'])} to {signed(spread['high'])}"
        )
    return "\n".join(lines) + "\n"


def _spread(found: Mapping[str, Any]) -> str:
    ends = f"[{figure(found['low'])}, {figure(found['high'])}]"
    return f"{figure(found['mean'])} ± {figure(found['std'])} {ends}"
