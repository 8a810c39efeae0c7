"""Test queries in slices, and the systems on each: a mean over all queries hides where it was won.

Every question ("is it the short queries?") parts the queries by one property; a property that all
share parts nothing and gives no slice. Many questions find something by luck: p is adjusted over all of
them, and what rests on fewer than `MINIMUM` queries is never called a finding.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import numpy as np

from retrieval_ft.dataset.hygiene.words import word_count, words
from retrieval_ft.dataset.types import Corpus, Qrels, Queries
from retrieval_ft.errors import DataError
from retrieval_ft.evaluation.compare import check_systems, compare, figures
from retrieval_ft.evaluation.metrics import PerQuery
from retrieval_ft.evaluation.stats import ALPHA, Difference, holm

MINIMUM = 30
"""Queries that a finding rests on at least; a 95% half-width is about 12 points of recall there."""
VALUES = 12
"""Values of a metadata key that get a slice each; the rarer ones share one."""
MISSING, OTHER, SEVERAL = "(none)", "(other)", "(several)"
_TIMES = frozenset({"time", "last_time"})
_WORD = re.compile(r"\w+")
_EXACT = 2**53

Terms = Callable[[str], Collection[str]]
"""Splits a text into terms."""


@dataclass(frozen=True)
class Slice:
    """Queries that share one value of one property."""

    name: str
    """The property, such as `query length`."""
    value: str
    """What these have, such as `short (2 to 5 words)`."""
    query_ids: tuple[str, ...]
    """Sorted; never empty."""


def terms_of(text: str) -> list[str]:
    """Words of a text, NFKC and case-folded; each character where a script has no spaces.

    Give the functions below the lexical index's own split where there is one (`LexicalSpec.tokenize`):
    without stop words and endings an overlap means more.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(" ".join(words(folded)))


def document_frequencies(texts: Iterable[str], *, terms: Terms = terms_of) -> Counter[str]:
    """Number of texts that each term is in."""
    return Counter(term for text in texts for term in set(terms(text)))


def by_length(queries: Queries) -> tuple[Slice, ...]:
    """Short, medium and long queries: tertiles of the number of words."""
    counts = {q: float(word_count(text)) for q, text in queries.text_of.items()}
    return _tertiles(
        "query length",
        counts,
        labels=("short", "medium", "long"),
        show=partial(_range, unit=" words"),
    )


def by_rarest_term(
    queries: Queries,
    frequency: Mapping[str, int] | Callable[[str], int],
    *,
    terms: Terms = terms_of,
) -> tuple[Slice, ...]:
    """Tertiles of the number of passages that a query's rarest term is in; words of no passage apart.

    Args:
        queries: Test queries.
        frequency: Passages that a term is in, as a mapping (a term that it lacks is in none) or a
            function.
        terms: How queries are split; the same as for the frequencies.
    """
    count = frequency if callable(frequency) else partial(_count, frequency)
    rarest = {q: min(map(count, terms(t)), default=None) for q, t in queries.text_of.items()}
    known = {q: float(found) for q, found in rarest.items() if found}
    apart = {
        "unknown (a term of no passage)": [q for q, found in rarest.items() if found == 0],
        "without a term": [q for q, found in rarest.items() if found is None],
    }
    return _tertiles(
        "rarest term",
        known,
        labels=("rare", "medium", "common"),
        show=partial(_range, unit=" passages"),
        apart=apart,
    )


def by_overlap(
    queries: Queries, qrels: Qrels, corpus: Corpus, *, terms: Terms = terms_of
) -> tuple[Slice, ...]:
    """Tertiles of the share of a query's distinct terms that its best relevant passage has.

    Where it is low the words differ and BM25 has little to go by. A query without a term has none in
    common. Queries without a relevant passage of the corpus are in no slice: they are not measured.
    """
    shares = {}
    for query_id, text in queries.text_of.items():
        relevant = [p for p in qrels.relevant(query_id) if p in corpus.index_of]
        asked = set(terms(text))
        passages = (set(terms(corpus.passages[corpus.index_of[p]])) for p in relevant)
        common = [len(asked & passage) for passage in passages]
        if common:
            shares[query_id] = max(common) / max(len(asked), 1)
    return _tertiles("lexical overlap", shares, labels=("low", "medium", "high"), show=_percent)


def by_passage(qrels: Qrels, corpus: Corpus, *, key: str = "source") -> tuple[Slice, ...]:
    """Queries by the metadata of their relevant passages, such as the source these come from.

    A query whose relevant passages differ in it is in the slice `(several)`.
    """
    values = {}
    for query_id in qrels.query_ids:
        relevant = [p for p in qrels.relevant(query_id) if p in corpus.index_of]
        found = {_text(corpus.metadata_of(p).get(key)) for p in relevant}
        if found:
            values[query_id] = found.pop() if len(found) == 1 else SEVERAL
    return _parts(f"passage {key}", _grouped(values))


