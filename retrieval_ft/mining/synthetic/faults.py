"""What a request to an endpoint ends with: a reply, or a fault with a name."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval_ft.mining.synthetic.budget import Usage


@dataclass(frozen=True)
class Reply:
    """What came back with status 200."""

    text: str
    usage: Usage
    cut: bool
    """Stopped by the cap on answer tokens."""


class Fault(Exception):
    """A request that brought no answer; `str` of it is for people and never holds the key."""

    def __init__(
        self, reason: str, message: str, *, wait_s: float | None = None, used: Usage | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        """unreachable, dropped, timeout, rate_limited, server_error, no_completion, rejected,
        no_credit, key, model, redirect or status."""
        self.wait_s = wait_s
        """Seconds that the server asks to wait."""
        self.used = used or Usage()
        """What was used all the same, or may have been."""
