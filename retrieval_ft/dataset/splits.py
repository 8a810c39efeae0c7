"""Splits that do not leak: checks on the ones a dataset brings, and carving of the ones it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

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
            f"{_some(named)}; judge or remove them, or leave them out with "
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
            f"a leak of the other: {_some(leaks)}; keep each query text in one split"
        )


def complete(
    dataset: Dataset, *, dev_fraction: float, test_fraction: float, seed: int
) -> tuple[Dataset, dict[Split, int]]:
    """Carve missing dev and test splits out of train, whole query texts at a time.

    Returns:
        A dataset with all three splits, and how many queries each carved split took.

    Raises:
        DataError: there are no train pairs, or too few to carve from.
    """
    train = dataset.qrels.get("train")
    if train is None or train.pair_count == 0:
        raise DataError(
            f"{dataset.name}: no train pairs: qrels/train.tsv is missing or holds no grade above 0; "
            "training needs (query, relevant passage) pairs"
        )
    wanted: dict[Split, float] = {"test": test_fraction, "dev": dev_fraction}
    missing = {split: share for split, share in wanted.items() if split not in dataset.qrels}
    if not missing:
        return dataset, {}
    groups: dict[str, list[str]] = {}
    for query_id in train.query_ids:
        groups.setdefault(normalize(dataset.queries.text_of[query_id]), []).append(query_id)
    texts = sorted(groups)
    np.random.default_rng(seed).shuffle(texts)
    qrels = dict(dataset.qrels)
    carved: dict[Split, int] = {}
    for split, share in missing.items():
        count = round(share * len(groups))
        if count == 0 or count >= len(texts):
            raise DataError(
                f"{dataset.name}: {len(groups)} train queries are too few to carve a {split} split "
                f"of {share:.0%}; bring qrels/{split}.tsv or more labels"
            )
        ids = [query_id for text in texts[:count] for query_id in groups[text]]
        texts = texts[count:]
        qrels[split] = Qrels({query_id: train.grades[query_id] for query_id in ids})
        carved[split] = len(ids)
    left = {query_id for text in texts for query_id in groups[text]}
    qrels["train"] = Qrels({q: row for q, row in train.grades.items() if q in left})
    return replace(dataset, qrels={split: qrels[split] for split in SPLITS}), carved


def _present(qrels: Mapping[Split, Qrels]) -> dict[Split, Qrels]:
    return {split: judged for split, judged in qrels.items() if len(judged)}


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more
