"""What a batch is scored by: InfoNCE, a teacher's list or margins, each under one mask.

Everything here is a function of vectors and of who may be whose negative, so that it is the same
whether the vectors' graph was kept, cached, or gathered from other processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from retrieval_ft.config import TrainingConfig


@dataclass(frozen=True)
class Objective:
    """The scalar loss of a batch's vectors. Fields as in `TrainingConfig`."""

    temperature: float
    loss: Literal["infonce", "listwise", "margin_mse"] = "infonce"
    teacher_temperature: float = 1.0
    info_nce_weight: float = 0.1
    bidirectional: bool = False
    self_score_margin: float | None = None
    matryoshka: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: TrainingConfig) -> Objective:
        """The objective that a config asks for."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})

    def __call__(
        self,
        queries: Tensor,
        passages: Tensor,
        *,
        target: Tensor,
        masked: Tensor,
        teacher: Tensor | None = None,
    ) -> Tensor:
        """Mean over the rows, and over the dimensions that `matryoshka` adds to the whole one.

        Args:
            queries: float32 [b, d], L2-normalised.
            passages: float32 [m, d], L2-normalised, distinct.
            target: int64 [b], the row in `passages` of each query's positive.
            masked: bool [b, m], True where a passage is no negative of a query (another positive).
            teacher: float32 [b, m], NaN where the teacher gave no score. A row without two scores
                is scored by InfoNCE alone.
        """
        with torch.no_grad():
            masked = masked | self._suspects(queries @ passages.T, target)
        parts = []
        for size in (queries.shape[1], *self.matryoshka):
            cut = (functional.normalize(side[:, :size], dim=-1) for side in (queries, passages))
            first, second = (queries, passages) if size == queries.shape[1] else cut
            scores = first @ second.T
            parts.append(self._of_scores(scores, target, masked, teacher))
        return torch.stack(parts).mean()

    def _suspects(self, scores: Tensor, target: Tensor) -> Tensor:
        """Bool [b, m]: a passage far above the query's positive is likely a positive without a label.

        ms-swift masks by the same rule, s_neg > s_pos + 0.1.
        """
        if self.self_score_margin is None:
            return torch.zeros_like(scores, dtype=torch.bool)
        return scores > scores.gather(1, target[:, None]) + self.self_score_margin

    def _of_scores(
        self, scores: Tensor, target: Tensor, masked: Tensor, teacher: Tensor | None
    ) -> Tensor:
        contrast = info_nce(scores, target=target, masked=masked, temperature=self.temperature)
        if self.bidirectional:
            back = reverse_info_nce(
                scores, target=target, masked=masked, temperature=self.temperature
            )
            contrast = (contrast + back) / 2
        if self.loss == "infonce" or teacher is None:
            return contrast.mean()
        known = ~teacher.isnan() & ~masked
        learn = _LEARN[self.loss]
        taught = learn(scores / self.temperature, teacher / self.teacher_temperature, target, known)
        has = (known.sum(1) > 1) & known.gather(1, target[:, None])[:, 0]
        return torch.where(has, taught + self.info_nce_weight * contrast, contrast).mean()


def info_nce(scores: Tensor, *, target: Tensor, masked: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each query's positive among the passages that may be its negatives.

    Source: https://arxiv.org/abs/1807.03748.

    Args:
        scores: float32 [b, m], cosines.
        target: int64 [b], the column of each query's positive.
        masked: bool [b, m], True where a passage is no negative of a query.
        temperature: divides the cosines.

    Returns:
        float32 [b].
    """
    logits = (scores / temperature).masked_fill(masked, -torch.inf)
    return functional.cross_entropy(logits, target, reduction="none")


def reverse_info_nce(
    scores: Tensor, *, target: Tensor, masked: Tensor, temperature: float
) -> Tensor:
    """The same from the positives' side: each one's query among the queries of the batch.

    A query is no negative of a passage where the passage is none of the query, or is its own positive.

    Returns:
        float32 [b].
    """
    shared = target[:, None] == target[None, :]
    shared.fill_diagonal_(fill_value=False)
    return info_nce(
        scores[:, target].T,
        target=torch.arange(len(target), device=target.device),
        masked=masked[:, target].T | shared,
        temperature=temperature,
    )


def listwise(logits: Tensor, teacher: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """KL divergence of the model's distribution over a query's passages from the teacher's.

    Args:
        logits: float32 [b, m], the model's scores.
        teacher: float32 [b, m], the teacher's.
        target: unused; the teacher ranks the positive like any passage.
        known: bool [b, m], the passages that both distributions are over.

    Returns:
        float32 [b]; 0 for a row without a known passage.
    """
    theirs = teacher.masked_fill(~known, -torch.inf).log_softmax(1)
    ours = logits.masked_fill(~known, -torch.inf).log_softmax(1)
    # Where nothing is known both are NaN, and no gradient may come from there.
    gap = torch.where(known, theirs - ours, 0.0)
    return (torch.where(known, theirs, -torch.inf).exp() * gap).sum(1)


def margin_mse(logits: Tensor, teacher: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Mean squared error of each score's distance from the positive's (arXiv 2010.02666).

    Returns:
        float32 [b]; 0 for a row without a known negative.
    """
    column = target[:, None]
    known = known.scatter(1, column, value=False)
    ours = logits.gather(1, column) - logits
    theirs = teacher.gather(1, column) - teacher
    error = torch.where(known, (ours - theirs.nan_to_num()) ** 2, 0.0)
    return error.sum(1) / known.sum(1).clamp(min=1)


_LEARN: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "listwise": listwise,
    "margin_mse": margin_mse,
}
