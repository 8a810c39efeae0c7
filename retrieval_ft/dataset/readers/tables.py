"""Rows of Parquet files, of data sets of the `datasets` library, and of sqlite; a batch at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from retrieval_ft.config import DataConfig
from retrieval_ft.dataset.readers.reading import first_line
from retrieval_ft.errors import ConfigError, DataError, DependencyError

_BATCH = 512


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file:row`, row) of a Parquet file, rows counted from 1.

    Raises:
        DataError: the file is damaged or no Parquet.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from _numbered(file.iter_batches(_BATCH), str(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: no Parquet that can be read: {first_line(error)}") from error


def saved_rows(path: Path, *, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`folder:row`, row) of a data set that `datasets` saved with `save_to_disk`.

    Raises:
        ConfigError: it has splits, and the one that is asked for is none of them.
        DataError: the folder is damaged.
    """
    import datasets
    import pyarrow

    try:
        saved = datasets.load_from_disk(str(path))
        if isinstance(saved, datasets.DatasetDict):
            if split not in saved:
                raise ConfigError(
                    f"data.split: {path} has no split {split!r}; it has {', '.join(saved)}"
                )
            saved = saved[split]
        batches = saved.with_format("arrow").iter(_BATCH)
        yield from _numbered(batches, str(path))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no data set that can be read: {first_line(error)}; save it again with "
            "datasets.save_to_disk"
        ) from error


def hub_rows(config: DataConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`name:row`, row) of a data set of the hub, as a stream: none of it is kept on disk.

    Raises:
        ConfigError: there is no such data set, subset or split.
        DataError: a file of the data set is damaged.
        DependencyError: the hub cannot be reached, and the data set is not in its cache.
    """
    import datasets
    import pyarrow
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HTTPError

    name = str(config.name)
    try:
        stream = datasets.load_dataset(name, config.subset, split=config.split, streaming=True)
        yield from _numbered(stream.with_format("arrow").iter(_BATCH), name)
    except (DatasetNotFoundError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"data.name: {name!r} cannot be had: {first_line(error)}. Check data.name, data.subset "
            "and data.split; a private one needs a token (`hf auth login`)"
        ) from error
    except (OSError, HTTPError) as error:
        raise DependencyError(
            f"data.name: {name!r} could not be fetched: {first_line(error)}. Check the connection "
            "and try again; or save it elsewhere with datasets.save_to_disk and give that folder as "
            "data.path"
        ) from error
    except (DatasetsError, pyarrow.ArrowException) as error:
        raise DataError(f"data.name: {name!r} cannot be read: {first_line(error)}") from error


def sqlite_rows(path: Path, *, sql: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file:row`, row) of a query on a sqlite file, which is opened for reading only.

    Raises:
        ConfigError: there is no query, or it is no SELECT that can be run.
        DataError: the file is damaged or no sqlite file.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    number = 0
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            listed = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"
            tables = [row[0] for row in connection.execute(listed)]
            cursor = _select(connection, sql, path, tables)
            columns = [column[0] for column in cursor.description]
            for number, row in enumerate(cursor, start=1):
                yield f"{path}:{number}", dict(zip(columns, row, strict=True))
    except sqlite3.Error as error:
        at = f" after row {number}" if number else ""
        raise DataError(f"{path}: cannot be read as sqlite{at}: {first_line(error)}") from error


def _select(
    connection: sqlite3.Connection, sql: str | None, path: Path, tables: list[str]
) -> sqlite3.Cursor:
    found = f"{path} has the tables {', '.join(tables) or 'none'}"
    if sql is None:
        raise ConfigError(f"data.sql: a query is needed for a sqlite file; {found}")
    # Nothing may be written: neither to this file (mode=ro) nor to another one beside it.
    connection.set_authorizer(
        lambda action, *_: (
            sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK
        )
    )
    try:
        cursor = connection.execute(sql)
    except sqlite3.Error as error:
        raise ConfigError(f"data.sql: {first_line(error)}; {found}") from error
    columns = [column[0] for column in cursor.description or ()]
    if not columns or len(set(columns)) != len(columns):
        raise ConfigError(
            f"data.sql: a SELECT that names each column once is needed, found the columns "
            f"{', '.join(columns) or 'none'}; {found}"
        )
    return cursor


def _numbered(batches: Iterable[Any], source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of Arrow tables; images and the like stay undecoded."""
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield f"{source}:{number}", row
