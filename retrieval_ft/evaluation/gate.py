"""The gate: may the tuned model take the base's place? Decided once, on test, by one rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrieval_ft.evaluation.stats import Difference

Outcome = Literal["promote", "hold", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """The outcome, and the rule that led to it in one sentence with its figures."""

    verdict: Outcome
    rule: str


def _figures(name: str, found: Difference) -> str:
    return f"{name} {found.delta:+.4f} [{found.ci_low:+.4f}, {found.ci_high:+.4f}]"


def decide(dense: Difference, hybrid: Difference, *, metric: str) -> Verdict:
    """Apply the gate to tuned minus base, dense and hybrid.

    Hold where a point estimate is not above zero; promote where both 95% intervals lie above zero;
    inconclusive otherwise. Hold is asked first, so that it wins over both others.

    Args:
        dense: Tuned dense minus base dense.
        hybrid: Tuned hybrid minus base hybrid.
        metric: The metric of both, for the sentence.
    """
    sides = {"dense": dense, "hybrid": hybrid}
    figures = f"{', '.join(_figures(name, found) for name, found in sides.items())}"
    measured = f"tuned minus base at {metric} over {dense.n} queries"
    if worse := [name for name, found in sides.items() if not found.delta > 0]:
        return Verdict(
            "hold",
            f"{measured} is not above zero for {' and '.join(worse)}: {figures}.",
        )
    if unsure := [name for name, found in sides.items() if not found.ci_low > 0]:
        return Verdict(
            "inconclusive",
            f"{measured} is above zero, but its 95% interval is not for "
            f"{' and '.join(unsure)}: {figures}.",
        )
    return Verdict(
        "promote",
        f"{measured} is above zero with its whole 95% interval, dense and hybrid: {figures}.",
    )
