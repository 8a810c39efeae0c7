"""OpenAI-compatible endpoints: addresses, keys, faults and waits, whatever they are asked for.

The `openai` SDK speaks the protocol. Its own retries are off: it hides attempts that time out, which
a provider may bill and a budget must count. It sends no telemetry; the headers in which it describes
this machine are left out. Redirects are not followed: texts and key go to the configured address only.
Proxies of the environment are used as everywhere, but never for an endpoint on this machine.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import os
import random
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from retrieval_ft.errors import ConfigError, DependencyError

LONGEST_WAIT_S = 120.0
"""An endpoint that asks to wait longer is not asked again."""
_DETAIL_CHARACTERS = 200
_CONNECT_S = 10.0
_BY_STATUS = {
    **dict.fromkeys((400, 413, 422), "rejected"),
    **dict.fromkeys((408, 409, 425), "server_error"),
    402: "no_credit",
}


class Fault(Exception):
    """A request that brought no answer; `str` of it is for people and never holds the key."""

    def __init__(self, reason: str, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        """unreachable, dropped, timeout, rate_limited, server_error, rejected, no_credit, key, model,
        redirect, status, or what its user calls an answer that cannot be read."""
        self.wait_s = wait_s
        """Seconds that the server asks to wait."""


@dataclass(frozen=True)
class Backoff:
    """Waits between tries, in seconds: doubled each time, less up to a quarter at random."""

    first_s: float = 1.0
    longest_s: float = 30.0

    def wait(self, attempt: int) -> float:
        """Seconds to wait after try number `attempt`, from 0."""
        return min(self.first_s * 2.0**attempt, self.longest_s) * random.uniform(0.75, 1.0)


@dataclass(frozen=True)
class Address:
    """An endpoint and a model behind it, and what the user calls each of the settings."""

    url: str
    model: str
    key_variable: str
    """The environment variable that holds the key."""
    timeout_s: float
    """Seconds that one request may take in all."""
    url_setting: str
    """Such as `synthetic.base_url`, for messages."""
    model_setting: str
    key_setting: str
    timeout_setting: str

    @property
    def where(self) -> str:
        """The address as messages name it."""
        return f"{shown_url(self.url)} ({self.url_setting})"


class Connection:
    """A client of one endpoint; an asynchronous context manager.

    Raises:
        ConfigError: the address cannot be parsed.
        DependencyError: a key is needed and the environment variable does not hold one.
    """

    def __init__(self, address: Address) -> None:
        import httpx2
        import openai

        self.address = address
        self._key = key_of(address)
        name = host(address.url)
        direct = {f"all://{f'[{name}]' if ':' in name else name}": None} if is_local(name) else None
        connect = min(_CONNECT_S, address.timeout_s)
        try:
            self.client = openai.AsyncOpenAI(
                base_url=address.url,
                api_key=self._key or "none",
                max_retries=0,
                timeout=openai.Timeout(address.timeout_s, connect=connect),
                http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, mounts=direct),
            )
        except (httpx2.InvalidURL, ValueError, ImportError) as error:
            raise ConfigError(
                f"{address.where}: cannot be used, nor can a proxy that the environment names: {error}"
            ) from error
        self.headers: dict[str, Any] = {
            f"X-Stainless-{name}": openai.omit
            for name in (
                *("Arch", "Async", "Lang", "OS", "Package-Version", "Runtime", "Runtime-Version"),
                *("Retry-Count", "Read-Timeout"),
            )
        }
        """Give these as `extra_headers` of every request: nothing about this machine is sent."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.client.close()

    async def body(self, request: Awaitable[Any]) -> str:
        """The text of the raw answer to a request; raises what `fault` takes."""
        # The timeout of the client is for each read: an answer that drips would never end.
        async with asyncio.timeout(self.address.timeout_s):
            raw = await request
        text: str = raw.text
        return text

    def fault(self, error: Exception) -> Fault:
        """What an error of the SDK, or a timeout, means."""
        import httpx2
        import openai

        where = self.address.where
        if isinstance(error, openai.APIStatusError):
            return self._status_fault(error)
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            limit = f"{self.address.timeout_s:g} s ({self.address.timeout_setting})"
            return Fault("timeout", f"{where}: no answer within {limit}")
        if isinstance(error.__cause__, httpx2.ConnectError):
            text = f"cannot be reached ({error.__cause__}); start it, or correct the address"
            return Fault("unreachable", f"{where}: {text}")
        return Fault("dropped", f"{where}: ended the connection before an answer was there")

    def words(self, body: object) -> str:
        """The server's own words, short, on one line, without the key."""
        text = str(body.get("message") or body) if isinstance(body, Mapping) else str(body or "")
        if text.lstrip().startswith("<"):
            return "a page of HTML"
        if self._key:
            text = text.replace(self._key, "(the key)")
        flat = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
        return flat[:_DETAIL_CHARACTERS] or "no explanation"

    def _status_fault(self, error: Any) -> Fault:
        address, status = self.address, error.status_code
        detail = self.words(error.body)
        wait = retry_after(error.response.headers)
        asks = "" if wait is None else f" (it asks to wait {wait:,.0f} s)"
        said = f"{address.where}: status {status}: {detail}{asks}"
        if status in (401, 403):
            return self._key_fault(status, detail)
        if status == 404:
            return Fault(
                "model",
                f"{said}; check {address.model_setting} ({address.model!r}) and the address, which "
                "mostly ends in /v1",
            )
        if 300 <= status < 400:
            place = error.response.headers.get("location", "nowhere")
            return Fault(
                "redirect",
                f"{address.where}: sends on to {place!r}, which is not followed; if that is the right "
                "place, make it the address",
            )
        if status == 429:
            reason = "no_credit" if error.code == "insufficient_quota" else "rate_limited"
            return Fault(reason, said, wait_s=wait)
        reason = "server_error" if status >= 500 else _BY_STATUS.get(status, "status")
        return Fault(reason, said, wait_s=wait)

    def _key_fault(self, status: int, detail: str) -> Fault:
        # The words of a 401 repeat parts of the key; those of a 403 may say what is forbidden.
        said = f"{status}: {detail}" if status == 403 else f"{status}"
        name = f"the environment variable {self.address.key_variable}"
        what = f"the key of {name}" if self._key else f"a request without a key: {name} is not set"
        return Fault(
            "key",
            f"{self.address.where}: refused {what} (status {said}); set it to a key that this endpoint "
            f"accepts ({self.address.key_setting} names the variable)",
        )


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


def shown_url(url: str) -> str:
    """An address without a name and password that it may hold, nor what stands behind a `?`."""
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return scheme + separator + place.rpartition("@")[2] + slash + path.partition("?")[0]


def host(url: str) -> str:
    """The host of an address; empty where the address is none."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "" if parts.port != 0 else ""  # `port` refuses what is over 65535
    except ValueError:
        return ""


def is_local(name: str) -> bool:
    """Whether a host is this machine."""
    try:
        address = ipaddress.ip_address(name)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def key_of(address: Address) -> str:
    """The key; empty where none is set and a server of one's own can do without.

    Raises:
        DependencyError: it holds what no key holds, or is not set for an https address elsewhere.
    """
    name, setting = address.key_variable, address.key_setting
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise DependencyError(
            f"environment variable {name} ({setting}): holds characters that no key has; set it again"
        )
    if not key and not is_local(host(address.url)) and address.url.startswith("https://"):
        raise DependencyError(
            f"environment variable {name} ({setting}): not set, and {shown_url(address.url)} needs a "
            "key; set it, or set it to 'none' if it needs none"
        )
    return key