def by_seen(query_ids: Collection[str], unseen: Collection[str]) -> tuple[Slice, ...]:
    """Queries about documents that training knew, and the others (`splits.groups.seen_or_unseen`)."""
    new = frozenset(unseen)
    parts = {"seen": [q for q in query_ids if q not in new], "unseen": list(new & set(query_ids))}
    return _parts("document", parts)


def by_metadata(queries: Queries, key: str) -> tuple[Slice, ...]:
    """Queries by one key of their own metadata.

    Numbers with more than `VALUES` values go by tertiles; of other values the `VALUES` most frequent
    have a slice each, the rest share `(other)`. What lacks the key is in `(none)`. A key whose values
    no two queries share parts nothing.
    """
    found = {q: queries.metadata_of(q).get(key) for q in queries.ids}
    numbers = {q: float(v) for q, v in found.items() if _is_number(v)}
    missing = [q for q, value in found.items() if value is None]
    if len(numbers) + len(missing) == len(found) and len(set(numbers.values())) > VALUES:
        labels = ("low", "medium", "high")
        return _tertiles(key, numbers, labels=labels, show=_range, apart={MISSING: missing})
    return _parts(key, _grouped({q: _text(value) for q, value in found.items()}))


def by_all_metadata(queries: Queries) -> tuple[Slice, ...]:
    """Slices of every key that the queries' metadata has, but for times; keys in order."""
    keys = {key for metadata in queries.metadata for key in metadata} - _TIMES
    return tuple(found for key in sorted(keys) for found in by_metadata(queries, key))


def slices_of(
    queries: Queries,
    qrels: Qrels,
    corpus: Corpus,
    *,
    unseen: Collection[str] | None = None,
    frequency: Mapping[str, int] | Callable[[str], int] | None = None,
    terms: Terms = terms_of,
) -> tuple[Slice, ...]:
    """Slices of every kind of this module, of the judged queries.

    Args:
        queries: With all that `qrels` judges.
        qrels: Judgements of the split that is measured.
        corpus: Its passages.
        unseen: Queries about documents that training did not know; None where nothing was trained.
        frequency: Passages that a term is in; None counts them in the corpus.
        terms: How texts are split.
    """
    queries = queries.select(qrels.query_ids)
    if frequency is None:
        frequency = document_frequencies(corpus.passages, terms=terms)
    return (
        *by_length(queries),
        *by_rarest_term(queries, frequency, terms=terms),
        *by_overlap(queries, qrels, corpus, terms=terms),
        *by_passage(qrels, corpus),
        *(() if unseen is None else by_seen(qrels.query_ids, unseen)),
        *by_all_metadata(queries),
    )


