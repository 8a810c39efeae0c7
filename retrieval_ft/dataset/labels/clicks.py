"""Logs of queries and clicks as labels: what people chose, corrected for what they were shown first.

A row is one passage shown, or one click: the query (its text, or its id), the passage id, and where
known rank, clicked, impression (or session) and time.

How clicks become labels:

- A click counts once for an impression. A passage with at least `minimum` clicks for a query is
  relevant to it; fewer clicks are no label. A query without any label is left out. All are counted.
- A click at rank r weighs r ** bias: a rank is looked at with probability r ** -bias, so the click
  stands for r ** bias people who would have clicked, had they looked (inverse propensity weighting;
  Joachims, Swaminathan, Schnabel, WSDM 2017, arXiv 1608.04468). The weight of a passage is the sum
  over its clicks. Without ranks each click weighs 1.
- The grade is 2 for a passage that weighs at least half of the query's heaviest labelled one, else
  1. Weights choose among grades only: they never make a label out of fewer clicks than `minimum`.
- Skip-above: a passage shown above the lowest click of an impression was likely looked at and passed
  over (Joachims, KDD 2002). It gets grade 0, unless it was clicked for that query anywhere in the
  log. This needs impressions, ranks and rows for what was not clicked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

from retrieval_ft.config import ClicksConfig
from retrieval_ft.dataset.labels import columns
from retrieval_ft.dataset.labels.gather import Gather, checked_id, checked_text
from retrieval_ft.dataset.labels.tables import Table
from retrieval_ft.dataset.splits.checks import normalize
from retrieval_ft.dataset.types import Queries, Split
from retrieval_ft.errors import ConfigError, DataError

_NAMES: Mapping[str, Sequence[str]] = {
    "query": ("query", "query_text"),
    "query_id": ("query_id", "query-id", "qid"),
    "passage": ("passage_id", "passage-id", "doc_id", "docid", "document_id", "corpus-id"),
    "rank": ("rank", "position"),
    "clicked": ("clicked", "click", "is_click"),
    "impression": ("impression_id", "impression"),
    "session": ("session_id", "session"),
    "time": ("time", "timestamp", "datetime"),
}
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "", "none")
_MILLISECONDS_FROM = 1e11  # as seconds, the year 5138


@dataclass(frozen=True)
class _Event:
    """One row: `query` is the normalised text."""

    where: str
    query: str
    text: str
    given: str | None
    passage_id: str
    rank: int | None
    clicked: bool
    impression: str | None
    time: datetime | None


@dataclass
class _Log:
    """What a first reading of the rows gives, by normalised query text."""

    first: dict[str, _Event] = field(default_factory=dict)
    times: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    clicks: dict[str, dict[str, Counter[int]]] = field(default_factory=dict)
    """Query -> passage -> rank -> clicks; rank 1 where there is none, whose weight is 1."""
    lowest: dict[tuple[str, str], int] = field(default_factory=dict)
    """Impression and query -> the largest rank that was clicked."""
    counted: set[tuple[str, str, str]] = field(default_factory=set)
    """Impression, query and passage of the clicks that were counted."""


def is_log(names: Sequence[str]) -> bool:
    """Whether columns look like those of a log: a query, a passage id, and a rank or a click."""
    lower = {name.lower() for name in names}
    query, passage, shown = (
        lower & {name for part in parts for name in _NAMES[part]}
        for parts in (("query", "query_id"), ("passage",), ("rank", "clicked"))
    )
    return bool(query and passage and shown)


def read_clicks(
    table: Table, split: Split, gather: Gather, *, config: ClicksConfig, queries: Queries | None
) -> None:
    """Read a log; see the head of this module for how clicks become labels.

    Queries get `time` and `last_time` (ISO 8601, UTC): when they were first and last asked.

    Raises:
        DataError: a column is missing, a query is empty, a passage id is unknown, or a rank, a
            click or a time is not what it should be.
        ConfigError: `queries` is given, and the log brings their texts.
    """
    parts = _parts(table, queries)
    log = _Log()
    for event in _events(table, parts, gather, queries):
        _count(event, log, gather)
    labelled = {query: _labelled(found, config) for query, found in log.clicks.items()}
    ids: dict[str, str] = {}
    for query, event in log.first.items():
        passages = labelled.get(query, {})
        gather.account["clicked_passages_under_minimum"] += len(log.clicks.get(query, {})) - len(
            passages
        )
        if not passages:
            gather.account["queries_without_enough_clicks"] += 1
            continue
        ids[query] = gather.query(
            event.text, event.where, given=event.given, metadata=_metadata(log.times.get(query))
        )
        for passage_id, grade in passages.items():
            gather.judge(split, ids[query], passage_id, grade, event.where)
    if config.skip_above and log.lowest:
        skipped = _skipped(_events(table, parts, gather, queries), log, ids)
        for (query, passage_id), where in skipped.items():
            gather.judge(split, ids[query], passage_id, 0, where)
        gather.account["skipped_above_a_click"] += len(skipped)


def _parts(table: Table, queries: Queries | None) -> dict[str, str]:
    """The column of each part that the table has."""
    where, _ = next(table.rows())
    parts = {
        part: column
        for part, names in _NAMES.items()
        if (column := columns.find(table.columns, names, where)) is not None
    }
    if "passage" not in parts or not {"query", "query_id"} & {*parts}:
        raise DataError(
            f"{where}: a log needs a column of queries ({', '.join(_NAMES['query'])}) and one of "
            f"passage ids ({', '.join(_NAMES['passage'])}); found: {', '.join(table.columns)}"
        )
    if "query" in parts and queries is not None:
        raise ConfigError(
            f"data.queries: {where} (a log) brings the texts of its queries, in column "
            f"{parts['query']}; leave data.queries out"
        )
    if "query" not in parts and queries is None:
        raise DataError(
            f"{where}: this log names queries by id; give their texts with --set data.queries=FILE "
            "(JSONL with _id and text, or id, tab, text)"
        )
    return parts


def _events(
    table: Table, parts: Mapping[str, str], gather: Gather, queries: Queries | None
) -> Iterator[_Event]:
    impression = parts.get("impression", parts.get("session", ""))
    for where, row in table.rows():
        text, given = _query(row, parts, queries, where)
        seen = row.get(impression)
        yield _Event(
            where=where,
            query=normalize(text),
            text=text,
            given=given,
            passage_id=gather.known_passage(row.get(parts["passage"]), where),
            rank=_rank(row.get(parts["rank"]), where) if "rank" in parts else None,
            clicked=_clicked(row.get(parts["clicked"]), where) if "clicked" in parts else True,
            impression=None if seen is None or seen == "" else str(seen),
            time=_time(row.get(parts["time"]), where) if "time" in parts else None,
        )


def _query(
    row: Mapping[str, Any], parts: Mapping[str, str], queries: Queries | None, where: str
) -> tuple[str, str | None]:
    if "query" in parts:
        return checked_text(row.get(parts["query"]), where, what="query"), None
    query_id = checked_id(row.get(parts["query_id"]), where, what="query id")
    texts = queries.text_of if queries else {}
    if query_id not in texts:
        raise DataError(f"{where}: query id {query_id!r} is not in the file of queries")
    return texts[query_id], query_id


def _count(event: _Event, log: _Log, gather: Gather) -> None:
    gather.account["rows"] += 1
    log.first.setdefault(event.query, event)
    if event.time is not None:
        first, last = log.times.get(event.query, (event.time, event.time))
        log.times[event.query] = (min(first, event.time), max(last, event.time))
    if event.impression is None:
        gather.account["rows_without_impression"] += 1
    if event.rank is None:
        gather.account["rows_without_rank"] += 1
    if not event.clicked:
        return
    gather.account["clicks"] += 1
    rank = event.rank or 1
    ranks = log.clicks.setdefault(event.query, {}).setdefault(event.passage_id, Counter())
    if event.impression is None:
        ranks[rank] += 1
        return
    place = (event.impression, event.query)
    if (*place, event.passage_id) in log.counted:
        gather.account["clicks_repeated_in_an_impression"] += 1
        return
    log.counted.add((*place, event.passage_id))
    ranks[rank] += 1
    if event.rank is not None:
        log.lowest[place] = max(event.rank, log.lowest.get(place, 0))


def _labelled(found: Mapping[str, Counter[int]], config: ClicksConfig) -> dict[str, int]:
    """Grade of each passage of a query that has enough clicks."""
    weights = {
        passage_id: math.fsum(count * rank**config.bias for rank, count in ranks.items())
        for passage_id, ranks in sorted(found.items())
        if ranks.total() >= config.minimum
    }
    half = max(weights.values(), default=0.0) / 2
    return {passage_id: 2 if weight >= half else 1 for passage_id, weight in weights.items()}


def _skipped(
    events: Iterator[_Event], log: _Log, ids: Mapping[str, str]
) -> dict[tuple[str, str], str]:
    """Query and passage of each row above its impression's lowest click, with one such place."""
    skipped: dict[tuple[str, str], str] = {}
    for event in events:
        if event.query not in ids or event.impression is None or event.rank is None:
            continue
        above = event.rank < log.lowest.get((event.impression, event.query), 0)
        if above and event.passage_id not in log.clicks[event.query]:
            skipped.setdefault((event.query, event.passage_id), event.where)
    return skipped


