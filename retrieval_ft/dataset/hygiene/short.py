"""Passages with next to no words: what is left where a page break, a rule or a number was cut off."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from retrieval_ft.dataset.hygiene.account import Check
from retrieval_ft.dataset.hygiene.words import word_count
from retrieval_ft.dataset.types import Dataset
from retrieval_ft.errors import DataError


def drop_short(
    dataset: Dataset, *, min_words: int, labelled: Collection[str], minimum: int = 2
) -> tuple[Dataset, Check]:
    """Drop passages cut from documents whose text, title left out, has under `min_words` words.

    A row that carries its own id (no `document` in its metadata) stays, and so does a passage that
    a label names.

    Returns:
        The dataset, and the check `short_passages`.

    Raises:
        DataError: fewer than `minimum` passages would be left.
    """
    corpus = dataset.corpus
    cut = [
        passage_id
        for passage_id, text in zip(corpus.ids, corpus.texts, strict=True)
        if "document" in corpus.metadata_of(passage_id)
        and passage_id not in labelled
        and word_count(text) < min_words
    ]
    rows = tuple(
        {"passage_id": passage_id, "text": corpus.texts[corpus.index_of[passage_id]]}
        for passage_id in cut
    )
    check = Check(
        "short_passages", len(cut), len(corpus), f"dropped: under {min_words} words", rows
    )
    if not cut:
        return dataset, check
    if len(corpus) - len(cut) < minimum:
        raise DataError(
            f"{dataset.name}: {len(cut)} of {len(corpus)} passages have under {min_words} words, and "
            "retrieval needs at least two passages; lower hygiene.min_words, or see whether the "
            "documents hold text"
        )
    gone = set(cut)
    kept = corpus.select(passage_id for passage_id in corpus.ids if passage_id not in gone)
    return replace(dataset, corpus=kept), check
