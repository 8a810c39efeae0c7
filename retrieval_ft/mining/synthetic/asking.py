"""Many questions at once: retries with back-off, the budget, the cache, and when to stop.

Questions are taken in their order by `synthetic.concurrency` workers. A fault of one question is
counted and the next one is asked; faults that will not go away end the asking, and what has arrived by
then is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_ft.config import SyntheticConfig
from retrieval_ft.console import note
from retrieval_ft.endpoints import LONGEST_WAIT_S, Backoff
from retrieval_ft.mining.synthetic.answers import parse
from retrieval_ft.mining.synthetic.budget import Budget, Usage, most
from retrieval_ft.mining.synthetic.cache import Answer, AnswerCache
from retrieval_ft.mining.synthetic.faults import Fault
from retrieval_ft.mining.synthetic.questions import TURNS, Question

if TYPE_CHECKING:
    from retrieval_ft.mining.synthetic.client import Endpoint

FATAL = frozenset({"unreachable", "key", "model", "redirect", "status"})
"""Faults of the set-up: nobody will be answered."""

USELESS = frozenset({"garbage", "empty", "cut_short"})
"""Answers that hold no queries: the model's fault, not the endpoint's."""

_TRANSIENT = frozenset({"dropped", "timeout", "rate_limited", "server_error", "no_completion"})
_TRIED_AGAIN = _TRANSIENT | {"unreachable"}
_IN_A_ROW: Mapping[str, int] = {
    **dict.fromkeys(FATAL | {"no_credit"}, 1),
    **dict.fromkeys(_TRANSIENT, 3),
    **dict.fromkeys(USELESS | {"rejected"}, 20),
}
"""Questions that may fail by a reason, with none answered between, before the asking ends."""

_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Stop:
    """Why asking ended before all questions were answered."""

    reason: str
    """`budget`, or the reason of the fault."""
    message: str


class Asker:
    """Asks questions until all are settled or something ends it; the answers go to the cache."""

    def __init__(
        self, config: SyntheticConfig, *, cache: AnswerCache, budget: Budget, backoff: Backoff
    ) -> None:
        self.budget = budget
        self.answered = self.requests = 0
        self.failed: Counter[str] = Counter()
        """Questions by the fault that they ended with; useless answers are in the cache instead."""
        self.stop: Stop | None = None
        self.last: Stop | None = None
        """The last failure, whether or not it ended the asking."""
        self._config, self._cache = config, cache
        self._backoff = backoff
        self._row: Counter[str] = Counter()
        self._over = asyncio.Event()
        self._said: set[str] = set()

    async def ask(
        self, questions: Sequence[Question], endpoint: Endpoint, *, done: Callable[[], None]
    ) -> None:
        """Put the questions; `done` is called after each."""
        waiting = iter(questions)

        async def work() -> None:
            while self.stop is None and (question := next(waiting, None)) is not None:
                await self._settle(question, endpoint)
                done()

        workers = min(self._config.concurrency, len(questions))
        await asyncio.gather(*(work() for _ in range(workers)))

    async def _settle(self, question: Question, endpoint: Endpoint) -> None:
        answer = None
        for turn in range(TURNS):
            try:
                answer = self._cache.get(question.key(turn)) or await self._tries(
                    question, turn, endpoint
                )
            except Fault as fault:
                self.failed[fault.reason] += 1
                self._in_vain(fault.reason, str(fault))
                return
            if answer is None:  # the budget
                return
            if parse(answer.text, number=question.number):
                self.answered += 1
                self._row.clear()
                return
        if answer is not None:
            said = " ".join(answer.text.split())[:_SHOWN_CHARACTERS]
            self._in_vain(
                useless(answer), f"the model writes no queries; it last answered {said!r}"
            )

    async def _tries(self, question: Question, turn: int, endpoint: Endpoint) -> Answer | None:
        """Ask once, and again after transient faults; None where the budget does not allow it."""
        attempt = 0
        while True:
            try:
                return await self._once(question, turn, endpoint)
            except Fault as fault:
                wait = fault.wait_s or self._backoff.wait(attempt)
                tries = 1 if fault.reason == "no_completion" else self._config.retries
                if fault.reason not in _TRIED_AGAIN or attempt >= min(tries, self._config.retries):
                    raise
                if wait > LONGEST_WAIT_S:
                    raise
                self._say(fault)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), wait)
                if self.stop is not None:
                    raise
            attempt += 1

    async def _once(self, question: Question, turn: int, endpoint: Endpoint) -> Answer | None:
        messages = question.messages(turn)
        held, used = most(messages, cap=question.answer_cap), Usage()
        if not await self.budget.reserve(held):
            self._end(Stop("budget", "the budget does not allow another request"))
            return None
        if self.stop is not None:  # while this one waited for its share
            await self.budget.settle(held, used=used)
            return None
        self.requests += 1
        try:
            reply = await endpoint.ask(messages, cap=question.answer_cap)
            # Nothing is awaited before this: an interrupt cannot lose an answer that has arrived.
            answer = Answer(reply.text, reply.usage, reply.cut)
            self._cache.add(question.key(turn), answer)
            used = reply.usage
        except Fault as fault:
            used = fault.used
            raise
        finally:
            await self.budget.settle(held, used=used)
        return answer

    def _in_vain(self, reason: str, message: str) -> None:
        self._row[reason] += 1
        self.last = Stop(reason, message)
        if self._row[reason] >= _IN_A_ROW[reason]:
            self._end(self.last)

    def _end(self, stop: Stop) -> None:
        self.stop = self.stop or stop
        self._over.set()

    def _say(self, fault: Fault) -> None:
        """One line for the first fault of each kind, so that waiting has an explanation."""
        if fault.reason not in self._said:
            self._said.add(fault.reason)
            note(f"{fault}; waiting, then trying again")


def useless(answer: Answer) -> str:
    """Why an answer holds no queries: `cut_short`, `empty` or `garbage`."""
    if answer.cut:
        return "cut_short"
    return "garbage" if answer.text.strip() else "empty"
