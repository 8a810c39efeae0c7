"""What `advise` reasons from: measured facts, prices and limits, each with its unit and its source.

All three are plain values: facts come from a results document (`facts_of`) and, like the others, may be
edited in a YAML or JSON file with the sections `facts`, `prices` and `limits` (`read_inputs`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from retrieval_ft.config.load import read
from retrieval_ft.dataset.power import MIN_TRAIN_PAIRS, PAIRED_DEVIATION, smallest_difference
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation.stats import ALPHA

Serves = Literal["bm25", "dense", "hybrid"]
_SERVES: tuple[Serves, ...] = ("bm25", "dense", "hybrid")
_SMALLEST = 1e-6
_LARGEST = 1e12  # so that no cost overflows
_METRIC = "recall@10"
_Section = TypeVar("_Section", "Facts", "Prices", "Limits")


@dataclass(frozen=True)
class Gain:
    """A measured difference of recall@10 between two systems on the test queries."""

    delta: float
    low: float
    """Ends of its 95% interval."""
    high: float
    p: float
    """Of the sign-flip test."""

    def __post_init__(self) -> None:
        for name in ("delta", "low", "high", "p"):
            _number("gain", name, getattr(self, name), low=-1.0, high=1.0)
        if self.low > self.high:
            raise ConfigError(f"gain: low {self.low} is above high {self.high}")

    @property
    def shown(self) -> bool:
        """Whether it is more than luck: interval above zero and p at most .05, as the gate asks."""
        return self.low > 0 and self.p <= ALPHA


@dataclass(frozen=True)
class Facts:
    """One retrieval task as measured on its test queries, and how it is used.

    Raises:
        ConfigError: a value is not of its range, or recall@100 is below recall@10.
    """

    passages: int
    """Passages of the corpus. Measured."""
    test_queries: int
    """Judged test queries, 1 at least. Measured."""
    bm25_recall_10: float
    """recall@10 of BM25 alone, in [0, 1]. Measured."""
    base_dense_recall_10: float
    """recall@10 of the base embedder alone, in [0, 1]. Measured."""
    base_hybrid_recall_10: float
    """recall@10 of their hybrid, in [0, 1]. Measured."""
    base_hybrid_recall_100: float
    """recall@100 of the hybrid: what no reranking of 100 passages can exceed. Measured."""
    train_labels: int = 0
    """Labelled (query, relevant passage) pairs to train on. Measured; default: none."""
    tuned: Gain | None = None
    """Tuned hybrid minus base hybrid; None: not measured."""
    hybrid: Gain | None = None
    """Base hybrid minus what is served today; None: only the two means are known."""
    reranked: Gain | None = None
    """Reranked hybrid minus hybrid; None: not measured."""
    truncated_passages: float = 0.0
    """Share of passages that the model cuts at its length, in [0, 1]. Measured; default: none."""
    serves: Serves = "dense"
    """What answers queries today. Default: assumption (most stacks begin so), edit it."""
    passage_tokens: float = 160.0
    """Mean tokens of a passage. Default: assumption, half of what chunking allows (320); edit it."""
    query_tokens: float = 16.0
    """Mean tokens of a query. Default: assumption, edit it."""
    corpus_change_per_month: float = 0.05
    """Passages added, changed or removed in a month, as a share of the corpus. Default: assumption,
    edit it."""
    queries_per_month: float = 100_000.0
    """Queries a month. Default: assumption, edit it."""

    def __post_init__(self) -> None:
        _number("facts", "test_queries", self.test_queries, low=1)
        for name in ("passages", "train_labels", "corpus_change_per_month", "queries_per_month"):
            _number("facts", name, getattr(self, name), low=0)
        for name in ("passage_tokens", "query_tokens"):
            _number("facts", name, getattr(self, name), low=1)
        shares = ("bm25_recall_10", "base_dense_recall_10", "base_hybrid_recall_10")
        for name in (*shares, "base_hybrid_recall_100", "truncated_passages"):
            _number("facts", name, getattr(self, name), low=0, high=1)
        if self.serves not in _SERVES:
            raise ConfigError(f"facts.serves: found {self.serves!r}; allowed: {', '.join(_SERVES)}")
        if self.base_hybrid_recall_100 < self.base_hybrid_recall_10:
            raise ConfigError(
                f"facts.base_hybrid_recall_100: {self.base_hybrid_recall_100} is below "
                f"base_hybrid_recall_10 {self.base_hybrid_recall_10}, which cannot be"
            )

    @property
    def served_recall_10(self) -> float:
        """recall@10 of what answers queries today."""
        return {
            "bm25": self.bm25_recall_10,
            "dense": self.base_dense_recall_10,
            "hybrid": self.base_hybrid_recall_10,
        }[self.serves]

    @property
    def headroom(self) -> float:
        """What the base hybrid misses at 10: 1 - recall@10."""
        return 1.0 - self.base_hybrid_recall_10

    @property
    def rerank_headroom(self) -> float:
        """What reranking 100 passages can win at most: recall@100 - recall@10."""
        return self.base_hybrid_recall_100 - self.base_hybrid_recall_10

    @property
    def deviation(self) -> float:
        """Standard deviation over queries of the paired difference, in (0, 1].

        From the interval of `tuned`, where it has a width: half-width * sqrt(n) / 1.96; else
        `dataset.power.PAIRED_DEVIATION` (.337, seen on real pairs of systems).
        """
        if self.tuned is None or self.tuned.low == self.tuned.high:
            return PAIRED_DEVIATION
        half = (self.tuned.high - self.tuned.low) / 2.0
        return min(1.0, half * math.sqrt(self.test_queries) / 1.96)

    @property
    def detectable(self) -> float:
        """Smallest true difference of recall@10 that the test queries most likely show."""
        return smallest_difference(self.test_queries, deviation=self.deviation)


@dataclass(frozen=True)
class Prices:
    """What work, machines and answers cost. Money is in `currency`; every figure may be edited.

    Raises:
        ConfigError: a price is not a number from 0 to 1e12, or what is divided by is below 1e-6.
    """

    currency: str = "USD"
    engineer_hour: float = 100.0
    """An engineer's hour. Assumption, edit it."""
    label_hour: float = 40.0
    """An hour of somebody who judges passages. Assumption, edit it."""
    labels_per_hour: float = 60.0
    """Queries judged in an hour. Assumption, edit it."""
    core_hour: float = 0.05
    """One CPU core for an hour. Assumption (rented machines), edit it."""
    memory_gb_month: float = 3.0
    """One GB of memory for a month. Assumption (rented machines), edit it."""
    tokens_per_core_second: float = 4_000.0
    """Tokens that one core encodes in a second. Measured with bge-small: 250,000 in half a minute on 2
    cores (`pipeline/general.py`). A cross-encoder of its size (12 layers of 384) reads as many."""
    train_core_seconds_per_pair: float = 0.42
    """Core-seconds of a whole training, for each pair. Measured with configs/quickstart.yaml: 333.5 s
    on 2 cores for 1,589 pairs."""
    search_core_seconds: float = 0.0066
    """Core-seconds of one hybrid search without the encoding. Measured: `hybrid_p50_ms_100k` of
    eval/results/index.json, 100,000 passages."""
    bytes_per_passage: float = 2_071.0
    """Bytes of a hybrid index for each passage. Measured: `bytes_per_passage_100k` of
    eval/results/index.json."""
    rerank_passages: float = 100.0
    """Passages that a reranker reads for each query; as deep as the ceiling recall@100."""
    hours_chunking: float = 8.0
    """Engineer's hours to cut the passages anew and check them. Assumption, edit it."""
    hours_hybrid: float = 8.0
    """Engineer's hours to add a hybrid search. Assumption, edit it."""
    hours_rerank: float = 8.0
    """Engineer's hours to add a reranker. Assumption, edit it."""
    hours_tune: float = 16.0
    """Engineer's hours to tune, check and ship an embedder. Assumption, edit it."""
    hours_retune: float = 2.0
    """Engineer's hours to tune again with the same recipe. Assumption, edit it."""
    retune_after: float = 0.30
    """Share of the corpus that changes before one tunes again. Assumption, edit it."""
    value_per_find: float = 0.05
    """What it is worth that one more query has its passage among the first ten. Assumption, edit it:
    every break-even depends on it."""

    def __post_init__(self) -> None:
        if not (isinstance(self.currency, str) and self.currency.isprintable()):
            raise ConfigError(f"prices.currency: found {self.currency!r}; a short name is needed")
        divisors = ("labels_per_hour", "tokens_per_core_second", "retune_after")
        for one in fields(self):
            if one.name != "currency":
                low = _SMALLEST if one.name in divisors else 0.0
                _number("prices", one.name, getattr(self, one.name), low=low)


