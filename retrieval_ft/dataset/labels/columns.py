"""Which column of a table plays which part, by the names that other tools give them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from retrieval_ft.errors import DataError

ANCHOR = ("anchor", "query", "question", "sentence1")
POSITIVE = ("positive", "answer", "response", "passage", "document", "context", "sentence2")
GRADE = ("label", "score")
_NEGATIVE = re.compile(r"(hard_)?neg(ative)?s?([_-]?\d+)?", re.IGNORECASE)


def find(columns: Sequence[str], names: Sequence[str], where: str) -> str | None:
    """The column that has one of the names (case aside); None where there is none.

    Raises:
        DataError: more than one column could be meant.
    """
    found = [column for column in columns if column.lower() in names]
    if len(found) > 1:
        raise DataError(
            f"{where}: columns {' and '.join(found)} could play the same part; keep one, or rename "
            f"the other ({', '.join(names)} mean the same)"
        )
    return found[0] if found else None


def negatives(columns: Sequence[str]) -> list[str]:
    """Columns of negatives: negative, negatives, negative_1, hard_neg_2 ..., as they stand."""
    return [column for column in columns if _NEGATIVE.fullmatch(column)]
