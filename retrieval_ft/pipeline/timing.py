"""How long a query takes, step by step, and what an index weighs: the price beside the recall.

Every query is timed `ROUNDS` times and its median counts, sides and rounds in turn, so that what else
the machine does meets all of them alike. The embedding cache is left out: a user's query is new.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from retrieval_ft.dataset.types import whole_passage
from retrieval_ft.evaluation import percentiles
from retrieval_ft.index import HybridIndex
from retrieval_ft.index.segment import ANN, ARRAYS, PASSAGES, VECTORS

if TYPE_CHECKING:
    from retrieval_ft.encoder.cross_encoder import CrossEncoder
    from retrieval_ft.encoder.encoder import Encoder
    from retrieval_ft.index.hybrid import Mode

T = TypeVar("T")
QUERIES = 100
"""Queries that are timed at most; the 99th percentile of so few is nearly their slowest."""
ROUNDS = 3
READ = 20
"""Queries that reranking is timed with: each is some seconds on a CPU."""
AT_ONCE = 128
"""Passages that are encoded at once for the throughput."""
_K = 10
_MODES: tuple[Mode, ...] = ("bm25", "dense", "hybrid")


def sampled(values: Sequence[T], *, count: int = QUERIES) -> list[T]:
    """Up to `count` of some values, evenly spaced over them."""
    step = max(1, len(values) // count)
    return list(values[::step][:count])


def encoding_times(encoders: Mapping[str, Encoder], texts: Sequence[str]) -> dict[str, list[float]]:
    """Milliseconds that each encoder takes for each query, one at a time, [queries]."""
    bare = {name: encoder.uncached() for name, encoder in encoders.items()}
    steps = {
        name: lambda text, one=one: one.encode([text], role="query") for name, one in bare.items()
    }
    return _in_turn(steps, texts)


def search_times(
    index: HybridIndex, encoder: Encoder, texts: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each query by mode and step: `{"hybrid": {"encode_ms": [...], "search_ms": [...]}}`.

    A search gives ten hits with their texts, as `retrieval-ft search` does.
    """
    encode = encoding_times({"": encoder}, texts)[""]
    rows = encoder.encode(texts, role="query")
    vectors = {text: rows[i : i + 1] for i, text in enumerate(texts)}
    print_ = encoder.fingerprint

    def search(mode: Mode) -> Callable[[str], object]:
        def one(text: str) -> object:
            given = None if mode == "bm25" else vectors[text]
            return index.search([text], given, encoder_fingerprint=print_, k=_K, mode=mode)

        return one

    found = _in_turn({mode: search(mode) for mode in _MODES}, texts)
    return {
        mode: {**({} if mode == "bm25" else {"encode_ms": encode}), "search_ms": times}
        for mode, times in found.items()
    }


def rerank_times(
    judge: CrossEncoder, index: HybridIndex, encoder: Encoder, texts: Sequence[str], *, first: int
) -> list[float]:
    """Milliseconds that a cross-encoder takes for the first hits of each query, [queries]."""
    rows = encoder.encode(texts, role="query")
    name = encoder.fingerprint
    found = index.search(texts, rows, encoder_fingerprint=name, k=first)
    passages = {
        text: [whole_passage(hit.title, hit.text) for hit in hits]
        for text, hits in zip(texts, found, strict=True)
    }
    steps = {"": lambda text: judge.scores([text] * len(passages[text]), passages[text])}
    return _in_turn(steps, texts)[""]


def as_figures(steps: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Percentiles of each step and of all together, and queries a second, one after another."""
    total = np.sum([np.asarray(times) for times in steps.values()], axis=0)
    figures: dict[str, Any] = {name: percentiles(times) for name, times in steps.items()}
    figures["total_ms"] = percentiles(total.tolist())
    figures["queries_per_s"] = 1_000.0 / float(total.mean())
    return figures


def passages_per_s(encoder: Encoder, texts: Sequence[str]) -> float:
    """Passages encoded in a second, `AT_ONCE` of them at once, after a first batch."""
    bare, some = encoder.uncached(), sampled(texts, count=AT_ONCE)
    bare.encode(some[:8], role="passage")
    started = time.perf_counter()
    bare.encode(some, role="passage")
    return len(some) / (time.perf_counter() - started)


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024  # kilobytes but on macOS


def weigh(folder: Path) -> dict[str, int]:
    """Bytes of an index folder: all, its vectors, BM25 with the metadata, and the texts."""
    files = [file for file in folder.rglob("*") if file.is_file()]

    def bytes_of(*names: str) -> int:
        return sum(file.stat().st_size for file in files if not names or file.name in names)

    return {
        "index_bytes": bytes_of(),
        "vector_bytes": bytes_of(VECTORS, ANN),
        "bm25_bytes": bytes_of(ARRAYS),
        "text_bytes": bytes_of(PASSAGES),
    }


def index_speed(
    index: HybridIndex,
    encoder: Encoder,
    *,
    queries: Sequence[str],
    passages: Sequence[str],
    side: str = "",
    rerank: tuple[CrossEncoder, int] | None = None,
) -> dict[str, Any]:
    """What an index costs: times by system, throughput, bytes and memory, as JSON values.

    Args:
        index: The index.
        encoder: The one it was built with.
        queries: Texts to time searches with, spread over `QUERIES` of them.
        passages: Texts to time encoding with.
        side: Put before the names of what is dense: `tuned` gives `tuned_hybrid`.
        rerank: A cross-encoder without a cache, and how many hits it reads, on `READ` of the queries.
    """
    texts = sampled(queries)
    lead = f"{side}_" if side else ""
    times = search_times(index, encoder, texts)
    if rerank:
        judge, first = rerank
        steps = {name: sampled(taken, count=READ) for name, taken in times["hybrid"].items()}
        some = sampled(texts, count=READ)
        read = rerank_times(judge, index, encoder, some, first=first)
        times["hybrid_rerank"] = {**steps, "rerank_ms": read}
    return {
        "systems": {
            mode if mode == "bm25" else f"{lead}{mode}": as_figures(steps)
            for mode, steps in times.items()
        },
        "passages_per_s": passages_per_s(encoder, passages),
        "queries_timed": len(texts),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _in_turn(
    steps: Mapping[str, Callable[[str], object]], texts: Sequence[str]
) -> dict[str, list[float]]:
    """Medians of `ROUNDS` times of each step for each text, in milliseconds; the order turns around."""
    for step in steps.values():
        step(texts[0])  # what is done once, such as loading, is no part of a query
    names = list(steps)
    taken = {name: np.empty((ROUNDS, len(texts))) for name in names}
    for round_ in range(ROUNDS):
        for column, text in enumerate(texts):
            for name in names if (round_ + column) % 2 else reversed(names):
                started = time.perf_counter()
                steps[name](text)
                taken[name][round_, column] = (time.perf_counter() - started) * 1_000.0
    return {name: np.median(times, axis=0).tolist() for name, times in taken.items()}