def slice_rows(
    per_query: Mapping[str, PerQuery],
    slices: Sequence[Slice],
    pairs: Sequence[tuple[str, str]],
    *,
    metrics: Sequence[str],
    seed: int,
    resamples: int = 10_000,
    groups: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The systems on each slice, with the paired tests: the list `slices` of a results document.

    A row has `name`, `value`, `queries` (how many were measured; a slice with none has no row), `systems`
    (means of `metrics` by system), and `differences`: what `difference_rows` has, and `finding`. A
    finding rests on `MINIMUM` queries at least and has `p_holm` under `ALPHA`. `p_holm` is adjusted over
    all differences of slices that large; in smaller ones it is None, and `finding` is never true.

    Args:
        per_query: Values of each system, on the same queries.
        slices: From the functions of this module, or made by hand.
        pairs: `(system, against)` each.
        metrics: Metrics to show and to test.
        seed: Of the tests.
        resamples: Of the sign-flip test and of the bootstrap.
        groups: Group of each query id (`document_groups`). A slice whose queries are all of one group
            cannot be resampled: its queries stand alone, and it is no finding.

    Raises:
        ConfigError: a pair names an unknown system, or a metric was not measured.
        DataError: the systems were not all measured on the same queries, or a query has no group.
    """
    check_systems(per_query, (name for pair in pairs for name in pair))
    _check_queries(per_query)
    rows: list[dict[str, Any]] = []
    for part in slices:
        chosen = frozenset(part.query_ids)
        systems = {name: values.select(chosen) for name, values in per_query.items()}
        measured = next((values.query_ids for values in systems.values()), ())
        if measured:
            tested = None if groups is None or _one_group(measured, groups) else groups
            test = partial(compare, seed=seed, resamples=resamples, groups=tested)
            means = {name: {m: v.mean(m) for m in metrics} for name, v in systems.items()}
            about = {"name": part.name, "value": part.value, "queries": len(measured)}
            differences = _differences(systems, pairs, metrics, test)
            rows.append({**about, "systems": means, "differences": differences})
    _adjust(rows, grouped=groups is not None)
    return rows


def _check_queries(per_query: Mapping[str, PerQuery]) -> None:
    if len({values.query_ids for values in per_query.values()}) > 1:
        counts = ", ".join(f"{name} {len(v.query_ids)}" for name, v in per_query.items())
        raise DataError(
            f"slices need one set of queries for all systems, found different ones ({counts} "
            "queries); measure them against the same qrels"
        )


def _one_group(query_ids: Sequence[str], groups: Mapping[str, str]) -> bool:
    return len({groups.get(query_id, query_id) for query_id in query_ids}) == 1


def _differences(
    systems: Mapping[str, PerQuery],
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    test: Callable[..., Difference],
) -> list[dict[str, Any]]:
    """Rows of one slice, not adjusted yet."""
    return [
        {"system": system, "against": against, "metric": metric}
        | figures(test(systems[system], systems[against], metric=metric))
        | {"p_holm": None, "finding": False}
        for system, against in pairs
        for metric in metrics
    ]


def _adjust(rows: Sequence[Mapping[str, Any]], *, grouped: bool) -> None:
    """Fill `p_holm` and `finding` of what may be a finding at all."""
    family = [
        found
        for row in rows
        if row["queries"] >= MINIMUM
        for found in row["differences"]
        if not grouped or "groups" in found
    ]
    for found, adjusted in zip(family, holm([found["p"] for found in family]), strict=True):
        found |= {"p_holm": adjusted, "finding": adjusted < ALPHA}


def _parts(name: str, parts: Mapping[str, Collection[str]]) -> tuple[Slice, ...]:
    """The parts that hold a query; none where they are not two at least."""
    found = [Slice(name, value, tuple(sorted(ids))) for value, ids in parts.items() if ids]
    return tuple(found) if len(found) > 1 else ()


def _tertiles(
    name: str,
    numbers: Mapping[str, float],
    *,
    labels: tuple[str, str, str],
    show: Callable[[float, float], str],
    apart: Mapping[str, Collection[str]] | None = None,
) -> tuple[Slice, ...]:
    """Parts of about a third each, two at least where any numbers differ.

    A number goes where the middle of its ranks lies, so that equal ones are never parted. Two parts have
    the first and the last label.
    """
    distinct, counts = np.unique(np.array(list(numbers.values())), return_counts=True)
    thirds = 3 * (counts.cumsum() - counts / 2) / max(len(numbers), 1)
    third_of = dict(zip(distinct.tolist(), thirds.astype(int).tolist(), strict=True))
    found: dict[int, list[str]] = {third: [] for third in sorted(set(third_of.values()))}
    for query_id, number in numbers.items():
        found[third_of[number]].append(query_id)
    shown: dict[str, Collection[str]] = {}
    for label, ids in zip(labels if len(found) == 3 else labels[::2], found.values(), strict=False):
        low, high = min(map(numbers.__getitem__, ids)), max(map(numbers.__getitem__, ids))
        shown[f"{label} ({show(low, high)})"] = ids
    return _parts(name, {**shown, **(apart or {})})


def _grouped(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Query ids by value, the most frequent first; beyond `VALUES` they share `OTHER`.

    Values that no two queries share, such as a number of a ticket, part nothing.
    """
    ranked = sorted(Counter(values.values()).items(), key=lambda item: (-item[1], item[0]))
    if ranked and ranked[0][1] == 1:
        return {}
    kept = {value for value, _ in (ranked if len(ranked) <= VALUES + 1 else ranked[:VALUES])}
    parts: dict[str, list[str]] = {value: [] for value, _ in ranked if value in kept}
    for query_id, value in values.items():
        parts.setdefault(value if value in kept else OTHER, []).append(query_id)
    return parts


def _range(low: float, high: float, unit: str = "") -> str:
    unit = unit.removesuffix("s") if high == 1 else unit
    return f"{low:,.6g}{unit}" if low == high else f"{low:,.6g} to {high:,.6g}{unit}"


def _percent(low: float, high: float) -> str:
    return f"{low:.0%}" if low == high else f"{low:.0%} to {high:.0%}"


def _count(frequency: Mapping[str, int], term: str) -> int:
    return frequency.get(term, 0)


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number that float64 holds; True, NaN and infinity are none."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and -_EXACT <= value <= _EXACT


def _text(value: Any) -> str:
    """A metadata value as a label; lists and objects as JSON."""
    if value is None or isinstance(value, str):
        return MISSING if value is None else value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
