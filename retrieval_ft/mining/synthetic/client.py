"""One request to an OpenAI-compatible endpoint: an answer, or a fault with a name.

The `openai` SDK speaks the protocol. Its own retries are off: it hides attempts that time out, which
a provider may bill and a budget must count. It sends no telemetry; the headers in which it describes
this machine are left out. Redirects are not followed: texts and key go to the configured address only.
Proxies of the environment are used as everywhere, but never for an endpoint on this machine.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import httpx2
import openai

from retrieval_ft.config import SyntheticConfig
from retrieval_ft.errors import ConfigError, DependencyError
from retrieval_ft.mining.synthetic.budget import Usage, estimate
from retrieval_ft.mining.synthetic.faults import Fault, Reply
from retrieval_ft.mining.synthetic.prompts import Messages
from retrieval_ft.mining.synthetic.questions import host, shown_url

_DETAIL_CHARACTERS = 200
_CONNECT_S = 10.0
_ABOUT_THIS_MACHINE = {
    f"X-Stainless-{name}": openai.omit
    for name in (
        *("Arch", "Async", "Lang", "OS", "Package-Version", "Runtime", "Runtime-Version"),
        *("Retry-Count", "Read-Timeout"),
    )
}
_BY_STATUS = {
    **dict.fromkeys((400, 413, 422), "rejected"),
    **dict.fromkeys((408, 409, 425), "server_error"),
    402: "no_credit",
}


class Endpoint:
    """The configured endpoint; an asynchronous context manager.

    Raises:
        ConfigError: the address cannot be parsed.
        DependencyError: a key is needed and the environment variable does not hold one.
    """

    def __init__(self, config: SyntheticConfig) -> None:
        self._config = config
        self._where = f"{shown_url(config)} (synthetic.base_url)"
        self._key = _key(config)
        self._cap_name = "max_tokens"
        name = host(config)
        direct = {f"all://{f'[{name}]' if ':' in name else name}": None} if _local(name) else None
        try:
            self._client = openai.AsyncOpenAI(
                base_url=config.base_url,
                api_key=self._key or "none",
                max_retries=0,
                timeout=openai.Timeout(config.timeout_s, connect=min(_CONNECT_S, config.timeout_s)),
                http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, mounts=direct),
            )
        except (httpx2.InvalidURL, ValueError, ImportError) as error:
            raise ConfigError(
                f"{self._where}: cannot be used, nor can a proxy that the environment names: {error}"
            ) from error

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()

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
        except openai.BadRequestError as error:
            # Newer models of OpenAI refuse the old name of the cap, most other servers know only it.
            if cap_name == "max_tokens" and "max_completion_tokens" in str(error):
                self._cap_name = "max_completion_tokens"
                return await self.ask(messages, cap=cap)
            raise self._status_fault(error) from error
        except openai.APIStatusError as error:
            raise self._status_fault(error) from error
        except (TimeoutError, openai.APITimeoutError) as error:
            text = f"no answer within {self._config.timeout_s:g} s (synthetic.timeout_s)"
            raise Fault("timeout", f"{self._where}: {text}", used=perhaps) from error
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.ConnectError):
                text = f"cannot be reached ({error.__cause__}); start it, or correct the address"
                raise Fault("unreachable", f"{self._where}: {text}") from error
            text = "ended the connection before an answer was there"
            raise Fault("dropped", f"{self._where}: {text}", used=perhaps) from error

    async def _send(self, messages: Messages, cap: dict[str, int]) -> Reply:
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": messages,
            "temperature": self._config.temperature,
            **cap,
        }
        # The timeout of the client is for each read: an answer that drips would never end.
        async with asyncio.timeout(self._config.timeout_s):
            raw = await self._client.chat.completions.with_raw_response.create(
                **body, extra_headers=_ABOUT_THIS_MACHINE
            )
        return self._reply(raw.text, messages)

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
            said = self._words(data.get("error") or body)
            raise Fault(
                "no_completion",
                f"{self._where}: answers, but not with a chat completion: {said}; check the address, "
                "which mostly ends in /v1",
                used=estimate(messages, answer_characters=0),
            )
        choice = choice if isinstance(choice, dict) else {}
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        text = text if isinstance(text, str) else ""
        usage = usage or estimate(messages, answer_characters=len(text))
        return Reply(text, usage, cut=choice.get("finish_reason") == "length")

    def _status_fault(self, error: openai.APIStatusError) -> Fault:
        status, detail = error.status_code, self._words(error.body)
        wait = retry_after(error.response.headers)
        asks = "" if wait is None else f" (it asks to wait {wait:,.0f} s)"
        said = f"{self._where}: status {status}: {detail}{asks}"
        if status in (401, 403):
            # The words of a 401 repeat parts of the key; those of a 403 may say what is forbidden.
            said = f"{status}: {detail}" if status == 403 else f"{status}"
            name = f"the environment variable {self._config.api_key_variable}"
            what = (
                f"the key of {name}" if self._key else f"a request without a key: {name} is not set"
            )
            return Fault(
                "key",
                f"{self._where}: refused {what} (status {said}); set it to a key that this endpoint "
                "accepts (synthetic.api_key_variable names the variable)",
            )
        if status == 404:
            return Fault(
                "model",
                f"{said}; check synthetic.model ({self._config.model!r}) and the address, which "
                "mostly ends in /v1",
            )
        if 300 <= status < 400:
            place = error.response.headers.get("location", "nowhere")
            return Fault(
                "redirect",
                f"{self._where}: sends on to {place!r}, which is not followed; if that is the right "
                "place, make it the address",
            )
        if status == 429:
            reason = "no_credit" if error.code == "insufficient_quota" else "rate_limited"
            return Fault(reason, said, wait_s=wait)
        reason = "server_error" if status >= 500 else _BY_STATUS.get(status, "status")
        return Fault(reason, said, wait_s=wait)

    def _words(self, body: object) -> str:
        """The server's own words, short, on one line, without the key."""
        text = str(body.get("message") or body) if isinstance(body, Mapping) else str(body or "")
        if text.lstrip().startswith("<"):
            return "a page of HTML"
        if self._key:
            text = text.replace(self._key, "(the key)")
        flat = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
        return flat[:_DETAIL_CHARACTERS] or "no explanation"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 10.2.3)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(date.timestamp() - time.time(), 0.0)


def _usage(given: object) -> Usage | None:
    if not isinstance(given, dict):
        return None
    prompt, answer = given.get("prompt_tokens"), given.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(answer, int) or min(prompt, answer) < 0:
        return None
    return Usage(prompt, answer)


def _local(name: str) -> bool:
    """Whether a host is this machine."""
    try:
        address = ipaddress.ip_address(name)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _key(config: SyntheticConfig) -> str:
    """The key; empty where none is set and a server of one's own can do without."""
    name = config.api_key_variable
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise DependencyError(
            f"environment variable {name} (synthetic.api_key_variable): holds characters that no key "
            "has; set it again"
        )
    if not key and not _local(host(config)) and (config.base_url or "").startswith("https://"):
        raise DependencyError(
            f"environment variable {name} (synthetic.api_key_variable): not set, and "
            f"{shown_url(config)} needs a key; set it, or set it to 'none' if it needs none"
        )
    return key
