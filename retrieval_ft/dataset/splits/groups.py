"""Which queries are about documents that training never touched: the two kinds of a test set.

What is measured on documents that training knew says little about documents to come. The parts of
one document stand together, and so do documents that share a near-duplicate passage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from retrieval_ft.dataset.types import Corpus, Dataset, Split

Kind = Literal["seen", "unseen"]
_EARLIER: Mapping[Split, tuple[Split, ...]] = {
    "train": (),
    "dev": ("train",),
    "test": ("train", "dev"),
}


class Groups:
    """Documents, joined where they share a near-duplicate passage (union-find).

    A group is named by its smallest document id, so that its name depends on no order.
    """

    def __init__(self, corpus: Corpus, clusters: Mapping[str, str] | None) -> None:
        self._corpus = corpus
        self._parent: dict[str, str] = {}
        first: dict[str, str] = {}
        for passage_id, representative in (clusters or {}).items():
            for member in (passage_id, representative):
                if member in corpus.index_of:
                    document = corpus.document_of(member)
                    self._join(first.setdefault(representative, document), document)

    def _find(self, document: str) -> str:
        while (above := self._parent.get(document, document)) != document:
            self._parent[document] = self._parent.get(above, above)  # halves the way up
            document = above
        return document

    def _join(self, one: str, other: str) -> None:
        low, high = sorted((self._find(one), self._find(other)))
        if low != high:
            self._parent[high] = low

    def of(self, passage_id: str) -> str:
        """The group of a passage of the corpus."""
        return self._find(self._corpus.document_of(passage_id))

    def of_queries(self, dataset: Dataset, split: Split) -> dict[str, frozenset[str]]:
        """The groups of the relevant passages of each query of a split."""
        qrels = dataset.qrels[split]
        return {q: frozenset(map(self.of, qrels.relevant(q))) for q in qrels.query_ids}


def seen_or_unseen(
    dataset: Dataset, clusters: Mapping[str, str] | None = None, *, split: Split = "test"
) -> dict[str, Kind]:
    """Tell for each query of a split whether what it looks for was there in training.

    A query is *unseen* if no relevant passage of it is of a document, or a near-duplicate of a
    passage of a document, that a query of an earlier split is relevant to: train for dev, train and
    dev for test (dev chooses the model, so it counts). All others are *seen*.

    Args:
        dataset: With whatever splits it has; without `split` the answer is empty.
        clusters: Passage id -> id of the passage that stands for all its near-duplicates; a passage
            that is not named stands for itself.
        split: Whose queries are told apart.
    """
    if split not in dataset.qrels:
        return {}
    groups = Groups(dataset.corpus, clusters)
    touched: set[str] = set()
    for earlier in _EARLIER[split]:
        if earlier in dataset.qrels:
            touched.update(*groups.of_queries(dataset, earlier).values())
    return {
        query_id: "unseen" if touched.isdisjoint(own) else "seen"
        for query_id, own in groups.of_queries(dataset, split).items()
    }


def near_duplicates_of_train(
    dataset: Dataset, clusters: Mapping[str, str], *, split: Split = "test"
) -> tuple[str, ...]:
    """Queries of a split with a relevant passage that has a near-duplicate among train positives.

    Benchmarks have some, so it is no error; but the share belongs beside a figure.

    Returns:
        Their ids, sorted.
    """
    if "train" not in dataset.qrels or split not in dataset.qrels:
        return ()
    train, judged = dataset.qrels["train"], dataset.qrels[split]
    positives: dict[str, set[str]] = {}
    for passage_id in {p for q in train.query_ids for p in train.relevant(q)}:
        positives.setdefault(clusters.get(passage_id, passage_id), set()).add(passage_id)
    return tuple(
        query_id
        for query_id in judged.query_ids
        if any(positives.get(clusters.get(p, p), set()) - {p} for p in judged.relevant(query_id))
    )
