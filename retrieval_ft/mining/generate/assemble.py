"""Generated pairs as queries, judgements and views: the same types that labels come in."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retrieval_ft.dataset import Corpus, Queries
from retrieval_ft.dataset.splits import normalize
from retrieval_ft.errors import DataError
from retrieval_ft.mining.generate.types import GeneratedPair


@dataclass(frozen=True)
class GeneratedSet:
    """What a `Dataset` takes; splits are made by who joins it with the rest."""

    queries: Queries
    """Sorted by id; `origin` of their metadata is the kind of the pair."""
    grades: Mapping[str, Mapping[str, int]]
    """Query id -> passage id -> 1."""
    views: Mapping[str, Mapping[str, str]]
    """Query id -> passage id -> view, of the pairs that have one."""
    dropped: Mapping[str, int]
    """duplicate (query and passage of an earlier pair), own_query (the text of a given query)."""


def to_dataset(
    pairs: Iterable[GeneratedPair], corpus: Corpus, *, own: Iterable[str] = ()
) -> GeneratedSet:
    """Join pairs of one query text (case and spaces aside) into one query with several positives.

    Args:
        pairs: in any order; the result does not depend on it.
        corpus: the passages they name.
        own: texts of the queries that are there already, of every split. A generated query that is
            equal to one of these would be a leak, so it is dropped.

    Raises:
        DataError: a pair names a passage that the corpus does not hold.
    """
    taken = {normalize(text) for text in own}
    groups: dict[str, dict[str, GeneratedPair]] = {}
    dropped: Counter[str] = Counter()
    for pair in sorted(pairs, key=_order):
        if pair.passage_id not in corpus.index_of:
            raise DataError(
                f"a generated pair ({pair.kind}, {pair.query[:60]!r}) names passage "
                f"{pair.passage_id!r}, which is not in the corpus; make the pairs again"
            )
        text = normalize(pair.query)
        if text in taken:
            dropped["own_query"] += 1
        elif groups.setdefault(text, {}).setdefault(pair.passage_id, pair) is not pair:
            dropped["duplicate"] += 1
    rows = sorted((_query_id(text, min(group)), group) for text, group in groups.items())
    return GeneratedSet(
        Queries(
            tuple(query_id for query_id, _ in rows),
            tuple(_first(group).query for _, group in rows),
            tuple({"origin": _first(group).kind} for _, group in rows),
        ),
        {query_id: dict.fromkeys(group, 1) for query_id, group in rows},
        {query_id: views for query_id, group in rows if (views := _views(group))},
        dict(sorted(dropped.items())),
    )


def _order(pair: GeneratedPair) -> tuple[str, str, str, str]:
    return pair.passage_id, pair.kind, pair.query, pair.view or ""


def _first(group: Mapping[str, GeneratedPair]) -> GeneratedPair:
    return group[min(group)]


def _views(group: Mapping[str, GeneratedPair]) -> dict[str, str]:
    return {passage_id: pair.view for passage_id, pair in group.items() if pair.view is not None}


def _query_id(text: str, passage_id: str) -> str:
    """An id that depends on nothing but the query's text and its first passage."""
    digest = hashlib.sha256("\0".join((text, passage_id)).encode())
    return f"gen-{digest.hexdigest()[:16]}"
