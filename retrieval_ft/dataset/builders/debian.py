"""Debian: from what a package is, in one line, to its long description.

Query: a package's synopsis. Passage: its long description. Both are read from the indexes of the
Debian release that apt is set up for on this machine, so unlike the other sets it is pinned by no
hash of ours but checked against the hashes of the release itself.
"""

from __future__ import annotations

import hashlib
import http.client
import lzma
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval_ft import artifacts
from retrieval_ft.console import note
from retrieval_ft.dataset.builders.recipe import Judgement, Source, assemble, fold, normalise
from retrieval_ft.dataset.types import Corpus, Dataset
from retrieval_ft.errors import DependencyError
from retrieval_ft.packages import PackageSource, home

RELEASE = "InRelease"
INDEXES = ("main/binary-amd64/Packages.xz", "main/i18n/Translation-en.xz")
"""Of amd64 on every machine, so that one release gives one set."""
MIN_QUERY_WORDS, MIN_PASSAGE_WORDS = 3, 10
TEMPLATE = 10
"""Source packages from which a description that differs in the package's name alone is a template."""

_TIMEOUT_S = 60
_TARGETS = ["indextargets", "--format", "$(BASE_URI)\t$(ORIGIN)\t$(CODENAME)\t$(COMPONENT)"]
_FIELDS = frozenset({"Package", "Source", "Description-md5", "Description-en"})
_TRANSITION = re.compile(r"\b(?:transition(?:al)?|dummy)\b", re.IGNORECASE)
_PART = re.compile(r"[^\W_]+")
_VERSION = re.compile(r"[-.]?\d[\d.]*")

Stanza = dict[str, str]


@dataclass(frozen=True)
class DebianRecipe:
    """How a dataset is made of a Debian release; used by `build` as a `Recipe` is."""

    rule: str
    rule_version: int
    licence: str
    attribution: str
    dev: int
    test: int
    packages: tuple[PackageSource, ...] = ()
    """None: what is read stands in no registry of packages that pins it."""

    @property
    def origin(self) -> str:
        """What is read, for `source.json`."""
        return f"Debian, the release that apt is set up for: {', '.join(INDEXES)}"

    def fetch(self) -> tuple[Path, ...]:
        """Return the release file and the indexes of the machine's Debian release, checked.

        Raises:
            DependencyError: no apt, no Debian in it, no connection, or wrong bytes came.
        """
        base = release_uri()
        note(f"reading {base}{RELEASE}")
        release = _read(base + RELEASE)
        hashes = sha256_of(release.decode("utf-8", errors="replace"))
        digest = hashlib.sha256(release).hexdigest()
        file = home() / "packages" / f"debian-{digest[:12]}-{RELEASE}"
        with artifacts.atomic_open(file) as out:
            out.write(release)
        return file, *(_fetch_index(base, name, hashes) for name in INDEXES)

    def load(self, archives: Sequence[Path]) -> Source:
        """Read what `fetch` returned."""
        release, packages, translations = archives
        lines = release.read_text(encoding="utf-8", errors="replace").splitlines()
        facts = dict(line.split(": ", 1) for line in lines if re.match(r"[A-Z][a-z]+: ", line))
        version = f"{facts['Codename']} {facts.get('Version', '')}".strip()
        with (
            lzma.open(packages, "rt", encoding="utf-8") as rows,
            lzma.open(translations, "rt", encoding="utf-8") as texts,
        ):
            return read(rows, texts, version=f"{version} ({facts['Date']})")

    def arrange(self, name: str, source: Source) -> Dataset:
        """Merge equal texts and split by family of source packages, as `assemble` says."""
        return assemble(name, source, dev=self.dev, test=self.test)

    def notice(self, archives: Sequence[Path]) -> str:
        """What a copy must carry."""
        return f"{self.attribution}\n"


def release_uri() -> str:
    """Where the machine's Debian release stands: the URI above its InRelease file, with a slash.

    Raises:
        DependencyError: no apt here, or it knows no index of Debian's main that HTTP(S) serves.
    """
    program = shutil.which("apt-get")
    if program is None:
        raise DependencyError(
            "apt-get was not found on PATH, and the set 'debian' is built from the release that apt "
            "is set up for; build it on a Debian system and copy the folder here"
        )
    done = subprocess.run([program, *_TARGETS], capture_output=True, text=True, check=False)
    rows = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 3]
    for uri, origin, codename, component in rows:
        # Updates, security and backports are suites of their own, named CODENAME-...
        if (origin, component) == ("Debian", "main") and "-" not in codename:
            if not uri.startswith(("http://", "https://")):
                raise DependencyError(
                    f"{uri}: apt reads Debian from there; only HTTP(S) is read here"
                )
            return uri.rstrip("/") + "/"
    found = ", ".join(sorted({f"{row[1]} {row[2]} {row[3]}" for row in rows})) or "none"
    raise DependencyError(
        f"apt knows no index of Debian's main (found: {found}); on a Debian system run "
        "`apt-get update` first, elsewhere build the set 'debian' on one and copy the folder"
    )


def sha256_of(release: str) -> dict[str, str]:
    """Return the sha256 of each file that the text of a release file lists."""
    found: dict[str, str] = {}
    inside = False
    for line in release.splitlines():
        if not line.startswith(" "):
            inside = line.rstrip() == "SHA256:"
        elif inside and len(cells := line.split()) == 3:
            found[cells[2]] = cells[0]
    return found


