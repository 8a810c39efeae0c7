"""The systems of one encoder: its ranking, its hybrids with BM25, and the fusion that dev chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset import Qrels, Ranking, Split
from retrieval_ft.evaluation import evaluate
from retrieval_ft.index import DenseIndex, DenseSpec, FusionSpec, depth_for, fuse
from retrieval_ft.pipeline.workbench import Workbench, dense_index, dense_ranking

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder
    from retrieval_ft.encoder.protocol import TextEncoder

_WEIGHTS = [step / 20 for step in range(21)]
_HARD = 10


@dataclass(frozen=True)
class FusionCurve:
    """What dev says of each fusion: recall@10 + nDCG@10, RRF first, then convex by `dense_weight`."""

    tried: tuple[tuple[FusionSpec, float], ...]

    @property
    def best(self) -> FusionSpec:
        """The best one; of equals the one nearest to even weights."""
        return max(self.tried, key=lambda one: (one[1], -abs(one[0].dense_weight - 0.5)))[0]

    def facts(self, side: str) -> dict[str, Any]:
        """The curve as JSON values, for a plot."""
        (_, rrf), *convex = self.tried
        best = self.best
        return {
            "side": side,
            "metric": "recall@10 + ndcg@10 on dev",
            "weights": [spec.dense_weight for spec, _ in convex],
            "values": [merit for _, merit in convex],
            "rrf": rrf,
            "chosen": {"kind": best.method, "dense_weight": best.dense_weight},
        }


@dataclass(frozen=True)
class Systems:
    """Rankings of the systems of one encoder on one split, and the fusion between them."""

    dense: Ranking
    hybrid: Ranking
    fusion: FusionSpec
    rrf: Ranking
    """Hybrid by RRF, which nobody has to choose."""
    no_prompt: Ranking | None = None
    """Dense, of queries without the model's query prompt; None where it has none."""
    curve: FusionCurve | None = None
    """Of dev; None where the fusion was given, or there is no dev."""


def fusion_curve(lexical: Ranking, dense: Ranking, qrels: Qrels, *, k: int) -> FusionCurve:
    """Try RRF, and convex fusion at 21 weights, on judged queries.

    A fusion keeps the depth that it was measured at, so that an index which searches by it gives what
    was measured.
    """
    depth = depth_for(k)
    specs = [FusionSpec(depth=depth), *(FusionSpec("convex", w, depth) for w in _WEIGHTS)]

    def merit(spec: FusionSpec) -> float:
        fused = fuse(lexical, dense, spec=spec, k=k)
        found = evaluate(fused, qrels, metrics=("recall@10", "ndcg@10"))
        return found.mean("recall@10") + found.mean("ndcg@10")

    return FusionCurve(tuple((spec, merit(spec)) for spec in specs))


def rank_systems(
    bench: Workbench,
    encoder: TextEncoder,
    *,
    fusion: FusionSpec | None = None,
    no_prompt: Encoder | None = None,
) -> Systems:
    """Rank the test queries by an encoder and by its hybrids with BM25.

    Args:
        bench: The dataset.
        encoder: The model.
        fusion: Chosen on dev where none is given; a dataset without dev gets RRF.
        no_prompt: The model from `without_query_prompt`, to be ranked by as well.
    """
    k = bench.config.evaluation.depth
    depth = depth_for(k)
    whole = dense_index(encoder, bench.dataset.corpus)

    def dense_of(split: Split) -> DenseIndex:
        corpus = bench.corpus_of(split)
        return whole if corpus is bench.dataset.corpus else dense_index(encoder, corpus)

    def sides(split: Split, index: DenseIndex) -> tuple[Ranking, Ranking]:
        dense = dense_ranking(encoder, index, bench.dataset.queries_of(split), k=depth)
        return bench.lexical_ranking(split, k=depth), dense

    even, curve = FusionSpec(depth=depth), None
    if fusion is None and "dev" in bench.dataset.qrels:
        found = sides("dev", dense_of("dev"))
        curve = fusion_curve(*found, bench.dataset.qrels["dev"], k=k)
        fusion = curve.best
    fusion = fusion or even
    index = dense_of("test")
    lexical, dense = sides("test", index)
    queries = bench.dataset.queries_of("test")
    return Systems(
        _cut(dense, k),
        fuse(lexical, dense, spec=fusion, k=k),
        fusion,
        rrf=fuse(lexical, dense, spec=even, k=k),
        no_prompt=dense_ranking(no_prompt, index, queries, k=k) if no_prompt else None,
        curve=curve,
    )


def without_query_prompt(encoder: Encoder) -> Encoder | None:
    """The same model as a stack calls it that forgets the query prompt; None where it has none."""
    if not encoder.prompts["query"]:
        return None
    return encoder.uncached(prompts={**encoder.prompts, "query": ""})


def at_dimensions(
    bench: Workbench, encoder: Encoder, dimensions: Sequence[int]
) -> dict[int, dict[str, float]]:
    """Dense recall@10 and nDCG@10 on test by the leading components of the vectors alone."""
    corpus, queries = bench.corpus_of("test"), bench.dataset.queries_of("test")
    vectors = encoder.encode(corpus.passages, role="passage")
    found = {}
    for dimension in dimensions:
        spec = DenseSpec(dimension=dimension if dimension < encoder.dimension else None)
        index = DenseIndex.build(corpus.ids, vectors, spec=spec)
        ranking = dense_ranking(encoder, index, queries, k=10)
        measured = evaluate(ranking, bench.dataset.qrels["test"], metrics=("recall@10", "ndcg@10"))
        found[dimension] = measured.means()
    return found


@dataclass(frozen=True)
class ScoredPairs:
    """(query, passage) pairs on which the scores of two models are laid beside each other."""

    queries: tuple[str, ...]
    passages: tuple[str, ...]
    relevant: npt.NDArray[np.bool_]
    """Which pairs are judged relevant, [pairs]; the others are among BM25's first hits."""

    def scores(self, encoder: Encoder) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Cosines of the relevant pairs and of the others, float32 each."""
        texts = list(dict.fromkeys(self.queries)), list(dict.fromkeys(self.passages))
        left = encoder.encode(texts[0], role="query")
        right = encoder.encode(texts[1], role="passage")
        places = [{text: row for row, text in enumerate(side)} for side in texts]
        rows = np.array([places[0][text] for text in self.queries])
        columns = np.array([places[1][text] for text in self.passages])
        found = np.einsum("ij,ij->i", left[rows], right[columns])
        return found[self.relevant], found[~self.relevant]


def scored_pairs(bench: Workbench, lexical: Ranking) -> ScoredPairs:
    """Each test query with its relevant passages, and with BM25's first hits that are not.

    They are the same for every model and hard for words alone.
    """
    qrels, corpus = bench.dataset.qrels["test"], bench.corpus_of("test")
    rows = []
    for query_id in qrels.query_ids:
        relevant = qrels.relevant(query_id)
        others = [p for p in lexical.ids(query_id) if p not in relevant][:_HARD]
        known = [p for p in sorted(relevant) if p in corpus.index_of]
        rows += [(query_id, p, True) for p in known] + [(query_id, p, False) for p in others]
    text_of = bench.dataset.queries.text_of
    return ScoredPairs(
        tuple(text_of[q] for q, _, _ in rows),
        tuple(corpus.passages[corpus.index_of[p]] for _, p, _ in rows),
        np.array([flag for _, _, flag in rows], np.bool_),
    )


def _cut(ranking: Ranking, k: int) -> Ranking:
    return Ranking({q: (ids[:k], scores[:k]) for q, (ids, scores) in ranking.hits.items()})
