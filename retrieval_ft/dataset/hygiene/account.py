"""What one check of hygiene found: a row of the table, and a file that lists what it touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One check, with the count that goes into the table and the rows that go into its file."""

    name: str
    """Also the name of its file."""
    touched: int
    of: int
    done: str
    """What was done with what was touched, in words."""
    rows: tuple[Mapping[str, Any], ...] = ()
    """JSON values: one for each thing touched."""

    def line(self) -> dict[str, Any]:
        """The row of the table."""
        return {
            "check": self.name,
            "touched": self.touched,
            "of": self.of,
            "what was done": self.done,
        }
