"""InfoNCE over a batch whose known positives are masked by id, each distinct text encoded once.

In a small corpus a batch is full of passages that are relevant to more than one of its queries, and
the same passage stands in it several times. So a batch is held as its distinct texts and a matrix of
who may be whose negative; the gradient is the one of the plain computation.

Sources: InfoNCE, https://arxiv.org/abs/1807.03748; GradCache, https://arxiv.org/abs/2101.06983.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval_ft.dataset import Qrels
from retrieval_ft.encoder.batching import pad, token_batches
from retrieval_ft.encoder.encoder import embed
from retrieval_ft.encoder.precision import Precision
from retrieval_ft.training.plan import Example

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_Column = tuple[str, str]
"""A passage as one query sees it: (query id, passage id), or ("", passage id) as it stands."""
TokenLists = Mapping[str, npt.NDArray[np.int32]]


def info_nce(
    queries: Tensor, passages: Tensor, *, target: Tensor, masked: Tensor, temperature: float
) -> Tensor:
    """Mean cross-entropy of each query's positive among the passages that may be its negatives.

    Args:
        queries: float32 [b, d], L2-normalised.
        passages: float32 [m, d], L2-normalised, distinct.
        target: int64 [b], the row in `passages` of each query's positive.
        masked: bool [b, m], True where a passage is no negative of a query (another positive).
        temperature: divides the cosines.
    """
    logits = queries @ passages.T / temperature
    return functional.cross_entropy(logits.masked_fill(masked, -torch.inf), target)


@dataclass(frozen=True)
class Collator:
    """Turns planned examples into the tensors of a batch: distinct texts, targets and the mask.

    The texts of a batch are cut into micro-batches of similar length, `token_budget` tokens each.
    A positive that has a view for its query (`Dataset.views`) is encoded as that view; to every
    other query a view is its passage.
    """

    query_tokens: TokenLists
    passage_tokens: TokenLists
    qrels: Qrels
    pad_id: int
    token_budget: int
    view_tokens: Mapping[tuple[str, str], npt.NDArray[np.int32]] = field(default_factory=dict)
    """(query id, passage id) -> tokens of what is encoded in place of the passage."""

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Collate examples; see `MaskedInfoNCE.forward` for the keys."""
        query_ids = list(dict.fromkeys(example.query_id for example in examples))
        row_of_query = {query_id: row for row, query_id in enumerate(query_ids)}
        columns: dict[_Column, int] = {}
        for example in examples:
            for column in (self._positive(example), *(("", p) for p in example.negative_ids)):
                columns.setdefault(column, len(columns))
        columns_of: dict[str, list[int]] = {}
        for (_, passage_id), column_number in columns.items():
            columns_of.setdefault(passage_id, []).append(column_number)
        rows = [self.query_tokens[q] for q in query_ids]
        rows += [self.view_tokens[c] if c[0] else self.passage_tokens[c[1]] for c in columns]
        lengths = np.array([len(row) for row in rows])
        groups = token_batches(lengths, budget=self.token_budget)
        target = [columns[self._positive(example)] for example in examples]
        masked = np.zeros((len(examples), len(columns)), np.bool_)
        for i, example in enumerate(examples):
            for passage_id in self.qrels.relevant(example.query_id):
                masked[i, columns_of.get(passage_id, [])] = True
            masked[i, target[i]] = False
        return {
            "micro_batches": [
                pad([rows[i] for i in group], pad_id=self.pad_id) for group in groups
            ],
            "place": torch.from_numpy(np.argsort(np.concatenate(groups), kind="stable")),
            "query_rows": torch.tensor([row_of_query[example.query_id] for example in examples]),
            "passages": len(columns),
            "target": torch.tensor(target),
            "masked": torch.from_numpy(masked),
        }

    def _positive(self, example: Example) -> _Column:
        column = (example.query_id, example.positive_id)
        return column if column in self.view_tokens else ("", example.positive_id)


class MaskedInfoNCE(nn.Module):
    """The training loss over a collated batch.

    Where the batch's activations fit (`graph_tokens`), the graph of every micro-batch is kept and
    nothing is computed twice; a larger batch is done by GradCache: vectors first without a graph,
    then the gradient of each vector is carried through a second forward pass, micro-batch by
    micro-batch. Both give the gradient of the plain computation.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        precision: Precision,
        temperature: float,
        graph_tokens: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        self.temperature = temperature
        self.graph_tokens = graph_tokens

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the scalar loss; its backward fills the gradients of the model.

        Args:
            batch: `micro_batches` (list of padded features), `place` int64 [t] (row of each distinct
                text in the micro-batches' order), `query_rows` int64 [b], `passages` (how many of
                the distinct texts, the last ones, are passages), `target`, `masked`.
        """
        micro: list[dict[str, Tensor]] = batch["micro_batches"]
        tokens = sum(features["input_ids"].numel() for features in micro)
        if tokens <= self.graph_tokens:
            vectors = [self._embed(features) for features in micro]
            return self._score(torch.cat(vectors), batch)
        return self._grad_cache(micro, batch)

    def _embed(self, features: dict[str, Tensor]) -> Tensor:
        with _trainable_attention(self.model):
            return embed(self.model, features, self.precision)

    def _score(self, vectors: Tensor, batch: Mapping[str, Any]) -> Tensor:
        texts = vectors[batch["place"]]
        passages = texts[len(texts) - int(batch["passages"]) :]
        return info_nce(
            texts[batch["query_rows"]],
            passages,
            target=batch["target"],
            masked=batch["masked"],
            temperature=self.temperature,
        )

    def _grad_cache(self, micro: list[dict[str, Tensor]], batch: Mapping[str, Any]) -> Tensor:
        from sentence_transformers.base.losses.gradcache import RandContext

        states, parts = [], []
        with torch.no_grad():
            for features in micro:
                states.append(RandContext(features["input_ids"]))
                parts.append(self._embed(features))
        leaves = [part.requires_grad_() for part in parts]
        with torch.enable_grad():
            loss = self._score(torch.cat(leaves), batch)
        if not torch.is_grad_enabled():
            return loss.detach()
        gradients = torch.autograd.grad(loss, leaves)

        def second_pass(upstream: Tensor) -> None:
            for features, state, gradient in zip(micro, states, gradients, strict=True):
                with state, torch.enable_grad():
                    vectors = self._embed(features)
                    torch.autograd.backward(vectors, gradient * upstream)

        carrier = loss.detach().requires_grad_()
        carrier.register_hook(second_pass)  # type: ignore[no-untyped-call]
        return carrier * 1.0


@contextmanager
def _trainable_attention(model: SentenceTransformer) -> Iterator[None]:
    """Eager attention for a forward pass on CPU, where torch's fused one has a slow backward.

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
