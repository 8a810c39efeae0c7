"""Texts, queries and vectors for `bench_index.py`, and what brute force finds in them.

They are made once and kept in a folder; every side reads them from there, and leaves what it built
beside them. Nothing is encoded: a million real encodings are a day of work here. Vectors lie around
random topics, a query's near some passage's.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT

SETS = ("hpo", "pycode-small", "cwe")
WIDTH, DEPTH, TOP = 384, 100, 10
PARTS = 100
"""Values of the metadata key `part`: one lets one passage in a hundred pass."""
_SEED, _TOPIC, _SPREAD, _BLOCK = 13, 200, 0.6, 10_000
_PIECE = re.compile(r"(?<=[.!?])\s+|\n")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    passages: int
    queries: int
    oracle_queries: int
    """Of those, how many rank_bm25 answers."""
    hybrid_queries: int
    rounds: int
    growth: tuple[int, ...]


FULL = Size(100_000, 1_000, 50, 200, 5, (10_000, 100_000, 300_000, 1_000_000))
QUICK = Size(3_000, 100, 20, 20, 1, (3_000,))


def prepare(folder: Path, passages: int, queries: int) -> dict[str, float]:
    """Write texts, vectors, queries and their vectors."""
    generator = np.random.default_rng(_SEED)
    texts = _texts(passages, generator)
    write(folder / "texts.jsonl", texts)
    write(folder / "queries.jsonl", _queries(queries, generator, taken=set(texts)))
    topics = _unit(generator.standard_normal((max(passages // _TOPIC, 1), WIDTH), np.float32))
    shape = (passages, WIDTH)
    rows = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, shape)
    for at in range(0, passages, _BLOCK):
        block = rows[at : at + _BLOCK]
        block[:] = _near(topics[generator.integers(len(topics), size=len(block))], generator)
    rows.flush()
    found = generator.integers(passages, size=queries)
    np.save(folder / "query_vectors.npy", _near(rows[found], generator))
    return {"mean_words": statistics.mean(len(text.split()) for text in texts)}


def _texts(count: int, generator: np.random.Generator) -> list[str]:
    """Distinct texts: the passages of the sets, then new ones put together from their pieces.

    A new one has as many sentences (lines, where it is code) as some passage of its set, each from
    anywhere in that set: vocabulary, frequencies and lengths stay natural, sense does not.
    """
    from retrieval_ft.dataset import beir

    texts: dict[str, None] = {}
    shapes: list[tuple[int, int]] = []
    pools: list[list[str]] = []
    for name in SETS:
        corpus = beir.read(ROOT / "data" / name).corpus
        texts |= dict.fromkeys(corpus.passages)
        rows = [
            [piece for part in (title, text) for piece in _PIECE.split(part) if piece.strip()]
            for title, text in zip(corpus.titles, corpus.texts, strict=True)
        ]
        shapes += [(len(pools), max(len(row), 2)) for row in rows]
        pools.append([piece for row in rows for piece in row])
    while len(texts) < count:
        drawn = generator.integers(len(shapes), size=count - len(texts)).tolist()
        places = iter(generator.random(sum(shapes[shape][1] for shape in drawn)).tolist())
        for shape in drawn:
            number, pieces = shapes[shape]
            pool = pools[number]
            chosen = [pool[int(place * len(pool))] for place in islice(places, pieces)]
            texts[("\n" if SETS[number].startswith("pycode") else " ").join(chosen)] = None
    known = list(texts)
    return [known[at] for at in generator.permutation(len(known))[:count]]


def _queries(count: int, generator: np.random.Generator, *, taken: set[str]) -> list[str]:
    """Distinct queries of the sets, none of them the text of a passage."""
    from retrieval_ft.dataset import beir

    asked = (text for name in SETS for text in beir.read(ROOT / "data" / name).queries.texts)
    known = [text for text in dict.fromkeys(asked) if text not in taken]
    return [known[at] for at in generator.choice(len(known), count, replace=False)]


def _near(centres: Any, generator: np.random.Generator) -> Any:
    noise = generator.standard_normal(centres.shape, np.float32)
    return _unit(centres + np.float32(_SPREAD * WIDTH**-0.5) * noise)


def _unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write(path: Path, values: Sequence[Any]) -> None:
    """Keep values, one a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(value) + "\n" for value in values)


def read(path: Path) -> list[Any]:
    """What `write` kept."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def vectors_of(folder: Path) -> tuple[Any, Any]:
    """The vectors of the passages, mapped from disk, and of the queries: float32 [n, 384]."""
    rows = np.load(folder / "vectors.npy", mmap_mode="r")
    return rows, np.load(folder / "query_vectors.npy")


def ids_of(count: int) -> tuple[str, ...]:
    """The id of each text; their order is that of the texts."""
    return tuple(f"p{i:07}" for i in range(count))


def exact(lexical: Any, folder: Path, count: int, *, keep: Any = None) -> list[dict[str, float]]:
    """What brute force fuses for the first `count` queries: id -> score of all that a side gave.

    Every passage is scored by both sides; `keep` (bool [n]) leaves some out before the first hundred
    of each are fused (RRF, k = 60, equal weights).
    """
    import faiss

    from retrieval_ft.index import rrf

    rows, asked = vectors_of(folder)
    names = ids_of(len(rows))
    places = np.arange(len(rows)) if keep is None else np.flatnonzero(keep)
    rows = rows if keep is None else rows[places]
    depth = min(DEPTH, len(places))
    cosines, near = faiss.knn(asked[:count], rows, depth, metric=faiss.METRIC_INNER_PRODUCT)
    fused = []
    for n, query in enumerate(islice(read(folder / "queries.jsonl"), count)):
        scores = lexical.scores(query)[places]
        best = np.lexsort((places, -scores))[:DEPTH]
        best = best[scores[best] > 0]
        sides = [
            (tuple(names[at] for at in places[found].tolist()), values)
            for found, values in ((best, scores[best]), (near[n], cosines[n]))
        ]
        ids, values = rrf(sides, weights=[0.5, 0.5])
        fused.append(dict(zip(ids, values.tolist(), strict=True)))
    return fused


def recall(rankings: Sequence[Sequence[str]], wanted: Sequence[dict[str, float]]) -> float:
    """Share of the exact first ten that is found; who scores as the tenth counts as it."""
    shares = []
    for ids, scores in zip(rankings, wanted, strict=True):
        least = sorted(scores.values(), reverse=True)[:TOP][-1] - 1e-7
        good = sum(scores.get(name, 0.0) >= least for name in ids[:TOP])
        shares.append(good / min(TOP, len(scores)))
    return statistics.mean(shares)
