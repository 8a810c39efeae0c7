"""The directory of a hybrid index: immutable segments, immutable generations, and one pointer.

    DIR/CURRENT                         which generation counts; swapped by os.replace
    DIR/generations/NNNNNN/             manifest.json: what the index is, its segments, size and sha256
                                        of every file; deleted.safetensors: passages that are deleted
    DIR/segments/NNNNNN-.../            see segment.py

A change writes new files beside the old ones and then swaps the pointer, so that a crash at any
moment leaves the old generation or the new one. What no generation names any more is cleared away.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.errors import DataError
from retrieval_ft.index.segment import Live, Segment

KIND = "hybrid-index"
SCHEMA_VERSION = 2
POINTER, GENERATIONS, SEGMENTS = "CURRENT", "generations", "segments"
DELETED = "deleted.safetensors"
_TEMPORARY = ".tmp"
_READS = 20
"""Times that a reader begins anew because writers went on; each time it has seen another pointer."""
_THREADS = 4
Files = dict[str, dict[str, Any]]
"""Path below the index -> {"bytes": size, "sha256": hex}."""


@dataclass(frozen=True)
class Generation:
    """One state of an index: its number, and what its manifest says."""

    number: int
    manifest: Mapping[str, Any]

    @property
    def files(self) -> Files:
        """Every file of its segments and its own, the manifest left out."""
        files: Files = dict(self.manifest["files"])
        return files


def exists(folder: Path) -> bool:
    """Whether a folder holds an index of this layout."""
    return (folder / POINTER).is_file()


def foreign(folder: Path) -> list[Path]:
    """What stands in a folder and is not of an index, half-written or not."""
    own = (POINTER, GENERATIONS, SEGMENTS)
    found = folder.iterdir() if folder.is_dir() else ()
    return [path for path in found if path.name not in own and not path.name.startswith(".")]


def current(folder: Path) -> Generation:
    """The generation that the pointer names.

    Raises:
        DataError: no index is there, or its pointer or manifest is damaged or of another version.
    """
    pointer = folder / POINTER
    if not pointer.is_file():
        if (folder / artifacts.MANIFEST).is_file():
            raise DataError(
                f"{folder}: no index of this version here (schema 1, or none at all); build it again"
            )
        raise DataError(f"{folder}: no index here ({POINTER} is missing); build it first")
    named = artifacts.read_json(pointer)
    if not isinstance(named, dict) or not {"generation", "manifest_sha256"} <= set(named):
        raise DataError(f"{pointer}: damaged; restore the index from a copy, or build it again")
    number, seal = named["generation"], named["manifest_sha256"]
    home = _generation(folder, number) if isinstance(number, int) else folder / GENERATIONS
    manifest = artifacts.read_manifest(home, what="index generation")
    path = home / artifacts.MANIFEST
    if manifest.get("kind") != KIND or manifest.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path}: {manifest.get('kind')} schema {manifest.get('schema_version')}; this version "
            f"reads {KIND} schema {SCHEMA_VERSION}; build the index again"
        )
    if manifest[artifacts.SEAL] != seal:
        raise DataError(f"{path}: not the manifest that {pointer} names; one of the two is damaged")
    return Generation(number, manifest)


def open_current(folder: Path, *, check: bool) -> tuple[Generation, list[Live]]:
    """Map every segment of the current generation; what is mapped stays readable until let go.

    Args:
        folder: the index.
        check: compare size and sha256 of every file first.

    Raises:
        DataError: no index, or a file is missing or damaged; the message names it.
    """
    for _ in range(_READS):
        pointer = _pointer(folder)
        try:
            generation = current(folder)
            check_sizes(folder, generation)
            if check:
                verify(folder, generation)
            return generation, _segments(folder, generation)
        except (DataError, FileNotFoundError) as error:
            # A writer may have cleared this generation away since the pointer was read.
            if _pointer(folder) == pointer:
                raise error if isinstance(error, DataError) else DataError(str(error)) from error
    raise DataError(f"{folder}: changed {_READS} times while it was being opened; try again")


def _pointer(folder: Path) -> bytes:
    try:
        return (folder / POINTER).read_bytes()
    except FileNotFoundError:
        return b""


def _segments(folder: Path, generation: Generation) -> list[Live]:
    deleted = {}
    if f"{GENERATIONS}/{generation.number:06d}/{DELETED}" in generation.files:
        deleted = artifacts.map_arrays(_generation(folder, generation.number) / DELETED)
    found = []
    for entry in generation.manifest["segments"]:
        name = entry["name"]
        live = Live(Segment.map(folder / SEGMENTS / name))
        found.append(live.without(deleted[name].tolist()) if name in deleted else live)
    return found


def verify(folder: Path, generation: Generation) -> int:
    """Compare every file of a generation with its manifest; return how many bytes were read.

    Raises:
        DataError: a file is missing or not as it was written; the message names it.
    """
    with ThreadPoolExecutor(_THREADS) as pool:  # hashing is outside Python
        sizes = pool.map(
            lambda item: _verify_file(folder / item[0], item[1]), generation.files.items()
        )
        return sum(sizes)


def check_sizes(folder: Path, generation: Generation) -> None:
    """See that every file is there in full length: a map that ends early kills who reads it.

    Raises:
        DataError: a file is missing or has another size; the message names it.
    """
    for name, expected in generation.files.items():
        path = folder / name
        if not path.is_file():
            raise DataError(
                f"{path}: missing from the index; restore it from a copy, or build it again"
            )
        if path.stat().st_size != expected["bytes"]:
            raise DataError(
                f"{path}: damaged ({path.stat().st_size} bytes, written with {expected['bytes']}); "
                "restore it from a copy, or build the index again"
            )


def _verify_file(path: Path, expected: Mapping[str, Any]) -> int:
    found = artifacts.sha256_file(path)
    if found != expected["sha256"]:
        raise DataError(
            f"{path}: damaged (sha256 {found[:12]}, written as {expected['sha256'][:12]}); restore it "
            "from a copy, or build the index again"
        )
    return int(expected["bytes"])


def write_segment(folder: Path, number: int, write: Callable[[Path], None]) -> tuple[str, Files]:
    """Write a segment for the generation `number`; it counts once that generation is published.

    Args:
        folder: the index.
        number: of the generation that will name it first.
        write: writes its files into the empty folder that it is given.

    Returns:
        The name of the segment, which its content decides, and its files.
    """
    home = folder / SEGMENTS
    temporary = home / f".{number:06d}{_TEMPORARY}"
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        return _placed(temporary, number)
    finally:
        if temporary.exists():  # it failed, or was interrupted
            shutil.rmtree(temporary)


def _placed(temporary: Path, number: int) -> tuple[str, Files]:
    """Move a written segment to where its name says it belongs."""
    home = temporary.parent
    files = {path.name: _described(path) for path in sorted(temporary.iterdir())}
    name = f"{number:06d}-{artifacts.sha256_json(files)[:12]}"
    place = home / name
    if place.exists():  # left by a crash just before it would have counted
        shutil.rmtree(place)
    temporary.replace(place)
    artifacts.fsync(place)
    artifacts.fsync(home)
    return name, {f"{SEGMENTS}/{name}/{file}": facts for file, facts in files.items()}


def _described(path: Path) -> dict[str, Any]:
    artifacts.fsync(path)
    return {"bytes": path.stat().st_size, "sha256": artifacts.sha256_file(path)}


def publish(
    folder: Path, number: int, facts: Mapping[str, Any], *, lives: Sequence[Live], files: Files
) -> Generation:
    """Write a generation and make it the current one; when this returns, it is on the disk.

    Args:
        folder: the index.
        number: of the generation, one above that of the current one.
        facts: for the manifest.
        lives: the segments and what of them lives; all are written.
        files: every file of these segments.
    """
    home = _generation(folder, number)
    deleted = {live.segment.name: live.deleted for live in lives if live.alive is not None}
    if home.exists():  # left by a crash just before it would have counted
        shutil.rmtree(home)
    with artifacts.atomic_folder(home) as fresh:
        own: Files = {}
        if deleted:
            artifacts.write_arrays(fresh / DELETED, deleted)
            path = f"{GENERATIONS}/{number:06d}/{DELETED}"
            own[path] = _described(fresh / DELETED)
        head = {"kind": KIND, "schema_version": SCHEMA_VERSION, "generation": number}
        manifest = artifacts.sealed({**head, **facts, "files": {**files, **own}})
        artifacts.write_json(fresh / artifacts.MANIFEST, manifest)
    seal = manifest[artifacts.SEAL]
    artifacts.write_json(folder / POINTER, {"generation": number, "manifest_sha256": seal})
    return Generation(number, manifest)


def garbage(folder: Path, *, keep: Iterable[Generation]) -> list[Path]:
    """What stands in an index and belongs to none of some generations, sorted."""
    kept = list(keep)
    numbers = {f"{generation.number:06d}" for generation in kept}
    names = {entry["name"] for g in kept for entry in g.manifest["segments"]}
    found = list(folder.glob(f".{POINTER}.*{_TEMPORARY}"))
    for room, wanted in ((GENERATIONS, numbers), (SEGMENTS, names)):
        if (folder / room).is_dir():
            found += [path for path in (folder / room).iterdir() if path.name not in wanted]
    return sorted(found)


def remove(paths: Sequence[Path]) -> None:
    """Remove files and folders."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def size_of(files: Files) -> int:
    """Bytes of some files."""
    return sum(int(facts["bytes"]) for facts in files.values())


def _generation(folder: Path, number: int) -> Path:
    return folder / GENERATIONS / f"{number:06d}"


def deleted_of(lives: Sequence[Live]) -> int:
    """How many passages are deleted and not cleared away."""
    return sum(len(live.segment) - len(live) for live in lives)
