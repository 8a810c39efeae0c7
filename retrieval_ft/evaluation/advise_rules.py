"""The ordered rules of `advise`: the first that applies says what to do first, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from retrieval_ft.evaluation.costs import Action, Cost, labels_missing, target_gain, value
from retrieval_ft.evaluation.facts import Facts, Gain, Limits, Prices

AdviceRule = Literal[
    "good_enough",
    "no_headroom",
    "passages_cut",
    "hybrid_is_better",
    "gain_is_shown",
    "test_set_cannot_tell",
    "found_but_ranked_low",
    "tuning_untried",
    "too_few_labels",
    "nothing_pays",
]
_HALF = 0.5
_Z = 1.96


@dataclass(frozen=True)
class Case:
    """Everything that a rule may look at."""

    facts: Facts
    prices: Prices
    limits: Limits
    costs: Mapping[Action, Cost]

    def net(self, action: Action, gain: float) -> float:
        """Value of a gain over 12 months less the cost of the option."""
        queries = self.facts.queries_per_month
        worth = value(gain, queries=queries, prices=self.prices)
        return worth - self.costs[action].total(queries)

    def pays(self, action: Action, gain: float) -> bool:
        """Whether a gain is worth more over 12 months than the option costs."""
        return self.net(action, gain) > 0

    @property
    def could_show(self) -> bool:
        """Whether the test set could show tuning winning everything that is missing."""
        return self.facts.detectable <= self.facts.headroom

    @property
    def can_tell(self) -> bool:
        """Whether the test set shows the gain that an unmeasured option is expected to bring."""
        return self.facts.detectable <= target_gain(self.facts, self.limits)

    @property
    def rerank_open(self) -> bool:
        """Whether reranking may yet turn out to be worth having."""
        room = self.facts.rerank_headroom >= self.limits.least_gain
        return room and _open(self.facts.reranked, self.limits)

    @property
    def tune_open(self) -> bool:
        """The same of tuning, also where it has shown a gain that the test set cannot show."""
        found = self.facts.tuned
        return _open(found, self.limits) or (
            found is not None and found.shown and not self.could_show
        )

    @property
    def credit_rerank(self) -> float:
        """The gain that reranking is given credit for while it is unmeasured."""
        return min(self.limits.plausible_gain, self.facts.rerank_headroom)

    @property
    def credit_tune(self) -> float:
        """The same of tuning."""
        return min(self.limits.plausible_gain, self.facts.headroom)

    @property
    def credit_chunking(self) -> float:
        """The same of chunking: queries spread evenly miss no larger share than was cut."""
        return min(self.credit_tune, self.facts.truncated_passages)


Found = tuple[Action, AdviceRule, str]


def decide_first(case: Case) -> Found:
    """What to do first, the name of the rule that says so, and why, in one clause with figures.

    The first rule that applies decides.

    1. `good_enough`, leave_it: recall@10 of what is served is `enough` even at the lower end of its
       95% Wilson interval.
    2. `passages_cut`, fix_chunking: at least `truncated` of the passages lose their end, and a
       plausible gain pays for cutting them anew. Text that is not encoded cannot be found by meaning,
       and it also blurs whatever is measured next.
    3. `hybrid_is_better`, add_hybrid: the hybrid is not served, beats what is served by `least_gain`
       and beyond noise (its interval; else the smallest detectable difference), and pays.
    4. `no_headroom`, leave_it: the hybrid misses less than `least_gain`.
    5. `gain_is_shown`, tune or rerank: those with a measured gain of `least_gain` beyond noise that
       pay; of two the one with more value left after its cost. Tuning only where the test set could
       show it.
    6. `test_set_cannot_tell`, collect_labels: an option is open (unmeasured, or its interval holds
       both 0 and `least_gain`), and the test set cannot show `costs.target_gain`; labels and the
       cheaper open option together pay at that gain.
    7. `found_but_ranked_low`, rerank: unmeasured, it pays at the gain it is given credit for, and
       at least half of what is missing at 10 stands among the first 100; where tuning is a
       candidate too, reranking must not cost more.
    8. `tuning_untried`, tune: unmeasured, train labels suffice, and it pays at its credit.
    9. `found_but_ranked_low`, rerank: as 7, with less than half, or dearer, where tuning is none.
    10. `too_few_labels`, collect_labels: tuning is open, train labels are fewer than `train_labels`,
        and labels and tuning together pay at its credit.
    11. `nothing_pays`, leave_it.

    What rules 7 to 9 recommend unmeasured, the test set can show: where it cannot and labels do not
    pay, neither does trying.
    """
    return next(found for found in (step(case) for step in _STEPS) if found)


def wilson_low(share: float, n: int) -> float:
    """Lower end of the 95% interval of a share seen on n queries (Wilson 1927).

    (s + z^2/2n - z sqrt(s(1-s)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96. For recall of queries with
    several relevant passages it is wider than need be.
    """
    square = _Z * _Z / n
    spread = _Z * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, (share + square / 2 - spread) / (1 + square))


def _open(found: Gain | None, limits: Limits) -> bool:
    """Whether a gain that is worth having can neither be claimed nor ruled out."""
    return found is None or (not found.shown and found.high >= limits.least_gain)


def _good_enough(case: Case) -> Found | None:
    facts = case.facts
    low = wilson_low(facts.served_recall_10, facts.test_queries)
    if low < case.limits.enough:
        return None
    why = (
        f"{facts.serves} search finds {facts.served_recall_10:.3f} at 10, at least {low:.3f} with 95% "
        f"confidence, and {case.limits.enough:.3f} is enough"
    )
    return "leave_it", "good_enough", why


def _passages_cut(case: Case) -> Found | None:
    share = case.facts.truncated_passages
    if share < case.limits.truncated or not case.pays("fix_chunking", case.credit_chunking):
        return None
    why = f"{share:.0%} of the passages are longer than the model reads, so what they end with is lost"
    return "fix_chunking", "passages_cut", why


def _hybrid_is_better(case: Case) -> Found | None:
    facts = case.facts
    if facts.serves == "hybrid":
        return None
    gain = hybrid_gain(facts)
    if not (
        hybrid_is_sure(facts) and gain >= case.limits.least_gain and case.pays("add_hybrid", gain)
    ):
        return None
    why = (
        f"the hybrid finds {points(gain)} more than {facts.serves} search alone, which is beyond "
        "noise, and it needs no training"
    )
    return "add_hybrid", "hybrid_is_better", why


def _no_headroom(case: Case) -> Found | None:
    if case.facts.headroom >= case.limits.least_gain:
        return None
    why = f"the hybrid misses only {points(case.facts.headroom)} at 10"
    return "leave_it", "no_headroom", why


def _gain_is_shown(case: Case) -> Found | None:
    measured: dict[Action, Gain | None] = {
        "tune": case.facts.tuned if case.could_show else None,
        "rerank": case.facts.reranked,
    }
    nets = {
        action: (case.net(action, gain.delta), gain)
        for action, gain in measured.items()
        if gain and gain.shown and gain.delta >= case.limits.least_gain
    }
    paying = {action: found for action, found in nets.items() if found[0] > 0}
    if not paying:
        return None
    best = max(paying, key=lambda action: paying[action][0])
    net, gain = paying[best]
    why = (
        f"it has shown {points(gain.delta, signed=True)} [{gain.low:+.3f}, {gain.high:+.3f}] over the "
        f"base hybrid, worth {money(net, case.prices)} more than it costs over 12 months"
    )
    return best, "gain_is_shown", why


def _test_set_cannot_tell(case: Case) -> Found | None:
    facts, target = case.facts, target_gain(case.facts, case.limits)
    queries = facts.queries_per_month
    undecided: dict[Action, bool] = {"tune": case.tune_open, "rerank": case.rerank_open}
    after = [case.costs[action].total(queries) for action in undecided if undecided[action]]
    if not after or case.can_tell:
        return None
    spent = case.costs["collect_labels"].total(queries) + min(after)
    if value(target, queries=queries, prices=case.prices) <= spent:
        return None
    _, missing = labels_missing(facts, case.limits)
    why = (
        f"{facts.test_queries:,} test queries cannot show a gain under {points(facts.detectable)}, "
        f"which tuning or reranking would have to prove; {missing:,} more show {points(target)}"
    )
    return "collect_labels", "test_set_cannot_tell", why


def _rerank(case: Case, *, before_tuning: bool) -> Found | None:
    """Rules 7 and 9."""
    facts = case.facts
    candidate = case.can_tell and case.rerank_open and facts.reranked is None
    if not candidate or not case.pays("rerank", case.credit_rerank):
        return None
    if before_tuning:
        queries = facts.queries_per_month
        dearer = case.costs["rerank"].total(queries) > case.costs["tune"].total(queries)
        low = facts.rerank_headroom < _HALF * facts.headroom
        if low or (dearer and _tune_is_candidate(case)):
            return None
    why = (
        f"{points(facts.rerank_headroom)} of the {points(facts.headroom)} missing at 10 stand among "
        "the first 100 passages, where a reranker can lift them; measure it"
    )
    return "rerank", "found_but_ranked_low", why


def _tune_is_candidate(case: Case) -> bool:
    return (
        case.can_tell
        and case.facts.tuned is None
        and case.facts.train_labels >= case.limits.train_labels
        and case.pays("tune", case.credit_tune)
    )


def _tuning_untried(case: Case) -> Found | None:
    if not _tune_is_candidate(case):
        return None
    facts = case.facts
    why = (
        f"{facts.train_labels:,} train labels are enough to try, {points(facts.headroom)} are missing "
        f"at 10, and the test set shows a gain from {points(facts.detectable)}"
    )
    return "tune", "tuning_untried", why


def _too_few_labels(case: Case) -> Found | None:
    facts, least = case.facts, case.limits.train_labels
    if not case.tune_open or facts.train_labels >= least:
        return None
    queries = facts.queries_per_month
    spent = case.costs["collect_labels"].total(queries) + case.costs["tune"].total(queries)
    if value(case.credit_tune, queries=queries, prices=case.prices) <= spent:
        return None
    why = f"tuning on {facts.train_labels:,} train labels wins little, {least:,} are needed"
    return "collect_labels", "too_few_labels", why


def _nothing_pays(case: Case) -> Found:
    why = (
        f"no option has shown, or can be given credit for, a gain that pays at "
        f"{case.facts.queries_per_month:,.0f} queries a month"
    )
    return "leave_it", "nothing_pays", why


_STEPS: tuple[Callable[[Case], Found | None], ...] = (
    _good_enough,
    _passages_cut,
    _hybrid_is_better,
    _no_headroom,
    _gain_is_shown,
    _test_set_cannot_tell,
    lambda case: _rerank(case, before_tuning=True),
    _tuning_untried,
    lambda case: _rerank(case, before_tuning=False),
    _too_few_labels,
    _nothing_pays,
)


def hybrid_is_sure(facts: Facts) -> bool:
    """Whether `hybrid_gain` is more than luck: by its interval, else by `Facts.detectable`."""
    return facts.hybrid.shown if facts.hybrid else hybrid_gain(facts) >= facts.detectable


def hybrid_gain(facts: Facts) -> float:
    """Gain of recall@10 of the base hybrid over what is served today."""
    if facts.hybrid:
        return facts.hybrid.delta
    return facts.base_hybrid_recall_10 - facts.served_recall_10


def points(share: float, *, signed: bool = False) -> str:
    """A share as points of recall: .05 -> `5.0 points`."""
    return f"{100 * share:{'+' if signed else ''}.1f} points"


def money(amount: float, prices: Prices) -> str:
    """An amount with its currency; cents where it is small."""
    return f"{amount:,.{2 if amount < 10 else 0}f} {prices.currency}"
