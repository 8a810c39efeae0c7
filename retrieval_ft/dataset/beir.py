"""Read and write the canonical form, the BEIR layout, with every fault named as file:line.

DIR/corpus.jsonl      {"_id": ..., "title": ..., "text": ...} a line
DIR/queries.jsonl     {"_id": ..., "text": ...} a line
DIR/qrels/SPLIT.tsv   query-id <tab> corpus-id <tab> score, with that header
DIR/views.jsonl       {"query-id": ..., "corpus-id": ..., "text": ...} a line, where there are any

Rows of corpus and queries may have "metadata", an object of JSON values.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.dataset.types import SPLITS, Corpus, Dataset, Qrels, Queries, Split
from retrieval_ft.errors import DataError

QRELS_HEADER = ("query-id", "corpus-id", "score")
_VIEW_KEYS = ("query-id", "corpus-id", "text")
_Row = tuple[str, str, str, Mapping[str, Any]]


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of each line that is not blank; a BOM is passed over.

    Raises:
        DataError: there is no such file, or it is not UTF-8.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; a dataset folder holds corpus.jsonl, queries.jsonl and "
            "qrels/{train,dev,test}.tsv"
        )
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); convert it to UTF-8") from error


def is_text(value: Any) -> bool:
    """Whether a value is a string that UTF-8 can hold: JSON lets half a surrogate pair through."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_object(line: str, where: str, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the JSON object of one line, which has all of `keys`.

    Raises:
        DataError: it is no JSON object, or lacks a key.
    """
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); each line is one object") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a JSON object is needed, found {type(row).__name__}")
    for key in keys:
        if key not in row:
            found = ", ".join(sorted(map(str, row))) or "none"
            raise DataError(f'{where}: lacks "{key}" (keys found: {found})')
    return row


def _metadata(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the checked metadata of a row; none and null are the same as an empty object."""
    metadata = row.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise DataError(
            f'{where}: "metadata" must be an object such as {{"source": "manual"}}, found '
            f"{type(metadata).__name__}"
        )
    try:
        json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:  # NaN or infinity, or half a surrogate pair
        raise DataError(
            f'{where}: "metadata" holds a value that JSON or Unicode has no form for ({error})'
        ) from error
    return metadata


def _record(line: str, where: str) -> _Row:
    """Return the checked (id, title, text, metadata) of one line."""
    row = json_object(line, where, ("_id", "text"))
    found = row["_id"], row.get("title") or "", row["text"], _metadata(row, where)
    check_passage(*found[:3], where=where)
    return found


def check_passage(identifier: Any, title: Any, text: Any, *, where: str) -> None:
    """Refuse a passage that has no id to be told by, or nothing to be found by.

    Raises:
        DataError: with `where` it stands and what is wrong.
    """
    if not is_text(identifier) or not identifier.strip():
        raise DataError(f'{where}: "_id" must be a string that is not empty: {identifier!r}')
    if any(character in identifier for character in "\t\r\n"):
        raise DataError(f'{where}: "_id" must hold no tab or line break: {identifier!r}')
    if not (is_text(text) and is_text(title)):
        raise DataError(f'{where}: "text" and "title" must be strings of valid Unicode')
    if not (text.strip() or title.strip()):
        raise DataError(f"{where}: {identifier!r} has an empty text; remove it or fill it")


def check_corpus(corpus: Corpus) -> None:
    """Refuse a corpus made in Python that a file could not have held, as `read_corpus` does.

    Raises:
        DataError: the first passage that is faulty, by its place from 1.
    """
    rows = zip(corpus.ids, corpus.titles, corpus.texts, strict=True)
    for number, row in enumerate(rows, start=1):
        check_passage(*row, where=f"passage {number}")
    for number, metadata in enumerate(corpus.metadata, start=1):
        _metadata({"metadata": metadata}, f"passage {number}")


