"""What was mined, as facts for a person to judge: scores, a rate of false negatives, examples.

Nothing is changed here. The rate is an estimate by a cross-encoder on a sample; twenty examples are
there because no estimate replaces reading. `audit_report` writes it all out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset import Corpus, Negative, Pair, Pairs, Queries
from retrieval_ft.mining.denoise import Logits, Scorer, Views, ask, text_of

ExampleKind = Literal["suspicious", "hardest", "typical"]
"""suspicious: of the sample, those that come first by `RULE` (without a cross-encoder: by cosine over
that of their positive). hardest: the highest cosines. typical: any."""
Drawn = tuple[Pair, Negative]

RULE = (
    "the cross-encoder scores the negative above the positive it was mined for, and above the "
    "median of the sampled positives"
)
_BINS = 40
_SHOWN: Mapping[ExampleKind, int] = {"suspicious": 7, "hardest": 7, "typical": 6}
_LONGEST = 280
_Z = 1.959963984540054  # 97.5% quantile of the normal distribution
_METRICS: Mapping[str, Callable[[npt.NDArray[np.float64]], Any]] = {
    "Mean": np.mean,
    "Median": np.median,
    "Std": lambda x: np.std(x, ddof=1) if len(x) > 1 else math.nan,
    "Min": np.min,
    "25%": lambda x: np.quantile(x, 0.25),
    "50%": lambda x: np.quantile(x, 0.50),
    "75%": lambda x: np.quantile(x, 0.75),
    "Max": np.max,
}


@dataclass(frozen=True)
class Row:
    """A line of the score table; None where it is not defined."""

    metric: str
    positive: float | None
    negative: float | None
    difference: float | None
    """Positive less negative, over all (positive, negative) of a pair."""


@dataclass(frozen=True)
class Histogram:
    """Cosines counted in bins of one width that the three kinds share."""

    edges: tuple[float, ...]
    """One more than there are bins; each bin holds its left edge, the last one both."""
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    random: tuple[int, ...]
    """Passages drawn at random for the queries."""


@dataclass(frozen=True)
class FalseNegatives:
    """The estimated share of mined negatives that are relevant, by `RULE`."""

    sampled: int
    """Negatives scored: one of each sampled pair, so that they are independent."""
    found: int
    rate: float
    low: float
    """Wilson's 95% interval, with `high`."""
    high: float
    denoised: bool
    """The negatives had been denoised with a cross-encoder before."""


@dataclass(frozen=True)
class Example:
    """A mined negative to read, texts shortened."""

    kind: ExampleKind
    query_id: str
    query: str
    positive_id: str
    positive: str
    positive_score: float
    negative_id: str
    negative: str
    negative_score: float
    positive_teacher: float | None
    negative_teacher: float | None


@dataclass(frozen=True)
class Audit:
    """Everything that is known of the pairs."""

    table: tuple[Row, ...]
    histogram: Histogram
    false_negatives: FalseNegatives | None
    """None where no cross-encoder was given, or nothing was sampled."""
    examples: tuple[Example, ...]
    dropped: Mapping[str, int]
    """Candidates that mining dropped, by reason."""


def audit(
    pairs: Pairs,
    *,
    random_scores: npt.NDArray[np.float32],
    queries: Queries,
    corpus: Corpus,
    scorer: Scorer | None,
    sample: int,
    seed: int,
    views: Views | None = None,
) -> Audit:
    """Describe mined pairs.

    Args:
        pairs: what is audited.
        random_scores: float32 [n], cosines of queries and random passages.
        queries: texts of the queries of the pairs.
        corpus: texts of the passages.
        scorer: `CrossEncoder.scores`; None where there is none.
        sample: pairs of which one negative is scored for the rate of false negatives.
        seed: of the sample and of the examples.
        views: `Dataset.views`.
    """
    generator = np.random.default_rng(seed)
    drawn = _draw(pairs, generator, sample=sample)
    keys = [(p.query_id, i) for p, n in drawn for i in (p.positive_id, n.passage_id)]
    teacher = ask(scorer, keys, queries=queries, corpus=corpus, views=views) if scorer else {}
    over = _over(drawn, teacher) if teacher else None

    def example(kind: ExampleKind, pair: Pair, negative: Negative) -> Example:
        query_id = pair.query_id
        return Example(
            kind=kind,
            query_id=query_id,
            query=_short(queries.text_of[query_id]),
            positive_id=pair.positive_id,
            positive=_short(text_of(query_id, pair.positive_id, corpus=corpus, views=views)),
            positive_score=pair.positive_score,
            positive_teacher=teacher.get((query_id, pair.positive_id), pair.positive_teacher),
            negative_id=negative.passage_id,
            negative=_short(text_of(query_id, negative.passage_id, corpus=corpus, views=views)),
            negative_score=negative.score,
            negative_teacher=teacher.get((query_id, negative.passage_id), negative.teacher),
        )

    return Audit(
        table=_table(pairs),
        histogram=_histogram(pairs, random_scores),
        false_negatives=_false_negatives(drawn, over) if over else None,
        examples=tuple(example(*each) for each in _choose(pairs, drawn, over, generator)),
        dropped=dict(pairs.dropped),
    )


