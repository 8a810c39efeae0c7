"""Approximate candidates over one segment's vectors, with a recall that was measured.

The index proposes positions, the caller scores them against the exact vectors: a score shown is
always an exact inner product, and all that can go wrong is a passage that was not proposed. How
often that happens is measured against brute force when the index is built; a build that misses too
much fails instead of answering badly for months.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.console import progress
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import ann_recall
from retrieval_ft.index.ann_choice import Choice, Kind
from retrieval_ft.index.ann_recall import DEPTH, MEASURED_QUERIES, Positions, Reached
from retrieval_ft.index.order import check_k
from retrieval_ft.index.vectors import Vectors, save_faiss, write_faiss

_BLOCK = 1 << 16
_TRAIN_PER_LIST = 64  # FAISS asks for 39 to 256
_LINK_QUEUE = 80  # efConstruction; FAISS's 40 built 100,000 in 15 s, recall .940; 80: 24 s, .958
_TRAIN_CODES = 1 << 16  # rows that show the range of each dimension, where there are no lists


@dataclass(frozen=True)
class Facts(Reached):
    """What a build came to; for the manifest (`dataclasses.asdict` there, `Facts(**...)` back).

    Attributes:
        kind: one of `ann_choice.KINDS`.
        factory: the FAISS factory string.
        count: vectors indexed.
        dimension: their width.
        bytes: size of the file.
        queries: how many the recall was measured on.
        reason: why this kind.
    """

    kind: Kind
    factory: str
    count: int
    dimension: int
    bytes: int
    queries: int
    reason: str


@dataclass(frozen=True, eq=False)
class Approximate:
    """An approximate index: the FAISS index, and how to search it."""

    index: Any
    facts: Facts

    @classmethod
    def build(
        cls,
        vectors: Vectors,
        choice: Choice,
        *,
        queries: Vectors,
        min_recall: float,
        seed: int,
        note: Callable[[str], object],
    ) -> Approximate:
        """Build an index and find the cheapest way to search it that proposes enough.

        Args:
            vectors: float32 [n, d], L2-normalised; may be a read-only map. Read in blocks.
            choice: the kind, of `ann_choice`.
            queries: float32 [q, d], L2-normalised; 200 of them, drawn by `seed`, are measured.
            min_recall: recall@10 below which the build fails.
            seed: of k-means and of both samples. The same inputs give the same index on one
                machine; a graph is built on one thread for that.
            note: is told what is done.

        Raises:
            ConfigError: `choice` is exact search.
            DataError: there are no vectors or no queries, or recall stays under `min_recall`.
        """
        if choice.kind == "flat":
            raise ConfigError("flat is exact search: there is no approximate index to build")
        if not len(vectors) or not len(queries):
            raise DataError(
                f"an approximate index over {len(vectors)} vectors, measured on {len(queries)} "
                "queries: at least one of each is needed; use flat"
            )
        rng = np.random.default_rng(seed)
        asked = _sample(queries, MEASURED_QUERIES, rng=rng)
        index = _filled(vectors, choice, rng=rng, note=note)
        found = ann_recall.cheapest(index, choice.kind, vectors, asked, min_recall=min_recall)
        note(
            f"{choice.factory}: recall@10 {found.recall_at_10:.3f} over {len(asked)} queries "
            f"at effort {found.effort}, {found.oversample} candidates a hit"
        )
        if found.recall_at_10 < min_recall:
            raise DataError(
                f"{choice.kind} ({choice.factory}) over {len(vectors):,} vectors reaches recall@10 "
                f"{found.recall_at_10:.3f} on {len(asked)} queries, under the {min_recall:g} asked "
                "for; choose another kind (flat is exact), or lower min_recall"
            )
        facts = Facts(
            **asdict(found),
            kind=choice.kind,
            factory=choice.factory,
            count=len(vectors),
            dimension=vectors.shape[1],
            bytes=_size(index),
            queries=len(asked),
            reason=choice.reason,
        )
        return cls(index=index, facts=facts)

    def candidates(
        self, queries: Vectors, *, k: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> Positions:
        """Propose positions to score exactly.

        Args:
            queries: float32 [q, d], L2-normalised.
            k: hits wanted; candidates for `DEPTH` come back where it is less, since that is what
                recall was measured for.
            allowed: bool [n], which positions may be proposed; all without it. The effort grows by
                the share left out. Where only a few percent are left, search them exactly.

        Returns:
            int64 [q, m], best first by the index's own estimate, -1 where there are no more.

        Raises:
            ConfigError: `k` is below 1.
        """
        check_k(k)
        facts = self.facts
        possible = facts.count if allowed is None else int(np.count_nonzero(allowed))
        wanted = min(max(k, DEPTH) * facts.oversample, possible)
        if not wanted or not len(queries):
            return np.empty((len(queries), wanted), np.int64)
        effort = -(-facts.effort * facts.count // possible)
        return ann_recall.search(
            self.index, facts.kind, queries, k=wanted, effort=effort, allowed=allowed
        )

    def save(self, path: Path) -> None:
        """Write the index into one file, whole or not at all."""
        save_faiss(self.index, path)

    @classmethod
    def load(cls, path: Path, facts: Facts) -> Approximate:
        """Map what `save` wrote; it is read as it is searched.

        Check the file's sha256 first: FAISS trusts the numbers in a file, and a wrong one can end
        the process.

        Raises:
            DataError: the file is missing, is no FAISS index, or not the one of these facts.
        """
        import faiss

        if not path.is_file():
            raise DataError(f"{path}: no such file")
        size = path.stat().st_size
        if size != facts.bytes:
            raise DataError(
                f"{path}: damaged ({size:,} bytes, written with {facts.bytes:,}); "
                "build the index again"
            )
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except (RuntimeError, MemoryError) as error:
            raise DataError(f"{path}: no FAISS index, or damaged; build the index again") from error
        if (index.ntotal, index.d) != (facts.count, facts.dimension):
            raise DataError(
                f"{path}: holds {index.ntotal:,} vectors of {index.d} dimensions, the manifest "
                f"says {facts.count:,} of {facts.dimension}; build the index again"
            )
        return cls(index=index, facts=facts)


def _sample(vectors: Vectors, size: int, *, rng: np.random.Generator) -> Vectors:
    if len(vectors) > size:
        vectors = vectors[np.sort(rng.choice(len(vectors), size, replace=False))]
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _filled(
    vectors: Vectors, choice: Choice, *, rng: np.random.Generator, note: Callable[[str], object]
) -> Any:
    """Train on a sample, then add everything block by block."""
    import faiss

    index = faiss.index_factory(vectors.shape[1], choice.factory, faiss.METRIC_INNER_PRODUCT)
    rows = _TRAIN_CODES
    if choice.kind == "hnsw":
        index.hnsw.efConstruction = _LINK_QUEUE
    else:
        ivf = faiss.extract_index_ivf(index)
        ivf.cp.seed = int(rng.integers(1 << 31))
        rows = ivf.nlist * _TRAIN_PER_LIST
    sample = _sample(vectors, rows, rng=rng)
    note(f"{choice.factory}: training on {len(sample):,} of {len(vectors):,} vectors")
    index.train(sample)
    del sample
    threads = faiss.omp_get_max_threads()
    try:
        if choice.kind == "hnsw":
            faiss.omp_set_num_threads(1)  # several threads link a graph in no fixed order
        with progress(choice.factory, len(vectors)) as bar:
            for start in range(0, len(vectors), _BLOCK):
                block = np.ascontiguousarray(vectors[start : start + _BLOCK], dtype=np.float32)
                index.add(block)
                bar.advance(len(block))
    finally:
        faiss.omp_set_num_threads(threads)
    return index


def _size(index: Any) -> int:
    sizes: list[int] = []

    def count(block: bytes) -> int:
        sizes.append(len(block))
        return len(block)

    write_faiss(index, count)
    return sum(sizes)
