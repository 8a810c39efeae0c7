"""Systems against systems, metric by metric: what the paired tests say, as rows for a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation.metrics import PerQuery
from retrieval_ft.evaluation.stats import Difference, holm, paired_test


def compare(
    system: PerQuery, against: PerQuery, *, metric: str, seed: int, resamples: int = 10_000
) -> Difference:
    """Test `system` minus `against` on one metric.

    Raises:
        ConfigError: the metric was not measured.
        DataError: the two were measured on different queries.
    """
    if system.query_ids != against.query_ids:
        raise DataError(
            f"a paired test needs one set of queries for both systems, found "
            f"{len(system.query_ids)} and {len(against.query_ids)} queries, "
            f"{len(set(system.query_ids) & set(against.query_ids))} of them in both"
        )
    return paired_test(system.of(metric), against.of(metric), rng_seed=seed, resamples=resamples)


def difference_rows(
    per_query: Mapping[str, PerQuery],
    pairs: Sequence[tuple[str, str]],
    *,
    metrics: Sequence[str],
    seed: int,
    resamples: int = 10_000,
) -> list[dict[str, Any]]:
    """Test each pair of systems on each metric; the list `differences` of a results document.

    Every row uses the same seed, so a row has the figures that `compare` gives alone. `p_holm` is
    adjusted over all the rows of the answer.

    Args:
        per_query: Values of each system.
        pairs: `(system, against)` each; the difference is system minus against.
        metrics: Metrics to test, all of them measured.
        seed: Seed of the tests.
        resamples: Of the sign-flip test and of the bootstrap.

    Raises:
        ConfigError: a pair names an unknown system, or a metric was not measured.
        DataError: two systems of a pair were measured on different queries.
    """
    for name in (name for pair in pairs for name in pair):
        if name not in per_query:
            raise ConfigError(f"unknown system {name!r}; measured: {', '.join(per_query)}")
    rows: list[dict[str, Any]] = []
    for system, against in pairs:
        for metric in metrics:
            found = compare(
                per_query[system],
                per_query[against],
                metric=metric,
                seed=seed,
                resamples=resamples,
            )
            rows.append(
                {
                    "system": system,
                    "against": against,
                    "metric": metric,
                    "delta": found.delta,
                    "ci": [found.ci_low, found.ci_high],
                    "p": found.p,
                    "wins": found.wins,
                    "ties": found.ties,
                    "losses": found.losses,
                }
            )
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return rows
