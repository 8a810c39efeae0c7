"""Which files a folder or a glob names: the same ones in the same order on every machine.

Links are followed once at most and never out of the folder; what is hidden, and what is no plain
file (a pipe would wait for ever), is passed over and counted.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from retrieval_ft.dataset.readers.reading import Account, first_line, printable

MAGIC = re.compile(r"[*?\[]")


def split_glob(path: Path) -> tuple[Path, str]:
    """Part a path at its first component with `*`, `?` or `[`: the folder, and the pattern below.

    A path that exists is a folder whatever its name, with an empty pattern.
    """
    if path.exists():
        return path, ""
    for i, part in enumerate(path.parts):
        if MAGIC.search(part):
            return Path(*path.parts[:i]), "/".join(path.parts[i:])
    return path, ""


def find(root: Path, pattern: str, account: Account) -> list[str]:
    """Return the files below a folder that a pattern matches, as sorted paths with forward slashes.

    `**` stands for any number of folders, none included; an empty pattern for everything. What is
    left out is counted in the account.
    """
    walk = _Walk(root, _matcher(pattern) if pattern else lambda _: True, account)
    walk.folder("", os.path.realpath(root))
    walk.follow_links()
    return sorted(walk.found)


def _matcher(pattern: str) -> Callable[[str], bool]:
    steps = pattern.split("/")

    def closed(states: set[int]) -> set[int]:
        for i, step in enumerate(steps):
            if step == "**" and i in states:
                states.add(i + 1)
        return states

    def matches(path: str) -> bool:
        states = closed({0})
        for part in path.split("/"):
            live = [i for i in states if i < len(steps)]
            states = {i for i in live if steps[i] == "**"}
            states |= {i + 1 for i in live if fnmatch.fnmatchcase(part, steps[i])}
            states = closed(states)
        return len(steps) in states

    return matches


@dataclass
class _Walk:
    """One pass over a folder: plain files and folders first, then links, in sorted order."""

    root: Path
    wanted: Callable[[str], bool]
    account: Account
    found: list[str] = field(default_factory=list)
    _links: list[str] = field(default_factory=list)
    _seen: dict[str, str] = field(default_factory=dict)

    def folder(self, start: str, real: str) -> None:
        """Walk a folder: its path below the root, and where that is without links."""
        waiting = [(start, real)]
        while waiting:
            below, real = waiting.pop()
            if real in self._seen:
                self.account.skip(f"{below}/", "link", "to a folder that is read already")
                continue
            self._seen[real] = below
            try:
                with os.scandir(self.root / below) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.account.skip(f"{below}/", "unreadable", error.strerror or first_line(error))
                continue
            for entry in listed:
                name = f"{below}/{entry.name}" if below else entry.name
                if self._is_folder(entry, name):
                    waiting.append((name, f"{real}{os.sep}{entry.name}"))

    def _is_folder(self, entry: os.DirEntry[str], name: str) -> bool:
        """Take one entry, or say that it is a folder to walk."""
        folder = entry.is_dir(follow_symlinks=False)
        if entry.name.startswith("."):
            if folder or self.wanted(name):
                self.account.skip(f"{name}/" if folder else name, "hidden")
        elif folder:
            return True
        elif entry.is_symlink():
            self._links.append(name)
        elif self.wanted(name):
            self._file(name, plain=entry.is_file(follow_symlinks=False))
        return False

    def _file(self, name: str, *, plain: bool) -> None:
        if not plain:
            self.account.skip(name, "no plain file", "a pipe, a socket or a device")
        elif any(character in name for character in "\t\r\n"):
            self.account.skip(name, "odd name", "a tab or a line break in it; rename it")
        elif printable(name) != name:
            self.account.skip(name, "odd name", "not UTF-8; rename it")
        else:
            self.found.append(name)

    def follow_links(self) -> None:
        """Take what links add: files and folders inside the root that no plain path leads to."""
        while self._links:
            links, self._links = sorted(self._links), []
            own = set(self.found)
            for name in links:
                self._follow(name, own)

    def _follow(self, name: str, own: set[str]) -> None:
        place = self.root / name
        try:
            real = os.path.realpath(place, strict=True)
        except OSError as error:
            if self.wanted(name):
                self.account.skip(name, "broken link", error.strerror or first_line(error))
            return
        root = os.path.realpath(self.root)
        if os.path.commonpath([root, real]) != root:
            told = f"points at {place.readlink()}; give that place as data.path to read it"
            self.account.skip(name, "link out of the folder", told)
        elif place.is_dir():
            self.folder(name, real)
        elif self.wanted(name):
            folder, file = os.path.split(real)
            inside = self._seen.get(folder)
            if inside is not None and (f"{inside}/{file}" if inside else file) in own:
                self.account.skip(name, "link", "to a file that is read in its own place")
            else:
                self._file(name, plain=place.is_file())
