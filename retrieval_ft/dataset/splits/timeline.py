"""Hold out the latest queries: what a log allows, and what a retriever meets once it is deployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby

from retrieval_ft.dataset.splits.checks import some
from retrieval_ft.dataset.types import Dataset, Split
from retrieval_ft.errors import DataError

Times = Mapping[str, tuple[datetime, datetime]]
"""Query text -> when it was first and last asked."""


def _moment(value: object, query_id: str) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise DataError(
            f"query {query_id!r}: time {value!r} is not ISO 8601, such as 2026-01-31T12:00:00+00:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def times_of(dataset: Dataset, units: Mapping[str, Sequence[str]]) -> Times:
    """When each query text was first and last asked: `time` and `last_time` of its queries.

    Raises:
        DataError: a query has no time, or one that is not ISO 8601.
    """
    metadata_of = dataset.queries.metadata_of
    missing = sorted(q for ids in units.values() for q in ids if "time" not in metadata_of(q))
    if missing:
        raise DataError(
            f"{dataset.name}: {len(missing)} train queries have no time: {some(missing)}; give "
            'each a "time" in its metadata, or split by --set data.split_by=document'
        )
    times: dict[str, tuple[datetime, datetime]] = {}
    for text, ids in units.items():
        rows = [(metadata_of(q), q) for q in ids]
        first = min(_moment(row["time"], q) for row, q in rows)
        last = max(_moment(row.get("last_time", row["time"]), q) for row, q in rows)
        times[text] = (first, last)
    return times


def split_by_time(
    name: str, times: Times, quotas: Mapping[Split, int]
) -> tuple[dict[Split, list[str]], int]:
    """Take the latest query texts as test and the next latest as dev.

    A text belongs to the time when it was first asked. Texts first asked at the same time stay
    together; each split takes the number of such blocks that comes nearest to its quota.

    Args:
        name: Of the dataset, for messages.
        times: When each text was first and last asked.
        quotas: Texts of each split, the latest split first.

    Returns:
        The texts of each split, and how many of the texts left in train were asked again once the
        first of these splits had begun. They stay in train: to test on them would be a leak.

    Raises:
        DataError: there are too few different times.
    """
    ordered = sorted(times, key=lambda text: (times[text][0], text))
    blocks = [list(block) for _, block in groupby(ordered, key=lambda text: times[text][0])]
    if len(blocks) <= len(quotas):
        raise DataError(
            f"{name}: the train queries have {len(blocks)} different times, too few to carve "
            f"{' and '.join(quotas)} from; split by --set data.split_by=document"
        )
    taken: dict[Split, list[str]] = {}
    for later, (split, quota) in enumerate(quotas.items(), start=1):
        spare = len(quotas) - later + 1  # one block for each split to come, and one for train
        texts = blocks.pop()
        while len(blocks) > spare and len(texts) + len(blocks[-1]) / 2 < quota:
            texts += blocks.pop()
        taken[split] = texts
    begin = min(times[text][0] for texts in taken.values() for text in texts)
    again = sum(times[text][1] >= begin for block in blocks for text in block)
    return taken, again
