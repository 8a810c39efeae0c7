"""Labels that contradict each other: one query text, under two ids, judged in two ways.

A passage judged twice under one query id is refused where labels are read (`beir.read`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from retrieval_ft.dataset.hygiene.account import Check
from retrieval_ft.dataset.hygiene.duplicates import Clusters
from retrieval_ft.dataset.splits import normalize
from retrieval_ft.dataset.types import Dataset, Qrels, Split


class _Judgement(NamedTuple):
    split: Split
    query_id: str
    passage_id: str
    grade: int


def settle(dataset: Dataset) -> tuple[Dataset, Check]:
    """Give queries of one text one judgement of each passage that more than one of them judges.

    The highest grade stands, as when duplicates are merged. No judgement is added: a passage that
    one of the queries does not judge stays unjudged there.

    Returns:
        The dataset, and the check `contradictory_labels`, which counts judgements.
    """
    grades = {split: dict(judged.grades) for split, judged in dataset.qrels.items()}
    rows = []
    for group in _differing(dataset, None):
        highest = max(judgement.grade for judgement in group)
        for split, query_id, passage_id, _ in group:
            grades[split][query_id] = {**grades[split][query_id], passage_id: highest}
        rows.append(_row(dataset, group, f"grade {highest} for all"))
    check = _check("contradictory_labels", dataset, rows, "one query text, one grade: the highest")
    if rows:
        dataset = replace(dataset, qrels={split: Qrels(found) for split, found in grades.items()})
    return dataset, check


def contradictions(dataset: Dataset, clusters: Clusters) -> Check:
    """List what `settle` would change if each cluster were one passage; change nothing.

    Returns:
        The check `contradictory_duplicates`, which counts judgements.
    """
    groups = _differing(dataset, clusters)
    rows = [_row(dataset, group, "left as it is") for group in groups]
    return _check("contradictory_duplicates", dataset, rows, "left as they are")


def _differing(dataset: Dataset, clusters: Clusters | None) -> Iterator[list[_Judgement]]:
    """Judgements of one query text on one passage (or cluster) whose grades differ."""
    groups: dict[tuple[str, str], list[_Judgement]] = {}
    text_of = {i: normalize(text) for i, text in dataset.queries.text_of.items()}
    for split, judged in dataset.qrels.items():
        for query_id in judged.query_ids:
            for passage_id, grade in sorted(judged.grades[query_id].items()):
                standing = clusters.representative(passage_id) if clusters else passage_id
                group = groups.setdefault((text_of[query_id], standing), [])
                group.append(_Judgement(split, query_id, passage_id, grade))
    return (group for group in groups.values() if len({found.grade for found in group}) > 1)


def _row(dataset: Dataset, group: list[_Judgement], decided: str) -> dict[str, Any]:
    grades = [judgement.grade for judgement in group]
    return {
        "query": dataset.queries.text_of[group[0].query_id],
        "judged": [judgement._asdict() for judgement in group],
        "contradictory": min(grades) <= 0 < max(grades),
        "decided": decided,
    }


def _check(name: str, dataset: Dataset, rows: list[dict[str, Any]], done: str) -> Check:
    of = sum(len(row) for judged in dataset.qrels.values() for row in judged.grades.values())
    touched = sum(len(row["judged"]) for row in rows)
    contradictory = sum(row["contradictory"] for row in rows)
    if contradictory:
        done += f"; {contradictory} passages were relevant under one id and not under another"
    return Check(name, touched, of, done, tuple(rows))
