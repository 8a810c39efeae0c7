"""Has retrieval become worse since an earlier run? A check that a CI job can act on.

Two runs are compared query by query, so they must have ranked the same test queries over the same
corpus, by the same judgements; else they are refused, since a difference would say nothing. A system
fell where a metric lost more than a tolerance, and by more than luck in the choice of the queries
explains. `eval/`, `manifest.json` and, where they are to be compared too, the texts of the queries are
all that must be kept of the earlier run. Two folders that `evaluate --out` wrote are compared in the
same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrieval_ft import artifacts
from retrieval_ft.dataset import beir
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation.compare import compare, figures
from retrieval_ft.evaluation.metrics import PerQuery
from retrieval_ft.evaluation.per_query import read_per_query
from retrieval_ft.evaluation.stats import ALPHA, Difference, holm

Change = Literal["fell", "rose", "unclear", "steady"]
Outcome = Literal["passed", "regressed", "incomplete"]

METRICS = ("recall@10", "ndcg@10")
"""What is compared unless asked otherwise: the gate's metric, and one that sees the order."""
TOLERANCE = 0.01
"""A loss up to this passes: one point. Assumption, give another."""
SCHEMA_VERSION = 1
MEASUREMENT = "measurement"
"""Kind, in its manifest, of a folder that `evaluate --out` wrote."""
METRICS_FILE = "metrics.json"
PER_QUERY_FILE = "per_query.parquet"
_RUN_FOLDER = "eval"
_CORPUS = "dataset/corpus.jsonl"
_JUDGEMENTS = ("dataset/qrels/test.tsv", "generated/qrels/test.tsv")
_TEXTS = ("dataset/queries.jsonl", "generated/queries.jsonl")
_SHOWN = 3


@dataclass(frozen=True)
class Measured:
    """What one run measured, and on what."""

    name: str
    """For messages: the run directory."""
    per_query: Mapping[str, PerQuery]
    """Values of each system, queries sorted by id."""
    identity: Mapping[str, str]
    """sha256 of what was measured on: `judgements`, and `corpus` and `query texts` where they are there."""
    kind: str = "run"
    """What it was read from: a `run` directory, or the folder of a `measurement`."""


@dataclass(frozen=True)
class Row:
    """One system at one metric: now minus before."""

    system: str
    metric: str
    before: float
    now: float
    difference: Difference
    p_holm: float
    """p adjusted over all rows (Holm 1979)."""
    change: Change
    """fell, rose: by more than the tolerance and beyond noise; unclear: by more than the tolerance,
    which may be noise; steady: within the tolerance."""


