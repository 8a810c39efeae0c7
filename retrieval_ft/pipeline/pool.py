"""Queries and the passages they are scored against: what is measured again and again in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_ft.dataset import Corpus, Qrels, Queries
from retrieval_ft.evaluation import PerQuery, evaluate
from retrieval_ft.pipeline.workbench import dense_index, dense_ranking

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder

RECALL = "recall@10"
NDCG = "ndcg@10"


@dataclass(frozen=True)
class Pool:
    """Judged queries with a pool of passages, a whole corpus or a part of one."""

    corpus: Corpus
    queries: Queries
    qrels: Qrels

    def measure(self, encoder: Encoder) -> PerQuery:
        """Dense recall@10 and nDCG@10 of each query."""
        ranking = dense_ranking(encoder, dense_index(encoder, self.corpus), self.queries, k=10)
        return evaluate(ranking, self.qrels, metrics=(RECALL, NDCG))

    def score(self, encoder: Encoder) -> dict[str, float]:
        """The means; `score` is the recall, nDCG deciding between equals."""
        found = self.measure(encoder).means()
        return {"score": found[RECALL] + found[NDCG] / 1000, **found}
