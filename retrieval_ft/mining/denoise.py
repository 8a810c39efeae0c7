"""Doubt mined negatives with a cross-encoder: what it takes for relevant is no negative.

Candidates are passages that nobody judged, and some of them answer the query (RocketQA, arXiv
2010.08191). The rule is CADET's (arXiv 2505.19274; `threshold_score` in its code): a passage that a
cross-encoder scores over 0.6 x the score of the positive is not contrasted with it. The scores stay
on the pairs, for distillation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retrieval_ft.config import MiningConfig
from retrieval_ft.dataset import Corpus, Negative, Pair, Pairs, Qrels, Queries
from retrieval_ft.encoder.cross_encoder import probability

Scorer = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float32]]
"""Queries and passages, side by side, to raw scores (logits), float32 [n]."""
Views = Mapping[str, Mapping[str, str]]
"""`Dataset.views`: query id -> passage id -> the text that training sees in its place."""

Logits = dict[tuple[str, str], float]
"""(query id, passage id) -> raw score."""


@dataclass(frozen=True)
class Denoised:
    """Pairs with the negatives that the cross-encoder let pass, and the account of the others."""

    pairs: Pairs
    """Sorted by query as they came, then by positive. `dropped` is the account of mining with the
    reasons of this step added: false_negative, relabelled, surplus (more than was asked for)."""
    qrels: Qrels
    """The judgements, with every relabelled passage at grade 1."""
    floor: float
    """Median logit of the known positives; NaN where there are none."""
    rungs: Mapping[str, int]
    """denoise_relaxed: negatives taken back because too few were left. denoise_short: pairs that
    still have fewer than were asked for."""
    dropped: tuple[Mapping[str, str | float], ...]
    """Every false negative: query_id, positive_id, passage_id, score, reason, teacher."""
    relabelled: tuple[Mapping[str, str | float], ...]
    """Every new positive: query_id, passage_id, score, teacher."""


def denoise(
    pairs: Pairs,
    *,
    queries: Queries,
    corpus: Corpus,
    qrels: Qrels,
    scorer: Scorer,
    config: MiningConfig,
    views: Views | None = None,
) -> Denoised:
    """Drop (or relabel) likely false negatives and keep `config.negatives` of each pair.

    With p = sigmoid(logit), a candidate of a query is a false negative if

        p(candidate) > denoise_threshold * p(reference)

    where the reference is the lowest logit of the query's positives, or the median of all known
    positives where that is higher. Without that floor a positive which the cross-encoder rejects
    would make false negatives of everything: on `cwe` (60 dev queries, BM25's top 20, the MS MARCO
    model) half of the positives have p < 0.02. There, with one positive of a query at a time hidden
    among the candidates, 45% of the hidden ones are caught for 21% of the others; 70% for 47%
    without a floor, 57% for 40% with the lower quartile.

    `denoise="relabel"` makes a candidate that scores above every positive of its query, and above
    the floor, a positive of it: a pair more, with the same negatives, and a judgement more. What the
    labels judge already is not relabelled.

    A pair left with too few takes back false negatives that score below the reference, the lowest
    first; after that it stays short. Both are counted.

    Args:
        pairs: the pairs, each with more negatives than are to be kept, hardest first.
        queries: texts of the queries of the pairs.
        corpus: texts of the passages.
        qrels: judgements of these queries.
        scorer: `CrossEncoder.scores`; asked once, for all that is needed.
        config: negatives, denoise, denoise_threshold.
        views: `Dataset.views`: what to score in place of a passage.
    """
    known = {(pair.query_id, pair.positive_id) for pair in pairs.items}
    candidates = {(pair.query_id, n.passage_id) for pair in pairs.items for n in pair.negatives}
    logits = ask(scorer, known | candidates, queries=queries, corpus=corpus, views=views)
    floor = float(np.median([logits[key] for key in known])) if known else float("nan")
    run = _Run(logits, floor, qrels, config)
    by_query: dict[str, list[Pair]] = {}
    for pair in pairs.items:
        by_query.setdefault(pair.query_id, []).append(pair)
    items = [pair for group in by_query.values() for pair in run.of_query(group)]
    return Denoised(
        Pairs(tuple(items), _sum(pairs.dropped, run.counts)),
        Qrels(run.grades()),
        floor,
        dict(sorted(run.rungs.items())),
        tuple(run.dropped),
        tuple(run.relabelled),
    )


def ask(
    scorer: Scorer,
    keys: Iterable[tuple[str, str]],
    *,
    queries: Queries,
    corpus: Corpus,
    views: Views | None = None,
) -> Logits:
    """Score (query id, passage id) pairs in one go."""
    unique = sorted(set(keys))
    if not unique:
        return {}
    passages = [text_of(*key, corpus=corpus, views=views) for key in unique]
    scores = scorer([queries.text_of[query_id] for query_id, _ in unique], passages)
    return dict(zip(unique, scores.tolist(), strict=True))


def text_of(query_id: str, passage_id: str, *, corpus: Corpus, views: Views | None = None) -> str:
    """What training sees of a passage beside a query: its view, else the passage."""
    view = (views or {}).get(query_id, {}).get(passage_id)
    return corpus.passages[corpus.index_of[passage_id]] if view is None else view


def _sum(before: Mapping[str, int], now: Counter[str]) -> dict[str, int]:
    return dict(sorted((Counter(before) + now).items()))


class _Run:
    """Holds the account while queries are gone through one by one."""

    def __init__(self, logits: Logits, floor: float, qrels: Qrels, config: MiningConfig) -> None:
        self.logits, self.floor, self.qrels, self.config = logits, floor, qrels, config
        self.counts: Counter[str] = Counter()
        self.rungs: Counter[str] = Counter()
        self.dropped: list[Mapping[str, str | float]] = []
        self.relabelled: list[Mapping[str, str | float]] = []

    def of_query(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs of one query with what is kept, its new positives among them."""
        query_id = pairs[0].query_id
        positives = [self.logits[query_id, pair.positive_id] for pair in pairs]
        fresh = self._relabel(pairs, best=max(positives))
        kept = [self._keep(pair, fresh, weakest=min(positives)) for pair in pairs]
        for passage_id, (row, score) in fresh.items():
            teacher = self.logits[query_id, passage_id]
            kept.append(
                replace(
                    kept[row],
                    positive_id=passage_id,
                    positive_score=score,
                    positive_teacher=teacher,
                )
            )
            self.relabelled.append(
                {
                    "query_id": query_id,
                    "passage_id": passage_id,
                    "score": round(score, 6),
                    "teacher": round(teacher, 4),
                }
            )
        return sorted(kept, key=lambda pair: pair.positive_id)

    def grades(self) -> dict[str, dict[str, int]]:
        """The judgements with the relabelled passages in them."""
        grades = {query_id: dict(row) for query_id, row in self.qrels.grades.items()}
        for row in self.relabelled:
            grades.setdefault(str(row["query_id"]), {})[str(row["passage_id"])] = 1
        return grades

    def _relabel(self, pairs: Sequence[Pair], *, best: float) -> dict[str, tuple[int, float]]:
        """Candidates that become positives: id -> (row of a pair that held it, cosine)."""
        fresh: dict[str, tuple[int, float]] = {}
        if self.config.denoise != "relabel":
            return fresh
        query_id = pairs[0].query_id
        judged = self.qrels.grades.get(query_id, {})
        for row, pair in enumerate(pairs):
            for each in pair.negatives:
                logit = self.logits[query_id, each.passage_id]
                if logit > max(best, self.floor) and each.passage_id not in judged:
                    fresh.setdefault(each.passage_id, (row, each.score))
        return fresh

    def _keep(self, pair: Pair, fresh: Mapping[str, object], *, weakest: float) -> Pair:
        """One pair with its negatives, hardest first, and every drop counted."""
        wanted = self.config.negatives
        rest = [each for each in pair.negatives if each.passage_id not in fresh]
        logits = [self.logits[pair.query_id, each.passage_id] for each in rest]
        reference = max(weakest, self.floor)
        limit = self.config.denoise_threshold * float(probability(reference))
        doubted = np.flatnonzero(probability(logits) > limit).tolist()
        survivors = [row for row in range(len(rest)) if row not in doubted]
        spare = sorted((row for row in doubted if logits[row] < reference), key=logits.__getitem__)
        taken_back = spare[: max(0, wanted - len(survivors))]
        kept = sorted([*survivors[:wanted], *taken_back])
        lost = [row for row in doubted if row not in taken_back]
        self.counts.update(
            relabelled=len(pair.negatives) - len(rest),
            surplus=len(survivors[wanted:]),
            false_negative=len(lost),
        )
        self.rungs.update(denoise_relaxed=len(taken_back), denoise_short=int(len(kept) < wanted))
        self.dropped += [_drop(pair, rest[row], logits[row]) for row in lost]
        return replace(
            pair,
            negatives=tuple(replace(rest[row], teacher=logits[row]) for row in kept),
            positive_teacher=self.logits[pair.query_id, pair.positive_id],
        )


def _drop(pair: Pair, negative: Negative, logit: float) -> dict[str, str | float]:
    return {
        "query_id": pair.query_id,
        "positive_id": pair.positive_id,
        "passage_id": negative.passage_id,
        "score": round(negative.score, 6),
        "reason": "false_negative",
        "teacher": round(logit, 4),
    }
