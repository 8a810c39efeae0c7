"""Changes to an index: each is visible to the next search and on the disk when the call returns.

A change makes a new generation: a small segment for what is new, a list of what is deleted. Small
segments are merged as they gather, so that there are never many; `compact` makes one of all, and
then nothing deleted is left in any file.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retrieval_ft import artifacts
from retrieval_ft.dataset import Corpus
from retrieval_ft.errors import DataError
from retrieval_ft.index import making, store
from retrieval_ft.index.ann_choice import EXACT_UP_TO
from retrieval_ft.index.hybrid import HybridIndex
from retrieval_ft.index.passages import Passage
from retrieval_ft.index.segment import Live, Segment
from retrieval_ft.index.spec import IndexSpec
from retrieval_ft.index.vectors import Vectors

_Place = tuple[int, int]
"""A segment and a position there."""
_SEGMENTS = 8
"""Segments that an index has at most before small ones are merged."""
_ENCODE = 20_000
"""Passages that a new encoder is given at a time."""


@contextmanager
def writing(folder: Path, *, wait: float = 0.0, verify: bool = True) -> Iterator[IndexWriter]:
    """Open an index for changes; one process at a time, readers are not held up.

    Args:
        folder: of the index.
        wait: seconds to wait for another writer to end.
        verify: compare the sha256 of every file first.

    Raises:
        DataError: no index is there, it is damaged, or another process writes to it.
    """
    store.current(folder)  # before a lock makes a folder
    with _locked(folder, wait=wait):
        writer = IndexWriter(HybridIndex.load(folder, verify=verify), folder)
        writer.clear(older=False)
        yield writer


def create(folder: Path, index: HybridIndex) -> None:
    """Write an index as the next generation of a folder; the same index again changes nothing.

    Raises:
        DataError: another process writes to it, the index there was changed since it was built, or
            the folder holds something that is no index.
    """
    if not store.exists(folder) and store.foreign(folder):
        raise DataError(
            f"{folder}: holds files that are no index of this version; choose another folder, or "
            "remove it"
        )
    with _locked(folder, wait=0.0):
        try:
            _create(folder, index)
        finally:
            if not store.exists(folder):  # it failed; nothing was there before, nothing is left
                shutil.rmtree(folder)


def _create(folder: Path, index: HybridIndex) -> None:
    older = store.current(folder) if store.exists(folder) else None
    if older is not None:
        check_unchanged(folder, older)
    number = older.number + 1 if older else 1
    files: store.Files = {}
    lives = []
    for live in index.lives:
        write = partial(making.write_live, live=live, spec=index.spec)
        name, written = store.write_segment(folder, number, write)
        lives.append(Live(replace(live.segment, name=name)))
        files |= written
    facts = {**_facts(index.spec, lives), "changes": 0}
    if older is None or not _same(folder, older, facts, files):
        older = store.publish(folder, number, facts, lives=lives, files=files)
    store.remove(store.garbage(folder, keep=[older]))


def check_unchanged(folder: Path, generation: store.Generation) -> None:
    """Refuse to build over an index that was changed since it was built.

    Raises:
        DataError: with how many changes would be lost.
    """
    if changes := generation.manifest["changes"]:
        raise DataError(
            f"{folder}: passages were added or deleted since this index was built ({changes} "
            "changes), and building it again would lose that; move it elsewhere, or choose another "
            "place (--out, --name)"
        )


def _same(
    folder: Path, older: store.Generation, facts: Mapping[str, Any], files: store.Files
) -> bool:
    """Whether a generation is whole and, but for its number, the one that would be written now."""
    try:
        store.verify(folder, older)
    except DataError:
        return False
    same = ("spec", "counts", "changes")
    hashes = [sorted(entry["sha256"] for entry in f.values()) for f in (older.files, files)]
    plain = json.loads(json.dumps(facts))
    return hashes[0] == hashes[1] and all(older.manifest[key] == plain[key] for key in same)


def _locked(folder: Path, *, wait: float) -> Any:
    return artifacts.exclusive(
        folder, what="index", remedy="wait for it to end (--wait SECONDS)", wait=wait
    )


class IndexWriter:
    """The one writer of an index. Made by `writing`."""

    def __init__(self, index: HybridIndex, folder: Path) -> None:
        self.index = index
        """The current generation, searched like any other."""
        self._folder = folder
        self._previous: store.Generation | None = None
        self._generation = store.current(folder)
        self._files = self._generation.files

    @property
    def spec(self) -> IndexSpec:
        """What the index is."""
        return self.index.spec

    def add(self, corpus: Corpus, vectors: Vectors, *, encoder_fingerprint: str) -> int:
        """Add passages whose ids are new.

        Args:
            corpus: the passages.
            vectors: float32 [n, d], L2-normalised, in their order.
            encoder_fingerprint: of the encoder that made the vectors.

        Returns:
            How many were added.

        Raises:
            DataError: an id is in the index already, or passages or vectors are faulty; nothing is
                changed.
        """
        self.spec.check_encoder(encoder_fingerprint, what="passages")
        if there := [i for i in corpus.ids if isinstance(i, str) and self._find(i)]:
            raise DataError(
                f"passage {there[0]!r} is in the index already ({len(there)} of {len(corpus)} are); "
                "upsert replaces passages"
            )
        self._put(corpus, vectors, dead=[])
        return len(corpus)

    def upsert(self, corpus: Corpus, vectors: Vectors, *, encoder_fingerprint: str) -> int:
        """Add passages, in the place of those of the same ids.

        Returns:
            How many took the place of another.

        Raises:
            DataError: passages or vectors are faulty; nothing is changed.
        """
        self.spec.check_encoder(encoder_fingerprint, what="passages")
        dead = [found for i in corpus.ids if isinstance(i, str) and (found := self._find(i))]
        self._put(corpus, vectors, dead=dead)
        return len(set(dead))

    def delete(self, ids: Sequence[str], *, missing: Literal["error", "ignore"] = "error") -> int:
        """Delete passages: they are found no more; `compact` takes them out of the files as well.

        Returns:
            How many were deleted.

        Raises:
            DataError: an id is not in the index and `missing` is "error"; nothing is changed.
        """
        dead = self._named(ids, missing=missing)
        if dead:
            self._publish(self._without(dead))
        return len(dead)

    def update_metadata(self, changes: Mapping[str, Mapping[str, Any]]) -> int:
        """Change the metadata of passages: keys are set, and taken away where the value is None.

        Args:
            changes: passage id -> key -> value.

        Returns:
            How many passages were changed.

        Raises:
            DataError: an id is not in the index, or a value has no form in JSON; nothing is changed.
        """
        if not changes:
            return 0
        dead = self._named(list(changes), missing="error")
        rows = [(self.index.lives[at].segment, position) for at, position in dead]
        corpus = _changed([holder.passages[at] for holder, at in rows], changes)
        fresh = making.moved(corpus, rows, spec=self.spec)
        self._publish([*self._without(dead), self._written(fresh.save)])
        self._merge_small()
        return len(corpus)

    def compact(self) -> None:
        """Merge all segments into one; passages deleted before are in no file any more."""
        lives = self.index.lives
        if len(lives) > 1 or any(live.alive is not None for live in lives):
            parts = [live for live in lives if len(live)]
            self._publish([self._merged(parts)] if parts else [])
        self.clear(older=True)

    def rebuild(self, spec: IndexSpec, encode: Callable[[Sequence[str]], Vectors]) -> None:
        """Encode every passage with another encoder and switch to its vectors.

        The older generation answers searches until the new one is whole.

        Args:
            spec: of the new index; how BM25 splits stays as it was.
            encode: texts to vectors, float32 [n, d], L2-normalised.
        """
        parts = [live for live in self.index.lives if len(live)]
        texts = (p.whole for live in parts for p in live.segment.passages.live(live.alive))
        vectors = np.empty((len(self.index), spec.dimension), np.float32)
        at = 0
        while block := list(itertools.islice(texts, _ENCODE)):
            vectors[at : at + len(block)] = encode(block)
            at += len(block)
        spec = replace(spec, lexical=self.spec.lexical)
        lives: list[Live] = []
        if parts:
            write = partial(making.write_encoded, parts=parts, vectors=vectors, spec=spec)
            lives = [self._written(write)]
        self._publish(lives, spec=spec)
        self.clear(older=True)

    def clear(self, *, older: bool) -> list[Path]:
        """Remove what no generation needs: leftovers of a crash and, with `older`, the one before.

        A reader that has read the pointer but opened nothing yet finds the newest in its place.
        """
        kept = [self._generation, *([self._previous] if self._previous and not older else [])]
        found = store.garbage(self._folder, keep=kept)
        store.remove(found)
        return found

    def _find(self, passage_id: str) -> _Place | None:
        """The segment and the position there of a live passage."""
        for at, live in enumerate(self.index.lives):
            if (position := live.find(passage_id)) is not None:
                return at, position
        return None

    def _named(self, ids: Iterable[str], *, missing: Literal["error", "ignore"]) -> list[_Place]:
        distinct = dict.fromkeys(ids)
        found = {passage_id: self._find(passage_id) for passage_id in distinct}
        absent = [passage_id for passage_id, place in found.items() if place is None]
        if absent and missing == "error":
            raise DataError(
                f"passage {absent[0]!r} is not in the index ({len(absent)} of {len(distinct)} are "
                "not); nothing was changed"
            )
        return [place for place in found.values() if place is not None]

    def _without(self, dead: Iterable[_Place]) -> list[Live]:
        """The segments without some passages; one that has none left is left out."""
        positions: dict[int, list[int]] = {}
        for at, position in dead:
            positions.setdefault(at, []).append(position)
        lives = [
            live.without(positions[at]) if at in positions else live
            for at, live in enumerate(self.index.lives)
        ]
        return [live for live in lives if len(live)]

    def _put(self, corpus: Corpus, vectors: Vectors, *, dead: Sequence[_Place]) -> None:
        like = self.index.lives[0].segment if self.index.lives else None
        fresh = making.segment(corpus, vectors, spec=self.spec, like=like)
        if len(fresh):
            self._publish([*self._without(dead), self._written(fresh.save)])
            self._merge_small()

    def _merge_small(self) -> None:
        """Where there are many segments, merge the smallest: some, and all that are no larger."""
        lives = sorted(self.index.lives, key=len)
        if len(lives) <= _SEGMENTS:
            return
        total, count = 0, 0
        for live in lives:
            if total + len(live) > EXACT_UP_TO or (count > _SEGMENTS // 2 and len(live) > total):
                break
            total, count = total + len(live), count + 1
        if count > 1:
            self._publish([*lives[count:], self._merged(lives[:count], exact=True)])

    def _merged(self, parts: Sequence[Live], *, exact: bool = False) -> Live:
        write = partial(making.write_merged, parts=parts, spec=self.spec, exact=exact)
        return self._written(write)

    def _written(self, write: Callable[[Path], None]) -> Live:
        """A new segment, on the disk; it counts once a generation names it."""
        name, files = store.write_segment(self._folder, self._generation.number + 1, write)
        self._files |= files
        return Live(Segment.map(self._folder / store.SEGMENTS / name))

    def _publish(self, lives: Sequence[Live], *, spec: IndexSpec | None = None) -> None:
        number = self._generation.number + 1
        index = HybridIndex(spec or self.spec, lives, folder=self._folder, generation=number)
        names = tuple(f"{store.SEGMENTS}/{live.segment.name}/" for live in lives)
        files = {path: facts for path, facts in self._files.items() if path.startswith(names)}
        self._previous = self._generation
        facts = {**_facts(index.spec, lives), "changes": self._generation.manifest["changes"] + 1}
        self._generation = store.publish(self._folder, number, facts, lives=lives, files=files)
        self.index, self._files = index, files
        self.clear(older=False)


def _changed(passages: Sequence[Passage], changes: Mapping[str, Mapping[str, Any]]) -> Corpus:
    metadata = []
    for passage in passages:
        both = {**passage.metadata, **changes[passage.id]}
        metadata.append({key: value for key, value in both.items() if value is not None})
    return Corpus(
        ids=tuple(passage.id for passage in passages),
        texts=tuple(passage.text for passage in passages),
        titles=tuple(passage.title for passage in passages),
        metadata=tuple(metadata),
    )


def _facts(spec: IndexSpec, lives: Sequence[Live]) -> dict[str, Any]:
    """What an index is and holds, for the manifest; JSON values."""
    recalls = [live.segment.approximate for live in lives]
    measured = [found.facts.recall_at_10 for found in recalls if found is not None]
    return {
        "spec": asdict(spec),
        "lexical": spec.lexical.describe(),
        "fusion": spec.fusion.describe(),
        "vectors": spec.dense.describe(spec.dimension),
        "counts": {
            "passages": sum(map(len, lives)),
            "deleted": store.deleted_of(lives),
            "segments": len(lives),
            "postings": sum(len(live.segment.postings.passages) for live in lives),
        },
        "recall_at_10": min(measured, default=1.0),
        "segments": [_described(live) for live in lives],
    }


def _described(live: Live) -> dict[str, Any]:
    """A segment, for the manifest."""
    segment = live.segment
    found = segment.approximate
    exact = "Flat" if segment.storage.code_size == 4 * segment.storage.d else "SQ8"
    return {
        "name": segment.name,
        "passages": len(segment),
        "deleted": len(segment) - len(live),
        "faiss_factory": found.facts.factory if found else exact,
        "ann": asdict(found.facts) if found else None,
        "kept": segment.kept,
    }
