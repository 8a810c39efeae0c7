"""Slices of the test queries, with their words as the lexical index has them."""

from __future__ import annotations

from collections.abc import Collection

from retrieval_ft.evaluation import Slice, slices_of
from retrieval_ft.pipeline.workbench import Workbench


def slices_on_test(bench: Workbench, unseen: Collection[str] | None) -> tuple[Slice, ...]:
    """Test queries by length, rare terms, overlap, source, seen documents and metadata.

    Args:
        bench: The dataset and its BM25 index.
        unseen: Queries about documents that training did not know; None where nothing was trained.
    """
    lexical, dataset = bench.lexical, bench.dataset
    return slices_of(
        dataset.queries,
        dataset.qrels["test"],
        dataset.corpus,
        unseen=unseen,
        frequency=lexical.frequency,
        terms=lambda text: lexical.spec.tokenize([text])[0],
    )
