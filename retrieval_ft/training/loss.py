"""The loss of a collated batch: vectors of its distinct texts, then the objective over them.

The gradient is the one of the plain computation, in which every text of every row is encoded.

Source: GradCache, https://arxiv.org/abs/2101.06983.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.losses.gradcache import RandContext
from torch import Tensor, nn

from retrieval_ft.config import TrainingConfig
from retrieval_ft.encoder.encoder import Encoder, embed
from retrieval_ft.encoder.packed import packable
from retrieval_ft.encoder.precision import Precision
from retrieval_ft.encoder.threads import cores, side_by_side
from retrieval_ft.ranks import Ranks, gather_rows, ranks
from retrieval_ft.training.objective import Objective

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class BatchLoss(nn.Module):
    """The training loss over a collated batch.

    The vectors come first, then the loss and its gradient by each vector, and that is carried back
    through the model, micro-batch by micro-batch. Where the batch's activations fit (`graph_tokens`),
    the graph of every micro-batch is kept and nothing is computed twice; a larger batch is done by
    GradCache, which computes each micro-batch's graph anew. Both give the gradient of the plain
    computation.

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

    @classmethod
    def of(cls, encoder: Encoder, config: TrainingConfig, *, graph_tokens: int) -> BatchLoss:
        """The loss that a config asks for, of an encoder's model in its precision."""
        return cls(
            encoder.model,
            precision=encoder.precision,
            objective=Objective.of(config),
            graph_tokens=graph_tokens,
        )

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
        train = torch.is_grad_enabled()
        keep = sum(features["input_ids"].numel() for features in micro) <= self.graph_tokens
        job = _Passes(self.model, self.precision, micro, graph=train and keep)
        leaves = [part.detach().requires_grad_() for part in job.vectors()]
        with torch.enable_grad():
            own = torch.cat([self._no_vector, *leaves])
            loss = self._score(gather_rows(own, counts, who), batch)
        if not train:
            return loss.detach()
        gradients = torch.autograd.grad(loss, leaves) if leaves else ()
        carrier = loss.detach().requires_grad_()
        carrier.register_hook(  # type: ignore[no-untyped-call]
            lambda upstream: job.backward([gradient * upstream for gradient in gradients])
        )
        return carrier * 1.0

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
        """Micro-batches cut to the limit, and evenly for the cores; the order of rows unchanged."""
        pieces: list[dict[str, Tensor]] = []
        at_once = cores(torch.device(self.model.device))
        for features in micro:
            rows, width = features["input_ids"].shape
            size = rows if self._limit is None else max(1, min(rows, self._limit // width))
            cuts = {*range(0, rows, size), *_even_cuts(features, at_once), rows}
            for start, end in itertools.pairwise(sorted(cuts)):
                pieces.append({name: tensor[start:end] for name, tensor in features.items()})
        shapes = (tuple(features["input_ids"].shape) for features in pieces)
        sizes = ((rows, rows * width) for rows, width in shapes)
        self._largest = max(sizes, key=lambda size: size[1], default=(0, 0))
        return pieces

    @property
    def _no_vector(self) -> Tensor:
        """What a process without a text of its own brings: float32 [0, d]."""
        return torch.empty((0, self.model.get_embedding_dimension()), device=self.model.device)

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


class _Passes:
    """The forward and backward passes of a batch's micro-batches, one a core on a CPU.

    The gradients of micro-batches are added up in their order, so that the sum does not depend on which
    of them was done first. Dropout draws from one stream: with it the passes go one after another.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        precision: Precision,
        micro: Sequence[dict[str, Tensor]],
        *,
        graph: bool,
    ) -> None:
        self._model, self._precision, self._micro, self._graph = model, precision, micro, graph
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._drops = model.training and any(
            module.p > 0 for module in model.modules() if isinstance(module, nn.Dropout)
        )
        self._at_once = 1 if self._drops else cores(torch.device(model.device))
        self._states: list[RandContext] = []
        self._kept: list[Tensor] = []

    def vectors(self) -> list[Tensor]:
        """Vectors of each micro-batch, with their graph where it is kept."""

        def forward(features: dict[str, Tensor]) -> Tensor:
            if self._drops and not self._graph:
                self._states.append(RandContext(features["input_ids"]))
            with torch.set_grad_enabled(self._graph):
                return embed(self._model, [features], self._precision)[0]

        with _trainable_attention(self._model):
            self._kept = list(side_by_side(forward, self._micro, at_once=self._at_once))
        return self._kept

    def backward(self, gradients: Sequence[Tensor]) -> None:
        """Add to the weights' gradients what these gradients of the vectors make of them."""

        def back(number: int) -> tuple[Tensor | None, ...]:
            with self._states[number] if self._states else nullcontext(), torch.enable_grad():
                if self._graph:
                    vectors = self._kept[number]
                else:
                    vectors = embed(self._model, [self._micro[number]], self._precision)[0]
                return torch.autograd.grad(
                    vectors, self._weights, gradients[number], allow_unused=True
                )

        with _trainable_attention(self._model):
            numbers = range(len(self._micro))
            for found in side_by_side(back, numbers, at_once=self._at_once):
                self._add(found)

    def _add(self, found: Sequence[Tensor | None]) -> None:
        sums, more = [], []
        for weight, gradient in zip(self._weights, found, strict=True):
            if gradient is None:
                continue
            if weight.grad is None:
                weight.grad = gradient.clone()
            else:
                sums.append(weight.grad)
                more.append(gradient)
        if sums:
            torch._foreach_add_(sums, more)


def _share(micro: Sequence[dict[str, Tensor]], who: Ranks) -> list[dict[str, Tensor]]:
    """This process's rows of every micro-batch, so that each has as many tokens as the others."""
    shares = (
        {name: tensor[who.rank :: who.size] for name, tensor in features.items()}
        for features in micro
    )
    return [features for features in shares if len(features["input_ids"])]


def _even_cuts(features: dict[str, Tensor], parts: int) -> list[int]:
    """Rows at which a micro-batch is cut into so many parts of equal tokens."""
    if parts == 1:  # on a GPU, where counting would wait for the device
        return []
    ends = features["attention_mask"].sum(1).cumsum(0)
    found: list[int] = torch.searchsorted(ends, torch.arange(1, parts) * ends[-1] / parts).tolist()
    return found


@contextmanager
def _trainable_attention(model: SentenceTransformer) -> Iterator[None]:
    """Eager attention for a forward pass on CPU, where torch's fused one has a slow backward.

    A step of bge-small took 3.6 s with eager and 5.3 s with fused attention; encoding alone is
    faster fused, so what was set comes back. Packed models have an attention of their own.
    """
    backbone = getattr(model[0], "auto_model", None)
    before = getattr(getattr(backbone, "config", None), "_attn_implementation", None)
    on_cpu = torch.device(model.device).type == "cpu"
    if backbone is None or before in (None, "eager") or not on_cpu or packable(model):
        yield
        return
    backbone.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)
