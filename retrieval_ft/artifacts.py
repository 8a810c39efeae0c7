"""Everything that reaches a disk goes through here: written whole or not at all, and checkable.

A file is written to a temporary name beside its place, fsynced and moved with `os.replace`; a
directory of files is sealed by a `manifest.json` with the sha256 of each. No pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from retrieval_ft.errors import DataError

MANIFEST = "manifest.json"
_SEAL = "manifest_sha256"
_BLOCK = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Return the hex sha256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_open(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears at `path` only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with temporary.open(mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_open(path, "w") as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write indented UTF-8 JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    with atomic_open(path, "w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a .npy file atomically; object arrays are refused (they would be pickled)."""
    with atomic_open(path) as file:
        np.save(file, array, allow_pickle=False)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing, or holds no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); it may be damaged") from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `path` when the block ends without an error.

    An older folder at `path` stays whole until then; readers see the old or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    temporary = path.with_name(f".{path.name}.{token}.tmp")
    old = path.with_name(f".{path.name}.{token}.old")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        _fsync_folder(path.parent)
    finally:
        if old.exists() and not path.exists():  # stopped between the two moves
            old.replace(path)
        for leftover in (temporary, old):
            if leftover.exists():
                shutil.rmtree(leftover)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)


def seal(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write `manifest.json`: the given facts, size and sha256 of every file, and its own sha256."""
    files = {
        file.relative_to(folder).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": sha256_file(file),
        }
        for file in _files(folder)
    }
    manifest = {**facts, "files": files}
    manifest[_SEAL] = sha256_json(manifest)
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path, *, what: str) -> dict[str, Any]:
    """Read the manifest of a sealed folder and check that it is as it was written.

    Raises:
        DataError: there is none, it is no manifest, or it was changed since.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder}: no {what} here ({MANIFEST} is missing); build it first")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise DataError(f"{path}: not the manifest of {what}, or damaged")
    sealed = {key: value for key, value in manifest.items() if key != _SEAL}
    if manifest.get(_SEAL) != sha256_json(sealed):
        raise DataError(f"{path}: damaged or edited; build the {what} again")
    return manifest


def verify(folder: Path, *, what: str) -> dict[str, Any]:
    """Check a sealed folder against its manifest and return the manifest.

    Raises:
        DataError: no manifest, a file is missing, or its bytes are not those that were written.
    """
    manifest = read_manifest(folder, what=what)
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise DataError(f"{file}: missing from {what}; build it again")
        found = sha256_file(file)
        if found != expected["sha256"]:
            raise DataError(
                f"{file}: damaged (sha256 {found[:12]}, written as {expected['sha256'][:12]}); "
                f"build the {what} again"
            )
    return manifest


@contextmanager
def exclusive(folder: Path, *, what: str) -> Iterator[None]:
    """Hold `folder` for this process alone; the lock goes with the process, however it ends.

    Raises:
        DataError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".owner.json"
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        pid = "unknown"
        with contextlib.suppress(DataError, AttributeError):
            pid = str(read_json(owner).get("pid"))
        raise DataError(
            f"{folder}: this {what} is in use by another process (pid {pid}); "
            "wait for it to end, or choose another name with --name"
        ) from error
    try:
        write_json(owner, {"pid": os.getpid()})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
