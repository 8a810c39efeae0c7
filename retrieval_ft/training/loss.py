"""The loss of a collated batch: vectors of its distinct texts, then the objective over them.

The gradient is the one of the plain computation, in which every text of every row is encoded.

Source: GradCache, https://arxiv.org/abs/2101.06983.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from retrieval_ft.encoder.encoder import embed
from retrieval_ft.encoder.precision import Precision
from retrieval_ft.ranks import Ranks, gather_rows, ranks
from retrieval_ft.training.objective import Objective

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class BatchLoss(nn.Module):
    """The training loss over a collated batch.

    Where the batch's activations fit (`graph_tokens`), the graph of every micro-batch is kept and
    nothing is computed twice; a larger batch is done by GradCache: vectors first without a graph,
    then the gradient of each vector is carried through a second forward pass, micro-batch by
    micro-batch. Both give the gradient of the plain computation.

    Of several processes each encodes its share of the batch's texts and sees the vectors of all; the
    sum of their gradients (`sum_gradients`) is the gradient that one process would have.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        precision: Precision,
        objective: Objective,
        graph_tokens: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        self.objective = objective
        self.graph_tokens = graph_tokens
        self._limit: int | None = None
        self._largest = (0, 0)

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the scalar loss; its backward fills the gradients of the model.

        Args:
            batch: `micro_batches` (list of padded features), `place` int64 [t] (row of each distinct
                text in the micro-batches' order), `query_rows` int64 [b], `passages` (how many of
                the distinct texts, the last ones, are passages), `target`, `masked`; `teacher`
                where there is one; `frozen` float32 [passages, d] where only queries are encoded.
        """
        who = ranks()
        counts = [len(features["input_ids"]) for features in batch["micro_batches"]]
        micro = self._cut(_share(batch["micro_batches"], who))
        tokens = sum(features["input_ids"].numel() for features in micro)

        def score(vectors: Sequence[Tensor]) -> Tensor:
            own = torch.cat([self._no_vector, *vectors])
            return self._score(gather_rows(own, counts, who), batch)

        if tokens <= self.graph_tokens and micro:
            return score(self._embed(micro))
        return self._grad_cache(micro, score)

    def shrink(self) -> int | None:
        """After a batch did not fit in memory: halve the micro-batches from now on, by GradCache.

        Returns:
            Padded tokens of a micro-batch at most from now on; None where the largest one of the
            last batch was a single text already.
        """
        rows, tokens = self._largest
        if rows <= 1 and tokens > self.graph_tokens:
            return None
        self._limit = max(1, tokens // 2)
        self.graph_tokens = min(self.graph_tokens, self._limit)
        return self._limit

    def _cut(self, micro: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Micro-batches cut to the limit, the order of their rows unchanged."""
        pieces: list[dict[str, Tensor]] = []
        for features in micro:
            rows, width = features["input_ids"].shape
            size = rows if self._limit is None else max(1, min(rows, self._limit // width))
            for start in range(0, rows, size):
                pieces.append({k: tensor[start : start + size] for k, tensor in features.items()})
        shapes = (tuple(features["input_ids"].shape) for features in pieces)
        sizes = ((rows, rows * width) for rows, width in shapes)
        self._largest = max(sizes, key=lambda size: size[1], default=(0, 0))
        return pieces

    @property
    def _no_vector(self) -> Tensor:
        """What a process without a text of its own brings: float32 [0, d]."""
        return torch.empty((0, self.model.get_embedding_dimension()), device=self.model.device)

    def _embed(self, micro: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        with _trainable_attention(self.model):
            return embed(self.model, micro, self.precision)

    def _score(self, vectors: Tensor, batch: Mapping[str, Any]) -> Tensor:
        texts = vectors[batch["place"]]
        frozen: Tensor | None = batch.get("frozen")
        passages = texts[len(texts) - int(batch["passages"]) :] if frozen is None else frozen
        return self.objective(
            texts[batch["query_rows"]],
            passages,
            target=batch["target"],
            masked=batch["masked"],
            teacher=batch.get("teacher"),
        )

    def _grad_cache(
        self, micro: list[dict[str, Tensor]], score: Callable[[Sequence[Tensor]], Tensor]
    ) -> Tensor:
        from sentence_transformers.base.losses.gradcache import RandContext

        states, parts = [], []
        with torch.no_grad():
            for features in micro:
                states.append(RandContext(features["input_ids"]))
                parts += self._embed([features])
        leaves = [part.requires_grad_() for part in parts]
        with torch.enable_grad():
            loss = score(leaves)
        if not torch.is_grad_enabled():
            return loss.detach()
        gradients = torch.autograd.grad(loss, leaves) if leaves else ()

        def second_pass(upstream: Tensor) -> None:
            for features, state, gradient in zip(micro, states, gradients, strict=True):
                with state, torch.enable_grad():
                    vectors = self._embed([features])
                    torch.autograd.backward(vectors, [gradient * upstream])

        carrier = loss.detach().requires_grad_()
        carrier.register_hook(second_pass)  # type: ignore[no-untyped-call]
        return carrier * 1.0


def _share(micro: Sequence[dict[str, Tensor]], who: Ranks) -> list[dict[str, Tensor]]:
    """This process's rows of every micro-batch, so that each has as many tokens as the others."""
    if who.size == 1:
        return list(micro)
    shares = (
        {name: tensor[who.rank :: who.size] for name, tensor in features.items()}
        for features in micro
    )
    return [features for features in shares if len(features["input_ids"])]


@contextmanager
def _trainable_attention(model: SentenceTransformer) -> Iterator[None]:
    """Eager attention for a forward pass on CPU, where torch's fused one has a slow backward.

    For models that `embed` does not pack; packed BERT has its own.

    A step of bge-small took 3.6 s with eager and 5.3 s with fused attention; encoding alone is
    faster fused, so what was set comes back.
    """
    backbone = getattr(model[0], "auto_model", None)
    before = getattr(getattr(backbone, "config", None), "_attn_implementation", None)
    if backbone is None or before in (None, "eager") or torch.device(model.device).type != "cpu":
        yield
        return
    backbone.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)