def _draw(pairs: Pairs, generator: np.random.Generator, *, sample: int) -> list[Drawn]:
    """One negative, any, of each of `sample` pairs drawn without repetition."""
    held = [pair for pair in pairs.items if pair.negatives]
    rows = sorted(generator.permutation(len(held))[:sample])
    ranks = generator.random(len(rows))
    return [
        (held[row], held[row].negatives[int(rank * len(held[row].negatives))])
        for row, rank in zip(rows, ranks, strict=True)
    ]


def _table(pairs: Pairs) -> tuple[Row, ...]:
    """The table that sentence-transformers' `mine_hard_negatives` prints, over cosines."""
    columns = (
        np.array([pair.positive_score for pair in pairs.items], np.float64),
        np.array([n.score for pair in pairs.items for n in pair.negatives], np.float64),
        np.array(
            [p.positive_score - n.score for p in pairs.items for n in p.negatives], np.float64
        ),
    )
    rows = [Row("Count", len(columns[0]), len(columns[1]), None)]
    for metric, function in _METRICS.items():
        cells = [float(function(column)) if len(column) else math.nan for column in columns]
        rows.append(Row(metric, *(None if math.isnan(cell) else cell for cell in cells)))
    return tuple(rows)


def _histogram(pairs: Pairs, random_scores: npt.NDArray[np.float32]) -> Histogram:
    kinds = (
        np.array([pair.positive_score for pair in pairs.items], np.float64),
        np.array([n.score for pair in pairs.items for n in pair.negatives], np.float64),
        random_scores.astype(np.float64),
    )
    edges = np.histogram_bin_edges(np.concatenate(kinds), bins=_BINS)
    counts = [tuple(np.histogram(kind, bins=edges)[0].tolist()) for kind in kinds]
    return Histogram(tuple(edges.tolist()), *counts)


def _over(drawn: Sequence[Drawn], teacher: Logits) -> list[float]:
    """How far each drawn negative scores over its positive and over the median positive."""
    positives = [teacher[pair.query_id, pair.positive_id] for pair, _ in drawn]
    floor = float(np.median(positives))
    return [
        teacher[pair.query_id, negative.passage_id] - max(positive, floor)
        for (pair, negative), positive in zip(drawn, positives, strict=True)
    ]


def _false_negatives(drawn: Sequence[Drawn], over: Sequence[float]) -> FalseNegatives:
    found, total = sum(each > 0 for each in over), len(over)
    low, high = wilson(found, total)
    denoised = any(pair.positive_teacher is not None for pair, _ in drawn)
    return FalseNegatives(total, found, found / total, low, high, denoised)


def wilson(found: int, total: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share (Wilson 1927): (low, high), in [0, 1].

    Unlike the normal one it is right for small samples and for shares near 0. (0, 1) where `total`
    is 0.
    """
    if total == 0:
        return 0.0, 1.0
    share, square = found / total, _Z**2 / total
    centre = share + square / 2
    spread = _Z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    low, high = (centre - spread) / (1 + square), (centre + spread) / (1 + square)
    return (low if found else 0.0), (high if found < total else 1.0)


def _choose(
    pairs: Pairs,
    drawn: Sequence[Drawn],
    over: Sequence[float] | None,
    generator: np.random.Generator,
) -> list[tuple[ExampleKind, Pair, Negative]]:
    """Up to twenty negatives to read, each of another query."""
    found = [(pair, negative) for pair in pairs.items for negative in pair.negatives]
    if over is None:
        drawn = found
        over = [negative.score - pair.positive_score for pair, negative in found]
    orders: dict[ExampleKind, list[Drawn]] = {
        "suspicious": [drawn[row] for row in np.argsort(-np.array(over), kind="stable")],
        "hardest": sorted(found, key=lambda each: -each[1].score),
        "typical": [found[row] for row in generator.permutation(len(found))],
    }
    chosen: list[tuple[ExampleKind, Pair, Negative]] = []
    seen: set[str] = set()
    for kind, wanted in _SHOWN.items():
        taken = 0
        for pair, negative in orders[kind]:
            if taken < wanted and pair.query_id not in seen:
                seen.add(pair.query_id)
                chosen.append((kind, pair, negative))
                taken += 1
    return chosen


def _short(text: str) -> str:
    """The text on one line, cut to what a person reads at a glance."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1].rstrip() + "…"