@dataclass(frozen=True)
class Limits:
    """Where the rules of `advise` turn. Shares; every one may be edited."""

    enough: float = 0.95
    """recall@10 that needs no further work. Assumption, edit it."""
    least_gain: float = 0.01
    """Gain of recall@10 that is worth having. Assumption: one point."""
    plausible_gain: float = 0.05
    """What an unmeasured option is given credit for, at most. Tuning on labels won .225 on cwe and
    .199 on hpo, tuning without labels .014 and .029 (eval/results/main_*.json): between the two."""
    truncated: float = 0.10
    """Share of cut passages from which chunking comes first. Assumption, edit it."""
    train_labels: int = MIN_TRAIN_PAIRS
    """Train pairs under which tuning may win little (`dataset.power.MIN_TRAIN_PAIRS`)."""
    changing: float = 0.01
    """Monthly change of the corpus from which its facts count as changing. Assumption, edit it."""
    stale: float = 0.05
    """Share of facts that may be out of date before weights that hold them are trained again.
    Assumption, edit it."""

    def __post_init__(self) -> None:
        for name in ("enough", "truncated", "changing"):
            _number("limits", name, getattr(self, name), low=0, high=1)
        for name in ("least_gain", "plausible_gain", "stale"):
            _number("limits", name, getattr(self, name), low=_SMALLEST, high=1)
        _number("limits", "train_labels", self.train_labels, low=0)


