"""From what a user has (files, rows, a data set) to documents, one at a time, with an account.

`read_documents` is the way in. A faulty file of a folder is passed over and counted; a faulty row is
an error that names file and line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval_ft.config import DataConfig, DataFormat
from retrieval_ft.dataset.documents import Document
from retrieval_ft.dataset.readers.detect import ROW_SUFFIXES, detect_format, suffix_of
from retrieval_ft.dataset.readers.reading import Account, Reading, Skipped
from retrieval_ft.errors import ConfigError, DataError

__all__ = ["Account", "Reading", "Skipped", "detect_format", "read_documents"]


def read_documents(config: DataConfig) -> Reading:
    """Read the documents of `data.path` or `data.name`.

    Returns:
        The documents as a stream (errors come while it is taken), and the account beside it.

    Raises:
        ConfigError: neither a path nor a name, or `data.columns`, `data.sql` or `data.split` ask
            for what is not there.
        DataError: there is nothing at the path, nothing of it can be read, or a row is faulty.
        DependencyError: the hub cannot be reached.
    """
    account = Account()
    if config.name is not None:
        return Reading(_of_name(config, account), account)
    if config.path is None:
        raise ConfigError("data.path or data.name: one of them must say what to read")
    found = detect_format(config.path)
    kind = found if config.format == "auto" else config.format
    return Reading(_of_path(config, config.path, kind, account), account)


def _of_name(config: DataConfig, account: Account) -> Iterator[Document]:
    from retrieval_ft.dataset.readers import rows, tables

    given = tables.hub_rows(config)
    yield from rows.read_rows(given, account, columns=config.columns, source=str(config.name))


def _of_path(
    config: DataConfig, path: Path, kind: DataFormat, account: Account
) -> Iterator[Document]:
    # Imported here: the parsers load half a dozen libraries.
    from retrieval_ft.dataset.readers import files, rows

    if kind == "files":
        yield from files.read_files(path, account)
        return
    given = _rows(config, path, kind, account)
    yield from rows.read_rows(given, account, columns=config.columns, source=str(path))


def _rows(
    config: DataConfig, path: Path, kind: DataFormat, account: Account
) -> Iterator[tuple[str, dict[str, Any]]]:
    from retrieval_ft.dataset.readers import row_files, tables

    if kind == "dataset":
        yield from tables.saved_rows(path, split=config.split)
        return
    for file in _row_files(path, kind, account):
        if kind == "csv":
            yield from row_files.csv_rows(file, tabs=suffix_of(file) == ".tsv")
        elif kind == "parquet":
            yield from tables.parquet_rows(file)
        elif kind == "sqlite":
            yield from tables.sqlite_rows(file, sql=config.sql)
        else:
            yield from row_files.jsonl_rows(file)


def _row_files(path: Path, kind: DataFormat, account: Account) -> list[Path]:
    """The files of rows that a path names: itself, or those that a folder or a glob holds."""
    from retrieval_ft.dataset.readers import walk

    if kind == "beir":
        return [path / "corpus.jsonl"]
    root, pattern = walk.split_glob(path)
    if not root.is_dir():
        return [path]
    files = []
    for name in walk.find(root, pattern, account):
        if ROW_SUFFIXES.get(suffix_of(Path(name))) == kind:
            files.append(root / name)
        else:
            account.skip(name, "other format", f"not {kind}, as data.format or the suffix says")
    if not files:
        raise DataError(f"{path}: no {kind} files there")
    return files
