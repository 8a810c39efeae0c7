"""From what a config points at to a raw dataset: documents, rows or BEIR, with labels where given.

Nothing is judged here: cleaning, checks and splits come after (`prepare`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.config import Config, DataConfig
from retrieval_ft.dataset import SPLITS, Corpus, Dataset, Document, Queries, beir
from retrieval_ft.dataset.builders import BUILT, build
from retrieval_ft.dataset.chunking import Chunker, collect
from retrieval_ft.dataset.hygiene import BoilerplateCounter, Check
from retrieval_ft.dataset.labels import names_ids, read_labels
from retrieval_ft.dataset.outline import Offsets
from retrieval_ft.dataset.readers import detect_format, read_documents
from retrieval_ft.errors import ConfigError, DataError

Rows = tuple[Mapping[str, Any], ...]
_SPECIAL_TOKENS = 2
_LAYOUT = {"corpus.jsonl", "queries.jsonl", "views.jsonl"} | {f"qrels/{s}.tsv" for s in SPLITS}
_NOTHING = Dataset("", Corpus((), (), ()), Queries((), ()), {})


@dataclass(frozen=True)
class Source:
    """What was read, before anything was cleaned out of it."""

    dataset: Dataset
    facts: Mapping[str, Any]
    """Accounts of reading, cutting and labels, as JSON values."""
    checks: tuple[Check, ...] = ()
    files: Mapping[str, Rows] = field(default_factory=dict)
    """Rows of what was left out, by the name of their file."""
    links: Rows = ()
    """Links of the documents: document, text, target."""


def format_of(data: DataConfig) -> str:
    """The format of a source: the one configured, or what its look says."""
    if data.builder:
        return "beir"
    if data.name:
        return "dataset"
    if data.path is None:
        return "labels"
    if data.format != "auto":
        return data.format
    layout = any((data.path / name).exists() for name in ("queries.jsonl", "qrels"))
    return "beir" if layout else detect_format(data.path)


def source_folder(data: DataConfig) -> Path:
    """The place that a config names; a built-in set is built first if need be."""
    if data.builder is None:
        return Path(data.path or data.labels or "")
    folder = BUILT / data.builder
    build(data.builder, folder)
    return folder


def source_name(data: DataConfig) -> str:
    """What a dataset is called: its builder, its name on the hub, or its file or folder."""
    if data.name:
        return data.name.rpartition("/")[2]
    return source_folder(data).resolve().name or "data"


def source_digest(data: DataConfig) -> dict[str, str]:
    """sha256 of every file that a source may be read from, by its path below the source."""
    place = source_folder(data)
    files = {} if data.name else {_below(file, place): file for file in _files(place)}
    if format_of(data) == "beir":
        files = {name: file for name, file in files.items() if name in _LAYOUT}
    for part in (data.labels, data.queries):
        files |= {f"labels:{_below(file, part)}": file for file in _files(part)} if part else {}
    return {name: artifacts.sha256_file(file) for name, file in files.items()}


def read_source(config: Config, offsets: Callable[[], Offsets], *, minimum: int = 2) -> Source:
    """Read the dataset that a config points at.

    Args:
        config: data, chunking and hygiene of it.
        offsets: gives how the base model cuts texts into tokens; called for documents only.
        minimum: passages that documents must give.

    Raises:
        DataError: a faulty file or row, or nothing that can be read.
    """
    data = config.data
    found = format_of(data)
    if found == "beir":
        source = Source(beir.read(source_folder(data), labelled=False), {"format": found})
    elif found == "labels":
        source = Source(_NOTHING, {"format": found})
    else:
        source = _documents(config, offsets, found, minimum=minimum)
    source = replace(source, dataset=replace(source.dataset, name=source_name(data)))
    return _with_labels(source, config) if data.labels else source


def _documents(
    config: Config, offsets: Callable[[], Offsets], found: str, *, minimum: int
) -> Source:
    data, cut = config.data, _is_cut(config)
    room = config.model.max_length - _SPECIAL_TOKENS
    if cut and config.chunking.tokens > room:
        raise ConfigError(
            f"chunking.tokens: {config.chunking.tokens} tokens do not fit in model.max_length "
            f"({config.model.max_length}, of which {_SPECIAL_TOKENS} are kept for special tokens); "
            f"--set chunking.tokens={room} or less"
        )
    boilerplate = BoilerplateCounter(config.hygiene)
    if found == "files":  # the menus and licence headers of files; rows have none
        for document in read_documents(data).documents:
            boilerplate.add(document)
    reading = read_documents(data)
    links: list[Mapping[str, Any]] = []

    def stripped() -> Iterator[Document]:
        for document in reading.documents:
            kept = boilerplate.strip(document) if found == "files" else document
            for link in (link for section in kept.sections for link in section.links):
                links.append({"document": kept.id, "text": link.text, "target": link.target})
            yield kept

    facts: dict[str, Any] = {"format": found}
    if cut:
        chunker = Chunker(offsets(), config=config.chunking)
        corpus = collect(chunker.chunk(stripped()))
        facts["passages"] = chunker.account.as_dict()
    else:
        corpus = _whole(stripped())
    facts["reading"] = reading.account.summary()
    if len(corpus) < minimum:
        needed = "retrieval needs at least two" if minimum > 1 else "there is nothing to index"
        raise DataError(f"{source_folder(data)}: gave {len(corpus)} passages; {needed}")
    return Source(
        Dataset("", corpus, Queries((), ()), {}),
        facts,
        checks=tuple(boilerplate.checks()) if found == "files" else (),
        files={"skipped": tuple(reading.account.rows())},
        links=tuple(links),
    )


def _is_cut(config: Config) -> bool:
    """Whether documents are cut: not where labels name them by id."""
    data = config.data
    if config.chunking.cut != "auto":
        return config.chunking.cut == "always"
    return data.labels is None or not names_ids(data.labels, fmt=data.labels_format)


def _whole(documents: Iterator[Document]) -> Corpus:
    """Each document as one passage."""
    rows = [(d.id, d.title, d.text, {**d.metadata}) for d in documents if d.text or d.title]
    ids, titles, texts, metadata = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Corpus(ids, texts, titles, metadata if any(metadata) else ())


def _with_labels(source: Source, config: Config) -> Source:
    data, dataset = config.data, source.dataset
    if dataset.qrels:
        raise DataError(
            f"{data.labels}: {source_folder(data)} has labels of its own (qrels/); leave data.labels "
            "out, or move its qrels away"
        )
    labels = read_labels(
        Path(data.labels or ""),
        dataset.corpus,
        fmt=data.labels_format,
        queries=data.queries,
        clicks=config.clicks,
    )
    account = {"format": labels.format, **labels.account}
    joined = replace(dataset, corpus=labels.corpus, queries=labels.queries, qrels=labels.qrels)
    return replace(source, dataset=joined, facts={**source.facts, "labels": account})


def _files(place: Path) -> Iterator[Path]:
    """Regular files below a place (or of a glob), sorted; hidden ones are not read, nor are pipes."""
    if place.is_dir():
        for folder, folders, names in os.walk(place):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from _regular(Path(folder) / name for name in sorted(names) if name[0] != ".")
    elif place.exists():
        yield from _regular([place])
    else:
        root = Path(place.anchor)
        pattern = place.relative_to(root).as_posix()
        yield from _regular(sorted(root.glob(pattern)))


def _regular(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.exists() and stat.S_ISREG(path.stat().st_mode):
            yield path


def _below(file: Path, place: Path) -> str:
    return file.relative_to(place).as_posix() if place.is_dir() else file.name
