"""What a request to an endpoint ends with: a reply, or a fault with a name."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval_ft import endpoints
from retrieval_ft.mining.synthetic.budget import Usage


@dataclass(frozen=True)
class Reply:
    """What came back with status 200."""

    text: str
    usage: Usage
    cut: bool
    """Stopped by the cap on answer tokens."""


class Fault(endpoints.Fault):
    """A request that brought no answer: also `no_completion`, an answer that is none."""

    def __init__(
        self, reason: str, message: str, *, wait_s: float | None = None, used: Usage | None = None
    ) -> None:
        super().__init__(reason, message, wait_s=wait_s)
        self.used = used or Usage()
        """What was used all the same, or may have been."""
