"""What to do first for better retrieval, and whether it pays: rules over measured facts and prices.

The rules are ordered and the first that applies decides, so that the advice is always one option, with
the figures behind it. Nothing is recommended that would not pay at the gain it has shown or, where
none was measured, at the gain it is given credit for; and tuning never where the test set could not have
shown its gain: labels come first then.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from retrieval_ft.evaluation.advise_rules import (
    AdviceRule,
    Case,
    decide_first,
    hybrid_gain,
    hybrid_is_sure,
    money,
    points,
)
from retrieval_ft.evaluation.costs import (
    ACTIONS,
    MONTHS,
    Action,
    break_even,
    cheaper_from,
    costs,
    labels_missing,
    memory,
    reindexing,
    training,
)
from retrieval_ft.evaluation.facts import Facts, Gain, Limits, Prices

Place = Literal["index", "weights"]
PlaceRule = Literal["facts_change", "index_is_cheaper", "stable_and_cheaper"]
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Option:
    """One option with what it may bring and what it costs, in the currency of the prices."""

    action: Action
    gain: float | None
    """Measured gain of recall@10 over what is served or over the base hybrid; None: unknown."""
    about: str
    """Where the gain comes from, or how to measure it."""
    one_time: float
    per_month: float
    """Without the queries."""
    per_query: float
    monthly: float
    """With the queries of the facts."""
    total_12_months: float
    break_even_queries: float | None
    """Queries a month from which it pays for itself within 12 months; None: unknown, or none."""
    break_even_at: float | None
    """The gain that `break_even_queries` was taken at; None where there is none to take."""


@dataclass(frozen=True)
class Knowledge:
    """Where what the corpus says should be kept."""

    place: Place
    rule: PlaceRule
    why: str
    index_12_months: float
    """Cost of keeping it in an index for 12 months."""
    weights_12_months: float
    """Cost of keeping it in weights for 12 months."""


@dataclass(frozen=True)
class Advice:
    """What to do first, and the whole reckoning."""

    first: Action
    rule: AdviceRule
    why: str
    """One sentence with the figures."""
    options: tuple[Option, ...]
    knowledge: Knowledge
    detectable: float
    """Smallest difference of recall@10 that the test queries most likely show."""
    tuning_cheaper_from: float | None
    """Queries a month from which tuning costs less over 12 months than reranking; None: never."""
    facts: Facts
    prices: Prices
    limits: Limits

    def document(self) -> dict[str, Any]:
        """The advice with every input, as JSON values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def advise(facts: Facts, prices: Prices | None = None, limits: Limits | None = None) -> Advice:
    """Say what to do first, by the ordered rules of `advise_rules.decide_first`.

    Args:
        facts: What was measured, and how it is used.
        prices: Defaults unless given.
        limits: Defaults unless given.
    """
    prices, limits = prices or Prices(), limits or Limits()
    case = Case(facts, prices, limits, costs(facts, prices, limits))
    first, rule, why = decide_first(case)
    return Advice(
        first=first,
        rule=rule,
        why=why,
        options=tuple(_option(case, action) for action in ACTIONS),
        knowledge=place_of_knowledge(facts, prices, limits),
        detectable=facts.detectable,
        tuning_cheaper_from=cheaper_from(case.costs["tune"], case.costs["rerank"]),
        facts=facts,
        prices=prices,
        limits=limits,
    )


def place_of_knowledge(facts: Facts, prices: Prices, limits: Limits) -> Knowledge:
    """Whether what the corpus says belongs in an index or in weights.

    1. `facts_change`, index: `changing` or more of the corpus changes in a month.
    2. `index_is_cheaper`, index: over 12 months it costs no more than weights do.
    3. `stable_and_cheaper`, weights.

    Index: `reindexing` once and for what changes, (1 + 12 * change) * reindexing, and 12 months of
    memory. Weights: hours_tune and a `training` on a pair for each passage; and that training with
    hours_retune each time that `stale` of the facts are out of date, 12 * change / stale times. What
    an embedder learns when it is tuned is another thing: how questions are worded, which changes
    slowly.
    """
    change = facts.corpus_change_per_month
    index = (1 + MONTHS * change) * reindexing(facts, prices)
    index += MONTHS * memory(facts.passages, prices)
    once = training(facts.passages, prices)
    weights = prices.hours_tune * prices.engineer_hour + once
    again = prices.hours_retune * prices.engineer_hour + once
    weights += MONTHS * change / limits.stale * again
    both = f"{money(index, prices)} in an index, {money(weights, prices)} in weights"
    changing = f"{change:.1%} of the corpus changes in a month"
    if change >= limits.changing:
        why = f"{changing}, and facts that change belong in the index (over 12 months: {both})"
        return Knowledge("index", "facts_change", why, index, weights)
    if index <= weights:
        why = f"{changing}, but keeping it for 12 months costs {both}"
        return Knowledge("index", "index_is_cheaper", why, index, weights)
    why = f"{changing}, and keeping it for 12 months costs {both}; weights name no source, though"
    return Knowledge("weights", "stable_and_cheaper", why, index, weights)


