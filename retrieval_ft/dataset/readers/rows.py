"""A row of any source to a document: which column is what, ids that are unique, no row lost.

A faulty row is an error that names file and line. A row without any text is left out and counted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from retrieval_ft.dataset.documents import Document, Section
from retrieval_ft.dataset.readers.reading import Account, metadata_of, valid
from retrieval_ft.errors import ConfigError, DataError

_NAMES = {"id": ("_id", "id"), "title": ("title",), "text": ("text", "content")}
_DIGITS = 16


def read_rows(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    account: Account,
    *,
    columns: Mapping[str, str],
    source: str,
) -> Iterator[Document]:
    """Yield one document with one section for each row.

    Args:
        rows: `file:line` and the row, in the order of reading.
        account: Where documents and rows without text are counted.
        columns: Column by part (id, title, text); by default those of `DataConfig.columns`.
        source: What the rows come from, for messages.

    Raises:
        ConfigError: `columns` names a part that rows do not have.
        DataError: a row without its columns, with an id that is used already or a text that is
            none, or no row at all.
    """
    if unknown := sorted(set(columns) - set(_NAMES)):
        raise ConfigError(
            f"data.columns: {', '.join(unknown)}: unknown; allowed are {', '.join(_NAMES)}"
        )
    reader = _Rows(account, columns, source)
    for where, row in rows:
        if document := reader.document(row, where):
            account.read["row"] += 1
            yield document
    if not account.read.total():
        empty = account.reasons["empty"]
        found = f"all {empty:,} rows are empty" if empty else "holds no rows"
        raise DataError(f"{source}: {found}; there is nothing to read")


class _Rows:
    """Knows the ids that came before."""

    def __init__(self, account: Account, columns: Mapping[str, str], source: str) -> None:
        self._account, self._columns, self._source = account, columns, source
        self._seen: dict[str, str] = {}
        self._equal: Counter[str] = Counter()
        self._odd: set[str] = set()

    def document(self, row: Mapping[str, Any], where: str) -> Document | None:
        """The document of a row; None where its text and title are empty."""
        names = {part: self._column(row, part, where) for part in _NAMES}
        text = _text(row, names["text"], where)
        title = _text(row, names["title"], where)
        if not (text.strip() or title.strip()):
            self._account.skip(where, "empty", "a row without text and title")
            return None
        metadata, odd = metadata_of({k: v for k, v in row.items() if k not in names.values()})
        for name in sorted(set(odd) - self._odd):
            self._odd.add(name)
            told = f"column {name!r} (from {where} on) holds no JSON value"
            self._account.skip(self._source, "column", told)
        given = row.get(names["id"] or "")
        return Document(
            id=self._id(given, text or title, where),
            title=title,
            sections=(Section((), text),),
            where=where,
            metadata=metadata,
        )

    def _column(self, row: Mapping[str, Any], part: str, where: str) -> str | None:
        """The column that holds a part of the row; None where it has none and needs none."""
        chosen = self._columns.get(part)
        names = (chosen,) if chosen is not None else _NAMES[part]
        found = next((name for name in names if name in row), None)
        if found is None and (chosen is not None or part == "text"):
            raise DataError(
                f"{where}: no column {' or '.join(map(repr, names))} for the {part} (columns found: "
                f"{', '.join(map(repr, row)) or 'none'}); name it: data.columns: {{{part}: ...}}"
            )
        return found

    def _id(self, given: Any, text: str, where: str) -> str:
        if given is None or given == "":
            digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
            self._equal[digest] += 1
            count = self._equal[digest]
            given = digest if count == 1 else f"{digest}-{count}"
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise DataError(f"{where}: the id must be a string or an integer, found {given!r}")
        identifier = str(given)
        if not identifier.strip() or set("\t\r\n") & set(identifier):
            raise DataError(f"{where}: the id must hold more than space, and no tab: {given!r}")
        if valid(identifier) != identifier:
            raise DataError(f"{where}: the id holds half a surrogate pair: {given!r}")
        if identifier in self._seen:
            raise DataError(
                f"{where}: the id {identifier!r} stands already at {self._seen[identifier]}; ids "
                "must be unique"
            )
        self._seen[identifier] = where
        return identifier


def _text(row: Mapping[str, Any], name: str | None, where: str) -> str:
    value = "" if name is None else row[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{where}: column {name!r} must hold text, found {type(value).__name__}; another one is "
            "named by data.columns"
        )
    if valid(value) != value:
        raise DataError(f"{where}: column {name!r} holds half a surrogate pair, which is no text")
    return value