def _records(path: Path) -> Iterator[_Row]:
    """Yield (id, title, text, metadata) of each line; ids and texts are checked, order is kept."""
    seen: dict[str, int] = {}
    for number, line in lines(path):
        row = _record(line, f"{path}:{number}")
        identifier = row[0]
        if identifier in seen:
            raise DataError(
                f'{path}:{number}: "_id" {identifier!r} stands already at line '
                f"{seen[identifier]}; ids must be unique"
            )
        seen[identifier] = number
        yield row


def read_corpus(path: Path, *, minimum: int = 2) -> Corpus:
    """Read corpus.jsonl.

    Raises:
        DataError: the file is missing, a line is faulty, or there are fewer than `minimum` passages.
    """
    rows = list(_records(path))
    if len(rows) < minimum:
        found = "is empty" if not rows else "holds one passage"
        raise DataError(f"{path}: {found}; retrieval needs at least two passages")
    ids, titles, texts, metadata = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Corpus(ids=ids, texts=texts, titles=titles, metadata=metadata if any(metadata) else ())


def write_corpus(path: Path, corpus: Corpus) -> None:
    """Write corpus.jsonl; what `read_corpus` then gives is equal to it."""
    columns = zip(corpus.ids, corpus.titles, corpus.texts, _rows_of(corpus), strict=True)
    artifacts.write_jsonl(path, ({"_id": i, "title": t, "text": x} | m for i, t, x, m in columns))


def _rows_of(table: Corpus | Queries) -> Iterator[dict[str, Any]]:
    """The "metadata" part of each row: none where a row has none."""
    for metadata in table.metadata or itertools.repeat({}, len(table)):
        yield {"metadata": metadata} if metadata else {}


def read_queries(path: Path) -> Queries:
    """Read queries.jsonl.

    Raises:
        DataError: the file is missing or empty, or a line is faulty.
    """
    rows = list(_records(path))
    if not rows:
        raise DataError(f"{path}: is empty; at least one query is needed")
    metadata = tuple(row[3] for row in rows)
    return Queries(
        ids=tuple(row[0] for row in rows),
        texts=tuple(row[2] if row[2].strip() else row[1] for row in rows),
        metadata=metadata if any(metadata) else (),
    )


def write_queries(path: Path, queries: Queries) -> None:
    """Write queries.jsonl; what `read_queries` then gives is equal to it."""
    columns = zip(queries.ids, queries.texts, _rows_of(queries), strict=True)
    artifacts.write_jsonl(path, ({"_id": i, "text": t} | m for i, t, m in columns))


def read_qrels(path: Path, *, queries: Queries, corpus: Corpus) -> Qrels:
    """Read one qrels TSV and check its ids against queries and corpus.

    Raises:
        DataError: bad header, wrong columns, a score that is no integer, an unknown id, or a
            (query, passage) pair judged twice with different scores.
    """
    grades: dict[str, dict[str, int]] = {}
    rows = lines(path)
    for number, line in itertools.islice(rows, 1):
        if tuple(line.rstrip("\r\n").split("\t")) != QRELS_HEADER:
            raise DataError(
                f"{path}:{number}: bad header {line.strip()!r}; expected "
                f"{'<tab>'.join(QRELS_HEADER)!r}"
            )
    for number, line in rows:
        where = f"{path}:{number}"
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != len(QRELS_HEADER):
            raise DataError(f"{where}: {len(cells)} columns, 3 are needed (tab-separated)")
        query_id, passage_id, score = cells
        try:
            grade = int(score)
        except ValueError:
            raise DataError(f"{where}: score {score!r} is not an integer") from None
        _check_known(query_id, passage_id, where, queries, corpus)
        row = grades.setdefault(query_id, {})
        if row.setdefault(passage_id, grade) != grade:
            raise DataError(
                f"{where}: {query_id!r} and {passage_id!r} are judged twice, "
                f"{row[passage_id]} and {grade}; keep one"
            )
    if not grades:
        raise DataError(f"{path}: holds no judgement; remove the file or fill it")
    return Qrels(grades)


