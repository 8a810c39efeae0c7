"""The dense side of a segment: its vectors in FAISS, exact or as int8, and how they are checked.

FAISS takes what it is given: a NaN vector is never found again, a wrong dimension ends in an empty
AssertionError. Input is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.errors import ConfigError, DataError

Precision = Literal["float32", "int8"]
Vectors = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
_UNIT_TOLERANCE = 0.01  # bf16 keeps 8 bits of mantissa: a vector normalised in it is off by < .5%
_TOP = 10
_ROWS = 65_536
"""Vectors that are checked and copied at a time."""


@dataclass(frozen=True)
class DenseSpec:
    """How vectors are kept.

    Attributes:
        dimension: leading components that are kept, renormalised (for models trained with the
            Matryoshka loss); None for all.
        precision: "int8" keeps a byte a component, scaled between the extremes of that component
            (FAISS QT_8bit): a quarter of the memory, at a loss that is measured.

    Raises:
        ConfigError: a value that there is not.
    """

    dimension: int | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "int8"):
            raise ConfigError(f"vectors are kept as float32 or int8, not as {self.precision!r}")
        if self.dimension is not None and self.dimension < 1:
            raise ConfigError(f"dimension must be at least 1, found {self.dimension}")

    def loses(self, dimension: int) -> bool:
        """Whether vectors of an encoder of so many dimensions are not kept as they are."""
        return self.precision != "float32" or (self.dimension or dimension) != dimension

    def describe(self, dimension: int) -> str:
        """One line: of how many components, and in what."""
        return f"{self.dimension or dimension} of {dimension} dimensions in {self.precision}"

    def cut(self, rows: Vectors) -> Vectors:
        """Vectors as this index keeps and searches them, before int8: float32 [n, dimension]."""
        if self.dimension is None or self.dimension == rows.shape[1]:
            return rows
        short = rows[:, : self.dimension]
        lengths = np.linalg.norm(short, axis=1, keepdims=True)
        return (short / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def new_storage(dimension: int, spec: DenseSpec, *, sample: Vectors) -> Any:
    """An empty FAISS index for vectors that are cut already; int8 takes its scale from the sample."""
    import faiss

    if spec.precision == "float32":
        return faiss.IndexFlatIP(dimension)
    storage = faiss.IndexScalarQuantizer(
        dimension, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    if len(sample):
        storage.train(np.ascontiguousarray(sample))
    return storage


def measured_loss(storage: Any, rows: Vectors, *, spec: DenseSpec, queries: Vectors) -> float:
    """Recall@10 of what is kept, against the whole vectors: in [0, 1], 1 where nothing is lost.

    Args:
        storage: holds the rows as the spec keeps them.
        rows: float32 [n, d], whole, L2-normalised.
        spec: how they are kept.
        queries: float32 [q, d], whole; q above 0.
    """
    import faiss

    top = min(_TOP, len(rows))
    _, exact = faiss.knn(queries, rows, top, metric=faiss.METRIC_INNER_PRODUCT)
    _, found = storage.search(np.ascontiguousarray(spec.cut(queries)), top)
    pairs = zip(exact.tolist(), found.tolist(), strict=True)
    return float(np.mean([len(set(mine) & set(theirs)) / top for mine, theirs in pairs]))


def empty_like(storage: Any) -> Any:
    """An empty storage with the scale of another one, so that codes can be copied between them."""
    import faiss

    if isinstance(storage, faiss.IndexFlat):
        return faiss.IndexFlatIP(storage.d)
    fresh = faiss.IndexScalarQuantizer(
        storage.d, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    fresh.sq.trained = storage.sq.trained
    fresh.is_trained = storage.is_trained
    return fresh


def fill(storage: Any, rows: Vectors) -> None:
    """Put vectors that are checked and cut into an empty storage."""
    codes = _allocated(storage, len(rows))
    for at in range(0, len(rows), _ROWS):
        block = np.ascontiguousarray(rows[at : at + _ROWS])
        codes[at : at + len(block)] = storage.sa_encode(block)


def copy_live(storage: Any, parts: Sequence[tuple[Any, Mask | None]]) -> None:
    """Put the live vectors of storages of one kind and scale into an empty one, byte for byte."""
    counts = [
        other.ntotal if alive is None else int(np.count_nonzero(alive)) for other, alive in parts
    ]
    fresh, into = _allocated(storage, sum(counts)), 0
    for other, alive in parts:
        codes = codes_of(other)
        for at in range(0, len(codes), _ROWS):
            block = codes[at : at + _ROWS]
            kept = block if alive is None else block[alive[at : at + _ROWS]]
            fresh[into : into + len(kept)] = kept
            into += len(kept)


def _allocated(storage: Any, count: int) -> npt.NDArray[np.uint8]:
    """The bytes of so many vectors, made at once: added block by block they would take up to twice."""
    storage.codes.resize(count * storage.code_size)
    storage.ntotal = count
    return codes_of(storage)


def codes_of(storage: Any) -> npt.NDArray[np.uint8]:
    """The stored bytes, uint8 [n, bytes a vector], not copied."""
    import faiss

    if not storage.ntotal:
        return np.zeros((0, storage.code_size), np.uint8)
    flat = faiss.rev_swig_ptr(storage.codes.data(), storage.ntotal * storage.code_size)
    codes: npt.NDArray[np.uint8] = flat.reshape(storage.ntotal, storage.code_size)
    return codes


def rows_of(storage: Any) -> Vectors:
    """The stored vectors, float32 [n, d]: not copied where they are float32, else decoded."""
    import faiss

    if isinstance(storage, faiss.IndexFlat):
        return codes_of(storage).view(np.float32)
    rows: Vectors = storage.reconstruct_n(0, storage.ntotal)
    return rows


def write_faiss(index: Any, write: Callable[[bytes], int]) -> None:
    """Hand the bytes of a FAISS index to a function, block by block.

    FAISS's own writer of files keeps quiet about a disk that fills up at the last block.
    """
    import faiss

    faiss.write_index(index, faiss.PyCallbackIOWriter(write))


def save_faiss(index: Any, path: Path) -> None:
    """Write a FAISS index into one file, whole or not at all."""
    with artifacts.atomic_open(path) as file:
        write_faiss(index, file.write)


def selector(allowed: Mask | None) -> Any:
    """What FAISS is given to find none but these positions (bool [n]); None for all."""
    if allowed is None:
        return None
    import faiss

    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def load_storage(path: Path, *, count: int) -> Any:
    """Map a storage from disk.

    Raises:
        DataError: the file is missing, damaged, or holds another number of vectors.
    """
    import faiss

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        storage = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise DataError(f"{path}: damaged, FAISS cannot read it") from error
    if storage.ntotal != count:
        raise DataError(f"{path}: holds {storage.ntotal} vectors for {count} passages")
    return storage


def checked(vectors: Vectors, *, names: Sequence[str] | None) -> Vectors:
    """The vectors as contiguous float32 [n, d], each of length 1 (within 1%).

    Raises:
        DataError: another shape, or a vector holds NaN or infinity or is not of length 1; the
            message names its passage, or its row among the queries.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2:
        raise DataError(f"vectors of shape {rows.shape}: two axes are needed, [n, d]")
    lengths = np.empty(len(rows), np.float32)
    for at in range(0, len(rows), _ROWS):
        lengths[at : at + _ROWS] = np.linalg.norm(rows[at : at + _ROWS], axis=1)
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))  # NaN fails any comparison
    if bad.size:
        row = int(bad[0])
        name = f"passage {names[row]!r}" if names is not None else f"query {row}"
        finite = np.isfinite(rows[row]).all()
        fault = f"has length {lengths[row]:.4g}" if finite else "holds NaN or infinity"
        raise DataError(
            f"the vector of {name} {fault} ({bad.size} faulty of {len(rows)}); "
            "L2-normalised vectors (length 1) are needed"
        )
    return rows