def advice_text(advice: Advice) -> str:
    """The advice for people, in plain lines; ends with a line break."""
    prices, limits = advice.prices, advice.limits
    lines = [
        f"Do first: {_name(advice.first)}. {_sentence(advice.why)}",
        "",
        f"With {advice.facts.test_queries:,} test queries the smallest difference that most likely "
        f"shows is {points(advice.detectable)}.",
        "",
        f"Options, costs in {prices.currency} at {advice.facts.queries_per_month:,.0f} queries a month:",
    ]
    for option in advice.options:
        lines += [f"- {_name(option.action)}: {_gain(option)}", f"  {_costs(option)}"]
    volume = advice.tuning_cheaper_from
    when = "at no volume" if volume is None else f"from {volume:,.0f} queries a month"
    lines += [
        "",
        f"Tuning costs less than reranking over 12 months {when}.",
        f"Knowledge belongs in the {advice.knowledge.place}: {_sentence(advice.knowledge.why)}",
        "",
        f"Gains are of recall@10. Unmeasured options are given credit for {limits.plausible_gain:.2f} "
        f"at most; one query more that finds its passage is taken to be worth "
        f"{prices.value_per_find:g} {prices.currency}. Edit these, and every other input, in a file.",
    ]
    return "\n".join(lines) + "\n"


def advice_rows(advice: Advice) -> list[dict[str, str]]:
    """The advice as rows of a table, what to do first at its head: `[{"option": ..., "text": ...}]`."""
    first = {"option": f"do first: {_name(advice.first)}", "text": _sentence(advice.why)}
    options = [
        {"option": _name(one.action), "text": f"{_gain(one)}; {_costs(one)}"}
        for one in advice.options
    ]
    place = advice.knowledge
    return [first, *options, {"option": f"knowledge: {place.place}", "text": _sentence(place.why)}]


def _gain(option: Option) -> str:
    gain = "unknown" if option.gain is None else points(option.gain, signed=True)
    return f"gain {gain} ({option.about})"


def _costs(option: Option) -> str:
    return (
        f"once {option.one_time:,.0f}, a month {option.monthly:,.2f}, 12 months "
        f"{option.total_12_months:,.0f}; {_break_even(option)}"
    )


def _option(case: Case, action: Action) -> Option:
    gain, about, credit = _expected(case, action)
    cost, queries = case.costs[action], case.facts.queries_per_month
    at = credit if gain is None else gain
    return Option(
        action=action,
        gain=gain,
        about=about,
        one_time=cost.one_time,
        per_month=cost.per_month,
        per_query=cost.per_query,
        monthly=cost.monthly(queries),
        total_12_months=cost.total(queries),
        break_even_queries=None if at is None else break_even(cost, gain=at, prices=case.prices),
        break_even_at=at,
    )


def _expected(case: Case, action: Action) -> tuple[float | None, str, float | None]:
    """The measured gain of an option, where it is from or how to measure it, and its credit."""
    facts, credit = case.facts, case.credit_tune
    if action == "fix_chunking":
        about = "measure by cutting smaller passages (chunking.tokens) and evaluating again"
        return None, about, case.credit_chunking or None
    if action == "add_hybrid":
        if facts.serves == "hybrid":
            return 0.0, "it is served already", None
        sure = "" if hybrid_is_sure(facts) else ", which may be noise"
        return hybrid_gain(facts), f"measured over {facts.serves} search alone{sure}", None
    if action == "rerank":
        most = f"at most {points(facts.rerank_headroom)}, recall@100 less recall@10"
        return _measured(
            facts.reranked, f"{most}; measure by evaluating with a reranker", case.credit_rerank
        )
    if action == "tune":
        return _measured(facts.tuned, "measure by training: it ends with a verdict", credit)
    if action == "collect_labels":
        train, test = labels_missing(facts, case.limits)
        return None, f"none by itself: {train:,} to train on and {test:,} to test with", None
    return 0.0, "nothing changes", None


def _measured(found: Gain | None, how: str, credit: float) -> tuple[float | None, str, float]:
    if found is None:
        return None, how, credit
    sure = "" if found.shown else ", which may be noise"
    return found.delta, f"measured [{found.low:+.3f}, {found.high:+.3f}]{sure}", credit


def _name(action: Action) -> str:
    return {"tune": "tune the embedder"}.get(action, action.replace("_", " "))


def _break_even(option: Option) -> str:
    at = option.break_even_at
    if at is None or option.total_12_months == 0:
        return "no break-even"
    if option.break_even_queries is None:
        return f"pays at no volume at a gain of {points(at)}"
    return f"pays from {option.break_even_queries:,.0f} queries a month at a gain of {points(at)}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
