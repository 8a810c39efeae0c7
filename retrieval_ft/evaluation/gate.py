"""The gate: may the tuned model take the base's place? Decided once, on test, by one ordered rule.

A verdict says which step of the rule decided and on which figures, so that a CI job can act on it and
a person can check it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from retrieval_ft.errors import ConfigError
from retrieval_ft.evaluation.latency import Latency
from retrieval_ft.evaluation.stats import ALPHA, Difference

Outcome = Literal["promote", "hold", "inconclusive"]
RuleId = Literal[
    "no_gain",
    "gain_too_small",
    "forgot_too_much",
    "too_slow",
    "interval_reaches_zero",
    "p_too_high",
    "forgetting_not_measured",
    "gain_is_sure",
]

SCHEMA_VERSION = 1
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Thresholds:
    """What a promotion asks for. All are shares: 0.02 is two points of recall, or 2% of a latency.

    Raises:
        ConfigError: one is negative or not finite.
    """

    min_gain: float = 0.0
    """Least gain of the gate's metric that counts, dense and hybrid: the point estimate must be
    above 0 and not below this. Noise is judged against 0, by the interval and by p."""
    max_forgetting: float | None = None
    """Largest loss of the gate's metric that is allowed on any general set, point estimate; None: it
    is not looked at. The soup's floor on dev is a loss of 0.02, so 0.02 is a start."""
    max_latency_regression: float | None = 0.10
    """Largest growth of the p95 latency of a query, as a share of the base's; None: it is not
    looked at. The default is the 10% latency budget of the evaluation."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                none = "" if name == "min_gain" else ", or null to leave it out"
                raise ConfigError(
                    f"evaluation.{name}: found {value}; a share of 0 or more is allowed (0.02 is "
                    f"2%){none}"
                )


DEFAULT = Thresholds()


@dataclass(frozen=True)
class Verdict:
    """The outcome, and the rule that led to it in one sentence with its figures."""

    verdict: Outcome
    rule: str
    """The sentence; `reason` in documents."""
    rule_id: RuleId
    """Name of the step of the rule that decided; `rule` in documents. Stable."""
    thresholds: Thresholds = DEFAULT
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What was looked at, as JSON values."""
    unchecked: tuple[str, ...] = ()
    """Thresholds that are set and had no measurement to be held against."""


@dataclass(frozen=True)
class _Case:
    """Everything that a step of the rule may look at."""

    sides: Mapping[str, Difference]
    general: Mapping[str, float]
    latency: Latency | None
    thresholds: Thresholds
    measured: str

    @property
    def figures(self) -> str:
        return ", ".join(_figures(name, found) for name, found in self.sides.items())


_Step = tuple[Outcome, RuleId, str]


def decide(
    dense: Difference,
    hybrid: Difference,
    *,
    metric: str,
    thresholds: Thresholds = DEFAULT,
    general: Mapping[str, float] | None = None,
    latency: Latency | None = None,
) -> Verdict:
    """Apply the gate to tuned minus base, dense and hybrid.

    The first step that applies decides; holds come first, so that they win over both others:

    1. `no_gain`, hold: a point estimate is not above zero.
    2. `gain_too_small`, hold: a point estimate is below `min_gain`.
    3. `forgot_too_much`, hold: a general set lost more than `max_forgetting`.
    4. `too_slow`, hold: the p95 latency grew by more than `max_latency_regression`, and so does the
       lower end of its interval where that is known: noise of the clock holds nothing back.
    5. `interval_reaches_zero`, inconclusive: a 95% interval does not lie above zero.
    6. `p_too_high`, inconclusive: a sign-flip p is above `ALPHA`. The interval and p come from two
       tests, and on few queries they may disagree: with five wins and no loss the bootstrap never
       reaches zero, while p is 2 / 2**5 = .0625. Both must agree.
    7. `forgetting_not_measured`, inconclusive: `max_forgetting` is set and no general set was measured.
    8. `gain_is_sure`, promote.

    Latency that was not measured is not held against the model, since its threshold is on by default;
    the verdict lists it as unchecked.

    Args:
        dense: Tuned dense minus base dense.
        hybrid: Tuned hybrid minus base hybrid.
        metric: The metric of both, for the sentence.
        thresholds: What a promotion asks for.
        general: Tuned minus base at the metric by general set (`general_deltas`).
        latency: p95 of a query with each.
    """
    case = _Case(
        sides={"dense": dense, "hybrid": hybrid},
        general=general or {},
        latency=latency,
        thresholds=thresholds,
        measured=f"tuned minus base at {metric} over {dense.n} queries",
    )
    outcome, rule_id, sentence = next(
        step for step in (_gain(case), _cost(case), _noise(case), _sure(case)) if step
    )
    return Verdict(
        outcome,
        sentence,
        rule_id,
        thresholds=thresholds,
        figures=_as_json(case, metric),
        unchecked=_unchecked(case),
    )


