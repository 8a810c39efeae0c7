"""What a dataset must be before a figure on it means anything: judged, and without shared queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from retrieval_ft.dataset.types import SPLITS, Dataset, Qrels, Split
from retrieval_ft.errors import DataError

_SHOWN = 10


def normalize(text: str) -> str:
    """Case folded, white space collapsed: queries equal in this form are the same query."""
    return " ".join(text.casefold().split())


def check_judged(dataset: Dataset, *, drop: bool) -> tuple[Dataset, dict[str, int]]:
    """Find queries without a relevant passage: in no split, or judged with grades of 0 only.

    Returns:
        The dataset without them, and how many were dropped by reason.

    Raises:
        DataError: there are some and `drop` is off.
    """
    judged = {query_id for qrels in dataset.qrels.values() for query_id in qrels.grades}
    unjudged = [query_id for query_id in dataset.queries.ids if query_id not in judged]
    irrelevant = [
        (split, query_id)
        for split, qrels in dataset.qrels.items()
        for query_id in qrels.query_ids
        if not qrels.relevant(query_id)
    ]
    if not unjudged and not irrelevant:
        return dataset, {}
    if not drop:
        named = [f"{q} (in no qrels)" for q in unjudged]
        named += [f"{q} (grade 0 only in {split})" for split, q in irrelevant]
        raise DataError(
            f"{dataset.name}: {len(named)} queries have no relevant passage: "
            f"{some(named)}; judge or remove them, or leave them out with "
            "--set data.unjudged_queries=drop"
        )
    qrels = {
        split: Qrels({q: row for q, row in judged.grades.items() if judged.relevant(q)})
        for split, judged in dataset.qrels.items()
    }
    kept = {query_id for judged in qrels.values() for query_id in judged.grades}
    queries = dataset.queries.select(tuple(q for q in dataset.queries.ids if q in kept))
    account = {
        "queries_in_no_qrels": len(unjudged),
        "queries_without_relevant_passage": len(irrelevant),
    }
    return replace(dataset, queries=queries, qrels=_present(qrels)), account


def check_leaks(dataset: Dataset) -> None:
    """Refuse a dataset two of whose splits share a query text (case and spaces aside).

    Raises:
        DataError: the shared queries, pair by pair.
    """
    seen: dict[str, tuple[Split, str]] = {}
    leaks: list[str] = []
    for split in SPLITS:
        if split not in dataset.qrels:
            continue
        for query_id in dataset.qrels[split].query_ids:
            text = normalize(dataset.queries.text_of[query_id])
            other, other_id = seen.setdefault(text, (split, query_id))
            if other != split:
                leaks.append(f"{other} {other_id} = {split} {query_id} ({text[:60]!r})")
    if leaks:
        raise DataError(
            f"{dataset.name}: {len(leaks)} queries stand in two splits, so a figure on one would be "
            f"a leak of the other: {some(leaks)}; keep each query text in one split"
        )


def some(items: list[str]) -> str:
    """The first ten of a list, and how many more there are."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more


def _present(qrels: Mapping[Split, Qrels]) -> dict[Split, Qrels]:
    return {split: judged for split, judged in qrels.items() if len(judged)}