def _metadata(times: tuple[datetime, datetime] | None) -> dict[str, str]:
    if times is None:
        return {}
    return {"time": times[0].isoformat(), "last_time": times[1].isoformat()}


def _rank(value: Any, where: str) -> int:
    try:
        rank = float(value)
        if isinstance(value, bool) or rank != int(rank) or rank < 1:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: rank {value!r} is not an integer from 1") from None
    return int(rank)


def _clicked(value: Any, where: str) -> bool:
    word = str(value).strip().lower()
    if word not in (*_YES, *_NO):
        raise DataError(f"{where}: clicked is {value!r}; 1 or 0, true or false are allowed")
    return word in _YES


def _time(value: Any, where: str) -> datetime:
    """An ISO 8601 time, or seconds or milliseconds since 1970, in UTC unless it says otherwise."""
    try:
        if isinstance(value, datetime):
            moment = value
        elif isinstance(value, date):
            moment = datetime.combine(value, time.min)
        elif isinstance(value, str) and not value.strip().isdigit():
            moment = datetime.fromisoformat(value.strip())
        else:
            seconds = float(value)
            seconds /= 1000 if seconds >= _MILLISECONDS_FROM else 1
            moment = datetime.fromtimestamp(seconds, UTC)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise DataError(
            f"{where}: time {value!r} is neither ISO 8601, such as 2026-01-31T12:00:00, nor seconds "
            "since 1970"
        ) from None
