"""Queries that authors wrote without knowing it: titles, headings and the words of links."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from retrieval_ft.dataset import Corpus, Link
from retrieval_ft.dataset.outline import BELOW, BESIDE
from retrieval_ft.mining.generate import words
from retrieval_ft.mining.generate.types import GeneratedPair

_INFORMATIVE_ANCHOR = 2
_NO_SLUG = re.compile(r"[^\w\- ]")


@dataclass(frozen=True)
class Outline:
    """Where in its document each passage stands."""

    corpus: Corpus
    rows_of: Mapping[str, tuple[int, ...]]
    """Rows of the corpus by document, in the order of reading."""
    opens_title: frozenset[int]
    """Rows that are the first of their document under its title."""
    opens_section: frozenset[int]
    """Rows that are the first under their headings."""

    @classmethod
    def of(cls, corpus: Corpus) -> Outline:
        """Read the outline of a corpus from its metadata; a passage without is its own document."""
        rows_of: defaultdict[str, list[int]] = defaultdict(list)
        for row, passage_id in enumerate(corpus.ids):
            rows_of[corpus.document_of(passage_id)].append(row)
        opens_title, opens_section = set(), set()
        for rows in rows_of.values():
            if len(rows) > 1:
                rows.sort(key=lambda row: (_metadata(corpus, row).get("span") or [0], row))
            seen: set[str | tuple[str, ...]] = set()
            for row in rows:
                title, path = document_title(corpus, row), section_path(corpus, row)
                if title not in seen:
                    opens_title.add(row)
                if path and path not in seen:
                    opens_section.add(row)
                seen |= {title, path}
        return cls(
            corpus,
            {document: tuple(rows) for document, rows in rows_of.items()},
            frozenset(opens_title),
            frozenset(opens_section),
        )


def _metadata(corpus: Corpus, row: int) -> Mapping[str, Any]:
    return corpus.metadata[row] if corpus.metadata else {}


def document_title(corpus: Corpus, row: int) -> str:
    """Title of a passage's document: of the passage itself where it was not cut from one."""
    title = corpus.titles[row]
    return title.split(BELOW)[0] if "span" in _metadata(corpus, row) else title


def section_path(corpus: Corpus, row: int) -> tuple[str, ...]:
    """Headings above a passage, outermost first; with that of its first section where it joins some."""
    headings = tuple(_metadata(corpus, row).get("headings") or ())
    return headings + tuple(_joined(corpus, row)[:1])


def _joined(corpus: Corpus, row: int) -> list[str]:
    """Headings of the sections that the chunker joined in a passage, read from its title.

    "Handbook > Refunds > Exceptions / Deadlines" joins two sections under "Refunds".
    """
    metadata, title = _metadata(corpus, row), corpus.titles[row]
    headings = metadata.get("headings") or ()
    if "span" not in metadata or BELOW not in title or BESIDE not in title:
        return []
    if headings and title.endswith(headings[-1]):  # a heading that has " / " in it
        return []
    return [part.split(BELOW)[-1] for part in title.split(BELOW, 1)[1].split(BESIDE)]


def title_pair(outline: Outline, row: int) -> GeneratedPair | None:
    """Title to text, for the first passage of a document; None where there is no title."""
    query = words.clean(document_title(outline.corpus, row))
    if row not in outline.opens_title or not query:
        return None
    return GeneratedPair(query, outline.corpus.ids[row], "title", body(outline.corpus, row))


def heading_pair(outline: Outline, row: int) -> GeneratedPair | None:
    """Heading to text, for the first passage of a section; None where it has no heading.

    A heading of one word, or of words such as "overview" alone, is put behind the one above it.
    """
    if row not in outline.opens_section:
        return None
    corpus = outline.corpus
    path = [document_title(corpus, row), *section_path(corpus, row)]
    *above, query = dict.fromkeys(words.clean(part) for part in path if part.strip())
    while above and (words.informative(query) == 0 or words.fault(query)):
        query = words.clean(f"{above.pop()} {query}")
    return GeneratedPair(query, corpus.ids[row], "heading", body(corpus, row))


def body(corpus: Corpus, row: int) -> str:
    """Text of a passage without its title, and without the line that repeats it."""
    text = corpus.texts[row].strip()
    for name in (corpus.titles[row], *section_path(corpus, row)[-1:], document_title(corpus, row)):
        start, end = text[: len(name)], text[len(name) :]
        if name and start.casefold() == name.casefold() and (not end or end[0] in ".:\n"):
            return end[1:].strip()
    return text


@dataclass(frozen=True)
class Anchors:
    """The words of links by the row they lead to, and the links that gave none."""

    texts: Mapping[int, tuple[str, ...]]
    """Cleaned, distinct, the most used first, then by text."""
    dropped: Mapping[str, int]

    def pair(self, outline: Outline, row: int) -> GeneratedPair | None:
        """The words that most links to a passage use; None where no link leads there."""
        if row not in self.texts:
            return None
        corpus, query = outline.corpus, self.texts[row][0]
        # Words of the title alone teach no more than the title does, unless it is taken away.
        named = words.content_words(query) <= words.content_words(corpus.titles[row])
        return GeneratedPair(query, corpus.ids[row], "link", body(corpus, row) if named else None)


def anchors(outline: Outline, links: Iterable[tuple[str, Iterable[Link]]]) -> Anchors:
    """Find the passages that links lead to.

    Args:
        outline: of the corpus.
        links: id of a document and links in it, once or many times a document.

    Returns:
        Anchors; `dropped` counts external (a URL), unknown_target (no such document or heading in
        the corpus), generic (fewer than two words that say something), own_passage (the link
        stands in the passage it leads to), other_words (other links to the passage use these more).
    """
    used: defaultdict[int, Counter[str]] = defaultdict(Counter)
    dropped: Counter[str] = Counter()
    for source, link in ((source, link) for source, given in links for link in given):
        found = _follow(outline, source, link)
        if isinstance(found, str):
            dropped[found] += 1
        else:
            used[found][words.clean(link.text)] += 1
    texts = {
        row: tuple(sorted(counts, key=lambda text: (-counts[text], text)))
        for row, counts in sorted(used.items())
    }
    dropped["other_words"] = sum(len(row) - 1 for row in texts.values())
    return Anchors(texts, dict(sorted((+dropped).items())))


def _follow(outline: Outline, source: str, link: Link) -> int | str:
    """The row that a link leads to, or why it leads to none."""
    document, _, fragment = link.target.partition("#")
    if "://" in document:
        return "external"
    query = words.clean(link.text)
    if words.fault(query) or words.informative(query) < _INFORMATIVE_ANCHOR:
        return "generic"
    rows = outline.rows_of.get(document or source, ())
    row = next(_openings(outline, rows, fragment), None)
    if row is None:
        return "unknown_target"
    here = " ".join(outline.corpus.texts[row].split())
    if (document or source) == source and " ".join(link.text.split()) in here:
        return "own_passage"
    return row


def _openings(outline: Outline, rows: tuple[int, ...], fragment: str) -> Iterator[int]:
    if not fragment:
        yield from rows[:1]
        return
    for row in rows:
        corpus = outline.corpus
        if slug(fragment) in map(slug, [*section_path(corpus, row), *_joined(corpus, row)]):
            yield row


def slug(heading: str) -> str:
    """The fragment that GitHub gives a heading: lower case, no punctuation, hyphens for spaces."""
    return _NO_SLUG.sub("", heading.strip().lower()).replace(" ", "-")
