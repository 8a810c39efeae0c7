"""Lexical, dense and hybrid search over a corpus. Importing this loads neither FAISS nor torch."""

from retrieval_ft.index.dense import DenseIndex
from retrieval_ft.index.fusion import FusionSpec, convex, depth_for, fuse, rrf
from retrieval_ft.index.hybrid import Hit, HybridIndex, rank_dense, rank_lexical
from retrieval_ft.index.lexical import LexicalIndex, LexicalSpec

__all__ = [
    "DenseIndex",
    "FusionSpec",
    "Hit",
    "HybridIndex",
    "LexicalIndex",
    "LexicalSpec",
    "convex",
    "depth_for",
    "fuse",
    "rank_dense",
    "rank_lexical",
    "rrf",
]
