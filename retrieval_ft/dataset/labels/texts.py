"""Pairs and triplets of texts, as sentence-transformers and FlagEmbedding train on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retrieval_ft.dataset.labels import columns
from retrieval_ft.dataset.labels.gather import Gather
from retrieval_ft.dataset.labels.tables import Table
from retrieval_ft.dataset.types import Split
from retrieval_ft.errors import DataError

_UNUSED = ("pos_scores", "neg_scores", "prompt", "type")


def read_texts(table: Table, split: Split, gather: Gather, *, triplets: bool) -> None:
    """Read rows of anchor, positive and any number of negatives (grade 0); a cell may be a list.

    Columns are found by name; where no name is known they play their parts in their order, as
    sentence-transformers takes them: anchor, positive and, with `triplets`, negatives. A column
    `label` or `score` is the grade of the positive and must hold integers (0 is not relevant).

    Raises:
        DataError: a column is missing, a text is empty, or a score is no integer.
    """
    first, _ = next(table.rows())
    graded = columns.find(table.columns, columns.GRADE, first)
    anchor, positive, unnamed = _roles(table.columns, graded, first, triplets=triplets)
    used = {anchor, positive, graded, *unnamed, *columns.negatives(table.columns)}
    gather.account["columns_not_used"] += len({*table.columns} - used)
    for where, row in table.rows():
        gather.account["rows"] += 1
        # By row: a row of JSONL may have more negatives than the first one has.
        others = columns.negatives([*row]) + [c for c in unnamed if c in row]
        if triplets and not others:
            raise DataError(f"{where}: no negative; columns found: {', '.join(row)}")
        query_id = gather.query(_cell(row, anchor, where), where)
        grade = 1 if graded is None else _grade(_cell(row, graded, where), where)
        for text in _texts(_cell(row, positive, where)):
            gather.judge(split, query_id, gather.passage(text, where), grade, where)
        for column in others:
            _negatives(row[column], split, query_id, gather, where)


def _roles(
    names: Sequence[str], graded: str | None, where: str, *, triplets: bool
) -> tuple[str, str, list[str]]:
    """The columns of anchor and positive, and of negatives that no name marks as such."""
    anchor = columns.find(names, columns.ANCHOR, where)
    positive = columns.find(names, columns.POSITIVE, where)
    if anchor and positive:
        return anchor, positive, []
    texts = [name for name in names if name not in (graded, *columns.negatives(names))]
    # Pairs are taken by order only where nothing is left over: a stray id must not become a text.
    if anchor or positive or len(texts) < 2 or (len(texts) > 2 and not triplets):
        raise DataError(
            f"{where}: pairs need a column of queries ({', '.join(columns.ANCHOR)}) and one of "
            f"passages ({', '.join(columns.POSITIVE)}); columns found: {', '.join(names)}"
        )
    return texts[0], texts[1], texts[2:]


def _cell(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise DataError(f'{where}: lacks "{column}" (found: {", ".join(row) or "nothing"})')
    return row[column]


def _texts(cell: Any) -> Iterator[Any]:
    yield from cell if isinstance(cell, list) else [cell]


def _grade(value: Any, where: str) -> int:
    try:
        number = float(value)
        if number != int(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{where}: score {value!r} is not an integer; write 1 for relevant, 0 for not relevant "
            "and leave out what is in between"
        ) from None
    return int(number)


def _negatives(cell: Any, split: Split, query_id: str, gather: Gather, where: str) -> None:
    """Judge negatives as grade 0. Columns of negatives are often filled for some rows only."""
    for text in _texts(cell):
        if text is None or text == "":
            gather.account["negatives_empty"] += 1
        else:
            gather.judge(split, query_id, gather.passage(text, where), 0, where)


def read_flagembedding(table: Table, split: Split, gather: Gather) -> None:
    """Read {"query": ..., "pos": [...], "neg": [...]} rows; negatives become grade 0.

    `id` is the id of the query. Scores of a teacher, prompts and types have no place in judgements:
    rows that have some are counted.

    Raises:
        DataError: a key is missing, `pos` or `neg` is no list, or a text is empty.
    """
    for where, row in table.rows():
        gather.account["rows"] += 1
        for key in _UNUSED:
            if row.get(key):
                gather.account[f"{key}_not_used"] += 1
        query_id = gather.query(_cell(row, "query", where), where, given=row.get("id"))
        for key, grade in (("pos", 1), ("neg", 0)):
            texts = _cell(row, key, where) if grade else row.get(key) or []
            if not isinstance(texts, list):
                raise DataError(
                    f'{where}: "{key}" must be a list of texts, found {type(texts).__name__}'
                )
            for text in texts:
                gather.judge(split, query_id, gather.passage(text, where), grade, where)
