"""The share of tuned weights: what dev of the target likes best among what did not forget too much.

LM-Cocktail (arXiv 2311.13534) mixes base and tuned weights; on dev of the target and of the general
sets we choose how much of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_ft.config import TrainingConfig
from retrieval_ft.console import note
from retrieval_ft.pipeline.pool import RECALL, Pool

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder

_ROUNDING = 1e-9
"""So that a loss of exactly `training.max_forgetting` is one that is allowed."""


@dataclass(frozen=True)
class Tried:
    """One share of tuned weights and what dev says of it."""

    alpha: float
    score: float
    """Of the target; larger is better."""
    general: float = 0.0
    """Mean recall@10 over the general sets; 0 where there is none."""


def holds(tried: Tried, *, floor: float | None) -> bool:
    """Whether it forgot no more than is allowed; without a general set there is no floor."""
    return floor is None or tried.general >= floor - _ROUNDING


def is_enough(tried: Sequence[Tried], *, floor: float | None) -> bool:
    """Whether less of the tuned weights need not be tried, `tried` being in the order of trial.

    That is once the target is no better for it, if one that was tried holds the floor.
    """
    *before, last = tried
    worse = any(last.score <= one.score for one in before)
    return worse and any(holds(one, floor=floor) for one in tried)


def choose(tried: Sequence[Tried], *, floor: float | None) -> Tried:
    """The best for the target of those that hold the floor; where none does, what forgets least.

    Of equals the one that was tried first is taken.
    """
    allowed = [one for one in tried if holds(one, floor=floor)]
    if allowed:
        return max(allowed, key=lambda one: one.score)
    return max(tried, key=lambda one: (one.general, one.score))


def soup(
    encoder: Encoder,
    pool: Pool,
    before: Mapping[str, Any],
    *,
    log: Sequence[Mapping[str, float]],
    config: TrainingConfig,
    general: Sequence[Pool] = (),
    base: Encoder,
) -> dict[str, Any]:
    """Leave the encoder at the chosen mix of its weights and those `before` training.

    The tuned weights themselves (alpha 1) were scored when their checkpoint was; that is in the log.

    Args:
        encoder: holds the tuned weights.
        pool: dev of the target.
        before: state dict of the base model.
        log: of the training, with the dev scores.
        config: the alphas, and how much may be forgotten.
        general: dev of the general sets.
        base: the base model, for what it scores on these.

    Returns:
        Facts: `soup_alpha` and `soup_dev`, dev recall@10 by alpha. With general sets also
        `soup_general`, their mean recall@10 by alpha, `general_dev_base` and `soup_why`.
    """
    from retrieval_ft.training.soup import mix

    tuned = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    base_general = _mean_recall(general, base)
    floor = base_general - config.max_forgetting if general else None
    best = max((row for row in log if "eval_score" in row), key=lambda row: row["eval_score"])
    found = {"score": best["eval_score"], RECALL: best[f"eval_{RECALL}"]}
    curve: dict[str, float] = {}
    tried: list[Tried] = []
    for alpha in sorted(set(config.soup_alphas), reverse=True):
        if alpha < 1:
            encoder.model.load_state_dict(mix(before, tuned, alpha=alpha))
            found = pool.score(encoder)
        tried.append(Tried(alpha, found["score"], _mean_recall(general, encoder)))
        curve[f"{alpha:g}"] = found[RECALL]
        aside = f", general {tried[-1].general:.4f}" if general else ""
        note(f"soup alpha {alpha:g}: dev recall@10 {found[RECALL]:.4f}{aside}")
        if is_enough(tried, floor=floor):
            break
    chosen = choose(tried, floor=floor)
    encoder.model.load_state_dict(mix(before, tuned, alpha=chosen.alpha))
    facts: dict[str, Any] = {"soup_alpha": chosen.alpha, "soup_dev": curve}
    if floor is None:
        return facts
    why = _why(chosen, tried, floor=floor, allowed=config.max_forgetting)
    note(f"soup: {why}")
    return {
        **facts,
        "soup_general": {f"{one.alpha:g}": one.general for one in tried},
        "general_dev_base": base_general,
        "soup_why": why,
    }


def _mean_recall(pools: Sequence[Pool], encoder: Encoder) -> float:
    return float(np.mean([pool.score(encoder)[RECALL] for pool in pools])) if pools else 0.0


def _why(chosen: Tried, tried: Sequence[Tried], *, floor: float, allowed: float) -> str:
    within = sum(holds(one, floor=floor) for one in tried)
    if not within:
        return (
            f"each alpha tried loses more than {allowed:g} recall@10 on the general sets; alpha "
            f"{chosen.alpha:g} loses least, {floor + allowed - chosen.general:.4f}"
        )
    return (
        f"alpha {chosen.alpha:g} is the best on dev of the {within} of {len(tried)} tried that lose "
        f"at most {allowed:g} recall@10 on the general sets"
    )
