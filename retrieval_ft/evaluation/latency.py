"""Latencies as figures: percentiles, and whether one model is surely slower than another.

Times are noisy where scores are not: what is called slower must be so beyond the noise, or a busy
machine would decide which model is shipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from retrieval_ft.errors import DataError

PERCENTILES = (50, 95, 99)
_TAIL = 2.5


@dataclass(frozen=True)
class Latency:
    """95th percentile of the time of one query with each model, in milliseconds.

    Raises:
        DataError: one is not a positive, finite time.
    """

    base_p95_ms: float
    tuned_p95_ms: float
    growth_low: float | None = None
    """Lower end of the 95% interval of `growth`; None where it is not known."""

    def __post_init__(self) -> None:
        for name in ("base_p95_ms", "tuned_p95_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"{name} is {value}; a p95 latency above 0 ms is needed")

    @property
    def growth(self) -> float:
        """Growth of the tuned side as a share of the base's; negative where it is faster."""
        return self.tuned_p95_ms / self.base_p95_ms - 1.0

    def exceeds(self, budget: float) -> bool:
        """Whether it grew by more than a budget, a share, and not by noise alone."""
        sure = self.growth if self.growth_low is None else min(self.growth, self.growth_low)
        return sure > budget + 1e-12

    def figures(self) -> dict[str, float | None]:
        """What it is, and the growth, as JSON values."""
        return {**asdict(self), "growth": self.growth}

    def check(self, budget: float | None) -> dict[str, float | None]:
        """The figures, the budget, and whether it was kept; without a budget it always is."""
        passed = budget is None or not self.exceeds(budget)
        return {**self.figures(), "budget": budget, "passed": passed}


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """`{"p50": ..., "p95": ..., "p99": ...}` of times, linear between neighbours (numpy's default).

    Raises:
        DataError: there is no time.
    """
    if len(milliseconds) == 0:
        raise DataError("no query was timed; percentiles need one at least")
    found = np.percentile(np.asarray(milliseconds, np.float64), PERCENTILES)
    return {f"p{p}": float(value) for p, value in zip(PERCENTILES, found, strict=True)}


def paired_latency(
    base: Sequence[float], tuned: Sequence[float], *, seed: int, resamples: int = 1_000
) -> Latency:
    """The p95 of both sides, and the interval of its growth by drawing queries again, both at once.

    Args:
        base: Milliseconds of each query, [queries].
        tuned: Milliseconds of the same queries, [queries].
        seed: Of the draws.
        resamples: Of the percentile bootstrap.

    Raises:
        DataError: no query, not the same number of both, or a time that is not above 0.
    """
    if len(base) != len(tuned):
        raise DataError(
            f"{len(base)} and {len(tuned)} queries were timed; a pair needs the same queries"
        )
    sides = np.asarray([base, tuned], np.float64)
    ends = percentiles(base)["p95"], percentiles(tuned)["p95"]
    drawn = np.random.default_rng(seed).integers(0, len(base), size=(resamples, len(base)))
    found = Latency(*ends)  # raises before anything is divided
    ratios = np.percentile(sides[1][drawn], 95, axis=1) / np.percentile(sides[0][drawn], 95, axis=1)
    return Latency(*ends, growth_low=min(found.growth, float(np.percentile(ratios, _TAIL)) - 1.0))
