"""Everything that reaches a disk goes through here: written whole or not at all, and checkable.

A file is written to a temporary name beside its place, fsynced and moved with `os.replace`; a
directory of files is sealed by a `manifest.json` with the sha256 of each. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from retrieval_ft.errors import DataError

MANIFEST = "manifest.json"
SEAL = "manifest_sha256"
_BLOCK = 1 << 20
_ALIGN = 8
_SAFETENSORS = {
    "b1": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "u4": "U32", "i4": "I32",
    "u8": "U64", "i8": "I64", "f4": "F32", "f8": "F64",
}  # fmt: skip
_NUMPY = {name: np.dtype(code) for code, name in _SAFETENSORS.items()}


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


def fsync(path: Path) -> None:
    """Force a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
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
        fsync(path.parent)
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


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays into one safetensors file, atomically.

    Source: https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON header, data).

    Raises:
        ValueError: an array holds objects, which would have to be pickled.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"array {name!r} holds objects, which would have to be pickled")
    # Wide types first, so that every array begins at a multiple of its item size.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        array, start = arrays[name], end
        end += array.nbytes
        dtype = _SAFETENSORS[array.dtype.str.lstrip("<|")]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGN)
    with atomic_open(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(np.ascontiguousarray(arrays[name]).data)


def map_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Map what `write_arrays` wrote; the arrays are read-only and stay on disk until touched.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    # A plain view of the map: slices of np.memmap itself are several times slower to make.
    whole = np.asarray(np.memmap(path, np.uint8, "r")) if path.stat().st_size else np.zeros(0)
    try:
        size = struct.unpack("<Q", whole[:8].tobytes())[0] + 8
        header = json.loads(whole[8:size].tobytes())
        return {name: _view(whole[size:], entry) for name, entry in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error})") from error


def _view(data: npt.NDArray[Any], entry: Mapping[str, Any]) -> npt.NDArray[Any]:
    start, end = entry["data_offsets"]
    return data[start:end].view(_NUMPY[entry["dtype"]]).reshape(entry["shape"])


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
        fsync(path.parent)
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
    manifest = sealed({**facts, "files": files})
    write_json(folder / MANIFEST, manifest)
    return manifest


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with its own sha256 in it, by which `read_manifest` knows that it is whole."""
    return {**manifest, SEAL: sha256_json(manifest)}


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
    rest = {key: value for key, value in manifest.items() if key != SEAL}
    if manifest.get(SEAL) != sha256_json(rest):
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
def exclusive(folder: Path, *, what: str, remedy: str, wait: float = 0.0) -> Iterator[None]:
    """Hold `folder` for this process alone; the lock goes with the process, however it ends.

    Args:
        folder: made where it is not there.
        what: it is, for the message.
        remedy: what to do where it is held, for the message.
        wait: seconds to wait for its release.

    Raises:
        DataError: another process holds it; the message names that one, and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".owner.json"
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise DataError(
            f"{folder}: this {what} is in use by another process ({_owner(owner)}); {remedy}"
        ) from error
    try:
        write_json(owner, {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _owner(path: Path) -> str:
    """Who holds a lock and for how long, in words; the file may be gone or half of another's."""
    try:
        found = read_json(path)
        held = max(0.0, time.time() - found["since"])  # clocks go back
        return f"pid {found['pid']} on {found['host']}, for {held:.0f} s"
    except (DataError, KeyError, TypeError):
        return "pid unknown"
