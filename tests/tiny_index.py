"""Small indexes for tests: texts, vectors that stand for an encoder's, and what an index answers."""

import hashlib

import numpy as np

from retrieval_ft.dataset import Corpus
from retrieval_ft.index import HybridIndex, IndexSpec

FINGERPRINT = "ab" * 32
DIMENSION = 6
TEXTS = (
    "a cat sleeps on the warm roof",
    "the dog barks at the cat",
    "stack overflow in the parser",
    "heap overflow corrupts memory",
    "Größenänderung\u2028mit Umlaut",
    "數據庫 查詢",
    "שלום עולם",
    "a rocket 🚀 starts",
)
QUERIES = ("cat on a roof", "overflow", "größenänderung", "rocket", "查詢", "nothing like it", "")


def unit(count, seed, dimension=DIMENSION):
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def encode(texts, dimension=DIMENSION):
    """A vector of length 1 that a text decides, as an encoder's would be."""
    rows = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in texts]
    return np.concatenate([unit(1, seed, dimension) for seed in rows] or [np.zeros((0, dimension))])


def corpus(passages):
    """A corpus of {id: text} or {id: (text, metadata)}."""
    rows = {i: (row, {}) if isinstance(row, str) else row for i, row in passages.items()}
    return Corpus(
        ids=tuple(rows),
        texts=tuple(text for text, _ in rows.values()),
        titles=("",) * len(rows),
        metadata=tuple(metadata for _, metadata in rows.values()),
    )


def corpus_of(count):
    return Corpus(
        ids=tuple(f"d{i}" for i in range(count)),
        texts=tuple(f"{TEXTS[i % len(TEXTS)]} {i}" for i in range(count)),
        titles=tuple(f"title {i % 4}" for i in range(count)),
        metadata=tuple({"part": i % 3, "name": f"n{i}"} for i in range(count)),
    )


def spec_of(**options):
    given = {"encoder_fingerprint": FINGERPRINT, "encoder_path": "runs/x/model"}
    return IndexSpec(**{**given, "dimension": DIMENSION, **options})


def build(passages, **options):
    """An index in memory of {id: text}."""
    made = corpus(passages)
    return HybridIndex.build(made, encode(made.passages), spec=spec_of(**options))


def search(index, texts, *, k=5, mode="hybrid", where=None):
    return index.search(
        texts,
        encode(texts),
        encoder_fingerprint=index.spec.encoder_fingerprint,
        k=k,
        mode=mode,
        where=where,
    )


def answers(index, *, k=50):
    """All that an index says: its model, each hit of each query in each mode, every passage."""
    found = [search(index, QUERIES, k=k, mode=mode) for mode in ("hybrid", "dense", "bm25")]
    hits = [
        [(h.id, h.score, h.text, dict(h.metadata)) for h in row] for run in found for row in run
    ]
    live = [p for part in index.lives for p in part.segment.passages.live(part.alive)]
    return (
        index.spec.encoder_path,
        hits,
        sorted((p.id, p.title, p.text, str(p.metadata)) for p in live),
    )
