"""Tokens and money: what a request may cost at most, what it did cost, and what is left.

A request is sent only when the most it can cost still fits beside what is spent and what is in
flight, so that the budget holds with any number of requests at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from retrieval_ft.config import SyntheticConfig
from retrieval_ft.mining.synthetic.prompts import Messages

_CHARACTERS_PER_TOKEN = 4
_MESSAGE_TOKENS = 64
"""What a chat template may add to a message."""


@dataclass(frozen=True)
class Usage:
    """Tokens of requests and their answers."""

    prompt_tokens: int = 0
    answer_tokens: int = 0
    estimated: int = 0
    """Those of both that were estimated, because the server did not say."""

    @property
    def total(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.answer_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.answer_tokens + other.answer_tokens,
            self.estimated + other.estimated,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens - other.prompt_tokens,
            self.answer_tokens - other.answer_tokens,
            self.estimated - other.estimated,
        )

    def cost(self, config: SyntheticConfig) -> float:
        """Money, by the prices of the configuration (which are for a million tokens)."""
        prices = (config.input_price, config.output_price)
        return (self.prompt_tokens * prices[0] + self.answer_tokens * prices[1]) / 1e6


def total(usages: Iterable[Usage]) -> Usage:
    """The sum of usages."""
    return sum(usages, Usage())


def estimate(messages: Messages, *, answer_characters: int) -> Usage:
    """Usage by the rule of thumb for English text, a token for four characters."""
    prompt = sum(-(-len(message["content"]) // _CHARACTERS_PER_TOKEN) for message in messages)
    answer = -(-answer_characters // _CHARACTERS_PER_TOKEN)
    return Usage(prompt, answer, prompt + answer)


def most(messages: Messages, *, cap: int) -> Usage:
    """The most a request can use whose answer is cut at `cap` tokens.

    No tokenizer makes more tokens of a text than it has bytes in UTF-8.
    """
    prompt = sum(len(message["content"].encode()) + _MESSAGE_TOKENS for message in messages)
    return Usage(prompt, cap)


class Budget:
    """What may be spent, is spent, and is held for requests in flight."""

    def __init__(self, config: SyntheticConfig, *, earlier: Usage) -> None:
        self.spent = earlier
        self._config = config
        self._held = Usage()
        self._changed = asyncio.Condition()

    def allows(self, usage: Usage) -> bool:
        """Whether a usage fits into what is neither spent nor held."""
        after = self.spent + self._held + usage
        if after.total > self._config.max_tokens:
            return False
        return self._config.max_cost is None or after.cost(self._config) <= self._config.max_cost

    async def reserve(self, usage: Usage) -> bool:
        """Hold a usage; waits for requests in flight to give back what they do not need.

        Returns False, and holds nothing, where it does not fit even when nothing is in flight.
        """
        async with self._changed:
            while not self.allows(usage):
                if self._held.total == 0:
                    return False
                await self._changed.wait()
            self._held += usage
            return True

    async def settle(self, held: Usage, *, used: Usage) -> None:
        """Give back what was held for a request and count what it used."""
        self.spent += used
        self._held -= held
        async with self._changed:
            self._changed.notify_all()
