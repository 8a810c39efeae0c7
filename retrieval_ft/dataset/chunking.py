"""Cut documents into passages by the base model's own tokens, along headings and sentences.

A passage is what is encoded, indexed and mined: title + text within a budget of tokens, so that the
model never cuts one silently. The text of a passage is a stretch of its document, word for word.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.config import ChunkingConfig
from retrieval_ft.dataset.documents import Document
from retrieval_ft.dataset.outline import Block, Offsets, Titles, blocks, title_pieces, written
from retrieval_ft.dataset.sentences import Span, Tokens, pack
from retrieval_ft.dataset.types import Corpus
from retrieval_ft.errors import DataError, DependencyError

_BATCH_CHARACTERS, _BATCH_DOCUMENTS = 1 << 20, 4096
_SPACE = re.compile(r"\s")
_WORD = re.compile(r"\w")
_UNFIT_IN_ID = re.compile(r"[\t\r\n\ud800-\udfff]")


@dataclass(frozen=True)
class Passage:
    """A row of the corpus; `metadata` has `document`, `headings` and `span` (see `Corpus`)."""

    id: str
    title: str
    text: str
    metadata: Mapping[str, Any]


@dataclass
class ChunkAccount:
    """What became of the documents."""

    documents: int = 0
    empty_documents: int = 0
    """Without a word in text and title: they gave no passage."""
    cut_sentences: int = 0
    """Too long for a passage, so cut at lines, words or tokens."""
    cut_titles: int = 0
    """Titles that took over half of the budget: outer headings were left out of them."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Number of passages by their tokens, title counted."""

    @property
    def passages(self) -> int:
        """Number of passages made."""
        return self.lengths.total()

    def as_dict(self) -> dict[str, Any]:
        """JSON values: the counts, and the distribution of tokens over the passages."""
        order = sorted(self.lengths)
        lengths = np.repeat(order, [self.lengths[length] for length in order])
        marks = {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100} if order else {}
        return {
            "documents": self.documents,
            "empty_documents": self.empty_documents,
            "passages": self.passages,
            "cut_sentences": self.cut_sentences,
            "cut_titles": self.cut_titles,
            "tokens": {
                name: int(np.percentile(lengths, mark, method="nearest"))
                for name, mark in marks.items()
            },
        }


@dataclass(frozen=True)
class _Draft:
    """A passage that is not checked yet: [start, fresh) repeats the one before it."""

    row: int
    """Of its document in the batch."""
    title: str
    headings: tuple[str, ...]
    start: int
    fresh: int
    end: int


