"""What asking will cost, before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval_ft.config import SyntheticConfig
from retrieval_ft.mining.synthetic.budget import Budget, estimate, total
from retrieval_ft.mining.synthetic.cache import AnswerCache
from retrieval_ft.mining.synthetic.questions import Scrub, ask_about, shown_url

_QUERY_CHARACTERS = 60
_JSON_CHARACTERS = 20


@dataclass(frozen=True)
class SyntheticPlan:
    """What asking would take. Tokens are estimates: characters / 4."""

    base_url: str
    model: str
    passages: int
    """Passages that are asked about."""
    skipped: Mapping[str, int]
    """Passages that are not, by reason."""
    questions: Mapping[str, int]
    """Questions by kind."""
    from_cache: int
    """Questions that answers in the cache settle."""
    requests: int
    """Questions that are to be sent."""
    prompt_tokens: int
    answer_tokens: int
    cost: float | None
    """In the unit of the prices; None where no price is given."""
    earlier_tokens: int
    """Tokens that the answers in the cache took; they count in the budget."""
    max_tokens: int
    max_cost: float | None
    exceeds_budget: bool


def plan(
    passages: Iterable[tuple[str, str]],
    *,
    config: SyntheticConfig,
    examples: Sequence[str],
    cache: Path,
    seed: int,
    scrub: Scrub | None = None,
) -> SyntheticPlan:
    """Estimate what `write_queries` with the same arguments would send; nothing is sent here.

    Raises:
        ConfigError: as `write_queries` does.
    """
    questions = ask_about(passages, config=config, examples=examples, seed=seed, scrub=scrub)
    with AnswerCache(cache) as answers:
        known = [question.known(answers) for question in questions.items]
    open_questions = [
        (question, len(found))
        for question, (found, settled) in zip(questions.items, known, strict=True)
        if not settled
    ]
    coming = total(
        estimate(
            question.messages(turn),
            answer_characters=_JSON_CHARACTERS + _QUERY_CHARACTERS * question.number,
        )
        for question, turn in open_questions
    )
    earlier = total(answer.usage for found, _ in known for answer in found)
    priced = config.input_price > 0 or config.output_price > 0
    return SyntheticPlan(
        base_url=shown_url(config),
        model=config.model,
        passages=questions.passages,
        skipped=questions.skipped,
        questions=Counter(question.kind for question in questions.items),
        from_cache=len(questions.items) - len(open_questions),
        requests=len(open_questions),
        prompt_tokens=coming.prompt_tokens,
        answer_tokens=coming.answer_tokens,
        cost=coming.cost(config) if priced else None,
        earlier_tokens=earlier.total,
        max_tokens=config.max_tokens,
        max_cost=config.max_cost,
        exceeds_budget=coming.total > 0 and not Budget(config, earlier=earlier).allows(coming),
    )


def plan_text(plan: SyntheticPlan) -> str:
    """A plan in a few lines, for people."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in plan.questions.items())
    lines = [
        f"Synthetic queries: {sum(plan.questions.values()):,} questions about {plan.passages:,} "
        f"passages ({kinds}) to {plan.model} at {plan.base_url}",
        *(f"  not asked about: {count:,} passages ({why})" for why, count in plan.skipped.items()),
        f"  in the cache already: {plan.from_cache:,} questions, which cost nothing now",
        f"  to send: {plan.requests:,} requests, about {plan.prompt_tokens:,} prompt and "
        f"{plan.answer_tokens:,} answer tokens (an estimate: characters / 4)",
        f"  cost: {_cost_text(plan)}",
        f"  budget: {_budget_text(plan)}",
        "  the texts leave this machine; personal data is replaced by marks before",
    ]
    return "\n".join(lines)


def _cost_text(plan: SyntheticPlan) -> str:
    if plan.cost is None:
        return "unknown (give synthetic.input_price and synthetic.output_price to see it)"
    return f"about {_money(plan.cost)}"


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.2g}"


def _budget_text(plan: SyntheticPlan) -> str:
    limits = [f"{plan.max_tokens:,} tokens"]
    if plan.max_cost is not None:
        limits.append(f"{_money(plan.max_cost)} in money")
    spent = f", {plan.earlier_tokens:,} tokens spent earlier" if plan.earlier_tokens else ""
    verdict = (
        "too little: asking stops when it is spent, and what was paid for is used"
        if plan.exceeds_budget
        else "enough"
    )
    return f"{' and '.join(limits)}{spent}: {verdict}"