def _fetch_index(base: str, name: str, hashes: Mapping[str, str]) -> Path:
    if name not in hashes:
        raise DependencyError(
            f"{base}{RELEASE}: lists no sha256 of {name}; is it a Debian release?"
        )
    expected = hashes[name]
    file = home() / "packages" / f"debian-{expected[:12]}-{name.rpartition('/')[2]}"
    if file.is_file() and artifacts.sha256_file(file) == expected:
        return file
    note(f"fetching {base}{name}")
    content = _read(base + name)
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DependencyError(
            f"{base}{name}: wrong bytes came (sha256 found {found}, {RELEASE} says {expected}); try "
            "again: the mirror may have been between two releases"
        )
    with artifacts.atomic_open(file) as out:
        out.write(content)
    return file


def _read(uri: str) -> bytes:
    try:
        with urllib.request.urlopen(uri, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise DependencyError(
            f"{uri}: could not be read ({error}); check the connection and try again"
        ) from error
    return content


def stanzas(lines: Iterable[str]) -> Iterator[Stanza]:
    """Yield the stanzas of a Debian control file, of each the fields that are read here."""
    current: Stanza = {}
    field = ""
    for line in lines:
        if line.startswith((" ", "\t")):
            if field in _FIELDS:
                current[field] += f"\n{line.strip()}"
        elif line.strip():
            field, _, value = line.partition(":")
            if field in _FIELDS:
                current[field] = value.strip()
        elif current:
            yield current
            current = {}
    if current:
        yield current


def read(packages: Iterable[str], translations: Iterable[str], *, version: str) -> Source:
    """Read the lines of Packages and of Translation-en as passages with their queries.

    One binary stands for a source package, the first by name that is not transitional. Packages
    with the same long description are one passage; the queries of all of them belong to it. Those whose
    description is a template around the name (as of most crates of Rust) are left out: they
    tell nothing to find them by.
    """
    texts = {row["Description-md5"]: row["Description-en"] for row in stanzas(translations)}
    left_out: Counter[str] = Counter()
    rows: dict[str, tuple[str, str, str]] = {}
    for row in sorted(stanzas(packages), key=lambda row: row["Package"]):
        name = row["Package"]
        source = row.get("Source", name).partition(" ")[0]
        synopsis, _, rest = texts.get(row.get("Description-md5", ""), "").partition("\n")
        if reason := _why_no_package(synopsis, _long(rest)):
            left_out[reason] += 1
        elif source in rows:
            left_out["further binaries of a source package"] += 1
        else:
            rows[source] = (name, fold(synopsis), _long(rest))
    templates = Counter(_but_for_the_name(name, text) for name, _, text in rows.values())
    told = {
        s: row for s, row in rows.items() if templates[_but_for_the_name(row[0], row[2])] < TEMPLATE
    }
    left_out["descriptions of a template that hold a name alone"] = len(rows) - len(told)
    first: dict[str, str] = {}
    judgements: list[Judgement] = []
    passages: dict[str, str] = {}
    for source, (name, synopsis, text) in told.items():
        kept = first.setdefault(normalise(text), source)
        if kept == source:
            passages[name] = text
        else:
            left_out["copies of a passage, their queries given to the first one"] += 1
        if reason := _why_no_query(synopsis, text):
            left_out[reason] += 1
        else:
            judgements.append(Judgement(synopsis, rows[kept][0], family(kept)))
    corpus = Corpus(tuple(passages), tuple(passages.values()), ("",) * len(passages))
    return Source(version, corpus, tuple(judgements), dict(left_out))


def family(source: str) -> str:
    """A source package without version numbers: gcc-11 and gcc-12 are both of gcc."""
    return _VERSION.sub("", source) or source


def _long(text: str) -> str:
    """The paragraphs of a long description in one line; a point alone is an empty line."""
    return fold(" ".join(line for line in text.split("\n") if line != "."))


def _but_for_the_name(name: str, text: str) -> str:
    """The words of a description without those of the package's name."""
    own = set(_PART.findall(name))
    return " ".join(word for word in _PART.findall(text.casefold()) if word not in own)


def _why_no_package(synopsis: str, text: str) -> str | None:
    reasons = {
        "packages without a description": not synopsis or not text,
        "transitional and dummy packages": _TRANSITION.search(synopsis),
        f"descriptions under {MIN_PASSAGE_WORDS} words": len(normalise(text).split())
        < MIN_PASSAGE_WORDS,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _why_no_query(synopsis: str, text: str) -> str | None:
    words = normalise(synopsis)
    reasons = {
        f"queries under {MIN_QUERY_WORDS} words": len(words.split()) < MIN_QUERY_WORDS,
        "queries that stand in the passage": f" {words} " in f" {normalise(text)} ",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


RECIPE = DebianRecipe(
    rule=(
        "Passages: long descriptions of packages of main for amd64, the synopsis not among them, at "
        f"least {MIN_PASSAGE_WORDS} words; of a source package the first binary by name that is "
        f"neither transitional nor a dummy; no description that {TEMPLATE} source packages or more share "
        "but for their names; equal descriptions are one passage. Queries: synopses, at "
        f"least {MIN_QUERY_WORDS} words, not standing in the passage word for word; texts with the "
        "same words are one query. Split by source package without its version numbers: packages of "
        "one, and those that share a query, are in one split."
    ),
    rule_version=1,
    licence="of each package: those of main are free by Debian's guidelines (DFSG)",
    attribution=(
        "Descriptions of packages of Debian, written by their maintainers. Each is under the licence "
        "of its package's `debian` folder, which stands in the package's /usr/share/doc/*/copyright. "
        "Debian is a registered trademark of Software in the Public Interest, Inc."
    ),
    dev=1000,
    test=2000,
)
