"""Write queries for passages with a language model: all of it, from texts to pairs.

Running it again is resuming it: what was answered lies in the cache, the rest is asked, and the same
answers give the same pairs in the same order, however they arrived.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from retrieval_ft.config import SyntheticConfig
from retrieval_ft.console import note, progress
from retrieval_ft.endpoints import Backoff
from retrieval_ft.errors import DependencyError
from retrieval_ft.mining.generate.types import GeneratedPair
from retrieval_ft.mining.synthetic.answers import normalised, parse, refusal
from retrieval_ft.mining.synthetic.asking import FATAL, USELESS, Asker, useless
from retrieval_ft.mining.synthetic.budget import Budget, total
from retrieval_ft.mining.synthetic.cache import AnswerCache
from retrieval_ft.mining.synthetic.questions import Question, Questions, Scrub, ask_about

if TYPE_CHECKING:
    from retrieval_ft.mining.synthetic.client import Endpoint


@dataclass(frozen=True)
class SyntheticAccount:
    """What became of every passage, question and query.

    `questions` is `answered` + `from_cache` + `not_asked` and all of `failed`; `queries` is the pairs
    and all of `refused`.
    """

    passages: int
    """Passages that were asked about."""
    skipped: Mapping[str, int]
    """Passages that were not, by reason."""
    questions: int
    answered: int
    """Questions that a model answered in this call."""
    from_cache: int
    """Questions that were answered before."""
    failed: Mapping[str, int]
    """Questions without a usable answer, by reason: garbage, empty or cut_short (in this call or
    before), or a fault of the endpoint (unreachable, dropped, timeout, rate_limited, server_error,
    no_completion, rejected, no_credit)."""
    not_asked: int
    """Questions that were left when the asking ended."""
    requests: int
    """Requests of this call, second tries among them."""
    queries: int
    """Queries read from answers."""
    refused: Mapping[str, int]
    """Queries that are no pair, by reason: surplus, empty, too_long, copies_example, copies_passage,
    repeated."""


@dataclass(frozen=True)
class SyntheticResult:
    """Pairs of a written query and its passage, sorted by passage, kind and query."""

    pairs: tuple[GeneratedPair, ...]
    account: SyntheticAccount
    prompt_tokens: int
    """Spent on these questions in all, earlier calls and useless answers among them."""
    answer_tokens: int
    estimated_tokens: int
    """Tokens of both that are an estimate, because the server did not say."""
    earlier_tokens: int
    """Tokens of both that earlier calls spent."""
    cost: float
    """By the prices of the configuration; 0 where it gives none."""
    stopped_by: Literal["budget", "endpoint"] | None
    message: str | None
    """Why it stopped, for people."""


def write_queries(
    passages: Iterable[tuple[str, str]],
    *,
    config: SyntheticConfig,
    examples: Sequence[str],
    cache: Path,
    seed: int,
    scrub: Scrub | None = None,
    backoff: Backoff | None = None,
) -> SyntheticResult:
    """Have a language model write queries for passages.

    Texts leave this machine for `config.base_url`, after personal data was replaced in them. Each
    answer is in the cache when it has arrived; an interrupt loses those in flight only.

    Args:
        passages: Ids and texts; at most `config.max_passages` are chosen.
        config: Where and what to ask, and what it may cost, earlier calls counted.
        examples: Queries of the user's own, of which `config.few_shot` are shown as examples.
        cache: Folder of the answers.
        seed: Decides which passages and examples are chosen; part of the cache's key.
        scrub: Replaces personal data; by default the house's.
        backoff: Waits between tries.

    Raises:
        ConfigError: the section does not say where to ask, or how to count a budget in money.
        DependencyError: `openai` is not installed, a key is missing or refused, the model is not
            known, the endpoint is down, or it answered nothing at all. What it had answered is kept.
    """
    questions = ask_about(passages, config=config, examples=examples, seed=seed, scrub=scrub)
    with AnswerCache(cache) as answers:
        unsettled, used = [], []
        for question in questions.items:
            found, settled = question.known(answers)
            used += [answer.usage for answer in found]
            if not settled:
                unsettled.append(question)
        budget = Budget(config, earlier=total(used))
        asker = Asker(config, cache=answers, budget=budget, backoff=backoff or Backoff())
        if unsettled:
            asyncio.run(_ask(asker, unsettled, _endpoint(config)))
        return _result(questions, asker, answers, config, earlier_tokens=total(used).total)


def _endpoint(config: SyntheticConfig) -> Endpoint:
    try:
        from retrieval_ft.mining.synthetic.client import Endpoint
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"synthetic queries need the package {error.name!r}, which is not installed; run "
            "pip install 'retrieval-ft[synthetic]'"
        ) from error
    return Endpoint(config)


async def _ask(asker: Asker, questions: Sequence[Question], endpoint: Endpoint) -> None:
    async with endpoint:
        with progress("writing queries", len(questions)) as ticker:
            await asker.ask(questions, endpoint, done=ticker.advance)


def _result(
    questions: Questions,
    asker: Asker,
    answers: AnswerCache,
    config: SyntheticConfig,
    *,
    earlier_tokens: int,
) -> SyntheticResult:
    pairs: list[GeneratedPair] = []
    failed, refused = Counter(asker.failed), Counter[str]()
    usable = queries = 0
    for question in questions.items:
        found, settled = question.known(answers)
        written = parse(found[-1].text, number=question.number) if found else []
        queries += len(written)
        usable += bool(written)
        pairs += _pairs(question, written, refused)
        if settled and not written:
            failed[useless(found[-1])] += 1
    pairs = _without_repeats(pairs, refused)
    left = len(questions.items) - usable - failed.total()
    unsettled = left + asker.failed.total()
    by, message = _verdict(asker, answers, usable=usable, left=unsettled)
    spent = asker.budget.spent
    return SyntheticResult(
        pairs=tuple(pairs),
        account=SyntheticAccount(
            passages=questions.passages,
            skipped=questions.skipped,
            questions=len(questions.items),
            answered=asker.answered,
            from_cache=usable - asker.answered,
            failed=_sorted(failed),
            not_asked=left,
            requests=asker.requests,
            queries=queries,
            refused=_sorted(refused),
        ),
        prompt_tokens=spent.prompt_tokens,
        answer_tokens=spent.answer_tokens,
        estimated_tokens=spent.estimated,
        earlier_tokens=earlier_tokens,
        cost=spent.cost(config),
        stopped_by=by,
        message=message,
    )


def _pairs(
    question: Question, written: Sequence[str], refused: Counter[str]
) -> Iterator[GeneratedPair]:
    """Pairs of the queries that can be used; the others are counted."""
    refused["surplus"] += len(written[question.number :])
    for query in written[: question.number]:
        reason = refusal(query, passage=question.text, examples=question.examples)
        if reason is None:
            yield GeneratedPair(query, question.passage_id, f"synthetic:{question.kind}")
        else:
            refused[reason] += 1


def _without_repeats(pairs: Sequence[GeneratedPair], refused: Counter[str]) -> list[GeneratedPair]:
    """Sorted pairs, each query of a passage once."""
    kept: dict[tuple[str, str], GeneratedPair] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.passage_id, pair.kind, pair.query)):
        kept.setdefault((pair.passage_id, normalised(pair.query)), pair)
    refused["repeated"] += len(pairs) - len(kept)
    return list(kept.values())


def _verdict(
    asker: Asker, answers: AnswerCache, *, usable: int, left: int
) -> tuple[Literal["budget", "endpoint"] | None, str | None]:
    """What ended the asking early, and a line about it.

    Raises:
        DependencyError: the set-up is wrong, or nothing was answered by fault of the endpoint.
    """
    stop = asker.stop
    if stop is None and not usable and asker.last and asker.last.reason not in USELESS:
        stop = asker.last
    if stop is None:
        return None, None
    kept = f"{usable:,} questions are answered ({answers.path}), {left:,} are left"
    if stop.reason == "budget":
        message = (
            f"synthetic queries: the budget is spent; {kept}: raise synthetic.max_tokens or "
            "synthetic.max_cost and run again to go on"
        )
        note(message)
        return "budget", message
    message = f"synthetic queries: {stop.message}; {kept}: run again to go on"
    if stop.reason in FATAL or not usable:
        raise DependencyError(message)
    note(message)
    return "endpoint", message


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(counts.items()) if count}