def facts_of(
    document: Mapping[str, Any], *, source: str, serves: Serves = "dense"
) -> dict[str, Any]:
    """The facts that a results document holds: report.json of a run, or that of `evaluate`.

    Args:
        document: The results document.
        source: What to call it in a message.
        serves: What answers queries today; the gain of a hybrid is over that, where it was measured.

    Returns:
        Fields of `Facts` by name; give them, with those of `read_inputs`, to `assemble`.

    Raises:
        DataError: the document lacks a system or a count.
    """
    try:
        systems, data = document["systems"], document["dataset"]
        side = "base_" if "base_hybrid" in systems else ""
        dense, hybrid = systems[f"{side}dense"], systems[f"{side}hybrid"]
        found: dict[str, Any] = {
            "passages": data["passages"],
            "test_queries": data["test_queries"] if "test_queries" in data else data["queries"],
            "bm25_recall_10": systems["bm25"]["recall@10"],
            "base_dense_recall_10": dense["recall@10"],
            "base_hybrid_recall_10": hybrid["recall@10"],
            "base_hybrid_recall_100": hybrid["recall@100"],
        }
        gains = {
            "tuned": ("tuned_hybrid", "base_hybrid"),
            "hybrid": (f"{side}hybrid", "bm25" if serves == "bm25" else f"{side}dense"),
            "reranked": (f"{side}hybrid_rerank", f"{side}hybrid"),
        }
        for row in document.get("differences", ()):
            for name, pair in gains.items():
                if (row["system"], row["against"], row["metric"]) == (*pair, _METRIC):
                    low, high = row["ci"]
                    found[name] = Gain(row["delta"], low, high, row["p"])
        if serves == "hybrid":
            found.pop("hybrid", None)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{source}: not a results document with BM25, a dense system and a hybrid ({error} is "
            "missing or damaged); give report.json of a run, or what `evaluate --json` prints"
        ) from error
    if "train_pairs" in data:
        found["train_labels"] = data["train_pairs"]
    if "passage" in document.get("truncation", {}):
        found["truncated_passages"] = document["truncation"]["passage"]
    return found


def read_inputs(path: Path) -> dict[str, dict[str, Any]]:
    """Read the sections `facts`, `prices` and `limits` of a YAML or JSON file.

    Raises:
        ConfigError: no such file, not YAML, an unknown section, or one that is no mapping.
    """
    raw = read(path)
    sections = {"facts", "prices", "limits"}
    if unknown := sorted(set(raw) - sections, key=str):
        raise ConfigError(
            f"{path}: unknown section {unknown[0]!r}; allowed: {', '.join(sorted(sections))}"
        )
    for name, values in raw.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {name}: a mapping is needed, found {values!r}")
    return raw


def assemble(
    measured: Mapping[str, Any], edited: Mapping[str, Mapping[str, Any]], *, source: str
) -> tuple[Facts, Prices, Limits]:
    """Join measured facts and an edited file, which wins, to what `advise` takes.

    Args:
        measured: Fields of `Facts`, from `facts_of`.
        edited: Sections, from `read_inputs`; may be empty.
        source: The edited file, for messages.

    Raises:
        ConfigError: an unknown key (the nearest one is named), a value that is not allowed, or a fact
            that neither brings.
    """
    facts = {**measured, **edited.get("facts", {})}
    for name in ("tuned", "hybrid", "reranked"):
        if facts.get(name) is not None and not isinstance(facts[name], Gain):
            facts[name] = _gain(facts[name], where=f"{source}: facts.{name}")
    _check_keys(Facts, facts, where=f"{source}: facts")
    required = [one.name for one in fields(Facts) if one.default is MISSING]
    if missing := [name for name in required if name not in facts]:
        raise ConfigError(
            f"{source}: facts.{missing[0]} is needed; needed are {', '.join(required)}"
        )
    return (
        Facts(**facts),
        _edited(Prices(), edited.get("prices", {}), where=f"{source}: prices"),
        _edited(Limits(), edited.get("limits", {}), where=f"{source}: limits"),
    )


def _gain(values: Any, *, where: str) -> Gain:
    if not isinstance(values, dict) or set(values) != {"delta", "low", "high", "p"}:
        found = list(values) if isinstance(values, dict) else values
        raise ConfigError(f"{where}: found {found!r}; delta, low, high and p are needed")
    return Gain(**values)


def _edited(section: _Section, values: Mapping[str, Any], *, where: str) -> _Section:
    _check_keys(type(section), values, where=where)
    return replace(section, **values)


def _check_keys(kind: type[Any], values: Mapping[str, Any], *, where: str) -> None:
    known = [one.name for one in fields(kind)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise ConfigError(f"{where}.{key}: unknown key; did you mean {near[0]}?")


def _number(section: str, name: str, value: Any, *, low: float, high: float = _LARGEST) -> None:
    """Raise ConfigError unless a value is a number in [low, high]."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high):
        raise ConfigError(
            f"{section}.{name}: found {value!r}; a number from {low:g} to {high:g} is allowed"
        )
