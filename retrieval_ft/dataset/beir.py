"""Read and write the canonical form, the BEIR layout, with every fault named as file:line.

DIR/corpus.jsonl      {"_id": ..., "title": ..., "text": ...} a line
DIR/queries.jsonl     {"_id": ..., "text": ...} a line
DIR/qrels/SPLIT.tsv   query-id <tab> corpus-id <tab> score, with that header
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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; a dataset folder holds corpus.jsonl, queries.jsonl and "
            "qrels/{train,dev,test}.tsv"
        )
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); convert it to UTF-8") from error


def _is_text(value: Any) -> bool:
    """Whether a value is a string that UTF-8 can hold: JSON lets half a surrogate pair through."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _record(line: str, where: str) -> tuple[str, str, str]:
    """Return the checked (id, title, text) of one line."""
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); each line is one object") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a JSON object is needed, found {type(row).__name__}")
    for key in ("_id", "text"):
        if key not in row:
            found = ", ".join(sorted(map(str, row))) or "none"
            raise DataError(f'{where}: lacks "{key}" (keys found: {found})')
    identifier, text, title = row["_id"], row["text"], row.get("title") or ""
    if not _is_text(identifier) or not identifier.strip():
        raise DataError(f'{where}: "_id" must be a string that is not empty: {identifier!r}')
    if any(character in identifier for character in "\t\r\n"):
        raise DataError(f'{where}: "_id" must hold no tab or line break: {identifier!r}')
    if not (_is_text(text) and _is_text(title)):
        raise DataError(f'{where}: "text" and "title" must be strings of valid Unicode')
    if not (text.strip() or title.strip()):
        raise DataError(f"{where}: {identifier!r} has an empty text; remove it or fill it")
    return identifier, title, text


def _records(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (id, title, text) of each line; ids and texts are checked, order is kept."""
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        identifier, title, text = _record(line, f"{path}:{number}")
        if identifier in seen:
            raise DataError(
                f'{path}:{number}: "_id" {identifier!r} stands already at line '
                f"{seen[identifier]}; ids must be unique"
            )
        seen[identifier] = number
        yield identifier, title, text


def read_corpus(path: Path, *, minimum: int = 2) -> Corpus:
    """Read corpus.jsonl.

    Raises:
        DataError: the file is missing, a line is faulty, or there are fewer than `minimum` passages.
    """
    rows = list(_records(path))
    if len(rows) < minimum:
        found = "is empty" if not rows else "holds one passage"
        raise DataError(f"{path}: {found}; retrieval needs at least two passages")
    ids, titles, texts = zip(*rows, strict=True) if rows else ((), (), ())
    return Corpus(ids=ids, texts=texts, titles=titles)


def write_corpus(path: Path, corpus: Corpus) -> None:
    """Write corpus.jsonl; what `read_corpus` then gives is equal to it."""
    columns = zip(corpus.ids, corpus.titles, corpus.texts, strict=True)
    artifacts.write_jsonl(path, ({"_id": i, "title": t, "text": x} for i, t, x in columns))


def read_queries(path: Path) -> Queries:
    """Read queries.jsonl.

    Raises:
        DataError: the file is missing or empty, or a line is faulty.
    """
    rows = list(_records(path))
    if not rows:
        raise DataError(f"{path}: is empty; at least one query is needed")
    return Queries(
        ids=tuple(row[0] for row in rows),
        texts=tuple(row[2] if row[2].strip() else row[1] for row in rows),
    )


def read_qrels(path: Path, *, queries: Queries, corpus: Corpus) -> Qrels:
    """Read one qrels TSV and check its ids against queries and corpus.

    Raises:
        DataError: bad header, wrong columns, a score that is no integer, an unknown id, or a
            (query, passage) pair judged twice with different scores.
    """
    grades: dict[str, dict[str, int]] = {}
    lines = _lines(path)
    for number, line in itertools.islice(lines, 1):
        if tuple(line.rstrip("\r\n").split("\t")) != QRELS_HEADER:
            raise DataError(
                f"{path}:{number}: bad header {line.strip()!r}; expected "
                f"{'<tab>'.join(QRELS_HEADER)!r}"
            )
    for number, line in lines:
        where = f"{path}:{number}"
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != len(QRELS_HEADER):
            raise DataError(f"{where}: {len(cells)} columns, 3 are needed (tab-separated)")
        query_id, passage_id, score = cells
        try:
            grade = int(score)
        except ValueError:
            raise DataError(f"{where}: score {score!r} is not an integer") from None
        if query_id not in queries.text_of:
            raise DataError(f"{where}: query id {query_id!r} is not in queries.jsonl")
        if passage_id not in corpus.index_of:
            raise DataError(f"{where}: passage id {passage_id!r} is not in corpus.jsonl")
        row = grades.setdefault(query_id, {})
        if row.setdefault(passage_id, grade) != grade:
            raise DataError(
                f"{where}: {query_id!r} and {passage_id!r} are judged twice, "
                f"{row[passage_id]} and {grade}; keep one"
            )
    if not grades:
        raise DataError(f"{path}: holds no judgement; remove the file or fill it")
    return Qrels(grades)


def read(folder: Path) -> Dataset:
    """Read a dataset folder; splits without a qrels file are absent from `qrels`.

    Raises:
        DataError: the folder, a file or a line is not as the layout asks.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such dataset folder")
    corpus = read_corpus(folder / "corpus.jsonl")
    queries = read_queries(folder / "queries.jsonl")
    qrels: dict[Split, Qrels] = {}
    for split in SPLITS:
        path = folder / "qrels" / f"{split}.tsv"
        if path.is_file():
            qrels[split] = read_qrels(path, queries=queries, corpus=corpus)
    if not qrels:
        raise DataError(f"{folder / 'qrels'}: no train.tsv, dev.tsv or test.tsv found")
    return Dataset(name=folder.resolve().name, corpus=corpus, queries=queries, qrels=qrels)


def write_qrels(path: Path, grades: Mapping[str, Mapping[str, int]]) -> None:
    """Write one qrels TSV, sorted by query id, then passage id."""
    rows = ["\t".join(QRELS_HEADER)]
    rows += [f"{q}\t{p}\t{grades[q][p]}" for q in sorted(grades) for p in sorted(grades[q])]
    artifacts.write_text(path, "\n".join(rows) + "\n")


def write(dataset: Dataset, folder: Path) -> None:
    """Write a dataset in BEIR layout; what `read` then gives is equal to it."""
    queries = dataset.queries
    write_corpus(folder / "corpus.jsonl", dataset.corpus)
    artifacts.write_jsonl(
        folder / "queries.jsonl",
        ({"_id": i, "text": t} for i, t in zip(queries.ids, queries.texts, strict=True)),
    )
    for split, qrels in dataset.qrels.items():
        write_qrels(folder / "qrels" / f"{split}.tsv", qrels.grades)
