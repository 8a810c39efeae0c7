"""Hold out whole documents, so that one half of test asks about what training never touched.

The rule: take a query, hold out every document that it is relevant to, and move with it every query
that touches one of these. No query that stays in train is then about a held-out document, however
many documents a query has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import median

from retrieval_ft.dataset.types import Split

_FEW = 4
"""Queries of a split below which halves mean nothing."""


class _Pool:
    """Query texts still in train, and for each document how many of them are about it."""

    def __init__(self, documents: Mapping[str, frozenset[str]], touched: Collection[str]) -> None:
        self.documents = documents
        self.touched = touched
        self.left = set(documents)
        self.live = Counter(d for own in documents.values() for d in own)
        self.about: dict[str, list[str]] = {}
        for text, own in documents.items():
            for document in own:
                self.about.setdefault(document, []).append(text)

    def take(self, texts: Collection[str]) -> None:
        self.left.difference_update(texts)
        self.live.subtract(d for text in texts for d in self.documents[text])

    def cost(self, text: str) -> int:
        """Texts that go if the documents of `text` are held out; a bound, as some may count twice."""
        own = self.documents[text]
        return sum(self.live[d] for d in own) - len(own) + 1

    def companions(self, text: str) -> set[str]:
        """The texts left that are about a document of `text`, itself among them."""
        return {t for d in self.documents[text] for t in self.about[d] if t in self.left}

    def gone(self, text: str) -> bool:
        """Whether nothing that is left is about a document of `text`."""
        return not any(self.live[d] or d in self.touched for d in self.documents[text])


def _hold_out(pool: _Pool, order: Sequence[str], quota: int) -> list[str]:
    """Take texts with all their documents until half the quota is unseen, three quarters at most."""
    taken: set[str] = set()
    unseen: set[str] = set()
    for text in order:
        if 2 * len(unseen) >= quota:
            break
        room = min(quota - len(taken), -(-3 * quota // 4) - len(unseen))
        own = pool.documents[text]
        if text not in pool.left or not own or not own.isdisjoint(pool.touched):
            continue
        if pool.cost(text) > room:
            continue
        group = pool.companions(text)
        pool.take(group)
        taken |= group
        emptied = {d for t in group for d in pool.documents[t] if not pool.live[d]}
        unseen |= {t for d in emptied for t in pool.about[d] if t in taken and pool.gone(t)}
    return sorted(taken)


def _fill(pool: _Pool, order: Sequence[str], count: int, *, keep: int) -> list[str]:
    """Take up to `count` texts each of whose documents keeps `keep` texts in train."""
    taken: list[str] = []
    for text in order:
        if len(taken) == count:
            break
        own = pool.documents[text]
        if text in pool.left and all(pool.live[d] > keep for d in own) and (own or not keep):
            pool.take([text])
            taken.append(text)
    return taken


def split_by_document(
    documents: Mapping[str, frozenset[str]],
    order: Sequence[str],
    quotas: Mapping[Split, int],
    *,
    touched: Collection[str] = (),
) -> dict[Split, list[str]]:
    """Choose the query texts of each split: half of them unseen, half seen, where the data allow it.

    Args:
        documents: Query text -> the documents (or groups of them) of its relevant passages.
        order: All query texts, in the order in which they are tried.
        quotas: Texts of each split; their sum is less than all texts. A split is filled to its
            quota in any case.
        touched: Documents that the queries of a dev split are about that the dataset brought.

    Returns:
        The texts of each split.
    """
    pool = _Pool(documents, frozenset(touched))
    taken = {split: _hold_out(pool, order, quota) for split, quota in quotas.items()}
    # Only now, so that what holds out the documents of one split leaves no seen query of another
    # without its document in train. The last pass takes what is left, seen or not.
    for keep in (1, 0):
        for split, quota in quotas.items():
            taken[split] += _fill(pool, order, quota - len(taken[split]), keep=keep)
    return taken


def why_not_half(documents: Mapping[str, frozenset[str]], *, unseen: int, total: int) -> str:
    """Say in a clause why a split of `total` queries is not about half unseen; empty where it is."""
    balanced = 4 * unseen >= total and 4 * (total - unseen) >= total
    if unseen and (balanced or total < _FEW):
        return ""
    sizes = Counter(d for own in documents.values() for d in own)
    if 4 * unseen > total:
        single = sum(count == 1 for count in sizes.values())
        return f"{single:,} of {len(sizes):,} documents have one query only"
    if len(sizes) == 1:
        return "all queries are about one document, near-duplicates counted as one"
    others = median(sum(sizes[d] - 1 for d in own) for own in documents.values())
    return (
        "queries share their documents: holding out those of one query takes "
        f"{others:,.0f} others out of train (median)"
    )
