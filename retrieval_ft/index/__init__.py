"""Lexical, dense and hybrid search over a corpus. Importing this loads neither FAISS nor torch."""

from retrieval_ft.index.ann_choice import AnnSpec
from retrieval_ft.index.dense import DenseIndex
from retrieval_ft.index.filters import Filter, parse
from retrieval_ft.index.fusion import FusionSpec, convex, dbsf, depth_for, fuse, rrf
from retrieval_ft.index.hybrid import Hit, HybridIndex, rank_dense, rank_lexical
from retrieval_ft.index.lexical import LexicalIndex
from retrieval_ft.index.rank_bm25 import RankBm25
from retrieval_ft.index.rerank import rerank
from retrieval_ft.index.spec import IndexSpec
from retrieval_ft.index.tokens import LexicalSpec
from retrieval_ft.index.vectors import DenseSpec
from retrieval_ft.index.writer import IndexWriter, writing

__all__ = [
    "AnnSpec",
    "DenseIndex",
    "DenseSpec",
    "Filter",
    "FusionSpec",
    "Hit",
    "HybridIndex",
    "IndexSpec",
    "IndexWriter",
    "LexicalIndex",
    "LexicalSpec",
    "RankBm25",
    "convex",
    "dbsf",
    "depth_for",
    "fuse",
    "parse",
    "rank_dense",
    "rank_lexical",
    "rerank",
    "rrf",
    "writing",
]
