"""Changes to an index from the command line: add, upsert, delete, update, compact, rebuild, check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrieval_ft.config import Config
from retrieval_ft.dataset import beir
from retrieval_ft.encoder.encoder import load_encoder
from retrieval_ft.errors import DataError
from retrieval_ft.index import HybridIndex, store
from retrieval_ft.index.filters import Filter
from retrieval_ft.index.writer import IndexWriter, writing
from retrieval_ft.models import resolve
from retrieval_ft.pipeline.prepare import read_corpus
from retrieval_ft.pipeline.searching import index_encoder
from retrieval_ft.pipeline.workbench import embedding_cache


def add_passages(
    folder: Path, config: Config, *, replacing: bool, model: str | None, wait: float
) -> dict[str, Any]:
    """Add what a config points at to an index, or upsert it.

    Raises:
        DataError: an id is in the index already and `replacing` is not asked for.
    """
    corpus, hygiene = read_corpus(config)
    with writing(folder, wait=wait) as writer:
        encoder = index_encoder(folder, writer.spec, model=model, cached=True)
        vectors = encoder.encode(corpus.passages, role="passage")
        if replacing:
            replaced = writer.upsert(corpus, vectors, encoder_fingerprint=encoder.fingerprint)
        else:
            writer.add(corpus, vectors, encoder_fingerprint=encoder.fingerprint)
            replaced = 0
        added = len(corpus) - replaced
        return _after(writer, folder, added=added, replaced=replaced, hygiene=hygiene)


def delete_passages(
    folder: Path,
    ids: Sequence[str],
    *,
    where: Filter | None,
    ignore_missing: bool,
    wait: float,
) -> dict[str, Any]:
    """Delete passages by id, and those that pass a filter."""
    with writing(folder, wait=wait) as writer:
        matching = writer.index.matching(where) if where is not None else []
        named = [*ids, *matching]
        deleted = writer.delete(named, missing="ignore" if ignore_missing else "error")
        return _after(writer, folder, deleted=deleted)


def update_metadata(folder: Path, file: Path, *, wait: float) -> dict[str, Any]:
    """Change metadata as the lines of a file say: {"_id": ..., "metadata": {...}}.

    Raises:
        DataError: a line is no such object, or names a passage that is not there or was named before.
    """
    changes: dict[str, Mapping[str, Any]] = {}
    for number, line in beir.lines(file):
        where = f"{file}:{number}"
        row = beir.json_object(line, where, ("_id", "metadata"))
        if not isinstance(row["metadata"], dict) or not isinstance(row["_id"], str):
            raise DataError(f'{where}: "_id" must be a string and "metadata" an object')
        if row["_id"] in changes:
            raise DataError(f"{where}: passage {row['_id']!r} stands in an earlier line already")
        changes[row["_id"]] = row["metadata"]
    with writing(folder, wait=wait) as writer:
        return _after(writer, folder, changed=writer.update_metadata(changes))


def compact_index(folder: Path, *, wait: float) -> dict[str, Any]:
    """Merge all segments and take what is deleted out of the files."""
    with writing(folder, wait=wait) as writer:
        before = _bytes(folder)
        writer.compact()
        return _after(writer, folder, bytes_before=before, bytes=_bytes(folder))


def collect_garbage(folder: Path, *, wait: float) -> dict[str, Any]:
    """Remove what the current generation does not need."""
    with writing(folder, wait=wait) as writer:
        removed = writer.clear(older=True)
        return _after(writer, folder, removed=[path.name for path in removed])


def rebuild_index(folder: Path, *, model: str, wait: float) -> dict[str, Any]:
    """Encode all passages with another model beside the older vectors, then switch."""
    path = resolve(model).path
    with writing(folder, wait=wait) as writer:
        encoder = load_encoder(path, cache_root=embedding_cache())  # so that it can go on
        spec = replace(
            writer.spec,
            encoder_fingerprint=encoder.fingerprint,
            encoder_path=str(path.resolve()),
            dimension=encoder.dimension,
            prompts={str(role): prompt for role, prompt in encoder.prompts.items()},
        )
        writer.rebuild(spec, lambda texts: encoder.encode(texts, role="passage"))
        return _after(writer, folder, model=str(path))


def verify_index(folder: Path) -> dict[str, Any]:
    """Read every file of the current generation and compare it with the manifest.

    Raises:
        DataError: a file is missing or damaged; the message names it.
    """
    generation, _ = store.open_current(folder, check=True)
    files = generation.files
    found = {"files": len(files), "bytes": store.size_of(files), "whole": True}
    return {**_head(folder, generation.number), **found}


def index_info(folder: Path) -> dict[str, Any]:
    """What an index is and holds; no file of it is read but the manifest.

    Raises:
        DataError: no index is there, or its manifest is damaged.
    """
    generation = store.current(folder)
    shown = (
        "lexical",
        "fusion",
        "vectors",
        "counts",
        "changes",
        "recall_at_10",
        "segments",
        "spec",
    )
    return {
        **_head(folder, generation.number),
        "bytes": store.size_of(generation.files),
        **{name: generation.manifest[name] for name in shown},
    }


def _head(folder: Path, generation: int) -> dict[str, Any]:
    return {"schema_version": 1, "index": str(folder), "generation": generation}


def _after(writer: IndexWriter, folder: Path, **facts: Any) -> dict[str, Any]:
    index: HybridIndex = writer.index
    return {**_head(folder, index.generation), **facts, "passages": len(index)}


def _bytes(folder: Path) -> int:
    return store.size_of(store.current(folder).files)
