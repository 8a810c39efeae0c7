"""Embeddings on disk, so that mining, dev evaluation and the baseline encode a text once.

A cache folder belongs to one (encoder fingerprint, role, precision). It holds immutable shards, each
a structured .npy named by the sha256 of its bytes: a shard that does not match its name is left out
and encoded again. Several processes may add shards at once.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.console import note

_KEY_BYTES = 16


def text_key(text: str) -> bytes:
    """The first 128 bits of a text's sha256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]


class EmbeddingCache:
    """Vectors by text key in one folder; loaded on first use."""

    def __init__(self, folder: Path, *, dimension: int) -> None:
        self._folder = folder
        self._dtype = np.dtype(
            [("key", np.uint8, (_KEY_BYTES,)), ("vector", np.float32, (dimension,))]
        )
        self._shards: list[npt.NDArray[np.void]] = []
        self._where: dict[bytes, tuple[int, int]] | None = None

    def lookup(self, keys: Sequence[bytes], out: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Fill the rows of `out` whose key is known; return the rows that are not, int64."""
        where = self._load()
        missing: list[int] = []
        rows: dict[int, tuple[list[int], list[int]]] = {}
        for i, key in enumerate(keys):
            place = where.get(key)
            if place is None:
                missing.append(i)
                continue
            to, at = rows.setdefault(place[0], ([], []))
            to.append(i)
            at.append(place[1])
        for shard, (to, at) in rows.items():
            out[to] = self._shards[shard]["vector"][at]
        return np.array(missing, np.int64)

    def add(self, keys: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> None:
        """Store vectors, float32 [n, dimension], as one new shard."""
        where = self._load()
        shard = np.empty(len(keys), self._dtype)
        shard["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), _KEY_BYTES)
        shard["vector"] = vectors
        buffer = io.BytesIO()
        np.save(buffer, shard, allow_pickle=False)
        content = buffer.getvalue()
        with artifacts.atomic_open(
            self._folder / f"{hashlib.sha256(content).hexdigest()}.npy"
        ) as file:
            file.write(content)
        self._index(shard, where)

    def _load(self) -> dict[bytes, tuple[int, int]]:
        if self._where is None:
            self._where = {}
            for path in sorted(self._folder.glob("*.npy")):
                if artifacts.sha256_file(path) != path.stem:
                    note(f"{path}: damaged cache shard, its texts are encoded again")
                    path.unlink(missing_ok=True)
                    continue
                shard = np.load(path, mmap_mode="r", allow_pickle=False)
                if shard.dtype == self._dtype:
                    self._index(shard, self._where)
        return self._where

    def _index(self, shard: npt.NDArray[np.void], where: dict[bytes, tuple[int, int]]) -> None:
        number = len(self._shards)
        self._shards.append(shard)
        for row, key in enumerate(shard["key"]):
            where[key.tobytes()] = (number, row)
