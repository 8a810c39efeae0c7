"""New segments: from passages and vectors that a user gives, or from the live parts of older ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_ft.console import note
from retrieval_ft.dataset import Corpus, beir
from retrieval_ft.errors import DataError
from retrieval_ft.index import segment as segments
from retrieval_ft.index.ann import Approximate
from retrieval_ft.index.ann_choice import EXACT_UP_TO
from retrieval_ft.index.ann_recall import MEASURED_QUERIES
from retrieval_ft.index.segment import Live, Segment
from retrieval_ft.index.spec import IndexSpec
from retrieval_ft.index.vectors import (
    Vectors,
    checked,
    codes_of,
    copy_live,
    empty_like,
    fill,
    measured_loss,
    new_storage,
    rows_of,
)

_ID_BYTES = 1_024
_SEED = 13


def check_corpus(corpus: Corpus) -> None:
    """Refuse what cannot be told apart or stored.

    Raises:
        DataError: an id is empty, too long, not a string, or stands twice; a text is no Unicode;
            metadata has no form in JSON.
    """
    beir.check_corpus(corpus)
    for at, passage_id in enumerate(corpus.ids):
        if len(passage_id.encode()) > _ID_BYTES:
            raise DataError(
                f"passage {at}: an id of {len(passage_id.encode())} bytes ({passage_id[:40]!r}...); "
                f"ids have at most {_ID_BYTES}"
            )
    if len(set(corpus.ids)) < len(corpus):
        raise DataError(
            f"the corpus holds {len(corpus)} passages under {len(set(corpus.ids))} ids; "
            "ids must be unique"
        )


def segment(
    corpus: Corpus,
    vectors: Vectors,
    *,
    spec: IndexSpec,
    queries: Vectors | None = None,
    like: Segment | None = None,
) -> Segment:
    """A segment in memory.

    Args:
        corpus: the passages.
        vectors: float32 [n, d], L2-normalised, in their order.
        spec: of the index.
        queries: real queries for an approximate index to be measured on, as the vectors.
        like: a segment of the index that is added to: the new one shares its int8 scale, so that they
            can be merged, and is searched exactly unless it is large itself.

    Raises:
        DataError: as `check_corpus`; the vectors do not fit; recall stays under `min_recall`.
    """
    check_corpus(corpus)
    if len(corpus) != len(vectors):
        raise DataError(f"cannot index {len(corpus)} passages with {len(vectors)} vectors")
    rows = checked(vectors, names=corpus.ids)
    if len(rows) and rows.shape[1] != spec.dimension:
        raise DataError(
            f"vectors of {rows.shape[1]} dimensions for an index of {spec.dimension}; encode the "
            "passages with the index's own model"
        )
    cut = spec.dense.cut(rows)
    if like is None:
        storage = new_storage(cut.shape[1], spec.dense, sample=cut)
    else:
        storage = empty_like(like.storage)
    fill(storage, cut)
    made = Segment.build(corpus, storage, spec=spec.lexical)
    asked = None if queries is None else spec.dense.cut(checked(queries, names=None))
    if like is not None and len(rows) <= EXACT_UP_TO:
        return made
    found = approximate(storage, spec=spec, queries=asked)
    kept = _loss(storage, rows, spec=spec, queries=queries)
    return replace(made, approximate=found, queries=asked, kept=kept)


def moved(corpus: Corpus, rows: Sequence[tuple[Segment, int]], *, spec: IndexSpec) -> Segment:
    """A segment in memory of passages whose vectors stand in other segments already, bit for bit.

    Raises:
        DataError: as `check_corpus`.
    """
    check_corpus(corpus)
    storage = empty_like(rows[0][0].storage)
    codes = {id(holder): codes_of(holder.storage) for holder, _ in rows}
    chosen = [codes[id(holder)][position] for holder, position in rows]
    storage.add_sa_codes(np.ascontiguousarray(chosen))
    return Segment.build(corpus, storage, spec=spec.lexical)


def write_merged(
    folder: Path, parts: Sequence[Live], *, spec: IndexSpec, exact: bool = False
) -> None:
    """Write the live passages of some segments as one, with an approximate index where it is due.

    Never one with `exact`: small segments that are merged on the way are not the index's bulk.
    """
    storage = empty_like(parts[0].segment.storage)
    copy_live(storage, [(live.segment.storage, live.alive) for live in parts])
    queries = next((p.segment.queries for p in parts if p.segment.queries is not None), None)
    found = None if exact else approximate(storage, spec=spec, queries=queries)
    kept = next((p.segment.kept for p in parts if p.segment.kept), None)
    segments.write(folder, parts, storage=storage, approximate=found, queries=queries, kept=kept)


def write_live(folder: Path, live: Live, *, spec: IndexSpec) -> None:
    """Write a segment without what is deleted from it."""
    if live.alive is None:
        live.segment.save(folder)
    else:
        write_merged(folder, [live], spec=spec)


def write_encoded(
    folder: Path, parts: Sequence[Live], vectors: Vectors, *, spec: IndexSpec
) -> None:
    """Write the live passages of segments as one with vectors of another encoder, float32 [n, d]."""
    cut = spec.dense.cut(checked(vectors, names=None))
    storage = new_storage(cut.shape[1], spec.dense, sample=cut)
    fill(storage, cut)
    found = approximate(storage, spec=spec, queries=None)
    segments.write(folder, parts, storage=storage, approximate=found)


def _loss(
    storage: Any, rows: Vectors, *, spec: IndexSpec, queries: Vectors | None
) -> dict[str, Any] | None:
    """What fewer dimensions or int8 lose, measured; None where nothing is lost."""
    if not len(rows) or not spec.dense.loses(spec.dimension):
        return None
    asked, measured_on = queries, "queries"
    if asked is None or not len(asked):
        asked, measured_on = _near(rows), "moved passages"
    recall = measured_loss(storage, rows, spec=spec.dense, queries=asked)
    note(f"vectors kept as {spec.dense.describe(spec.dimension)}: recall@10 {recall:.3f}")
    return {"recall_at_10": recall, "measured_on": measured_on, "queries": len(asked)}


def approximate(storage: Any, *, spec: IndexSpec, queries: Vectors | None) -> Approximate | None:
    """The approximate index that the spec asks for over some vectors; None where search is exact."""
    choice = spec.ann.choose(storage.ntotal, storage.d)
    if choice.kind == "flat":
        return None
    note(f"dense index: {choice.reason}")
    rows = rows_of(storage)
    if queries is None:
        note(
            "no real queries were given: its recall is measured on passages that were moved a little"
        )
    return Approximate.build(
        rows,
        choice,
        queries=_near(rows) if queries is None else queries,
        min_recall=spec.ann.min_recall,
        seed=_SEED,
        note=note,
    )


def _near(rows: Vectors) -> Vectors:
    """Stand-ins for queries: a sample of the passages, each moved to a cosine of about .8 with itself.

    A passage as it is finds itself first, which would flatter an index.
    """
    generator = np.random.default_rng(_SEED)
    chosen = np.sort(generator.choice(len(rows), min(MEASURED_QUERIES, len(rows)), replace=False))
    noise = generator.standard_normal((len(chosen), rows.shape[1]), np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    moved: Vectors = rows[chosen] + 0.75 * noise  # 1 / sqrt(1 + .75^2) = .8
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved
