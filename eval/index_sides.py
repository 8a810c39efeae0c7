"""What `bench_index.py` runs in a process of its own for each side: the engines and their clocks.

`build`, `load` and `search` are all that is known here of our own index.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import PEERS
from index_data import DEPTH, PARTS, TOP, Size, exact, ids_of, read, recall, vectors_of, write

FILTER = {"part": {"$eq": 0}}
TEXTS, QUERIES = "texts.jsonl", "queries.jsonl"
GB = 1e9


def build(texts: Sequence[str], vectors: Any, folder: Path, *, queries: Any = None) -> None:
    """Build our index from given vectors and save it; what is approximate is tuned on the queries."""
    from retrieval_ft.dataset import Corpus
    from retrieval_ft.index import HybridIndex, IndexSpec

    parts = [{"part": part} for part in range(PARTS)]
    ids = ids_of(len(texts))
    metadata = tuple(parts[i % PARTS] for i in range(len(ids)))
    corpus = Corpus(ids, tuple(texts), ("",) * len(ids), metadata)
    spec = IndexSpec("given", "no encoder: vectors were given", vectors.shape[1])
    HybridIndex.build(corpus, vectors, spec=spec, queries=queries).save(folder)


def load(folder: Path) -> Any:
    """Open our index, every file checked."""
    from retrieval_ft.index import HybridIndex

    return HybridIndex.load(folder)


def search(index: Any, text: str, vector: Any, **where: Any) -> list[str]:
    """Ids of the best passages for one query."""
    hits = index.search([text], vector[None], encoder_fingerprint="given", k=TOP, **where)
    return [hit.id for hit in hits[0]]


# BM25: seconds from the start of the process to the last answer, then queries a second, warm.


def bm25_build_ours(folder: Path) -> dict[str, float]:
    """Our index of the texts, saved; its vectors are of two dimensions, as it must have some."""
    texts = read(folder / TEXTS)
    vectors = np.tile(np.array([1, 0], np.float32), (len(texts), 1))
    started = time.perf_counter()
    build(texts, vectors, folder / "bm25_ours")
    return {"build_s": time.perf_counter() - started}


def bm25_build_bm25s(folder: Path) -> dict[str, float]:
    """Its index of the same texts, saved: tokenizer, stop words and stemmer as its README shows."""
    import Stemmer

    sys.path.append(str(PEERS))
    import bm25s

    texts = read(folder / TEXTS)
    started = time.perf_counter()
    words = bm25s.tokenize(
        texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False
    )
    engine = bm25s.BM25()
    engine.index(words, show_progress=False)
    engine.save(folder / "bm25s", show_progress=False)
    return {"build_s": time.perf_counter() - started}


def bm25_ours(folder: Path, size: Size, started: float) -> dict[str, float]:
    """Ours; the first rankings are kept for rank_bm25 to judge."""
    queries = read(folder / QUERIES)
    index = load(folder / "bm25_ours").lexical
    found = _clocked(lambda texts, _: index.search(texts, k=DEPTH), queries, started)
    names = ids_of(len(index))
    rows = index.search(queries[: size.oracle_queries], k=DEPTH)
    kept = [[[names[at] for at in place.tolist()], score.tolist()] for place, score in rows]
    write(folder / "bm25_ours.jsonl", kept)
    return found


def bm25s_numpy(folder: Path, _: Size, started: float) -> dict[str, float]:
    """bm25s without numba, which is hidden: it would pay for its import."""
    sys.modules["numba"] = None
    return _bm25s(folder, started, backend="numpy")


def bm25s_numba(folder: Path, _: Size, started: float) -> dict[str, float]:
    """bm25s compiled by numba."""
    return _bm25s(folder, started, backend="numba")


def _bm25s(folder: Path, started: float, *, backend: str) -> dict[str, float]:
    import Stemmer

    sys.path.append(str(PEERS))
    import bm25s

    engine = bm25s.BM25.load(folder / "bm25s", backend=backend, show_progress=False)
    stemmer = Stemmer.Stemmer("english")

    def answer(texts: Sequence[str], threads: int) -> Any:
        words = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
        return engine.retrieve(words, k=DEPTH, show_progress=False, n_threads=threads)

    return _clocked(answer, read(folder / QUERIES), started)


def _clocked(
    answer: Callable[[Sequence[str], int], Any], queries: list[str], started: float
) -> dict[str, float]:
    """Call with all queries and 0 threads (as shipped) or -1 (all cores); then one by one."""
    answer(queries, 0)
    cold = time.time() - started
    answer(queries, -1)
    begun = time.perf_counter()
    answer(queries, -1)
    together = time.perf_counter() - begun
    answer(queries[:1], 0)
    begun = time.perf_counter()
    for query in queries:
        answer([query], 0)
    alone = time.perf_counter() - begun
    return {"cold_s": cold, "qps": len(queries) / alone, "batch_qps": len(queries) / together}


def rank_bm25(folder: Path, size: Size, _: float) -> dict[str, float]:
    """rank_bm25 on our terms, as it splits no texts; and whether ours ranks as it does.

    Ours are float32 sums: two passages may change places where it puts them less than 1e-5 apart.
    """
    from rank_bm25 import BM25Okapi

    from retrieval_ft.index import LexicalSpec

    spec, texts = LexicalSpec(), read(folder / TEXTS)
    queries = read(folder / QUERIES)[: size.oracle_queries]
    begun = time.perf_counter()
    engine = BM25Okapi(spec.tokenize(texts))
    built = time.perf_counter() - begun
    rows, begun = [], time.perf_counter()
    for query in queries:
        scores = engine.get_scores(spec.tokenize([query])[0])
        rows.append((scores, np.argpartition(-scores, DEPTH - 1)))
    seconds = time.perf_counter() - begun
    same, identical, largest = 0, 0, 0.0
    for (scores, parted), (ids, given) in zip(rows, read(folder / "bm25_ours.jsonl"), strict=True):
        places = np.array([int(name[1:]) for name in ids], np.int64)
        near = np.flatnonzero(scores >= max(scores[parted[DEPTH - 1]] - 1e-4, 1e-6))
        wanted = near[np.lexsort((near, -scores[near].astype(np.float32)))][:DEPTH]
        identical += wanted.tolist() == places.tolist()
        gap = np.inf
        if len(places) == len(wanted):
            gaps = np.abs([scores[places] - scores[wanted], scores[places] - given])
            gap = float(gaps.max(initial=0.0))
        same, largest = same + (gap < 1e-5), max(largest, gap)
    return {
        "build_s": built,
        "qps": len(queries) / seconds,
        "same": same / len(queries),
        "same_ids": identical / len(queries),
        "largest_difference": largest,
    }


# Hybrid: vectors are given to each library through the way in that it offers.


def hybrid_ours(folder: Path, count: int) -> dict[str, Any]:
    """Ours, and what a filter that lets 1% pass finds of what brute force finds there."""
    from retrieval_ft.index import parse

    texts, queries = read(folder / TEXTS), read(folder / QUERIES)
    vectors, asked = vectors_of(folder)
    begun = time.perf_counter()
    build(texts, vectors, folder / "hybrid_ours", queries=asked[count:])
    index = load(folder / "hybrid_ours")
    found = _asked(begun, lambda n: search(index, queries[n], asked[n]), count)
    found["exact"] = exact(index.lexical, folder, count)
    where = parse(FILTER)
    filtered = [search(index, queries[n], asked[n], where=where) for n in range(count)]
    keep = np.arange(len(texts)) % PARTS == 0
    found["filter_recall"] = recall(filtered, exact(index.lexical, folder, count, keep=keep))
    return found


def hybrid_langchain(folder: Path, count: int) -> dict[str, Any]:
    """EnsembleRetriever of BM25Retriever, with our terms, and FAISS, each a hundred deep."""
    sys.path.append(str(PEERS))
    from ensemble import ensemble

    from retrieval_ft.index import LexicalSpec

    texts, queries = read(folder / TEXTS), read(folder / QUERIES)
    vectors, asked = vectors_of(folder)
    spec, row_of = LexicalSpec(), {query: n for n, query in enumerate(queries)}
    begun = time.perf_counter()
    search = ensemble(
        texts,
        list(ids_of(len(texts))),
        np.asarray(vectors),
        vector_of=lambda text: asked[row_of[text]].tolist(),
        terms=lambda text: spec.tokenize([text])[0],
        depth=DEPTH,
    )
    return _asked(begun, lambda n: search(queries[n])[:TOP], count)


def hybrid_txtai(folder: Path, count: int) -> dict[str, Any]:
    """Embeddings of its own BM25 and given vectors, all else as it ships.

    `recall10_own` is its recall against itself with exact dense search.
    """
    sys.path.append(str(PEERS))
    from txtai.embeddings import Embeddings

    texts, queries = read(folder / TEXTS), read(folder / QUERIES)
    vectors, asked = vectors_of(folder)
    rows = dict(zip(texts, vectors, strict=True)) | dict(zip(queries, asked, strict=True))

    def transform(batch: list[str]) -> Any:
        return np.stack([rows[text] for text in batch])

    def asked_of(**more: Any) -> dict[str, Any]:
        begun = time.perf_counter()
        index = Embeddings(method="external", transform=transform, hybrid=True, **more)
        index.index(zip(ids_of(len(texts)), texts, [None] * len(texts), strict=True))
        return _asked(begun, lambda n: [name for name, _ in index.search(queries[n], TOP)], count)

    found, flat = asked_of(), asked_of(faiss={"components": "IDMap,Flat"})
    pairs = zip(found["rankings"], flat["rankings"], strict=True)
    found["recall10_own"] = sum(len({*one} & {*two}) for one, two in pairs) / TOP / count
    return found


def _asked(begun: float, ask: Callable[[int], list[str]], count: int) -> dict[str, Any]:
    """Ask one query after another, on one thread."""
    import faiss

    built = time.perf_counter() - begun
    faiss.omp_set_num_threads(1)
    ask(0)
    seconds, rankings = [], []
    for n in range(count):
        begun = time.perf_counter()
        rankings.append(ask(n))
        seconds.append(time.perf_counter() - begun)
    return {
        "build_s": built,
        "p50_ms": 1000 * float(np.percentile(seconds, 50)),
        "p95_ms": 1000 * float(np.percentile(seconds, 95)),
        "rankings": rankings,
    }


# Growth of ours.


def grow_build(folder: Path, count: int) -> dict[str, float]:
    """Build our index from what is on the disk; what it took, and what it takes there."""
    texts, (vectors, asked) = read(folder / TEXTS), vectors_of(folder)
    begun = time.perf_counter()
    build(texts, vectors, folder / "grown", queries=asked[count:])
    files = [file.stat().st_size for file in (folder / "grown").rglob("*") if file.is_file()]
    return {
        "build_minutes": (time.perf_counter() - begun) / 60,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB,
        "bytes_per_passage": sum(files) / len(texts),
    }


def grow_search(folder: Path, count: int) -> dict[str, float]:
    """Load it in a fresh process, search, and compare with brute force."""
    import faiss  # noqa: F401  its import is no part of loading

    queries, (_, asked) = read(folder / QUERIES), vectors_of(folder)
    begun = time.perf_counter()
    index = load(folder / "grown")
    loaded = time.perf_counter() - begun
    found = _asked(begun, lambda n: search(index, queries[n], asked[n]), count)
    return {
        "load_s": loaded,
        "hybrid_p50_ms": found["p50_ms"],
        "hybrid_p95_ms": found["p95_ms"],
        "recall10": recall(found["rankings"], exact(index.lexical, folder, count)),
    }


BM25 = {
    "ours": bm25_ours,
    "rank_bm25": rank_bm25,
    "bm25s_numpy": bm25s_numpy,
    "bm25s_numba": bm25s_numba,
}
BM25_BUILDS = {"ours": bm25_build_ours, "bm25s": bm25_build_bm25s}
HYBRID = {"ours": hybrid_ours, "langchain": hybrid_langchain, "txtai": hybrid_txtai}
