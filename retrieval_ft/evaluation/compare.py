"""Systems against systems, metric by metric: what the paired tests say, as rows for a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from retrieval_ft.dataset.types import Qrels
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation.metrics import PerQuery
from retrieval_ft.evaluation.stats import Difference, holm, paired_test


def compare(
    system: PerQuery,
    against: PerQuery,
    *,
    metric: str,
    seed: int,
    resamples: int = 10_000,
    groups: Mapping[str, str] | None = None,
) -> Difference:
    """Test `system` minus `against` on one metric.

    Args:
        system: Values of the one.
        against: Values of the other, on the same queries.
        metric: A metric that both have.
        seed: Of the tests.
        resamples: Of the sign-flip test and of the bootstrap.
        groups: Group of each query id, as `document_groups` makes them: groups are resampled as one.

    Raises:
        ConfigError: the metric was not measured.
        DataError: the two were measured on different queries, a query has no group, or all have one.
    """
    if system.query_ids != against.query_ids:
        raise DataError(
            f"a paired test needs one set of queries for both systems, found "
            f"{len(system.query_ids)} and {len(against.query_ids)} queries, "
            f"{len(set(system.query_ids) & set(against.query_ids))} of them in both"
        )
    return paired_test(
        system.of(metric),
        against.of(metric),
        rng_seed=seed,
        resamples=resamples,
        groups=None if groups is None else _groups_of(system.query_ids, groups),
    )


def _groups_of(query_ids: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    if missing := [query_id for query_id in query_ids if query_id not in groups]:
        raise DataError(
            f"{len(missing)} of {len(query_ids)} queries have no group, the first is "
            f"{missing[0]!r}; give every measured query one (its own id where it stands alone)"
        )
    found = [groups[query_id] for query_id in query_ids]
    if len(set(found)) == 1 < len(found):
        raise DataError(
            f"all {len(found)} queries are of the one group {found[0]!r}, so resampling by group "
            "tells nothing; test by query, or bring queries about more documents"
        )
    return found


def document_groups(qrels: Qrels, document_of: Callable[[str], str]) -> dict[str, str]:
    """Group the judged queries by the documents that they are about.

    Queries with a relevant passage of the same document are of one group, and so are queries that
    others join (union-find). A query with no relevant passage stands alone.

    Args:
        qrels: Judgements.
        document_of: Document of a passage id, such as `Corpus.document_of`, or `Groups.of` of
            `dataset.splits.groups`, which also joins documents that share near-duplicates.

    Returns:
        Query id -> smallest query id of its group, for every judged query.
    """
    first: dict[str, str] = {}
    above: dict[str, str] = {}

    def top(query_id: str) -> str:
        while (up := above.get(query_id, query_id)) != query_id:
            above[query_id] = above.get(up, up)  # halves the way up
            query_id = up
        return query_id

    for query_id in qrels.query_ids:
        for document in sorted({document_of(p) for p in qrels.relevant(query_id)}):
            low, high = sorted((top(query_id), top(first.setdefault(document, query_id))))
            if low != high:
                above[high] = low
    return {query_id: top(query_id) for query_id in qrels.query_ids}


def difference_rows(
    per_query: Mapping[str, PerQuery],
    pairs: Sequence[tuple[str, str]],
    *,
    metrics: Sequence[str],
    seed: int,
    resamples: int = 10_000,
    groups: Mapping[str, str] | None = None,
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
        groups: Group of each query id, where queries are to be resampled by group; a row then says
            how many `groups` there were.

    Raises:
        ConfigError: a pair names an unknown system, or a metric was not measured.
        DataError: two systems of a pair were measured on different queries, or the groups do not fit.
    """
    check_systems(per_query, (name for pair in pairs for name in pair))
    rows: list[dict[str, Any]] = []
    for system, against in pairs:
        for metric in metrics:
            found = compare(
                per_query[system],
                per_query[against],
                metric=metric,
                seed=seed,
                resamples=resamples,
                groups=groups,
            )
            names = {"system": system, "against": against, "metric": metric}
            rows.append({**names, **figures(found)})
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return rows


def check_systems(per_query: Mapping[str, PerQuery], names: Iterable[str]) -> None:
    """Refuse a name that no system has.

    Raises:
        ConfigError: with the name, and those that there are.
    """
    for name in names:
        if name not in per_query:
            raise ConfigError(f"unknown system {name!r}; measured: {', '.join(per_query)}")


def figures(found: Difference) -> dict[str, Any]:
    """The figures of a difference as they stand in a row of a document."""
    grouped = {} if found.groups is None else {"groups": found.groups}
    return {
        "delta": found.delta,
        "ci": [found.ci_low, found.ci_high],
        "p": found.p,
        "wins": found.wins,
        "ties": found.ties,
        "losses": found.losses,
        **grouped,
    }
