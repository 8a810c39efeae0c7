"""Texts to token lists to padded batches: shared by encoding and by training.

Batches are cut by tokens after sorting by length, so that little of a batch is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_PAD_TO = 8
"""Row lengths are rounded up to this: matrix kernels want it, and shapes recur."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of texts, special tokens and prompt included, cut to the maximum length."""

    ids: tuple[npt.NDArray[np.int32], ...]
    truncated: npt.NDArray[np.bool_]
    """bool [n]: the text was longer than the maximum length."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each text, int64 [n]."""
        return np.fromiter((len(row) for row in self.ids), np.int64, len(self.ids))


def tokenize(
    model: SentenceTransformer, texts: Sequence[str], *, prompt: str, max_length: int
) -> Tokens:
    """Tokenize `prompt + text` for each text."""
    if not texts:
        return Tokens((), np.zeros(0, np.bool_))
    encoded = model.tokenizer(
        [prompt + text for text in texts],
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    rows = encoded.encodings
    if rows is None:  # a slow tokenizer keeps no overflow: ask it for the whole length
        whole = model.tokenizer([prompt + text for text in texts], truncation=False)["input_ids"]
        truncated = np.array([len(ids) > max_length for ids in whole])
    else:
        truncated = np.array([bool(row.overflowing) for row in rows])
    return Tokens(tuple(np.array(ids, np.int32) for ids in encoded["input_ids"]), truncated)


def token_batches(
    lengths: npt.NDArray[np.int64], *, budget: int, order: npt.NDArray[np.int64] | None = None
) -> list[npt.NDArray[np.int64]]:
    """Group rows of similar length so that rows x longest stays within `budget` tokens.

    Args:
        lengths: tokens of each row, int64 [n].
        budget: padded tokens of a batch at most; a single longer row is a batch of its own.
        order: the rows to batch, longest first; by default all of them.

    Returns:
        Row indices of each batch, in that order; every row stands in exactly one.
    """
    if order is None:
        order = np.argsort(-lengths, kind="stable")
    batches: list[npt.NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        longest = _rounded(int(lengths[order[start]]))
        size = max(1, budget // longest)
        batches.append(order[start : start + size])
        start += size
    return batches


def pad(rows: Sequence[npt.NDArray[np.int32]], *, pad_id: int) -> dict[str, torch.Tensor]:
    """Pad token lists to one length: `input_ids` and `attention_mask`, int64 [rows, length]."""
    width = _rounded(max(len(row) for row in rows))
    ids = np.full((len(rows), width), pad_id, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def _rounded(length: int) -> int:
    return max(_PAD_TO, -(-length // _PAD_TO) * _PAD_TO)
