"""One id for each cluster of duplicates: labels, views and metadata follow to the representative."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from retrieval_ft.dataset.hygiene.account import Check
from retrieval_ft.dataset.hygiene.duplicates import Clusters
from retrieval_ft.dataset.types import Corpus, Dataset, Qrels, Split


def collapse(dataset: Dataset, clusters: Clusters) -> tuple[Dataset, list[Check]]:
    """Keep the representative of each cluster, with everything that pointed at the others.

    Where judgements of one query meet in a cluster the highest grade stands, so that relevant wins
    over irrelevant. The representative's metadata names the others under `duplicates`. Queries of
    one text stay apart.

    Returns:
        The dataset, and the checks `equal_passages`, `near_duplicates` and `merged_labels`.
    """
    checks = listed(dataset.corpus, clusters, done="became one passage, their labels with them")
    if not clusters.duplicates:
        return dataset, [*checks, _merged(dataset, [])]
    merged: list[dict[str, Any]] = []
    qrels: dict[Split, Qrels] = {
        split: Qrels(
            {q: _merge(split, q, row, clusters, merged) for q, row in judged.grades.items()}
        )
        for split, judged in dataset.qrels.items()
    }
    collapsed = replace(
        dataset,
        corpus=_corpus(dataset.corpus, clusters),
        qrels=qrels,
        views={q: _views(row, clusters) for q, row in dataset.views.items()},
    )
    return collapsed, [*checks, _merged(dataset, merged)]


def listed(corpus: Corpus, clusters: Clusters, *, done: str = "left as they are") -> list[Check]:
    """The checks `equal_passages` and `near_duplicates`, with a row for each duplicate."""
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for found in clusters.duplicates:
        rows[found.equal].append(
            {
                "passage_id": found.passage_id,
                "same_as": found.representative,
                "jaccard": round(found.jaccard, 4),
                "metadata": dict(corpus.metadata_of(found.passage_id)),
            }
        )
    of = len(corpus)
    near = f"{done} (3-grams of words, Jaccard {clusters.jaccard:g} or more)"
    return [
        Check("equal_passages", len(rows[True]), of, done, tuple(rows[True])),
        Check("near_duplicates", len(rows[False]), of, near, tuple(rows[False])),
    ]


def _merge(
    split: Split,
    query_id: str,
    row: Mapping[str, int],
    clusters: Clusters,
    merged: list[dict[str, Any]],
) -> dict[str, int]:
    """Judgements of one query on representatives; those that met are added to `merged`."""
    met: dict[str, dict[str, int]] = {}
    for passage_id, grade in row.items():
        met.setdefault(clusters.representative(passage_id), {})[passage_id] = grade
    grades = {passage_id: max(judged.values()) for passage_id, judged in met.items()}
    merged += (
        {
            "split": split,
            "query_id": query_id,
            "passage_id": passage_id,
            "judged": judged,
            "grade": grades[passage_id],
            "contradictory": min(judged.values()) <= 0 < max(judged.values()),
        }
        for passage_id, judged in met.items()
        if len(judged) > 1
    )
    return grades


def _merged(dataset: Dataset, rows: list[dict[str, Any]]) -> Check:
    judgements = sum(
        len(row) for judged in dataset.qrels.values() for row in judged.grades.values()
    )
    contradictory = sum(row["contradictory"] for row in rows)
    done = "the highest grade kept"
    if contradictory:
        done += f"; relevant and not relevant met {contradictory} times, and relevant won"
    touched = sum(len(row["judged"]) for row in rows)
    return Check("merged_labels", touched, judgements, done, tuple(rows))


def _corpus(corpus: Corpus, clusters: Clusters) -> Corpus:
    gone = clusters.representative_of
    kept = corpus.select(passage_id for passage_id in corpus.ids if passage_id not in gone)
    metadata = tuple(
        _metadata(corpus, passage_id, clusters.members.get(passage_id, ()))
        for passage_id in kept.ids
    )
    return replace(kept, metadata=metadata)


def _metadata(corpus: Corpus, passage_id: str, members: tuple[str, ...]) -> Mapping[str, Any]:
    """Metadata of a representative, which names the passages that it stands for, now or before."""
    own = corpus.metadata_of(passage_id)
    if not members:
        return own
    names: list[str] = []
    for member in members:
        names += [member, *corpus.metadata_of(member).get("duplicates", ())]
    return {**own, "duplicates": [name for name in dict.fromkeys(names) if name != passage_id]}


def _views(row: Mapping[str, str], clusters: Clusters) -> dict[str, str]:
    """Views on representatives: its own before that of a duplicate, then the first by id."""
    views: dict[str, str] = {}
    for passage_id in sorted(row, key=lambda p: (p in clusters.representative_of, p)):
        views.setdefault(clusters.representative(passage_id), row[passage_id])
    return views
