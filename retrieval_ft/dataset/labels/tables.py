"""Files of labels as rows with named columns, each with the place that a message names."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from retrieval_ft.dataset.beir import json_object, lines
from retrieval_ft.dataset.types import Split
from retrieval_ft.errors import DataError

Row = tuple[str, Mapping[str, Any]]
_SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}
_DELIMITERS = (",", "\t", ";")


@dataclass(frozen=True)
class Source:
    """A file, or a part of a saved `datasets` folder, and the split that its name says."""

    path: Path
    split: Split
    part: str | None = None

    @property
    def place(self) -> str:
        """For messages."""
        return str(self.path / self.part if self.part else self.path)


@dataclass(frozen=True)
class Table:
    """Rows that can be read again and again; `columns` are those of the first row."""

    columns: tuple[str, ...]
    rows: Callable[[], Iterator[Row]]


def find_sources(path: Path) -> tuple[list[Source], int]:
    """The files of labels at a path, each with its split.

    A file or part named train, dev (val, valid, validation) or test is that split, any other train.

    Returns:
        The sources, and how many files of a folder have none of these names and are not read.

    Raises:
        DataError: there is nothing there.
    """
    if path.is_file():
        return [Source(path, _split_of(path.stem))], 0
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder of labels")
    if (path / "dataset_dict.json").is_file():
        parts = json_object((path / "dataset_dict.json").read_text(), str(path), ("splits",))
        return [Source(path, _split_of(part), part) for part in parts["splits"]], 0
    if (path / "dataset_info.json").is_file():
        return [Source(path, _split_of(path.name))], 0
    files = sorted(file for file in path.iterdir() if file.is_file())
    found = [Source(f, _SPLIT_NAMES[f.stem]) for f in files if f.stem in _SPLIT_NAMES]
    if not found:
        raise DataError(
            f"{path}: no labels here; a folder of labels holds train, dev or test files, or is a "
            "saved `datasets` folder"
        )
    return found, len(files) - len(found)


def _split_of(name: str) -> Split:
    return _SPLIT_NAMES.get(name, "train")


def open_table(source: Source) -> Table:
    """Open JSONL, CSV (or TSV), Parquet or a saved `datasets` folder.

    Raises:
        DataError: it cannot be read, or has no row; later, a row that is not as the others.
    """
    if source.path.is_dir():
        return _saved(source)
    if is_parquet(source.path):
        return _parquet(source.path)
    if next((text.lstrip()[:1] for _, text in lines(source.path)), "") == "{":
        first = next(_jsonl(source.path))
        return Table(tuple(first[1]), lambda: _jsonl(source.path))
    header = next(_csv(source.path), None)
    if header is None:
        raise DataError(f"{source.path}: holds no labels")
    return Table(tuple(header[1]), lambda: _csv(source.path))


def is_parquet(path: Path) -> bool:
    """Whether a file says so by its name or its first bytes."""
    with path.open("rb") as file:
        return path.suffix.lower() == ".parquet" or file.read(4) == b"PAR1"


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in lines(path):
        where = f"{path}:{number}"
        yield where, json_object(line, where)


def _delimiter(path: Path) -> str:
    _, first = next(lines(path), (0, ""))
    return max(_DELIMITERS, key=first.count)


def _csv(path: Path) -> Iterator[Row]:
    start = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=_delimiter(path), strict=True)
            header = next((cells for cells in reader if cells), [])
            if len({*header}) < len(header):
                raise DataError(f"{path}:{reader.line_num}: two columns have one name: {header}")
            start = reader.line_num + 1
            for cells in reader:
                where, start = f"{path}:{start}", reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{where}: {len(cells)} cells, the header has {len(header)}: "
                        f"{', '.join(header)}"
                    )
                yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}:{start}: not CSV ({error}): a quote may stand open, or a cell be over 131,072 "
            "characters; JSONL and Parquet have no such limit"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); convert it to UTF-8") from error


def _numbered(place: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        yield f"{place}: row {number}", row


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def rows() -> Iterator[Mapping[str, Any]]:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=4096):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a Parquet file that can be read ({error})") from error

    return _of_rows(str(path), rows)


def _saved(source: Source) -> Table:
    import pyarrow as pa
    from datasets import load_from_disk

    try:
        saved = load_from_disk(str(source.path))
        part = saved[source.part] if source.part else saved
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"{source.place}: not a `datasets` folder that can be read ({error}); write it again "
            "with save_to_disk"
        ) from error
    return _of_rows(source.place, lambda: iter(part))


def _of_rows(place: str, rows: Callable[[], Iterator[Mapping[str, Any]]]) -> Table:
    first = list(islice(rows(), 1))
    if not first:
        raise DataError(f"{place}: holds no labels")
    return Table(tuple(first[0]), lambda: _numbered(place, rows()))


def read_whole_json(path: Path) -> dict[str, Any]:
    """Read a file that is one JSON object.

    Raises:
        DataError: it is not, with the line where it stops being JSON.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); convert it to UTF-8") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}:1: a JSON object is needed, found {type(document).__name__}")
    return document
