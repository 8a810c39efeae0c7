"""Exact dense search: FAISS Flat inner product over L2-normalised vectors, so scores are cosines.

FAISS takes what it is given: a NaN vector is never found again, a wrong dimension ends in an empty
AssertionError, ties come in any order. Input is checked here, and ties are put in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.errors import DataError
from retrieval_ft.index import order

FACTORY = "Flat"
_SPARE = 32  # asked for beyond k, so that the usual tie at the k-th place is seen whole
_UNIT_TOLERANCE = 0.01  # bf16 keeps 8 bits of mantissa: a vector normalised in it is off by < .5%


@dataclass(frozen=True, eq=False)
class DenseIndex:
    """Passage vectors under inner product.

    Attributes:
        ids: passage ids; a position in this index is a place in `ids`.
        flat: the `faiss.IndexFlatIP`, float32 [n, d].
    """

    ids: tuple[str, ...]
    flat: Any

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return int(self.flat.d)

    @cached_property
    def _ranks(self) -> npt.NDArray[np.int64]:
        return order.id_ranks(self.ids)

    @classmethod
    def build(cls, ids: Sequence[str], vectors: npt.NDArray[np.float32]) -> DenseIndex:
        """Index vectors, float32 [n, d], L2-normalised.

        Raises:
            DataError: ids and vectors differ in number, or a vector holds NaN or is not of length
                1 (within 1%); the message names its id.
        """
        import faiss

        if len(ids) != len(vectors):
            raise DataError(f"cannot index {len(vectors)} vectors under {len(ids)} ids")
        rows = _checked(vectors, names=ids)
        flat = faiss.IndexFlatIP(rows.shape[1])
        flat.add(rows)
        return cls(ids=tuple(ids), flat=flat)

    def search(self, vectors: npt.NDArray[np.float32], *, k: int) -> list[order.Found]:
        """Return for each query the positions (int64) and cosines (float32) of its best passages.

        Sorted by cosine, then by id, also where a tie straddles the k-th place: as long as the last
        score FAISS returns still equals the k-th, more is asked for. Equal means equal as FAISS
        computed it: the last bit of a cosine can depend on the size of the batch.

        Args:
            vectors: float32 [q, d], L2-normalised; q may be 0.
            k: how many to return; all where there are fewer.

        Raises:
            ConfigError: `k` is below 1.
            DataError: the dimension is not the index's, or a vector holds NaN or is not of length
                1; the message names its row.
        """
        order.check_k(k)
        if not len(vectors):
            return []
        rows = _checked(vectors, names=None)
        if rows.shape[1] != self.dimension:
            raise DataError(
                f"the query vectors have {rows.shape[1]} dimensions, the index has "
                f"{self.dimension}; search with the model the index was built with"
            )
        return self._search(rows, k=k, fetch=k + _SPARE)

    def _search(self, rows: npt.NDArray[np.float32], *, k: int, fetch: int) -> list[order.Found]:
        if not len(self):
            return [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in rows]
        fetch = min(fetch, len(self))
        scores, positions = self.flat.search(rows, fetch)
        found = [
            order.best(at[at >= 0], score[at >= 0], ranks=self._ranks, k=k)
            for at, score in zip(positions, scores, strict=True)
        ]
        if fetch < len(self):
            cut = np.flatnonzero(scores[:, k - 1] == scores[:, -1])
            if cut.size:
                again = self._search(rows[cut], k=k, fetch=4 * fetch)
                for row, hits in zip(cut, again, strict=True):
                    found[row] = hits
        return found

    def save(self, folder: Path) -> None:
        """Write `vectors.faiss` and `ids.json` into a folder."""
        import faiss

        artifacts.write_json(folder / "ids.json", self.ids)
        with artifacts.atomic_open(folder / "vectors.faiss") as file:
            file.write(faiss.serialize_index(self.flat).data)

    @classmethod
    def load(cls, folder: Path) -> DenseIndex:
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing, or its numbers of ids and vectors differ.
        """
        import faiss

        ids, path = tuple(artifacts.read_json(folder / "ids.json")), folder / "vectors.faiss"
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        flat = faiss.read_index(str(path))
        if flat.ntotal != len(ids):
            raise DataError(f"{path}: holds {flat.ntotal} vectors for {len(ids)} ids")
        return cls(ids=ids, flat=flat)


def _checked(
    vectors: npt.NDArray[np.float32], *, names: Sequence[str] | None
) -> npt.NDArray[np.float32]:
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2:
        raise DataError(f"vectors of shape {rows.shape}: two axes are needed, [n, d]")
    lengths = np.linalg.norm(rows, axis=1)
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
