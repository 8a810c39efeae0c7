"""What every format of labels fills: one query a text, one id a passage, one grade a pair of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval_ft.dataset.beir import is_text
from retrieval_ft.dataset.splits.checks import normalize, some
from retrieval_ft.dataset.types import Corpus, Qrels, Queries, Split
from retrieval_ft.errors import DataError

_ID_LENGTH = 24  # 96 bits: among a million texts, two share them with a chance of 1 in 10 ** 17


@dataclass(frozen=True)
class Labels:
    """Queries and judgements that were brought in, and the corpus that they speak of."""

    corpus: Corpus
    """The given passages, then those that the labels brought as text, in the order of reading."""
    queries: Queries
    """One for each text (case and spaces aside), in the order of reading."""
    qrels: Mapping[Split, Qrels]
    account: Mapping[str, int]
    """Counts by reason: of what was read, merged, matched, added and left out. Reasons that did not
    occur are absent, but for the first five."""
    format: str
    """The format that was read; several, with commas, where files differ."""


def text_id(text: str) -> str:
    """An id for a text that has none: the same for texts that differ in case and spaces only."""
    return hashlib.sha256(normalize(text).encode()).hexdigest()[:_ID_LENGTH]


def checked_id(value: Any, where: str, *, what: str) -> str:
    """An id as a string that a TSV can hold; numbers become strings.

    Raises:
        DataError: it is empty, of another type, or holds a tab or a line break.
    """
    identifier = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not is_text(identifier) or not identifier.strip() or set(identifier) & set("\t\r\n"):
        raise DataError(
            f"{where}: {what} {value!r} must be a string that is not empty, without tab or line break"
        )
    return str(identifier)


def checked_text(value: Any, where: str, *, what: str) -> str:
    """A text that is not empty.

    Raises:
        DataError: it is empty, no string, or not valid Unicode.
    """
    if not is_text(value):
        found = "invalid Unicode" if isinstance(value, str) else type(value).__name__
        raise DataError(f"{where}: the {what} must be a string, found {found}")
    if not value.strip():
        raise DataError(f"{where}: the {what} is empty; fill it or remove the row")
    return str(value)


def _digest(text: str) -> bytes:
    return hashlib.sha256(normalize(text).encode()).digest()[:16]


class Gather:
    """Queries, passages and judgements while files of labels are read."""

    def __init__(self, corpus: Corpus) -> None:
        self.account: Counter[str] = Counter()
        self._corpus = corpus
        self._by_text: dict[bytes, str] = {}  # filled when the first passage comes as text
        self._matched: set[str] = set()
        self._added: dict[str, str] = {}
        self._by_query: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._given: dict[str, str] = {}
        self._metadata: dict[str, Mapping[str, Any]] = {}
        self._grades: dict[Split, dict[str, dict[str, tuple[int, str]]]] = {}
        self._contradictions: list[str] = []

    def query(
        self,
        text: Any,
        where: str,
        *,
        given: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """The id of a query: that of an equal text before it, the given one, or one made of the text.

        Raises:
            DataError: the text is empty, or the given id stands for another text already.
        """
        checked = checked_text(text, where, what="query")
        normal = normalize(checked)
        wanted = text_id(checked) if given is None else checked_id(given, where, what="query id")
        known = wanted in self._given
        if self._given.setdefault(wanted, normal) != normal:
            raise DataError(
                f"{where}: query id {wanted!r} stands for another text already; ids must be unique"
            )
        query_id = self._by_query.setdefault(normal, wanted)
        if query_id != wanted and not known:
            self.account["query_ids_merged_by_text"] += 1
        if query_id not in self._texts:
            self._texts[query_id] = checked
            self._metadata[query_id] = metadata or {}
        return query_id

    def passage(self, text: Any, where: str, *, given: Any = None) -> str:
        """The id of a passage that came as text: of the corpus where it has that text, else new.

        A passage of the corpus has the text if its text, or title and text together, are equal to it
        (case and spaces aside). A new one has the given id, or one made of the text.

        Raises:
            DataError: the text is empty, or its id stands for another passage already.
        """
        checked = checked_text(text, where, what="passage")
        if not self._by_text:
            self._index_texts()
        key = _digest(checked)
        passage_id = self._by_text.get(key)
        if passage_id is None:
            passage_id = (
                text_id(checked) if given is None else checked_id(given, where, what="passage id")
            )
            if passage_id in self._corpus.index_of or passage_id in self._added:
                raise DataError(
                    f"{where}: passage id {passage_id!r} stands for another text already; use one "
                    "id for one text"
                )
            self._by_text[key] = passage_id
            self._added[passage_id] = checked
        elif passage_id not in self._added:
            self._matched.add(passage_id)
        if given is not None and given != passage_id:
            self.account["passage_ids_replaced_by_that_of_an_equal_text"] += 1
        return passage_id

    def _index_texts(self) -> None:
        for passage_id, text, whole in zip(
            self._corpus.ids, self._corpus.texts, self._corpus.passages, strict=True
        ):
            for form in {text, whole} - {""}:
                self._by_text.setdefault(_digest(form), passage_id)

    def known_passage(self, value: Any, where: str) -> str:
        """The id of a passage of the corpus.

        Raises:
            DataError: the corpus has no such passage.
        """
        passage_id = checked_id(value, where, what="passage id")
        if passage_id not in self._corpus.index_of:
            raise DataError(
                f"{where}: passage id {passage_id!r} is not in the corpus{self._hint(passage_id)}"
            )
        return passage_id

    def _hint(self, unknown: str) -> str:
        """Labels often name documents, where the corpus holds the passages cut from them."""
        if not self._corpus.ids:
            return ", which is empty: labels that name passages by id need data.path"
        parts = [p for p in self._corpus.ids if self._corpus.document_of(p) == unknown]
        if parts:
            return f"; it is a document, cut into {len(parts)} passages such as {parts[0]!r}"
        return f", whose ids look like {self._corpus.ids[0]!r}"

    def judge(self, split: Split, query_id: str, passage_id: str, grade: int, where: str) -> None:
        """Set the grade of a pair; `check` tells of pairs that were given two."""
        row = self._grades.setdefault(split, {}).setdefault(query_id, {})
        if passage_id not in row:
            row[passage_id] = (grade, where)
            return
        first, place = row[passage_id]
        self.account["judgements_repeated"] += 1
        if first != grade:
            self._contradictions.append(
                f"{self._texts[query_id][:60]!r} and passage {passage_id!r}: grade {first} at "
                f"{place}, {grade} at {where}"
            )

    def check(self) -> None:
        """Refuse the file that was just read if it judges a pair in two ways.

        Raises:
            DataError: up to ten such pairs, with their lines.
        """
        if self._contradictions:
            count = len(self._contradictions)
            raise DataError(
                f"{count} {'pairs are' if count > 1 else 'pair is'} judged in two ways: "
                f"{some(self._contradictions)}; keep one judgement of each"
            )

    def labels(self, formats: str) -> Labels:
        """What was gathered."""
        graded = {
            split: {q: {p: grade for p, (grade, _) in row.items()} for q, row in rows.items()}
            for split, rows in self._grades.items()
        }
        grades = [g for rows in graded.values() for row in rows.values() for g in row.values()]
        account = {
            "queries": len(self._texts),
            "relevant": sum(grade > 0 for grade in grades),
            "not_relevant": sum(grade <= 0 for grade in grades),
            "passages_matched_by_text": len(self._matched),
            "passages_added": len(self._added),
            **{reason: count for reason, count in sorted(self.account.items()) if count},
        }
        return Labels(
            corpus=self._grown_corpus(),
            queries=Queries(
                tuple(self._texts),
                tuple(self._texts.values()),
                tuple(self._metadata.values()) if any(self._metadata.values()) else (),
            ),
            qrels={split: Qrels(rows) for split, rows in graded.items()},
            account=account,
            format=formats,
        )

    def _grown_corpus(self) -> Corpus:
        corpus, more = self._corpus, len(self._added)
        if not more:
            return corpus
        return Corpus(
            ids=(*corpus.ids, *self._added),
            texts=(*corpus.texts, *self._added.values()),
            titles=(*corpus.titles, *("",) * more),
            metadata=(*corpus.metadata, *({},) * more) if corpus.metadata else (),
        )
