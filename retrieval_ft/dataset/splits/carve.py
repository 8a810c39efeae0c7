"""Carve the splits that a dataset lacks out of train: by document, by time, or by query text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from retrieval_ft.dataset.splits.checks import normalize
from retrieval_ft.dataset.splits.documents import split_by_document, why_not_half
from retrieval_ft.dataset.splits.groups import Groups, Kind, seen_or_unseen
from retrieval_ft.dataset.splits.timeline import split_by_time, times_of
from retrieval_ft.dataset.types import SPLITS, Dataset, Qrels, Split
from retrieval_ft.errors import DataError

SplitBy = Literal["auto", "document", "query", "time"]
_Units = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Carving:
    """A dataset with all three splits, and how they came to be."""

    dataset: Dataset
    rule: Literal["given", "document", "query", "time"]
    why: str
    """A sentence for people: the rule, why it was this one, and what test has of either kind."""
    counts: Mapping[Split, int]
    """Queries that each carved split took; empty where the dataset brought all of them."""
    kinds: Mapping[Split, Mapping[str, Kind]]
    """For dev and test: each query id, and whether its documents were seen in training."""
    asked_again: int = 0
    """By time only: query texts of train that were asked again after the split."""


def carve(
    dataset: Dataset,
    *,
    dev_fraction: float,
    test_fraction: float,
    seed: int,
    split_by: SplitBy = "auto",
    clusters: Mapping[str, str] | None = None,
) -> Carving:
    """Carve missing dev and test splits out of train; a query text is never cut in two.

    `document` holds out whole documents (see `documents.py`): about half of dev and of test is
    about documents that no train query is relevant to, the other half about documents that train
    knows. `time` takes the latest queries as test and the next latest as dev (see `timeline.py`).
    `query` takes query texts at random. `auto` is `time` where every train query has one, else
    `document` where that gives unseen test queries, else `query`.

    The same queries and labels give the same splits, in whatever order they stand in the files.

    Args:
        dataset: With train, and perhaps dev or test, which are kept as they are.
        dev_fraction: Share of the different train query texts that becomes dev.
        test_fraction: The same for test.
        seed: Of the order in which query texts are tried.
        split_by: See above.
        clusters: Passage id -> id of the passage that stands for all its near-duplicates; a passage
            that is not named stands for itself.

    Raises:
        DataError: there are no train pairs, too few to carve from, or `time` is asked for and train
            queries have none.
    """
    units = _units(dataset)
    fractions: dict[Split, float] = {"test": test_fraction, "dev": dev_fraction}
    missing = {split: share for split, share in fractions.items() if split not in dataset.qrels}
    if not missing:
        kinds = _kinds(dataset, clusters)
        why = f"dev and test are those of the dataset: {_told(kinds)}."
        return Carving(dataset, "given", why, {}, kinds)
    quotas = _quotas(dataset.name, len(units), missing)
    if split_by == "time" or (split_by == "auto" and _timed(dataset, units, len(quotas))):
        return _by_time(dataset, units, quotas, clusters)
    reason = ""
    if split_by != "query":
        carving, reason = _by_document(dataset, units, quotas, seed, clusters)
        first = next(iter(quotas))
        if split_by == "document" or "unseen" in carving.kinds[first].values():
            return carving
        reason = f", as documents cannot be held out ({reason})"
    found, counts = _assigned(dataset, units, _by_query(units, quotas, seed))
    kinds = _kinds(found, clusters)
    why = f"{_carved(quotas)} carved by query text{reason}: {_told(kinds)}."
    return Carving(found, "query", why, counts, kinds)


def complete(
    dataset: Dataset,
    *,
    dev_fraction: float,
    test_fraction: float,
    seed: int,
    split_by: SplitBy = "auto",
    clusters: Mapping[str, str] | None = None,
) -> tuple[Dataset, dict[Split, int]]:
    """Carve missing dev and test splits: `carve`, for who needs no more than the dataset.

    Returns:
        A dataset with all three splits, and how many queries each carved split took.

    Raises:
        DataError: as `carve`.
    """
    carving = carve(
        dataset,
        dev_fraction=dev_fraction,
        test_fraction=test_fraction,
        seed=seed,
        split_by=split_by,
        clusters=clusters,
    )
    return carving.dataset, dict(carving.counts)


def _units(dataset: Dataset) -> dict[str, list[str]]:
    """Train query ids by normalised text, texts sorted."""
    train = dataset.qrels.get("train")
    if train is None or train.pair_count == 0:
        raise DataError(
            f"{dataset.name}: no train pairs: qrels/train.tsv is missing or holds no grade above 0; "
            "training needs (query, relevant passage) pairs"
        )
    units: dict[str, list[str]] = {}
    for query_id in train.query_ids:
        units.setdefault(normalize(dataset.queries.text_of[query_id]), []).append(query_id)
    return {text: units[text] for text in sorted(units)}


def _quotas(name: str, texts: int, missing: Mapping[Split, float]) -> dict[Split, int]:
    """Texts of each missing split; at least one for each, and for train."""
    quotas: dict[Split, int] = {}
    for split, share in missing.items():
        quotas[split] = round(share * texts)
        if quotas[split] == 0 or sum(quotas.values()) >= texts:
            raise DataError(
                f"{name}: {texts} train queries are too few to carve a {split} split "
                f"of {share:.0%}; bring qrels/{split}.tsv or more labels"
            )
    return quotas


def _by_query(units: _Units, quotas: Mapping[Split, int], seed: int) -> dict[Split, list[str]]:
    texts = list(units)
    np.random.default_rng(seed).shuffle(texts)
    taken: dict[Split, list[str]] = {}
    for split, quota in quotas.items():
        taken[split], texts = texts[:quota], texts[quota:]
    return taken


def _by_document(
    dataset: Dataset,
    units: _Units,
    quotas: Mapping[Split, int],
    seed: int,
    clusters: Mapping[str, str] | None,
) -> tuple[Carving, str]:
    """The carving, and why test is not half unseen where it is not."""
    groups = Groups(dataset.corpus, clusters)
    own = groups.of_queries(dataset, "train")
    dev = groups.of_queries(dataset, "dev").values() if "dev" in dataset.qrels else ()
    touched = frozenset().union(*dev)
    documents = {text: frozenset().union(*(own[q] for q in ids)) for text, ids in units.items()}
    # By hash: more data later leaves most of these where they were.
    order = sorted(units, key=lambda text: hashlib.sha256(f"{seed} {text}".encode()).digest())
    taken = split_by_document(documents, order, quotas, touched=touched)
    found, counts = _assigned(dataset, units, taken)
    kinds = _kinds(found, clusters)
    told = kinds[next(iter(quotas))]
    unseen = sum(kind == "unseen" for kind in told.values())
    reason = why_not_half(documents, unseen=unseen, total=len(told))
    why = f"{_carved(quotas)} carved by document: {_told(kinds)}{reason and f' ({reason})'}."
    return Carving(found, "document", why, counts, kinds), reason


def _timed(dataset: Dataset, units: _Units, carved: int) -> bool:
    """Whether every train query has a time, and there are enough of them to part by."""
    times = [dataset.queries.metadata_of(q).get("time") for ids in units.values() for q in ids]
    return None not in times and len({*map(str, times)}) > carved


def _by_time(
    dataset: Dataset,
    units: _Units,
    quotas: Mapping[Split, int],
    clusters: Mapping[str, str] | None,
) -> Carving:
    taken, again = split_by_time(dataset.name, times_of(dataset, units), quotas)
    found, counts = _assigned(dataset, units, taken)
    kinds = _kinds(found, clusters)
    why = (
        f"{_carved(quotas)} carved by time: {_told(kinds)}; {again:,} query texts of train were "
        "asked again later and stay in train."
    )
    return Carving(found, "time", why, counts, kinds, asked_again=again)


def _assigned(
    dataset: Dataset, units: _Units, taken: Mapping[Split, Sequence[str]]
) -> tuple[Dataset, dict[Split, int]]:
    """Move the queries of the taken texts out of train, into their splits."""
    grades = dataset.qrels["train"].grades
    qrels = dict(dataset.qrels)
    moved: set[str] = set()
    for split, texts in taken.items():
        ids = [query_id for text in texts for query_id in units[text]]
        qrels[split] = Qrels({query_id: grades[query_id] for query_id in ids})
        moved.update(ids)
    qrels["train"] = Qrels({q: row for q, row in grades.items() if q not in moved})
    counts = {split: len(qrels[split]) for split in taken}
    return replace(dataset, qrels={split: qrels[split] for split in SPLITS}), counts


def _kinds(dataset: Dataset, clusters: Mapping[str, str] | None) -> dict[Split, Mapping[str, Kind]]:
    held_out: tuple[Split, ...] = ("dev", "test")
    return {split: seen_or_unseen(dataset, clusters, split=split) for split in held_out}


def _carved(quotas: Mapping[Split, int]) -> str:
    return " and ".join(split for split in SPLITS if split in quotas)


def _told(kinds: Mapping[Split, Mapping[str, Kind]]) -> str:
    unseen = sum(kind == "unseen" for kind in kinds["test"].values())
    total = len(kinds["test"])
    return (
        f"{unseen:,} of {total:,} test queries are about documents that train and dev do not "
        f"touch, {total - unseen:,} about documents that they do"
    )
