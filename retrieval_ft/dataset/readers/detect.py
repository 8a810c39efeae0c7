"""What a path holds, from its look alone: documents, rows, a saved data set, BEIR."""

from __future__ import annotations

from pathlib import Path

from retrieval_ft.config import DataFormat
from retrieval_ft.dataset.readers.walk import MAGIC
from retrieval_ft.errors import DataError

ROW_SUFFIXES: dict[str, DataFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".db": "sqlite",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
}
ARCHIVES = frozenset(
    [
        ".zip",
        ".tar",
        ".gz",
        ".tgz",
        ".bz2",
        ".tbz",
        ".xz",
        ".txz",
        ".zst",
        ".7z",
        ".rar",
        ".jar",
        ".whl",
        ".iso",
    ]
)


def suffix_of(path: Path) -> str:
    """The suffix of a file of rows, in lower case, less `.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def detect_format(path: Path) -> DataFormat:
    """Say what a path is.

    A folder with corpus.jsonl is in BEIR layout, one that `datasets` saved is a data set, any other
    holds files. A file, or a glob, is rows by its suffix (.jsonl, .csv, .tsv, also with .gz;
    .parquet; .sqlite, .db), else documents.

    Raises:
        DataError: there is nothing at the path, and it is no glob.
    """
    if path.is_dir():
        if (path / "corpus.jsonl").is_file():
            return "beir"
        saved = ("dataset_dict.json", "state.json")
        return "dataset" if any((path / name).is_file() for name in saved) else "files"
    if not path.exists() and not MAGIC.search(str(path)):
        raise DataError(
            f"{path}: no such file or folder; data.path is a folder or a glob of documents, a file "
            "of rows, or a folder in BEIR layout"
        )
    return ROW_SUFFIXES.get(suffix_of(path), "files")
