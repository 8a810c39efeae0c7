"""The outline of a document: which sections go together in a passage, and under what title."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset.documents import Document
from retrieval_ft.dataset.sentences import Tokens, pack

Offsets = Callable[[Sequence[str]], Sequence[npt.NDArray[np.int64]]]
"""For each text int64 [tokens, 2], start and end character of each token, no special tokens."""

BELOW, BESIDE = " > ", " / "
"""Between a heading and the one under it, and between the headings of joined sections."""

Piece = tuple[str, str]
"""Part of a title: the separator before it, where it is not the first, and its words."""


@dataclass(frozen=True)
class Block:
    """Neighbouring sections that go together: characters [start, end) of the document's text."""

    paths: tuple[tuple[str, ...], ...]
    """Headings above each section."""
    start: int
    end: int

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings that are common to its sections."""
        return _common(self.paths)

    def takes(self, section: Block) -> bool:
        """Whether the section that follows is a sibling or a descendant of the first one here."""
        first, path = self.paths[0], section.paths[0]
        return path[:-1] == first[:-1] or (bool(first) and path[: len(first)] == first)

    def with_next(self, section: Block) -> Block:
        """Both as one block."""
        return Block((*self.paths, *section.paths), self.start, section.end)


class Titles:
    """Tokens of the titles and headings of some documents, counted once each."""

    def __init__(self, documents: Sequence[Document], offsets: Offsets) -> None:
        strings = {BELOW, BESIDE}
        for document in documents:
            strings.add(_clean(document.title))
            strings.update(_clean(h) for s in document.sections for h in s.headings)
        ordered = sorted(strings)
        self._offsets = offsets
        self._size = dict(zip(ordered, map(len, offsets(ordered)), strict=True))

    def cost(self, pieces: Sequence[Piece]) -> int:
        """Tokens of a title."""
        return sum(self._size[words] for _, words in pieces) + sum(
            self._size[separator] for separator, _ in pieces[1:]
        )

    def shortened(self, pieces: Sequence[Piece], room: int) -> tuple[str, int]:
        """The innermost headings that fit, or the first words of the last one; and their tokens."""
        cost, first = self.cost(pieces), 0
        while cost > room and first + 1 < len(pieces):
            cost -= self._size[pieces[first][1]] + self._size[pieces[first + 1][0]]
            first += 1
        title = written(pieces[first:])
        if cost > room:
            tokens = Tokens(self._offsets([title])[0])
            span = pack(title, tokens, start=0, end=len(title), room=room).spans[0]
            title, cost = title[span.start : span.end], tokens.count(span.start, span.end)
        return title, cost


def blocks(document: Document, tokens: Tokens, titles: Titles, *, budget: int) -> Iterator[Block]:
    """The sections that have text, small ones joined; one empty block where none has."""
    sections = _sections(document)
    block = next(sections, Block(((),), 0, 0))
    for section in sections:
        whole = block.with_next(section)
        small = 4 * tokens.count(block.start, block.end) < budget
        if small and block.takes(section):
            cost = titles.cost(title_pieces(document, whole))
            if cost + tokens.count(whole.start, whole.end) <= budget:
                block = whole
                continue
        yield block
        block = section
    yield block


def _sections(document: Document) -> Iterator[Block]:
    """Each run of sections under the same headings as one block; blank ones are passed over."""
    end = -2
    placed = []
    for section in document.sections:
        start = end + 2
        end = start + len(section.text)
        if section.text.strip():
            path = tuple(words for words in map(_clean, section.headings) if words)
            placed.append(Block((path,), start, end))
    for paths, group in groupby(placed, key=lambda block: block.paths):
        run = list(group)
        yield Block(paths, run[0].start, run[-1].end)


def title_pieces(document: Document, block: Block) -> list[Piece]:
    """The document's title, the common headings, and those of each section that go on from there."""
    title = _clean(document.title)
    paths = [p[1:] if p and p[0].casefold() == title.casefold() else p for p in block.paths]
    common = _common(paths)
    pieces = [(BELOW, words) for words in (title, *common) if words]
    separator = BELOW
    for own in dict.fromkeys(path[len(common) :] for path in paths):
        pieces += [(BELOW if depth else separator, words) for depth, words in enumerate(own)]
        separator = BESIDE if own else separator
    return pieces


def written(pieces: Sequence[Piece]) -> str:
    """A title as one string."""
    return "".join(s + words if i else words for i, (s, words) in enumerate(pieces))


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    levels = zip(*paths, strict=False)  # as deep as the shallowest
    return tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _clean(words: str) -> str:
    return " ".join(words.split())