def general_deltas(rows: Iterable[Mapping[str, Any]], *, metric: str) -> dict[str, float]:
    """Tuned minus base at a metric by general set, from the rows `general` of eval/metrics.json.

    Raises:
        ConfigError: a set was not measured at the metric.
    """
    found: dict[str, float] = {}
    for row in rows:
        deltas = {one["metric"]: float(one["delta"]) for one in row["differences"]}
        if metric not in deltas:
            raise ConfigError(
                f"general set {row['name']}: {metric!r} was not measured; measured: "
                f"{', '.join(deltas) or 'nothing'}"
            )
        found[row["name"]] = deltas[metric]
    return found


def verdict_document(
    verdict: Verdict, *, differences: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What verdict.json holds, as JSON values.

    `reason` is the sentence and `rule` the stable name of the step that decided. A figure that is not
    finite becomes null, since JSON has no such number.

    Args:
        verdict: From `decide`.
        differences: Rows of `difference_rows`.
    """
    document = {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict.verdict,
        "reason": verdict.rule,
        "rule": verdict.rule_id,
        "thresholds": asdict(verdict.thresholds),
        "unchecked": list(verdict.unchecked),
        "figures": dict(verdict.figures),
        "differences": [dict(row) for row in differences],
    }
    finite: dict[str, Any] = _finite(document)
    return finite


def _figures(name: str, found: Difference) -> str:
    return f"{name} {found.delta:+.4f} [{found.ci_low:+.4f}, {found.ci_high:+.4f}]"


def _gain(case: _Case) -> _Step | None:
    """Steps 1 and 2: what was measured on the target."""
    if worse := [name for name, found in case.sides.items() if not found.delta > 0]:
        sentence = f"is not above zero for {' and '.join(worse)}: {case.figures}."
        return "hold", "no_gain", f"{case.measured} {sentence}"
    least = case.thresholds.min_gain
    if small := [name for name, found in case.sides.items() if found.delta < least - _ROUNDING]:
        sentence = f"is below min_gain {least:.4f} for {' and '.join(small)}: {case.figures}."
        return "hold", "gain_too_small", f"{case.measured} {sentence}"
    return None


def _cost(case: _Case) -> _Step | None:
    """Steps 3 and 4: what the gain costs elsewhere."""
    allowed = case.thresholds.max_forgetting
    if allowed is not None:
        # Not "above": a loss that is no number is not within the threshold.
        lost = [n for n, delta in case.general.items() if not -delta <= allowed + _ROUNDING]
        if lost:
            # One line, whatever a folder is called.
            sets = ", ".join(f"{' '.join(name.split())} {case.general[name]:+.4f}" for name in lost)
            return (
                "hold",
                "forgot_too_much",
                f"the tuned model lost more than max_forgetting {allowed:.4f} on a general set: "
                f"{sets}; {case.measured}: {case.figures}.",
            )
    budget = case.thresholds.max_latency_regression
    if case.latency and budget is not None and case.latency.exceeds(budget):
        return (
            "hold",
            "too_slow",
            f"p95 query latency grew by {case.latency.growth:.1%} "
            f"({case.latency.base_p95_ms:.2f} to {case.latency.tuned_p95_ms:.2f} ms), more than "
            f"max_latency_regression {budget:.1%}; {case.measured}: {case.figures}.",
        )
    return None


def _noise(case: _Case) -> _Step | None:
    """Steps 5 to 7: what cannot be told."""
    if unsure := [name for name, found in case.sides.items() if not found.ci_low > 0]:
        sentence = f"is above zero, but its 95% interval is not for {' and '.join(unsure)}"
        return (
            "inconclusive",
            "interval_reaches_zero",
            f"{case.measured} {sentence}: {case.figures}.",
        )
    if unsure := [name for name, found in case.sides.items() if not found.p <= ALPHA]:
        sides = " and ".join(f"{name} (p {case.sides[name].p:.4f})" for name in unsure)
        sentence = (
            f"is above zero with its 95% interval, but the sign-flip p is above {ALPHA} for {sides}"
        )
        return "inconclusive", "p_too_high", f"{case.measured} {sentence}: {case.figures}."
    if case.thresholds.max_forgetting is not None and not case.general:
        sentence = (
            "is above zero with its whole 95% interval, but max_forgetting is set and no general "
            "set was measured"
        )
        return (
            "inconclusive",
            "forgetting_not_measured",
            f"{case.measured} {sentence}: {case.figures}.",
        )
    return None


def _sure(case: _Case) -> _Step:
    sentence = "is above zero with its whole 95% interval, dense and hybrid"
    return "promote", "gain_is_sure", f"{case.measured} {sentence}: {case.figures}."


def _unchecked(case: _Case) -> tuple[str, ...]:
    have = {"max_forgetting": bool(case.general), "max_latency_regression": bool(case.latency)}
    asked = asdict(case.thresholds)
    return tuple(n for n, measured in have.items() if asked[n] is not None and not measured)


def _as_json(case: _Case, metric: str) -> dict[str, Any]:
    found: dict[str, Any] = {"metric": metric}
    found |= {name: asdict(side) for name, side in case.sides.items()}
    found["general"] = dict(case.general)
    if case.latency:
        found["latency"] = case.latency.figures()
    return found


def _finite(value: Any) -> Any:
    """The same JSON value with null where a number is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
