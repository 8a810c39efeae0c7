"""From a path to labels: what format each file has, and the reader for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from retrieval_ft.config import ClicksConfig, LabelsFormat
from retrieval_ft.dataset import beir
from retrieval_ft.dataset.judgements import looks_like
from retrieval_ft.dataset.labels import columns
from retrieval_ft.dataset.labels.clicks import is_log, read_clicks
from retrieval_ft.dataset.labels.gather import Gather, Labels
from retrieval_ft.dataset.labels.llamaindex import KEYS, read_llamaindex
from retrieval_ft.dataset.labels.tables import Source, find_sources, is_parquet, open_table
from retrieval_ft.dataset.labels.texts import read_flagembedding, read_texts
from retrieval_ft.dataset.labels.trec import read_query_texts, read_trec
from retrieval_ft.dataset.types import Corpus, Queries
from retrieval_ft.errors import ConfigError, DataError

_BY_ID: tuple[LabelsFormat, ...] = ("trec", "clicks")


def read_labels(
    path: Path, corpus: Corpus, *, fmt: LabelsFormat, queries: Path | None, clicks: ClicksConfig
) -> Labels:
    """Read labels in any known format.

    A file named train, dev (val, valid, validation) or test gives that split, any other train; so
    do the files of a folder, and the parts of a saved `datasets` folder. Passages that come as text
    are those of the corpus with an equal text, else new ones.

    Args:
        path: A file (TREC or BEIR qrels, JSONL, JSON, CSV, TSV, Parquet) or a folder.
        corpus: What the labels are about; of 0 passages where they bring all texts.
        fmt: The format; `auto` tells by the look of each file.
        queries: Texts of the queries for formats that name them by id.
        clicks: How a log of clicks becomes labels.

    Raises:
        DataError: a file is missing, empty or of no known format, a row is faulty (named as
            file:line), an id is unknown, or a pair is judged in two ways.
        ConfigError: `queries` is given for a format that brings their texts.
    """
    gather = Gather(corpus)
    texts = read_query_texts(queries) if queries else None
    sources, left = find_sources(path)
    if left:
        gather.account["files_not_read"] = left
    formats: set[str] = set()
    for source in sources:
        found = _detect(source) if fmt == "auto" else fmt
        if queries and found not in _BY_ID:
            raise ConfigError(
                f"data.queries: {source.place} ({found}) brings the texts of its queries; leave "
                "data.queries out"
            )
        _read_one(source, found, gather, clicks, texts)
        gather.check()
        formats.add(found)
    labels = gather.labels(", ".join(sorted(formats)))
    if not labels.qrels:
        raise DataError(f"{path}: no label in it{_why_none(labels)}")
    return labels


def names_ids(path: Path, *, fmt: LabelsFormat) -> bool:
    """Whether labels name passages by their ids, so that the corpus must hold those ids.

    Raises:
        DataError: there are no labels at the path, or of no known format.
    """
    sources, _ = find_sources(path)
    return any((_detect(s) if fmt == "auto" else fmt) in _BY_ID for s in sources)


def brings_texts(path: Path) -> bool:
    """Whether a file is labels with the texts of their queries and passages, by its look."""
    try:
        return not names_ids(path, fmt="auto")
    except DataError:
        return False


def _why_none(labels: Labels) -> str:
    few = labels.account.get("queries_without_enough_clicks", 0)
    return f": {few} queries have no passage with clicks.minimum clicks" if few else ""


def _read_one(
    source: Source,
    fmt: LabelsFormat,
    gather: Gather,
    clicks: ClicksConfig,
    queries: Queries | None,
) -> None:
    if fmt in ("trec", "llamaindex") and source.path.is_dir():
        raise DataError(f"{source.place}: a `datasets` folder, where {fmt} labels are a file")
    if fmt == "trec":
        read_trec(source, gather, queries=queries)
    elif fmt == "llamaindex":
        read_llamaindex(source, gather)
    elif fmt == "clicks":
        read_clicks(open_table(source), source.split, gather, config=clicks, queries=queries)
    elif fmt == "flagembedding":
        read_flagembedding(open_table(source), source.split, gather)
    else:
        read_texts(open_table(source), source.split, gather, triplets=fmt == "triplets")


def _detect(source: Source) -> LabelsFormat:
    """The format of a file by its first line, or by its columns."""
    if source.path.is_file() and not is_parquet(source.path):
        first = next(beir.lines(source.path), (0, ""))[1].strip()
        if not first:
            raise DataError(f"{source.path}: is empty; it should hold labels")
        if looks_like(first):
            return "trec"
        if _is_llamaindex(first, source.path):
            return "llamaindex"
    return _by_columns(open_table(source).columns, source.place)


def _is_llamaindex(first: str, path: Path) -> bool:
    """One JSON object over the whole file: over many lines, or over one that has its keys."""
    try:
        row = json.loads(first)
    except ValueError:
        return first.startswith("{") and path.suffix.lower() == ".json"
    return isinstance(row, dict) and set(KEYS) <= set(row)


def _by_columns(names: Sequence[str], place: str) -> LabelsFormat:
    if {"query", "pos"} <= set(names):
        return "flagembedding"
    if is_log(names):
        return "clicks"
    if columns.find(names, columns.ANCHOR, place) and columns.find(names, columns.POSITIVE, place):
        return "triplets" if columns.negatives(names) else "pairs"
    raise DataError(
        f"{place}: no known format of labels has the columns "
        f"{', '.join(f'{name:.30}' for name in names)}; name it with "
        "--set data.labels_format=trec, flagembedding, pairs, triplets, llamaindex or clicks"
    )
