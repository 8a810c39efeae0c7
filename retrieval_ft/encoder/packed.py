"""BERT without padding: the texts of a batch lie end to end, and no operation sees a pad token.

Padding to the longest text is a sixth to a third of a batch even when texts are sorted by length.
Here only attention knows where a text ends: on a CPU it is done for all texts of one length at once,
on a GPU by FlashAttention over the whole batch (torch's `varlen_attn`). The result is that of the
padded computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from retrieval_ft.portable import POOLINGS, has_place_for

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_Attend = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""(module, query, key, value), each [tokens, heads, d], to what they attend to, of that shape."""


def packable(model: SentenceTransformer, *, bf16: bool = False) -> bool:
    """Whether a model is a BERT encoder and a pooling that `packed_vectors` computes.

    On a GPU it must run in bf16 on one that FlashAttention supports, without dropout in attention.
    """
    if not has_place_for([type(module).__name__ for module in model]):
        return False
    bert, device = _bert(model), torch.device(model.device)
    return (
        type(bert).__name__ == "BertModel"
        and not bert.config.is_decoder
        and not bert.config.add_cross_attention
        and model[1].pooling_mode in POOLINGS
        and bool(model[1].include_prompt)
        and (device.type == "cpu" or (bf16 and _flash(device) and not _attention_dropout(bert)))
    )


def packed_vectors(model: SentenceTransformer, features: dict[str, Tensor]) -> Tensor:
    """Pooled vectors of a padded micro-batch, not yet normalised.

    Args:
        model: for which `packable` holds, on the device of the features.
        features: `input_ids` and `attention_mask`, int64 [rows, length], padded on the right, rows
            of one length next to each other.

    Returns:
        Float [rows, d].
    """
    bert, mask = _bert(model), features["attention_mask"]
    lengths = mask.sum(1)
    words = bert.embeddings.word_embeddings(features["input_ids"][mask.bool()])
    return _pool(_hidden(bert, words, lengths), lengths, model[1].pooling_mode)


def _bert(model: SentenceTransformer) -> Any:
    backbone: Any = model[0].auto_model
    return backbone


def _flash(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _attention_dropout(bert: Any) -> bool:
    first = bert.encoder.layer[0].attention.self.dropout
    return bool(bert.training and first.p > 0)


def _hidden(bert: Any, words: Tensor, lengths: Tensor) -> Tensor:
    """Last hidden states of texts that lie end to end, [tokens, d]."""
    table = bert.embeddings
    starts = lengths.cumsum(0) - lengths
    positions = torch.arange(len(words), device=words.device) - starts.repeat_interleave(lengths)
    hidden = words + table.token_type_embeddings.weight[0] + table.position_embeddings(positions)
    hidden = table.dropout(table.LayerNorm(hidden))
    attend = _by_length(lengths) if hidden.device.type == "cpu" else _by_flash(lengths)
    for layer in bert.encoder.layer:
        own = layer.attention.self
        shape = (-1, own.num_attention_heads, own.attention_head_size)
        sides = [side(hidden).view(shape) for side in (own.query, own.key, own.value)]
        context = attend(own, *sides).flatten(1)
        hidden = layer.attention.output(context, hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return cast(Tensor, hidden)


def _by_length(lengths: Tensor) -> _Attend:
    """Attention within each text, for all texts of one length at once."""
    sizes, counts = torch.unique_consecutive(lengths, return_counts=True)
    runs = list(zip(counts.tolist(), sizes.tolist(), strict=True))
    tokens = [count * length for count, length in runs]

    def attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        dropout = attention.dropout.p if attention.training else 0.0
        found = []
        parts = (torch.split(side, tokens) for side in (query, key, value))
        for run, *sides in zip(runs, *parts, strict=True):
            q, k, v = (side.unflatten(0, run).transpose(1, 2) for side in sides)
            weights = ((q @ k.transpose(2, 3)) * attention.scaling).softmax(-1)
            context = functional.dropout(weights, p=dropout) @ v
            found.append(context.transpose(1, 2).flatten(0, 1))
        return torch.cat(found)

    return attend


def _by_flash(lengths: Tensor) -> _Attend:
    from torch.nn.attention.varlen import varlen_attn

    ends = functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    longest = int(lengths.max())

    def attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scale = attention.scaling
        found = varlen_attn(query, key, value, ends, ends, longest, longest, scale=scale)
        return cast(Tensor, found)

    return attend


def _pool(hidden: Tensor, lengths: Tensor, mode: str) -> Tensor:
    ends = lengths.cumsum(0)
    if mode == "cls":
        return hidden[ends - lengths]
    if mode == "lasttoken":
        return hidden[ends - 1]
    rows = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths)
    sums = hidden.new_zeros((len(lengths), hidden.shape[1]), dtype=torch.float32)
    return sums.index_add(0, rows, hidden.float()) / lengths[:, None]
