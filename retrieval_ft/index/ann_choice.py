"""Which approximate index a segment gets: by its size, the memory given, and whether it shrinks.

An approximate index only proposes candidates; the exact vectors beside it decide. So the kinds
differ in memory, build time and speed, and in how many candidates they need, not in scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from retrieval_ft.errors import ConfigError

Kind = Literal["flat", "hnsw", "ivf-flat", "ivf-sq8", "ivf-rabitq"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_AUTOMATIC: tuple[Kind, ...] = ("hnsw", "ivf-sq8", "ivf-rabitq")

EXACT_UP_TO = 200_000
"""Vectors that are searched exactly: 0.8 ms a query in a batch at 100,000 x 384, one thread."""
LINKS = 32
"""Links of a graph node; twice as many on its lowest level (Malkov and Yashunin, HNSW, 2016)."""
_POINTS_PER_LIST = 39  # below this FAISS's k-means warns that a list has too few to learn from
_ID_BYTES = 8
_GRAPH_BYTES = 4 * 2 * LINKS + 16  # lowest level; level, offset and the share of upper levels
_RABITQ_FACTORS = 8  # two floats that correct the estimate of a 1-bit code


@dataclass(frozen=True)
class Choice:
    """A kind of index, the FAISS factory string that makes it, and why it was chosen."""

    kind: Kind
    factory: str
    reason: str


@dataclass(frozen=True)
class AnnSpec:
    """When dense search is approximate, and how.

    Attributes:
        kind: "auto" is `choose`; any other kind is what it says, whatever the size.
        min_recall: recall@10 against exact search below which a build fails, in [0, 1].
        memory_gb: what the index may keep in memory, in 10^9 bytes. The default is the same on
            every machine, so that the same build gives the same index.
        deletes: whether passages will be deleted or replaced.

    Raises:
        ConfigError: a value that there is not.
    """

    kind: str = "auto"
    min_recall: float = 0.95
    memory_gb: float = 1.0
    deletes: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("auto", *KINDS):
            raise ConfigError(
                f"unknown kind of dense index {self.kind!r}; choose from auto, {', '.join(KINDS)}"
            )
        if not 0 <= self.min_recall <= 1:
            raise ConfigError(f"min_recall must lie in [0, 1], found {self.min_recall}")

    def choose(self, count: int, dimension: int) -> Choice:
        """The kind for so many vectors."""
        if self.kind != "auto":
            return named(self.kind, count=count)
        return choose(count, dimension, memory_gb=self.memory_gb, deletes=self.deletes)


def list_count(count: int) -> int:
    """Return how many lists an inverted file over `count` vectors has: a power of two.

    The one nearest to 4 sqrt(n), the lower end of what FAISS's guidelines give for up to a million
    vectors ("Guidelines to choose an index"), but at least 39 vectors a list.
    """
    wanted = 1 << round(math.log2(4 * math.sqrt(max(count, 1))))
    allowed = 1 << int(math.log2(max(count // _POINTS_PER_LIST, 1)))
    return min(wanted, allowed)


def memory_bytes(kind: Kind, *, count: int, dimension: int) -> int:
    """Return about how many bytes an index of `count` vectors keeps in memory when all is touched.

    From FAISS's table of bytes a vector ("The index factory"), with ids and what all share.
    """
    code: Mapping[Kind, int] = {
        "flat": 4 * dimension,
        "hnsw": dimension + _GRAPH_BYTES,
        "ivf-flat": 4 * dimension + _ID_BYTES,
        "ivf-sq8": dimension + _ID_BYTES,
        "ivf-rabitq": math.ceil(dimension / 8) + _RABITQ_FACTORS + _ID_BYTES,
    }
    shared = 4 * dimension * list_count(count) if kind.startswith("ivf") else 0
    if kind == "ivf-rabitq":
        shared += 4 * dimension**2  # the rotation
    return count * code[kind] + shared


def choose(count: int, dimension: int, *, memory_gb: float, deletes: bool) -> Choice:
    """Choose the kind for `count` vectors.

    Exact up to `EXACT_UP_TO`. Beyond, the first of these that fits: a graph over 8-bit codes, lists
    of 8-bit codes, of 1-bit codes. A graph is left out where passages will be deleted: it cannot be
    compacted without building it anew. Lists of whole vectors are never the choice: as the exact
    vectors decide anyway, 8-bit codes proposed as well, faster, from a quarter of the memory (300,000
    BGE vectors: recall@10 .964 for both, .26 ms against .33, 403 bytes a vector against 1,555).

    Args:
        count: vectors in the segment.
        dimension: their width.
        memory_gb: what the index may keep in memory, in 10^9 bytes.
        deletes: whether passages of this segment will be deleted or replaced.
    """
    if count <= EXACT_UP_TO:
        size = _gb(memory_bytes("flat", count=count, dimension=dimension))
        return _choice(
            "flat",
            count,
            f"{count:,} vectors ({size}) are searched exactly, as are all up to {EXACT_UP_TO:,}",
        )
    kinds = [kind for kind in _AUTOMATIC if not (deletes and kind == "hnsw")]
    sizes = {kind: memory_bytes(kind, count=count, dimension=dimension) for kind in kinds}
    fitting = [kind for kind in kinds if sizes[kind] <= memory_gb * 1e9]
    kind = fitting[0] if fitting else kinds[-1]
    verdict = "the first that fits" if fitting else "the smallest, though it does not fit"
    tried = ", ".join(f"{name} {_gb(sizes[name])}" for name in kinds[: kinds.index(kind) + 1])
    graph = "passages may be deleted, so no hnsw" if deletes else "no deletes are expected"
    return _choice(
        kind,
        count,
        f"{count:,} vectors are more than the {EXACT_UP_TO:,} searched exactly; {graph}; "
        f"{kind} is {verdict} in the {memory_gb:g} GB given ({tried})",
    )


def named(kind: str, *, count: int) -> Choice:
    """Return the choice of a kind that was asked for by name, sized for `count` vectors.

    Raises:
        ConfigError: there is no such kind.
    """
    for known in KINDS:
        if known == kind:
            return _choice(known, count, f"{kind} was asked for")
    raise ConfigError(f"unknown kind of dense index {kind!r}; choose from {', '.join(KINDS)}")


def _choice(kind: Kind, count: int, reason: str) -> Choice:
    lists = list_count(count)
    factories: Mapping[Kind, str] = {
        "flat": "Flat",
        "hnsw": f"HNSW{LINKS},SQ8",
        "ivf-flat": f"IVF{lists},Flat",
        "ivf-sq8": f"IVF{lists},SQ8",
        "ivf-rabitq": f"RR,IVF{lists},RaBitQ",  # RaBitQ assumes rotated input (arXiv 2405.12497)
    }
    return Choice(kind=kind, factory=factories[kind], reason=reason)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
