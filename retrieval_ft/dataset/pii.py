"""Personal data out of texts, before anything is made from them or sent anywhere.

Each find is replaced by a mark of its kind, `<EMAIL>`; the report says where each stood and shows a
masked sample, never the value, so that the report itself is no leak.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from retrieval_ft.console import progress
from retrieval_ft.dataset.pii_kinds import Kind, spans
from retrieval_ft.dataset.types import Corpus, Queries

REGIONS = ("US", "GB", "DE", "FR")
"""Where phone numbers without a country code are looked for, if written with separators."""
_OURS = frozenset({"document", "span"})
"""Metadata that is no text: it holds ids and places together, so it stays."""


class Finding(NamedTuple):
    """Personal data at text[start:end]."""

    start: int
    end: int
    kind: Kind


class PiiRow(NamedTuple):
    """A line of the report."""

    kind: Kind
    id: str
    """Of the passage or query; scrubbed, where the id itself is personal data."""
    field: str
    """`title`, `text` or `metadata`."""
    start: int
    end: int
    sample: str
    """Masked: first and last character, or `j***@e***.com`."""


@dataclass
class PiiAccount:
    """What was found."""

    looked_at: int = 0
    """Passages or queries."""
    touched: int = 0
    """Those with a find."""
    ids: int = 0
    """Ids that hold personal data. They stay, since labels name them: choose others."""
    rows: list[PiiRow] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Number of finds by kind, sorted by name."""
        return dict(sorted(Counter(row.kind for row in self.rows).items()))

    def as_rows(self) -> Iterator[dict[str, Any]]:
        """The report, one JSON object a find."""
        return (row._asdict() for row in self.rows)


def scrub(text: str, *, regions: Sequence[str] = REGIONS) -> tuple[str, tuple[Finding, ...]]:
    """Replace personal data by marks; scrubbing the result again changes nothing.

    Args:
        text: any text.
        regions: ISO codes of the countries whose phone numbers may lack a country code.

    Returns:
        The clean text, and what was found, by its place in the text that was given.

    Raises:
        ConfigError: a region is unknown.
    """
    findings: list[Finding] = []
    clean, moved = text, [(0, 0)]
    while found := spans(clean, tuple(regions)):
        # A mark parts what stood together, so that a second look may find more.
        findings += [Finding(_origin(a, moved), _origin(b, moved), kind) for a, b, kind in found]
        findings.sort()
        clean, moved = _marked(text, findings)
    return clean, tuple(findings)


def _marked(text: str, findings: Sequence[Finding]) -> tuple[str, list[tuple[int, int]]]:
    """The text with marks, and the place after each mark: (in the result, in the text)."""
    parts: list[str] = []
    moved, length, done = [(0, 0)], 0, 0
    for start, end, kind in findings:
        parts += (text[done:start], f"<{kind.upper()}>")
        length += len(parts[-2]) + len(parts[-1])
        done = end
        moved.append((length, done))
    return "".join([*parts, text[done:]]), moved


def _origin(place: int, moved: Sequence[tuple[int, int]]) -> int:
    after, origin = moved[bisect_right(moved, place, key=lambda pair: pair[0]) - 1]
    return origin + place - after


def scrub_text(text: str, *, regions: Sequence[str] = REGIONS) -> str:
    """The text with personal data replaced by marks."""
    return scrub(text, regions=regions)[0]


def scan(
    texts: Iterable[str], *, regions: Sequence[str] = REGIONS
) -> Iterator[tuple[Finding, ...]]:
    """Yield what `scrub` would replace in each text."""
    return (scrub(text, regions=regions)[1] for text in texts)


def scrub_corpus(corpus: Corpus, *, regions: Sequence[str] = REGIONS) -> tuple[Corpus, PiiAccount]:
    """Scrub titles, texts and the strings in metadata; for a dry run, leave the corpus aside."""
    look = _Look(regions)
    rows = look.rows(corpus.ids, {"title": corpus.titles, "text": corpus.texts}, corpus.metadata)
    titles, texts, metadata = rows["title"], rows["text"], rows.get("metadata", ())
    return Corpus(corpus.ids, tuple(texts), tuple(titles), tuple(metadata)), look.account


def scrub_queries(
    queries: Queries, *, regions: Sequence[str] = REGIONS
) -> tuple[Queries, PiiAccount]:
    """Scrub texts and the strings in metadata; for a dry run, leave the queries aside."""
    look = _Look(regions)
    rows = look.rows(queries.ids, {"text": queries.texts}, queries.metadata)
    return Queries(queries.ids, tuple(rows["text"]), tuple(rows.get("metadata", ()))), look.account


class _Look:
    """Scrubs row by row and keeps the account."""

    def __init__(self, regions: Sequence[str]) -> None:
        self._regions = regions
        self.account = PiiAccount()

    def rows(
        self,
        ids: Sequence[str],
        columns: Mapping[str, Sequence[str]],
        metadata: Sequence[Mapping[str, Any]],
    ) -> dict[str, list[Any]]:
        """The clean columns, `metadata` among them."""
        clean: dict[str, list[Any]] = {part: [] for part in columns}
        account = self.account
        with progress("personal data", len(ids)) as bar:
            for row, identifier in enumerate(ids):
                name = scrub_text(identifier, regions=self._regions)
                before = len(account.rows)
                for part, column in columns.items():
                    clean[part].append(self._text(name, part, column[row]))
                if metadata:
                    clean.setdefault("metadata", []).append(self._metadata(name, metadata[row]))
                account.looked_at += 1
                account.touched += len(account.rows) > before
                account.ids += name != identifier
                bar.advance()
        return clean

    def _metadata(self, name: str, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        clean = {k: v if k in _OURS else self._value(name, v) for k, v in metadata.items()}
        return metadata if clean == metadata else clean

    def _text(self, name: str, part: str, text: str) -> str:
        clean, findings = scrub(text, regions=self._regions)
        for start, end, kind in findings:
            sample = _masked(text[start:end], kind)
            self.account.rows.append(PiiRow(kind, name, part, start, end, sample))
        return clean

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(name, "metadata", value)
        if isinstance(value, Mapping):
            return {key: self._value(name, inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(name, inner) for inner in value]
        return value


def _masked(value: str, kind: Kind) -> str:
    if kind == "email":
        local, _, domain = value.replace("\uff20", "@").partition("@")
        return f"{_initial(local)}***@{_initial(domain)}***.{domain.rpartition('.')[2]}"
    signs = [sign for sign in value if sign.isalnum()]
    return f"{signs[0]}***{signs[-1]}"


def _initial(part: str) -> str:
    return part[0] if len(part) > 2 else ""
