"""The canonical dataset: frozen types, and the BEIR layout that holds them on disk."""

from retrieval_ft.dataset.documents import Document, Link, Section
from retrieval_ft.dataset.types import (
    SPLITS,
    Corpus,
    Dataset,
    Negative,
    Pair,
    Pairs,
    Qrels,
    Queries,
    Ranking,
    Split,
)

__all__ = [
    "SPLITS",
    "Corpus",
    "Dataset",
    "Document",
    "Link",
    "Negative",
    "Pair",
    "Pairs",
    "Qrels",
    "Queries",
    "Ranking",
    "Section",
    "Split",
]
