"""Judgements by id: TREC qrels and BEIR's TSV, with the texts of the queries in a file of their own."""

from __future__ import annotations

from pathlib import Path

from retrieval_ft.dataset import beir
from retrieval_ft.dataset.labels.gather import Gather, checked_id
from retrieval_ft.dataset.labels.tables import Source
from retrieval_ft.dataset.types import Queries
from retrieval_ft.errors import DataError

_QUERY_HEADERS = ("_id", "id", "qid", "query_id", "query-id")


def is_trec(line: str) -> bool:
    """Whether a line looks like the first of TREC qrels or of BEIR's TSV."""
    cells = line.split()
    return _is_beir(line) or (len(cells) == 4 and _is_integer(cells[3]))


def _is_beir(line: str) -> bool:
    return tuple(line.rstrip("\r\n").split("\t")) == beir.QRELS_HEADER


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
    tabs = _is_beir(next(beir.lines(path), (0, ""))[1])
    for number, line in beir.lines(path):
        where = f"{path}:{number}"
        cells = line.rstrip("\r\n").split("\t") if tabs else line.split()
        if tabs and tuple(cells) == beir.QRELS_HEADER:
            continue
        if len(cells) != (3 if tabs else 4):
            raise DataError(
                f"{where}: {len(cells)} columns; TREC qrels have 4 (query, 0, passage, grade), "
                f"BEIR's TSV has 3 under the header {'<tab>'.join(beir.QRELS_HEADER)}"
            )
        gather.account["rows"] += 1
        if not _is_integer(cells[-1]):
            raise DataError(f"{where}: grade {cells[-1]!r} is not an integer")
        if cells[0] not in ids:
            raise DataError(f"{where}: query id {cells[0]!r} is not in the file of queries")
        passage_id = gather.known_passage(cells[-2], where)
        gather.judge(source.split, ids[cells[0]], passage_id, int(cells[-1]), where)


def _is_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True
