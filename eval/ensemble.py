"""LangChain's hybrid as a peer: import this once `common.PEERS` is on the path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_classic.retrievers import EnsembleRetriever
from langchain_community.retrievers import BM25Retriever
from langchain_community.vectorstores import FAISS
from langchain_core.embeddings import Embeddings


class Given(Embeddings):
    """Vectors of queries that were made before; passages come with theirs."""

    def __init__(self, vector_of: Callable[[str], list[float]]) -> None:
        self.vector_of = vector_of

    def embed_documents(self, texts: list[str]) -> Any:
        """Never asked for."""
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        """The vector of a known query."""
        return self.vector_of(text)


def ensemble(
    texts: Sequence[str],
    ids: Sequence[str],
    vectors: Any,
    *,
    vector_of: Callable[[str], list[float]],
    terms: Callable[[str], list[str]],
    depth: int,
) -> Callable[[str], list[str]]:
    """EnsembleRetriever (RRF, equal weights) of BM25Retriever and FAISS, as a function text -> ids.

    BM25Retriever gets terms: its own default splits at spaces and knows no case or stem. `vectors` is
    float32 [n, d], L2-normalised; each side gives `depth` hits.
    """
    facts = [{"id": name} for name in ids]
    lexical = BM25Retriever.from_texts(list(texts), metadatas=facts, preprocess_func=terms, k=depth)
    pairs = zip(texts, vectors, strict=True)
    dense = FAISS.from_embeddings(pairs, Given(vector_of), metadatas=facts, ids=list(ids))
    both = EnsembleRetriever(
        retrievers=[lexical, dense.as_retriever(search_kwargs={"k": depth})],
        weights=[0.5, 0.5],
        id_key="id",
    )
    return lambda text: [hit.metadata["id"] for hit in both.invoke(text)]
