"""Positive-aware hard negatives: from the rankings of several sources to training pairs.

The judgements are laid out as arrays, negatives are selected block by block, and what was selected
becomes pairs with an account. The rules are in `select`, the scale of scores in `calibration`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.config import MiningConfig
from retrieval_ft.console import progress
from retrieval_ft.dataset import Corpus, Negative, Pair, Pairs, Qrels, Queries
from retrieval_ft.errors import DataError
from retrieval_ft.mining.calibration import Calibration, calibrate, cosines
from retrieval_ft.mining.candidates import IdOrder, Ints, Judged, Walks
from retrieval_ft.mining.select import DEEPER, REASONS, RUNGS, WINDOW, Dropped, Kept, Task, select
from retrieval_ft.mining.words import WordSets

Floats = npt.NDArray[np.float32]
Rankings = Mapping[str, Ints]

SHORT = "short"
_BLOCK = 1_024
"""Pairs whose candidates are held together."""
_THREADS = min(4, os.cpu_count() or 1)
"""That go through blocks of pairs at a time."""


@dataclass(frozen=True, eq=False)
class MinedPairs:
    """Pairs with negatives, the scale that judged them, and the account of mining."""

    pairs: Pairs
    """By query as the queries came, then by positive id. `dropped` counts candidates by reason."""
    calibration: Calibration
    kept: Kept
    """The negatives of `pairs` again, in columns."""
    dropped: Dropped
    """Every candidate that was looked at and not taken, in columns."""
    rungs: tuple[str, ...]
    """How far down the ladder each pair went for its first `config.negatives`: window, own_positive,
    deeper or random; short where even then there were fewer."""
    account: Mapping[str, int]
    """Pairs by rung."""


def mine(
    corpus: Corpus,
    queries: Queries,
    *,
    qrels: Qrels,
    rankings: Rankings,
    query_vectors: Floats,
    passage_vectors: Floats,
    config: MiningConfig,
    seed: int,
    keep: int | None = None,
    views: Mapping[tuple[str, str], Floats] | None = None,
) -> MinedPairs:
    """Give every (query, positive) its hard negatives; no pair is lost.

    Passages that the labels judge irrelevant come first. Then come the candidates, in the order of
    their reciprocal rank sum over the window (skip_top, depth] of each source, less known positives,
    scores over the ceiling, and passages with the words of a positive. The ceiling comes from the
    lowest score among a query's positives, so that all of them get the same negatives. A pair that
    finds too few goes down a ladder: the window by its own positive's score, the ranks up to
    2 x depth, random passages; the filters hold on every rung.

    Args:
        corpus: every passage; row i of `passage_vectors` is its i-th.
        queries: the train queries; row i of `query_vectors` is the i-th.
        qrels: judgements of these queries, all of passages in the corpus.
        rankings: of each source in `config.sources` but `random`: rows of passages, integers
            [q, any], best first, -1 at the end. The ladder uses 2 x depth of them.
        query_vectors: float32 [q, d], L2-normalised, of the base model.
        passage_vectors: float32 [p, d], L2-normalised, of the base model; may be a `np.memmap`.
        config: sources, window, scope, negatives, filter, duplicates.
        seed: of the random pairs that the scale is measured on, and of random passages.
        keep: negatives of a pair, `config.negatives` by default; more leave something for a
            cross-encoder to drop.
        views: (query id, passage id) -> float32 [d], the vector of what training sees in place of a
            positive (`Dataset.views`); its score counts, since the passage holds the query's words.

    Raises:
        DataError: no query has a relevant passage.
        ValueError: a source has no ranking, or one that does not fit queries and corpus.
    """
    order = IdOrder.of(corpus.ids)
    positives, given = _judgements(corpus, queries, qrels, order)
    scores = cosines(query_vectors, passage_vectors, positives[:, 0], positives[:, 1:])[:, 0]
    for place, (query, row) in enumerate(positives.tolist() if views else ()):
        seen = (views or {}).get((queries.ids[query], corpus.ids[row]))
        scores[place] = scores[place] if seen is None else query_vectors[query] @ seen
    calibration = calibrate(
        query_vectors,
        passage_vectors,
        queries=positives[:, 0],
        known=scores,
        floor_quantile=config.floor_quantile,
        seed=seed,
    )
    lowest = np.full(len(queries), np.inf, np.float32)
    np.minimum.at(lowest, positives[:, 0], scores)
    shape = len(queries), len(corpus)
    task = Task(
        query_vectors=query_vectors,
        passage_vectors=passage_vectors,
        order=order,
        queries=positives[:, 0],
        ceilings=calibration.ceilings(lowest[positives[:, 0]], config=config),
        own_ceilings=calibration.ceilings(scores, config=config),
        words=WordSets(corpus.passages),
        jaccard=config.duplicate_jaccard,
        low=config.skip_top,
        high=config.depth,
        keep=config.negatives if keep is None else keep,
        **_candidates(positives, given, rankings, config=config, seed=seed, shape=shape),
    )
    kept, dropped = _select(task)
    negatives = _negatives(kept, task, rankings, ids=corpus.ids)
    bounds = pairwise(np.searchsorted(kept.pairs, np.arange(len(scores) + 1)).tolist())
    rows = zip(positives.tolist(), scores.tolist(), bounds, strict=True)
    items = tuple(
        Pair(queries.ids[query], corpus.ids[row], score, tuple(negatives[first:last]))
        for (query, row), score, (first, last) in rows
    )
    rungs = _rungs(kept, pairs=len(items), negatives=config.negatives)
    account = {name: rungs.count(name) for name in (*RUNGS[WINDOW:], SHORT)}
    return MinedPairs(Pairs(items, _by_reason(dropped)), calibration, kept, dropped, rungs, account)


def _judgements(
    corpus: Corpus, queries: Queries, qrels: Qrels, order: IdOrder
) -> tuple[Ints, Ints]:
    """What is relevant and what is judged not to be: rows of (query, passage), int64 [n, 2] each.

    By query, then by passage id.
    """
    judged = [
        (row, corpus.index_of[passage_id], grade > 0)
        for row, query_id in enumerate(queries.ids)
        for passage_id, grade in qrels.grades.get(query_id, {}).items()
    ]
    rows = np.array(judged, np.int64).reshape(-1, 3)
    rows = rows[np.lexsort((order.places[rows[:, 1]], rows[:, 0]))]
    relevant = rows[:, 2] == 1
    if not relevant.any():
        raise DataError(
            f"none of the {len(queries)} train queries has a relevant passage, so there is no pair "
            "to mine negatives for; check the train qrels"
        )
    return rows[relevant, :2], rows[~relevant, :2]


def _candidates(
    positives: Ints,
    given: Ints,
    rankings: Rankings,
    *,
    config: MiningConfig,
    seed: int,
    shape: tuple[int, int],
) -> dict[str, Any]:
    """What a task says of candidates: which there are, and what the labels say of them."""
    in_scope = np.full(shape[1], config.scope == "all")
    in_scope[np.concatenate((positives[:, 1], given[:, 1]))] = True
    walks = Walks.of(np.flatnonzero(in_scope), queries=shape[0], seed=seed)
    return {
        "rankings": _sources(rankings, walks, config=config, shape=shape),
        "in_scope": in_scope,
        "walks": walks,
        "positives": Judged.of(positives, shape=shape),
        "given": Judged.of(given, shape=shape),
    }


def _sources(
    rankings: Rankings, walks: Walks, *, config: MiningConfig, shape: tuple[int, int]
) -> list[Ints]:
    """The ranking of each configured source; that of `random` is drawn."""
    queries, passages = shape
    found = []
    for source in config.sources:
        if source == "random":
            drawn = walks.passages(np.arange(queries), first=0, last=2 * config.depth)
            found.append(drawn)
            continue
        if source not in rankings:
            raise ValueError(f"mining.sources has {source!r}, but its ranking is not given")
        ranking = rankings[source]
        if len(ranking) != queries or ranking.max(initial=-1) >= passages:
            raise ValueError(
                f"the {source} ranking has {len(ranking)} rows with passages up to "
                f"{ranking.max(initial=-1)}, for {queries} queries and {passages} passages"
            )
        found.append(ranking)
    return found


def _select(task: Task) -> tuple[Kept, Dropped]:
    pairs = len(task.queries)
    blocks = [range(start, min(start + _BLOCK, pairs)) for start in range(0, pairs, _BLOCK)]
    found = []
    with progress("mining pairs", pairs) as bar, ThreadPoolExecutor(_THREADS) as pool:
        for block, part in zip(blocks, pool.map(partial(select, task), blocks), strict=True):
            found.append(part)
            bar.advance(len(block))
    kept, dropped = zip(*found, strict=True)
    return Kept(**_columns(kept)), Dropped(**_columns(dropped))


def _columns(parts: Sequence[Kept] | Sequence[Dropped]) -> dict[str, Any]:
    return {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(parts[0])
    }


def _negatives(kept: Kept, task: Task, rankings: Rankings, *, ids: Sequence[str]) -> list[Negative]:
    """The kept as values, each with the rank at which a source proposed it."""
    last = np.where(kept.rungs == DEEPER, 2 * task.high, task.high)
    columns = []
    for source in ("dense", "bm25"):
        ranks = np.zeros(len(kept.passages), np.int64)
        for start in range(0, len(ranks) if source in rankings else 0, _BLOCK):
            part = slice(start, start + _BLOCK)
            ranked = rankings[source][task.queries[kept.pairs[part]], : 2 * task.high]
            is_it = ranked == kept.passages[part, None]  # in one place of a row at most
            ranks[part] = is_it @ np.arange(1, ranked.shape[1] + 1)
        ranks[(ranks <= task.low) | (ranks > last)] = 0
        columns.append([rank or None for rank in ranks.tolist()])
    names = [ids[row] for row in kept.passages.tolist()]
    return list(map(Negative, names, kept.scores.tolist(), *columns))


def _rungs(kept: Kept, *, pairs: int, negatives: int) -> tuple[str, ...]:
    """The lowest rung that each pair needed for its first negatives."""
    starts = np.searchsorted(kept.pairs, np.arange(pairs))
    first = np.arange(len(kept.pairs)) - starts[kept.pairs] < negatives
    lowest = np.full(pairs, WINDOW)
    np.maximum.at(lowest, kept.pairs[first], kept.rungs[first])
    found = np.bincount(kept.pairs[first], minlength=pairs)
    names = np.array([*RUNGS, SHORT])
    return tuple(names[np.where(found < negatives, len(RUNGS), lowest)].tolist())


def _by_reason(dropped: Dropped) -> dict[str, int]:
    counts = np.bincount(dropped.reasons, minlength=len(REASONS)).tolist()
    return {name: n for name, n in sorted(zip(REASONS, counts, strict=True)) if n}