def _check_known(
    query_id: Any, passage_id: Any, where: str, queries: Queries, corpus: Corpus
) -> None:
    if query_id not in queries.text_of:
        raise DataError(f"{where}: query id {query_id!r} is not in queries.jsonl")
    if passage_id not in corpus.index_of:
        raise DataError(f"{where}: passage id {passage_id!r} is not in corpus.jsonl")


def read_views(path: Path, *, queries: Queries, corpus: Corpus) -> dict[str, dict[str, str]]:
    """Read views.jsonl: what training sees in place of a passage, by query id and passage id.

    Raises:
        DataError: the file is missing, a line is faulty, an id is unknown, a text is empty, or a
            (query, passage) pair has two views.
    """
    views: dict[str, dict[str, str]] = {}
    for number, line in lines(path):
        where = f"{path}:{number}"
        row = json_object(line, where, _VIEW_KEYS)
        query_id, passage_id, text = (row[key] for key in _VIEW_KEYS)
        if not all(map(is_text, (query_id, passage_id, text))) or not text.strip():
            raise DataError(f"{where}: {', '.join(_VIEW_KEYS)} must be strings that are not empty")
        _check_known(query_id, passage_id, where, queries, corpus)
        if passage_id in views.setdefault(query_id, {}):
            raise DataError(f"{where}: {query_id!r} and {passage_id!r} have two views; keep one")
        views[query_id][passage_id] = text
    return views


def write_views(path: Path, views: Mapping[str, Mapping[str, str]]) -> None:
    """Write views.jsonl, sorted by query id, then passage id."""
    pairs = ((q, p, views[q][p]) for q in sorted(views) for p in sorted(views[q]))
    artifacts.write_jsonl(path, (dict(zip(_VIEW_KEYS, pair, strict=True)) for pair in pairs))


def read(folder: Path, *, labelled: bool = True) -> Dataset:
    """Read a dataset folder; splits without a qrels file are absent from `qrels`.

    Without `labelled` a corpus.jsonl is enough: there may be no queries.

    Raises:
        DataError: the folder, a file or a line is not as the layout asks.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such dataset folder")
    corpus = read_corpus(folder / "corpus.jsonl")
    asked = folder / "queries.jsonl"
    bare = not labelled and (not asked.is_file() or asked.stat().st_size == 0)
    queries = Queries((), ()) if bare else read_queries(asked)
    qrels: dict[Split, Qrels] = {}
    for split in SPLITS:
        path = folder / "qrels" / f"{split}.tsv"
        if path.is_file():
            qrels[split] = read_qrels(path, queries=queries, corpus=corpus)
    if not qrels and (labelled or len(queries)):
        raise DataError(f"{folder / 'qrels'}: no train.tsv, dev.tsv or test.tsv found")
    path = folder / "views.jsonl"
    views = read_views(path, queries=queries, corpus=corpus) if path.is_file() else {}
    name = folder.resolve().name
    return Dataset(name=name, corpus=corpus, queries=queries, qrels=qrels, views=views)


def write_qrels(path: Path, grades: Mapping[str, Mapping[str, int]]) -> None:
    """Write one qrels TSV, sorted by query id, then passage id."""
    rows = ["\t".join(QRELS_HEADER)]
    rows += [f"{q}\t{p}\t{grades[q][p]}" for q in sorted(grades) for p in sorted(grades[q])]
    artifacts.write_text(path, "\n".join(rows) + "\n")


def write(dataset: Dataset, folder: Path) -> None:
    """Write a dataset in BEIR layout; what `read` then gives is equal to it.

    Metadata must be JSON values (a list where a tuple would do), or it comes back changed.
    """
    write_corpus(folder / "corpus.jsonl", dataset.corpus)
    write_queries(folder / "queries.jsonl", dataset.queries)
    for split, qrels in dataset.qrels.items():
        write_qrels(folder / "qrels" / f"{split}.tsv", qrels.grades)
    if any(dataset.views.values()):
        write_views(folder / "views.jsonl", dataset.views)