@dataclass(frozen=True)
class Regression:
    """The outcome of a comparison with an earlier run."""

    now: str
    before: str
    queries: int
    tolerance: float
    rows: tuple[Row, ...]
    missing: tuple[str, ...]
    """Systems that the earlier run measured and this one did not."""
    new: tuple[str, ...]
    """Systems that only this run measured; there is nothing to compare them with."""

    @property
    def outcome(self) -> Outcome:
        """`regressed` where any row fell; `incomplete` where none did but a system is missing."""
        if any(row.change == "fell" for row in self.rows):
            return "regressed"
        return "incomplete" if self.missing else "passed"

    def line(self) -> str:
        """The verdict on one line."""
        fell = [_shown(row) for row in self.rows if row.change == "fell"]
        parts = []
        if fell:
            parts.append(f"{len(fell)} of {len(self.rows)} figures fell: {'; '.join(fell)}")
        else:
            parts.append(
                f"none of {len(self.rows)} figures fell by more than {self.tolerance:.3f} beyond noise"
            )
        if unclear := sum(row.change == "unclear" and row.now < row.before for row in self.rows):
            parts.append(f"{unclear} lost more than that, which may be noise")
        if self.missing:
            parts.append(f"not measured now: {', '.join(self.missing)}")
        text = (
            f"{self.outcome}: {', '.join(parts)} ({self.queries:,} queries, against {self.before})"
        )
        return " ".join(text.split())

    def document(self) -> dict[str, Any]:
        """The whole comparison as JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "outcome": self.outcome,
            "reason": self.line(),
            "now": self.now,
            "before": self.before,
            "queries": self.queries,
            "tolerance": self.tolerance,
            "rows": [_row_document(row) for row in self.rows],
            "missing": list(self.missing),
            "new": list(self.new),
        }


def read_measured(run: Path) -> Measured:
    """Read what a run directory, or a folder of `evaluate --out`, measured; as it was written.

    Raises:
        DataError: a file is missing, damaged or was changed since, or the metrics document and the
            values per query are of two runs.
    """
    manifest = artifacts.read_json(run / artifacts.MANIFEST)
    if isinstance(manifest, dict) and manifest.get("kind") == MEASUREMENT:
        return _read_measurement(run)
    try:
        outputs: dict[str, str] = {}
        for stage in manifest["stages"].values():
            outputs |= stage["outputs"]
        corpus = outputs[_CORPUS]
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{run / artifacts.MANIFEST}: not the manifest of a run that was measured, or damaged"
        ) from error
    per_query = _read_values(run / _RUN_FOLDER, outputs, prefix=f"{_RUN_FOLDER}/")
    judgements = {name: outputs[name] for name in _JUDGEMENTS if name in outputs}
    identity = {"corpus": corpus, "judgements": artifacts.sha256_json(judgements)}
    if texts := _texts(run, per_query):
        identity["query texts"] = artifacts.sha256_json(texts)
    general, samples = _read_general(run / _RUN_FOLDER, outputs)
    return Measured(str(run), per_query | general, identity | samples)


def _read_general(
    folder: Path, written: Mapping[str, str]
) -> tuple[dict[str, PerQuery], dict[str, str]]:
    """Values on general sets, by `general SET side`, and the sha256 of each sample, by `general SET`."""
    values: dict[str, PerQuery] = {}
    samples: dict[str, str] = {}
    for row in artifacts.read_json(folder / METRICS_FILE).get("general", ()):
        name = f"general {row['name']}"
        place = f"general/{row['name']}/{PER_QUERY_FILE}"
        _check_unchanged(folder / place, written.get(f"{_RUN_FOLDER}/{place}"))
        found = read_per_query(folder / place)
        values |= {f"{name} {side}": measured for side, measured in found.items()}
        samples[name] = row["sha256"]
    return values, samples


def _read_measurement(folder: Path) -> Measured:
    manifest = artifacts.read_manifest(folder, what="measurement")
    written = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    per_query = _read_values(folder, written)
    return Measured(str(folder), per_query, manifest["identity"], kind=MEASUREMENT)


def _read_values(
    folder: Path, written: Mapping[str, str], *, prefix: str = ""
) -> dict[str, PerQuery]:
    """The values per query of a folder, checked against their record and the metrics beside them."""
    for name in (METRICS_FILE, PER_QUERY_FILE):
        _check_unchanged(folder / name, written.get(prefix + name))
    per_query = read_per_query(folder / PER_QUERY_FILE)
    _check_means(folder / METRICS_FILE, per_query)
    return per_query


def check_regression(
    now: Measured,
    before: Measured,
    *,
    tolerance: float = TOLERANCE,
    metrics: Sequence[str] = METRICS,
    systems: Sequence[str] | None = None,
    seed: int = 13,
    resamples: int = 10_000,
) -> Regression:
    """Compare a run with an earlier one, system by system, on the same queries.

    A row fell where it lost more than the tolerance, its 95% interval lies below zero, and its
    sign-flip p, adjusted over all rows, is at most .05 (`stats.ALPHA`); it rose where the same holds
    upwards. The noise is that of the choice of queries: rankings of the same queries that differ do
    differ, what is asked is whether other queries of this kind would show it.

    Args:
        now: The run to judge.
        before: The earlier run.
        tolerance: Loss that passes, in [0, 1); .01 is one point.
        metrics: Metrics to compare, all of them measured in both.
        systems: Systems to compare; all that the earlier run measured unless given.
        seed: Seed of the tests.
        resamples: Of the sign-flip test and of the bootstrap.

    Raises:
        ConfigError: the tolerance is not in [0, 1), a system is unknown to the earlier run, or a
            metric was not measured.
        DataError: the runs were measured on different corpora, judgements or queries, or have no
            system in common.
    """
    if not 0 <= tolerance < 1:
        raise ConfigError(f"tolerance {tolerance}: a loss in [0, 1) is allowed; 0.01 is one point")
    wanted = _wanted(before, systems)
    check_same(now, before, wanted)
    both = [name for name in wanted if name in now.per_query]
    if not both:
        raise DataError(
            f"{now.name} and {before.name} have no system in common: {', '.join(now.per_query)} "
            f"against {', '.join(wanted)}"
        )
    found = [
        (system, metric, _difference(now, before, system, metric, seed, resamples))
        for system in both
        for metric in metrics
    ]
    adjusted = holm([difference.p for _, _, difference in found])
    rows = tuple(
        Row(
            system=system,
            metric=metric,
            before=before.per_query[system].mean(metric),
            now=now.per_query[system].mean(metric),
            difference=difference,
            p_holm=p_holm,
            change=_change(difference, p_holm=p_holm, tolerance=tolerance),
        )
        for (system, metric, difference), p_holm in zip(found, adjusted, strict=True)
    )
    return Regression(
        now=now.name,
        before=before.name,
        queries=len(before.per_query[both[0]].query_ids),
        tolerance=tolerance,
        rows=rows,
        missing=tuple(name for name in wanted if name not in now.per_query),
        new=tuple(name for name in now.per_query if name not in before.per_query),
    )


def _check_unchanged(path: Path, expected: str | None) -> None:
    if expected is None:
        raise DataError(
            f"{path}: there is no record of it; measure first (a run: its evaluate stage)"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file; keep eval/ of a run that others are compared with")
    if artifacts.sha256_file(path) != expected:
        raise DataError(f"{path}: damaged or edited since it was written; measure again")


def _check_means(path: Path, per_query: Mapping[str, PerQuery]) -> None:
    """The metrics document must be the mean of the values beside it."""
    document = artifacts.read_json(path)
    systems = document.get("systems") if isinstance(document, dict) else None
    if not isinstance(systems, dict) or set(systems) != set(per_query):
        raise DataError(f"{path}: its systems are not those of {PER_QUERY_FILE}; measure again")
    for system, means in systems.items():
        for metric, mean in means.items():
            values = per_query[system].values.get(metric)
            if values is None or not math.isclose(mean, values.mean(), abs_tol=1e-9):
                raise DataError(
                    f"{path}: {metric} of {system} is not the mean of its values per query; "
                    "measure again"
                )


def _texts(run: Path, per_query: Mapping[str, PerQuery]) -> dict[str, str]:
    """Texts of the measured queries by id; empty where the run has not kept all of them."""
    known: dict[str, str] = {}
    for name in _TEXTS:
        if (run / name).is_file():
            known |= beir.read_queries(run / name).text_of
    measured = {query_id for found in per_query.values() for query_id in found.query_ids}
    return {q: known[q] for q in sorted(measured)} if measured <= known.keys() else {}


def check_same(now: Measured, before: Measured, systems: Sequence[str]) -> None:
    """Refuse two measurements on different data, as far as the systems are concerned.

    Raises:
        DataError: another corpus, other judgements or texts, another sample of a general set.
    """
    if now.kind != before.kind:
        raise DataError(
            f"{now.name} cannot be compared with {before.name}: a {now.kind} and a {before.kind} say in "
            "different ways what they were measured on; `evaluate RUN --out FOLDER` makes a measurement "
            "of a run"
        )
    general = {name.rpartition(" ")[0] for name in systems}
    kept = [
        key
        for key in before.identity
        if key in now.identity and (key in general or not key.startswith("general "))
    ]
    if other := [key for key in kept if now.identity[key] != before.identity[key]]:
        figures = "; ".join(
            f"{key} {before.identity[key][:12]} then, {now.identity[key][:12]} now" for key in other
        )
        raise DataError(
            f"{now.name} cannot be compared with {before.name}: they were measured on different data "
            f"({figures}); measure the earlier model again on the data of now"
        )


def _wanted(before: Measured, systems: Sequence[str] | None) -> list[str]:
    wanted = list(before.per_query if systems is None else dict.fromkeys(systems))
    if unknown := [name for name in wanted if name not in before.per_query]:
        raise ConfigError(
            f"unknown system {unknown[0]!r}; {before.name} measured: {', '.join(before.per_query)}"
        )
    return wanted


def _difference(
    now: Measured, before: Measured, system: str, metric: str, seed: int, resamples: int
) -> Difference:
    mine, theirs = now.per_query[system], before.per_query[system]
    if mine.query_ids != theirs.query_ids:
        only = [
            f"{len(ids)} only {when} ({', '.join(map(repr, sorted(ids)[:_SHOWN]))})"
            for when, ids in (
                ("now", set(mine.query_ids) - set(theirs.query_ids)),
                ("then", set(theirs.query_ids) - set(mine.query_ids)),
            )
            if ids
        ]
        raise DataError(
            f"{now.name} cannot be compared with {before.name}: {system} was measured on different "
            f"test queries, {'; '.join(only)}; use the same test split"
        )
    return compare(mine, theirs, metric=metric, seed=seed, resamples=resamples)


def _change(found: Difference, *, p_holm: float, tolerance: float) -> Change:
    if abs(found.delta) <= tolerance + 1e-12:
        return "steady"
    if p_holm > ALPHA:
        return "unclear"
    if found.delta < 0:
        return "fell" if found.ci_high < 0 else "unclear"
    return "rose" if found.ci_low > 0 else "unclear"


def _shown(row: Row) -> str:
    found = row.difference
    return (
        f"{row.system} {row.metric} {row.before:.4f} to {row.now:.4f} ({found.delta:+.4f} "
        f"[{found.ci_low:+.4f}, {found.ci_high:+.4f}], p {row.p_holm:.4f})"
    )


def _row_document(row: Row) -> dict[str, Any]:
    return {
        "system": row.system,
        "metric": row.metric,
        "before": row.before,
        "now": row.now,
        **figures(row.difference),
        "n": row.difference.n,
        "groups": row.difference.groups,
        "p_holm": row.p_holm,
        "change": row.change,
    }
