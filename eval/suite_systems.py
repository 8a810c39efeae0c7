"""The systems that `bench_suites.py` ranks a set with: ours, and the peers on the same vectors.

A peer gets the base model's vectors, made once by our encoder, through the way in that it offers:
what is compared is retrieval, not encoding. Each ranks the test queries 100 deep.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from common import MISSING, PEERS

Ids = list[str]
NEAR = 0.8
"""Jaccard similarity of word sets from which two passages are near-duplicates."""


class Sides:
    """One set with the base model: rankings, and the vectors that peers are given."""

    def __init__(self, dataset: Any, folder: Path, *, model: str) -> None:
        from retrieval_ft.config import Config, DataConfig, ModelConfig
        from retrieval_ft.pipeline.workbench import Workbench

        config = Config(
            name=f"suite-{dataset.name}",
            data=DataConfig(path=folder, format="beir"),
            model=ModelConfig(base=model),
        )
        self.bench = Workbench(config, dataset)
        self.depth = config.evaluation.depth

    @cached_property
    def texts(self) -> list[str]:
        """Title and text of each passage."""
        return list(self.bench.dataset.corpus.passages)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids beside `texts`."""
        ids: tuple[str, ...] = self.bench.dataset.corpus.ids
        return ids

    @cached_property
    def queries(self) -> Any:
        """The test queries."""
        return self.bench.dataset.queries_of("test")

    @cached_property
    def vectors(self) -> tuple[Any, Any]:
        """Of passages and of test queries, float32 [n, d], L2-normalised."""
        base = self.bench.base
        return base.encode(self.texts, role="passage"), base.encode(
            self.queries.texts, role="query"
        )

    @cached_property
    def ours(self) -> Any:
        """Dense and hybrid by the main job's own function, the fusion chosen on dev."""
        from retrieval_ft.pipeline.ranking import rank_systems

        return rank_systems(self.bench, self.bench.base)

    def vector_of(self) -> Callable[[str], list[float]]:
        """The vector of a test query by its text, as the peers ask for it."""
        row_of = {text: n for n, text in enumerate(self.queries.texts)}
        asked = self.vectors[1]
        return lambda text: asked[row_of[text]].tolist()

    def ranking(self, answers: Sequence[Ids]) -> Any:
        """A Ranking of answers, one for each test query; scores are places, in falling order."""
        from retrieval_ft.dataset import Ranking

        hits = {}
        for query_id, answer in zip(self.queries.ids, answers, strict=True):
            ids = tuple(answer[: self.depth])
            hits[query_id] = (ids, np.arange(len(ids), 0, -1, dtype=np.float32))
        return Ranking(hits)


def bm25(sides: Sides) -> tuple[Any, str]:
    """Our BM25."""
    found = sides.bench.lexical_ranking("test", k=sides.depth)
    return found, sides.bench.lexical.spec.describe()


def dense(sides: Sides) -> tuple[Any, str]:
    """The base model alone, exact search."""
    return sides.ours.dense, "exact"


def hybrid(sides: Sides) -> tuple[Any, str]:
    """BM25 and the base model, fused as dev says; RRF where a set has no dev split."""
    return sides.ours.hybrid, sides.ours.fusion.describe()


def hybrid_rrf(sides: Sides) -> tuple[Any, str]:
    """BM25 and the base model by RRF, nothing chosen."""
    from retrieval_ft.index import FusionSpec, depth_for

    return sides.ours.rrf, FusionSpec(depth=depth_for(sides.depth)).describe()


def rank_bm25(sides: Sides) -> tuple[Any, str]:
    """BM25Okapi as it ships; our terms, since it splits no texts."""
    from rank_bm25 import BM25Okapi

    spec = sides.bench.lexical.spec
    engine = BM25Okapi(spec.tokenize(sides.texts))
    asked = spec.tokenize(sides.queries.texts)
    answers = [list(engine.get_top_n(terms, sides.ids, n=sides.depth)) for terms in asked]
    return sides.ranking(answers), "BM25Okapi, terms of ours"


def bm25s(sides: Sides) -> tuple[Any, str]:
    """The engine, tokenizer, stop words and stemmer as its README shows."""
    import bm25s as peer
    import Stemmer

    def words(texts: Sequence[str]) -> Any:
        return peer.tokenize(list(texts), stopwords="en", stemmer=stemmer, show_progress=False)

    stemmer = Stemmer.Stemmer("english")
    engine = peer.BM25()
    engine.index(words(sides.texts), show_progress=False)
    found, _ = engine.retrieve(
        words(sides.queries.texts), k=min(sides.depth, len(sides.ids)), show_progress=False
    )
    answers = [[sides.ids[at] for at in row] for row in found.tolist()]
    return sides.ranking(answers), "its README's set-up"


def langchain(sides: Sides) -> tuple[Any, str]:
    """EnsembleRetriever (RRF, equal weights) of BM25Retriever, with our terms, and FAISS."""
    from ensemble import ensemble

    spec = sides.bench.lexical.spec
    search = ensemble(
        sides.texts,
        sides.ids,
        sides.vectors[0],
        vector_of=sides.vector_of(),
        terms=lambda text: spec.tokenize([text])[0],
        depth=sides.depth,
    )
    answers = [search(text) for text in sides.queries.texts]
    return sides.ranking(answers), "EnsembleRetriever .5/.5, terms of ours for BM25Retriever"


