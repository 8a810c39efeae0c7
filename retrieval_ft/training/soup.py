"""A linear soup of base and tuned weights (LM-Cocktail, https://arxiv.org/abs/2311.13534)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def mix(
    base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], *, alpha: float
) -> dict[str, Tensor]:
    """Return (1 - alpha) x base + alpha x tuned, in float32; integer buffers come from `tuned`.

    Args:
        base: state dict of the base model.
        tuned: state dict of the tuned model, same keys and shapes.
        alpha: 1 gives the tuned weights to the bit, 0 the base weights.

    Raises:
        ValueError: the two do not have the same keys.
    """
    if base.keys() != tuned.keys():
        odd = sorted(base.keys() ^ tuned.keys())
        raise ValueError(f"base and tuned weights differ in keys: {odd[:5]}")
    mixed: dict[str, Tensor] = {}
    for name, after in tuned.items():
        if after.is_floating_point() and alpha < 1:
            mixed[name] = torch.lerp(base[name].float(), after.float(), alpha).to(after.dtype)
        else:
            mixed[name] = after.clone()
    return mixed


def unmix(
    base: Mapping[str, Tensor], mixed: Mapping[str, Tensor], *, alpha: float
) -> dict[str, Tensor]:
    """Return the tuned weights that `mix` made `mixed` of, but for rounding: base + (mixed - base) / alpha.

    Args:
        base: state dict of the base model.
        mixed: what `mix` gave, same keys and shapes.
        alpha: with which it was made, in (0, 1].

    Raises:
        ValueError: alpha is out of range, or the two do not have the same keys.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must lie in (0, 1], found {alpha}")
    if base.keys() != mixed.keys():
        odd = sorted(base.keys() ^ mixed.keys())
        raise ValueError(f"base and mixed weights differ in keys: {odd[:5]}")
    return {
        name: base[name] + (found - base[name]) / alpha if found.is_floating_point() else found
        for name, found in mixed.items()
    }