class Chunker:
    """Cuts documents into passages; `account` says what became of them so far."""

    def __init__(self, offsets: Offsets, *, config: ChunkingConfig) -> None:
        self._offsets, self._budget, self._overlap = offsets, config.tokens, config.overlap
        self._ids: set[str] = set()
        self.account = ChunkAccount()

    def chunk(self, documents: Iterable[Document]) -> Iterator[Passage]:
        """Yield the passages of each document, in order; one batch of documents is held at a time.

        Sections stay apart, but for small ones: under a quarter of the budget, a section is joined
        with the sibling or child that follows where both fit, and the title names the headings of
        both. A section over the budget is cut between sentences, with an overlap of whole ones.

        Raises:
            DataError: a text is not valid Unicode, or two passages would have one id.
        """
        batch: list[tuple[Document, str]] = []
        characters = 0
        for document in documents:
            text = _checked_text(document)
            batch.append((document, text))
            characters += len(text)
            if characters >= _BATCH_CHARACTERS or len(batch) == _BATCH_DOCUMENTS:
                yield from self._passages(batch)
                batch, characters = [], 0
        if batch:
            yield from self._passages(batch)

    def _passages(self, batch: Sequence[tuple[Document, str]]) -> Iterator[Passage]:
        titles = Titles([document for document, _ in batch], self._offsets)
        tokens_of = [Tokens(offsets) for offsets in self._offsets([text for _, text in batch])]
        drafts: list[_Draft] = []
        for row, ((document, text), tokens) in enumerate(zip(batch, tokens_of, strict=True)):
            self.account.documents += 1
            if not _WORD.search(text) and not _WORD.search(document.title):
                self.account.empty_documents += 1
                continue
            for block in blocks(document, tokens, titles, budget=self._budget):
                title, spans = self._cut(document, text, block, tokens, titles)
                drafts += [
                    _Draft(row, title, block.headings, span.start, span.fresh, span.end)
                    for span in spans
                ]
        fitting = self._fit(drafts, [text for _, text in batch], tokens_of)
        for row, group in groupby(fitting, key=lambda draft: draft.row):
            document, text = batch[row]
            yield from self._finished(document, text, list(group))

    def _cut(
        self, document: Document, text: str, block: Block, tokens: Tokens, titles: Titles
    ) -> tuple[str, Sequence[Span]]:
        """The title of a block and its spans, all within the budget as far as counts add up."""
        pieces = title_pieces(document, block)
        title, cost = written(pieces), titles.cost(pieces)
        size = tokens.count(block.start, block.end)
        half = self._budget // 2
        if cost > half and cost + size > self._budget:
            title, cost = titles.shortened(pieces, half)
            self.account.cut_titles += 1
        if block.start == block.end:
            return title, [Span(block.start, block.start, block.end)]
        packed = pack(
            text,
            tokens,
            start=block.start,
            end=block.end,
            room=self._budget - cost,
            overlap=self._overlap,
        )
        self.account.cut_sentences += packed.cut_sentences
        return title, packed.spans

    def _fit(
        self, drafts: Sequence[_Draft], texts: Sequence[str], tokens_of: Sequence[Tokens]
    ) -> list[_Draft]:
        """Count each passage as it will be encoded, and make those smaller that are over the budget.

        Counts of parts need not add up: a word may have other tokens at the start of a text, behind
        a title or when it is cut. So the seam is tokenised again; no token knows of the words before
        the white space before it.
        """
        fitting: list[_Draft] = []
        while drafts:
            seams = [_seam_end(draft, texts[draft.row]) for draft in drafts]
            heads = self._offsets(
                [
                    _encoded(draft.title, texts[draft.row][draft.start : seam])
                    for draft, seam in zip(drafts, seams, strict=True)
                ]
            )
            over: list[_Draft] = []
            for draft, seam, head in zip(drafts, seams, heads, strict=True):
                rest = tokens_of[draft.row].count(seam, draft.end) if seam < draft.end else 0
                size = len(head) + rest
                parts = [draft] if size <= self._budget else self._smaller(draft, texts[draft.row])
                if parts == [draft]:
                    fitting.append(draft)
                    self.account.lengths[size] += 1
                else:
                    over += parts
            drafts = over
        return sorted(fitting, key=lambda draft: (draft.row, draft.fresh))

    def _smaller(self, draft: _Draft, text: str) -> list[_Draft]:
        """A draft without its overlap, else cut in two or more; itself where it has one token."""
        if draft.start < draft.fresh:
            return [replace(draft, start=draft.fresh)]
        encoded = _encoded(draft.title, text[draft.start : draft.end])
        tokens = Tokens(self._offsets([encoded])[0] - (len(encoded) - draft.end))
        title_tokens = sum(end <= draft.start for end in tokens.ends)
        room = max(1, self._budget - title_tokens)
        packed = pack(text, tokens, start=draft.start, end=draft.end, room=room)
        self.account.cut_sentences += packed.cut_sentences
        spans = [replace(draft, start=s.start, fresh=s.start, end=s.end) for s in packed.spans]
        return spans or [draft]

    def _finished(
        self, document: Document, text: str, drafts: Sequence[_Draft]
    ) -> Iterator[Passage]:
        own = _fit_id(document.id)
        for number, draft in enumerate(drafts, start=1):
            identifier = own if len(drafts) == 1 else f"{own}#{number}"
            if identifier in self._ids:
                raise DataError(
                    f"{document.where}: gives a passage {identifier!r}, and so does a document "
                    "before it; ids must be unique, so rename one of them"
                )
            self._ids.add(identifier)
            metadata = {
                **document.metadata,
                "document": own,
                "headings": list(draft.headings),
                "span": [draft.start, draft.end],
            }
            yield Passage(identifier, draft.title, text[draft.start : draft.end], metadata)


def _seam_end(draft: _Draft, text: str) -> int:
    """End of the first word, after which tokens are those of the whole document."""
    if not text[draft.end : draft.end + 1].strip():  # the last word is whole
        space = _SPACE.search(text, draft.start, draft.end)
        if space:
            return space.start()
    return draft.end


def _encoded(title: str, text: str) -> str:
    """What is encoded (`Corpus.passages`)."""
    return f"{title} {text}".strip()


def _checked_text(document: Document) -> str:
    text = document.text
    headings = (heading for section in document.sections for heading in section.headings)
    try:
        "".join((text, document.title, *headings)).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{document.where}: not valid Unicode ({error.reason} at character {error.start}); "
            "write the file as UTF-8"
        ) from error
    return text


def _fit_id(identifier: str) -> str:
    """The id itself, or, where it cannot stand in a TSV file, a readable part of it and its hash."""
    if identifier.strip() and not _UNFIT_IN_ID.search(identifier):
        return identifier
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_UNFIT_IN_ID.sub(' ', identifier).strip()}~{digest[:12]}"


def fast_offsets(tokenizer: Any) -> Offsets:
    """How a transformers tokenizer cuts texts: what `Chunker` needs of the base model.

    Raises:
        DependencyError: the tokenizer is written in Python, so that it has no offsets.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise DependencyError(
            f"{type(tokenizer).__name__} is a tokenizer without a fast backend, which does not say "
            "where its tokens stand; choose a model that has a tokenizer.json"
        )
    backend = copy.deepcopy(backend)  # the model's own keeps its truncation and padding
    backend.no_truncation()
    backend.no_padding()

    def offsets(texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        found = backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            np.fromiter(chain.from_iterable(one.offsets), np.int64).reshape(-1, 2) for one in found
        ]

    return offsets


def collect(passages: Iterable[Passage]) -> Corpus:
    """The passages as a corpus."""
    rows = [(p.id, p.text, p.title, p.metadata) for p in passages]
    ids, texts, titles, metadata = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Corpus(ids=ids, texts=texts, titles=titles, metadata=metadata)
