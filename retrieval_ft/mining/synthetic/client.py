"""One request to an OpenAI-compatible endpoint: an answer, or a fault with a name.

How an endpoint is reached, and what its faults mean, is the same for all of them (`endpoints`); here
is what belongs to chat completions.
"""

from __future__ import annotations

import json
from typing import Any

import openai

from retrieval_ft.config import SyntheticConfig
from retrieval_ft.endpoints import Address, Connection, retry_after
from retrieval_ft.mining.synthetic.budget import Usage, estimate
from retrieval_ft.mining.synthetic.faults import Fault, Reply
from retrieval_ft.mining.synthetic.prompts import Messages

__all__ = ["Endpoint", "retry_after"]


class Endpoint(Connection):
    """The configured endpoint; an asynchronous context manager.

    Raises:
        ConfigError: the address cannot be parsed.
        DependencyError: a key is needed and the environment variable does not hold one.
    """

    def __init__(self, config: SyntheticConfig) -> None:
        self._config = config
        self._cap_name = "max_tokens"
        super().__init__(
            Address(
                config.base_url or "",
                config.model,
                key_variable=config.api_key_variable,
                timeout_s=config.timeout_s,
                url_setting="synthetic.base_url",
                model_setting="synthetic.model",
                key_setting="synthetic.api_key_variable",
                timeout_setting="synthetic.timeout_s",
            )
        )

    async def ask(self, messages: Messages, *, cap: int) -> Reply:
        """Send one request, once, for an answer of `cap` tokens at most.

        Raises:
            Fault: there is no answer.
        """
        prompt = estimate(messages, answer_characters=0).prompt_tokens
        # Without an answer it may still have been answered, and billed.
        perhaps = Usage(prompt, cap, estimated=prompt + cap)
        cap_name = self._cap_name  # another request may change it meanwhile
        try:
            return await self._send(messages, {cap_name: cap})
        except (openai.APIStatusError, openai.APIConnectionError, TimeoutError) as error:
            # Newer models of OpenAI refuse the old name of the cap, most other servers know only it.
            refused = isinstance(error, openai.BadRequestError) and cap_name == "max_tokens"
            if refused and "max_completion_tokens" in str(error):
                self._cap_name = "max_completion_tokens"
                return await self.ask(messages, cap=cap)
            fault = self.fault(error)
            used = perhaps if fault.reason in ("timeout", "dropped") else None
            raise Fault(fault.reason, str(fault), wait_s=fault.wait_s, used=used) from error

    async def _send(self, messages: Messages, cap: dict[str, int]) -> Reply:
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": messages,
            "temperature": self._config.temperature,
            **cap,
        }
        completions = self.client.chat.completions.with_raw_response
        request = completions.create(**body, extra_headers=self.headers)
        return self._reply(await self.body(request), messages)

    def _reply(self, body: str, messages: Messages) -> Reply:
        """Read a body that should be a chat completion, and take nothing in it for granted."""
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            data = None
        data = data if isinstance(data, dict) else {}
        usage, choices = _usage(data.get("usage")), data.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) and usage is None:
            said = self.words(data.get("error") or body)
            raise Fault(
                "no_completion",
                f"{self.address.where}: answers, but not with a chat completion: {said}; "
                "check the address, which mostly ends in /v1",
                used=estimate(messages, answer_characters=0),
            )
        choice = choice if isinstance(choice, dict) else {}
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        text = text if isinstance(text, str) else ""
        usage = usage or estimate(messages, answer_characters=len(text))
        return Reply(text, usage, cut=choice.get("finish_reason") == "length")


def _usage(given: object) -> Usage | None:
    if not isinstance(given, dict):
        return None
    prompt, answer = given.get("prompt_tokens"), given.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(answer, int) or min(prompt, answer) < 0:
        return None
    return Usage(prompt, answer)
