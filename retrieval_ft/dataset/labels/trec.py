"""Judgements by id: TREC qrels and BEIR's TSV, with the texts of the queries in a file of their own."""

from __future__ import annotations

from pathlib import Path

from retrieval_ft.dataset import beir
from retrieval_ft.dataset.judgements import read_judgements
from retrieval_ft.dataset.labels.gather import Gather, checked_id
from retrieval_ft.dataset.labels.tables import Source
from retrieval_ft.dataset.types import Queries
from retrieval_ft.errors import DataError

_QUERY_HEADERS = ("_id", "id", "qid", "query_id", "query-id")


def read_query_texts(path: Path) -> Queries:
    """Read query texts: JSONL with `_id` and `text`, or lines of id, tab, text.

    Raises:
        DataError: the file is missing or empty, or a line is faulty.
    """
    first = next(beir.lines(path), (0, ""))[1]
    if not first or first.lstrip().startswith("{"):
        return beir.read_queries(path)
    texts: dict[str, str] = {}
    for number, line in beir.lines(path):
        where = f"{path}:{number}"
        name, tab, text = line.rstrip("\r\n").partition("\t")
        if line == first and name.lower() in _QUERY_HEADERS:
            continue
        if not tab or not text.strip():
            raise DataError(f"{where}: a query needs an id, a tab and a text, found {line[:60]!r}")
        query_id = checked_id(name, where, what="query id")
        if texts.setdefault(query_id, text) != text:
            raise DataError(f"{where}: query id {query_id!r} has two texts; ids must be unique")
    return Queries(tuple(texts), tuple(texts.values()))


def read_trec(source: Source, gather: Gather, *, queries: Queries | None) -> None:
    """Read `qid 0 docid grade` lines, or BEIR's TSV with its header.

    All queries of the file of queries are kept, judged or not: what becomes of those that are not
    is for `data.unjudged_queries` to say.

    Raises:
        DataError: there are no query texts, a line has other columns, a grade is no integer, or an
            id is unknown.
    """
    path = source.path
    if queries is None:
        raise DataError(
            f"{path}: these labels name queries by id; give their texts with "
            "--set data.queries=FILE (JSONL with _id and text, or id, tab, text)"
        )
    ids = {
        query_id: gather.query(
            text,
            f"query {query_id!r}",
            given=query_id,
            metadata=queries.metadata_of(query_id),
        )
        for query_id, text in queries.text_of.items()
    }
    for line in read_judgements(path):
        gather.account["rows"] += 1
        if line.query_id not in ids:
            raise DataError(
                f"{line.where}: query id {line.query_id!r} is not in the file of queries"
            )
        passage_id = gather.known_passage(line.passage_id, line.where)
        gather.judge(source.split, ids[line.query_id], passage_id, line.grade, line.where)