def llamaindex(sides: Sides) -> tuple[Any, str]:
    """QueryFusionRetriever (reciprocal_rerank) of BM25Retriever and VectorStoreIndex, each 100 deep.

    One query, so no language model writes others; BM25 as its retriever ships.
    """
    from llama_index.core import VectorStoreIndex
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.llms import MockLLM
    from llama_index.core.retrievers import QueryFusionRetriever
    from llama_index.core.schema import TextNode
    from llama_index.retrievers.bm25 import BM25Retriever

    vector_of = sides.vector_of()

    class Given(BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            raise NotImplementedError

        def _get_query_embedding(self, query: str) -> list[float]:
            return vector_of(query)

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return vector_of(query)

    rows = zip(sides.ids, sides.texts, sides.vectors[0].tolist(), strict=True)
    nodes = [TextNode(id_=name, text=text, embedding=vector) for name, text, vector in rows]
    given = Given()
    # Nodes are ready; the default transformation would ask for a tokenizer to cut them with.
    index = VectorStoreIndex(nodes, embed_model=given, transformations=[given])
    fusion = QueryFusionRetriever(
        [
            index.as_retriever(similarity_top_k=sides.depth),
            BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=sides.depth),
        ],
        llm=MockLLM(),
        similarity_top_k=sides.depth,
        num_queries=1,
        mode="reciprocal_rerank",
        use_async=False,
    )
    answers = [[hit.node.node_id for hit in fusion.retrieve(t)] for t in sides.queries.texts]
    return sides.ranking(answers), "QueryFusionRetriever, reciprocal_rerank, num_queries 1"


OURS: dict[str, Callable[[Sides], tuple[Any, str]]] = {
    "bm25": bm25,
    "dense": dense,
    "hybrid": hybrid,
    "hybrid_rrf": hybrid_rrf,
}
RIVALS: dict[str, Callable[[Sides], tuple[Any, str]]] = {
    "rank_bm25": rank_bm25,
    "bm25s": bm25s,
    "langchain": langchain,
    "llamaindex": llamaindex,
}
PACKAGES = {
    "rank_bm25": ("rank_bm25", "rank-bm25"),
    "bm25s": ("bm25s", "bm25s"),
    "langchain": ("langchain_classic", "langchain-classic"),
    "llamaindex": ("llama_index", "llama-index-core"),
}
"""What a peer is imported as, and what it is called among packages."""
PAIRS = (
    ("hybrid", "bm25"),
    ("hybrid", "dense"),
    ("hybrid", "hybrid_rrf"),
    ("bm25", "rank_bm25"),
    ("bm25", "bm25s"),
    ("hybrid", "langchain"),
    ("hybrid", "llamaindex"),
    ("hybrid_rrf", "langchain"),
    ("hybrid_rrf", "llamaindex"),
)
"""Which is tested against which."""


def peers_here(systems: Sequence[str]) -> dict[str, str]:
    """The version of each peer among the systems, or that it is missing."""
    if PEERS.is_dir() and str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))
    found = {}
    for name in (name for name in systems if name in RIVALS):
        module, package = PACKAGES[name]
        here = importlib.util.find_spec(module) is not None
        found[name] = importlib.metadata.version(package) if here else MISSING
    return found


def measure(sides: Sides, system: str, *, metrics: Sequence[str]) -> dict[str, Any]:
    """Values of each test query for one system, how it was set up, and its seconds.

    The seconds of ours are those of ranking alone where another system of ours came before it.
    """
    from retrieval_ft.evaluation import evaluate

    begun = time.monotonic()
    ranking, set_up = {**OURS, **RIVALS}[system](sides)
    seconds = time.monotonic() - begun
    found = evaluate(ranking, sides.bench.dataset.qrels["test"], metrics=metrics)
    return {
        "query_ids": list(found.query_ids),
        "values": {metric: found.of(metric).tolist() for metric in metrics},
        "set_up": set_up,
        "seconds": seconds,
    }


def near_duplicates(dataset: Any) -> dict[str, Any]:
    """Unlabelled near-duplicates of passages that are relevant in test: likely false negatives.

    By the word sets with which mining tells near-duplicates (`mining.duplicate_jaccard`).
    """
    from retrieval_ft.mining.words import WordSets

    corpus, qrels = dataset.corpus, dataset.qrels["test"]
    sets, every = WordSets(corpus.passages), np.arange(len(corpus), dtype=np.int64)
    near: dict[str, set[str]] = {}
    for passage_id in sorted({p for q in qrels.query_ids for p in qrels.relevant(q)}):
        row = np.full(len(corpus), corpus.index_of[passage_id], np.int64)
        alike = np.flatnonzero(sets.similar(row, every, jaccard=NEAR))
        near[passage_id] = {corpus.ids[at] for at in alike.tolist()}
    found = {
        q: set[str]().union(*(near[p] for p in qrels.relevant(q))) - qrels.grades[q].keys()
        for q in qrels.query_ids
    }
    queries = sum(map(bool, found.values()))
    return {
        "jaccard": NEAR,
        "test_queries_with_unlabelled": queries,
        "share_of_test_queries": queries / len(qrels),
        "unlabelled_passages": len(set[str]().union(*found.values())),
    }
