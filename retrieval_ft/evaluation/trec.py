"""Read and write TREC runs and qrels, so that other tools can score our rankings and we theirs.

A line of a run is `query-id Q0 passage-id rank score tag`, one of qrels `query-id 0 passage-id grade`.
We separate the columns by tabs, which every reader takes, so that ids may hold spaces; files separated
by spaces are read too. A run can be well written and still give a number that means nothing:
`check_run` says so.

trec_eval ignores the rank column and breaks ties of score by descending passage id, ours are
ascending: on a run with ties its figures may differ from ours.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Set
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.dataset.judgements import read_judgements
from retrieval_ft.dataset.types import Qrels, Ranking
from retrieval_ft.errors import ConfigError, DataError

_COLUMNS = 6
_UNFIT = "\t\r\n\ufeff"


def write_trec_run(path: Path, ranking: Ranking, *, tag: str) -> None:
    """Write a ranking as a TREC run, whole or not at all; queries are sorted by id.

    Scores keep 9 significant digits, which give the same float32 back. A query without hits has no
    line.

    Args:
        path: The file to write.
        ranking: Search results, best first.
        tag: Name of the system, without blanks.

    Raises:
        ConfigError: the tag is empty or holds a blank.
        DataError: an id holds a tab, a line break or a byte-order mark.
    """
    if tag.split() != [tag]:
        raise ConfigError(f"run tag {tag!r} must be one word, without blanks")
    with artifacts.atomic_open(path, "w") as file:
        for query_id in sorted(ranking.hits):
            scores = ranking.scores(query_id).tolist()
            hits = zip(ranking.ids(query_id), scores, strict=True)
            for rank, (passage_id, score) in enumerate(hits, start=1):
                _check_ids(path, query_id, passage_id)
                file.write(f"{query_id}\tQ0\t{passage_id}\t{rank}\t{score:.9g}\t{tag}\n")


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write judgements as TREC qrels, whole or not at all, sorted by query id, then passage id.

    A query without a judgement has no line.

    Raises:
        DataError: an id holds a tab, a line break or a byte-order mark.
    """
    with artifacts.atomic_open(path, "w") as file:
        for query_id in qrels.query_ids:
            for passage_id, grade in sorted(qrels.grades[query_id].items()):
                _check_ids(path, query_id, passage_id)
                file.write(f"{query_id}\t0\t{passage_id}\t{grade}\n")


def _check_ids(path: Path, *ids: str) -> None:
    for identifier in ids:
        if any(character in identifier for character in _UNFIT):
            raise DataError(
                f"{path}: id {identifier!r} holds a tab or a line break or a byte-order mark, which "
                "a TREC file cannot hold; rename it"
            )


def _cells(line: str, where: str) -> tuple[str, str, float]:
    """Return query id, passage id and score of one line."""
    line = line.rstrip("\r\n")
    cells = line.split("\t") if line.count("\t") == _COLUMNS - 1 else line.split()
    if len(cells) != _COLUMNS:
        raise DataError(
            f"{where}: {len(cells)} columns, {_COLUMNS} are needed: query-id Q0 passage-id rank "
            "score tag"
        )
    query_id, _, passage_id, _, text, _ = cells
    try:
        with np.errstate(over="ignore"):
            score = float(np.float32(text))
    except ValueError:
        raise DataError(f"{where}: score {text!r} is not a number") from None
    if not math.isfinite(score):
        raise DataError(f"{where}: score {text!r} is not a finite float32 number")
    return query_id, passage_id, score


def _ranked(
    row: Mapping[str, tuple[float, int]],
) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    ids = sorted(row, key=lambda passage_id: (-row[passage_id][0], passage_id))
    return tuple(ids), np.array([row[passage_id][0] for passage_id in ids], np.float32)


def read_trec_run(path: Path) -> Ranking:
    """Read a TREC run; its rank column is ignored, as trec_eval does.

    Returns:
        The ranking, sorted by score, then by passage id.

    Raises:
        DataError: the file is missing, not UTF-8 or without a line, or a line has wrong columns, a
            score that is no finite number, or a passage that its query has already.
    """
    found: dict[str, dict[str, tuple[float, int]]] = {}
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                query_id, passage_id, score = _cells(line, f"{path}:{number}")
                row = found.setdefault(query_id, {})
                if passage_id in row:
                    raise DataError(
                        f"{path}:{number}: query {query_id!r} has passage {passage_id!r} already "
                        f"at line {row[passage_id][1]}; keep one"
                    )
                row[passage_id] = (score, number)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such run file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error
    if not found:
        raise DataError(f"{path}: is empty; a run holds at least one line")
    return Ranking({query_id: _ranked(row) for query_id, row in found.items()})


def read_qrels(path: Path) -> Qrels:
    """Read TREC qrels, or BEIR's TSV under its header. Grades may be 0 or below: judged, not relevant.

    Raises:
        DataError: the file is missing, not UTF-8 or without a judgement, or a line has wrong columns,
            a grade that is no integer, or a passage that its query has already with another grade.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of qrels")
    grades: dict[str, dict[str, int]] = {}
    for line in read_judgements(path):
        row = grades.setdefault(line.query_id, {})
        if row.setdefault(line.passage_id, line.grade) != line.grade:
            raise DataError(
                f"{line.where}: {line.query_id!r} and {line.passage_id!r} are judged twice, "
                f"{row[line.passage_id]} and {line.grade}; keep one"
            )
    if not grades:
        raise DataError(f"{path}: is empty; qrels hold at least one judgement")
    return Qrels(grades)


def check_run(
    ranking: Ranking,
    qrels: Qrels,
    *,
    corpus_ids: Collection[str] | None = None,
    name: str = "the run",
) -> tuple[str, ...]:
    """Refuse a ranking whose figures on these judgements would be wrong without a sign of it.

    Args:
        ranking: Search results, of this package or of any other tool.
        qrels: What they are to be scored against.
        corpus_ids: Ids of all passages that could be found; None where the corpus is not at hand.
        name: What to call the ranking in a message, such as its path.

    Returns:
        Ids of the queries with a relevant passage that the ranking has no result for, sorted. They
        will count 0: say how many there are beside the figures.

    Raises:
        DataError: no query of it has a relevant passage, a passage is ranked twice for a query, a score is NaN, or
            a passage is not in the corpus.
    """
    _check_common(ranking, qrels, name)
    for query_id in sorted(ranking.hits):
        _check_hits(ranking, query_id, name)
    if corpus_ids is not None:
        known = corpus_ids if isinstance(corpus_ids, (Set, Mapping)) else frozenset(corpus_ids)
        _check_passages(ranking, known, name)
    return tuple(q for q in qrels.query_ids if qrels.relevant(q) and not ranking.ids(q))


def _check_common(ranking: Ranking, qrels: Qrels, name: str) -> None:
    asked = sorted(query_id for query_id in ranking.hits if ranking.ids(query_id))
    if not asked:
        raise DataError(f"{name}: holds no result for any query; there is nothing to score")
    measured = [query_id for query_id in qrels.query_ids if qrels.relevant(query_id)]
    if set(asked).isdisjoint(measured):
        first = repr(measured[0]) if measured else "none"
        raise DataError(
            f"{name}: none of its {len(asked)} queries is among the {len(measured)} that are judged "
            f"with a relevant passage (its first is {asked[0]!r}, the first of those is {first}), so "
            "every figure would be 0; give the run and the qrels of the same queries, with the same ids"
        )


def _check_hits(ranking: Ranking, query_id: str, name: str) -> None:
    ids, scores = ranking.ids(query_id), ranking.scores(query_id)
    if len(set(ids)) != len(ids):
        twice = next(passage_id for i, passage_id in enumerate(ids) if passage_id in ids[:i])
        raise DataError(
            f"{name}: query {query_id!r} has passage {twice!r} {ids.count(twice)} times; it would "
            "count as many hits: keep the best one of each"
        )
    if np.isnan(scores).any():
        first = int(np.flatnonzero(np.isnan(scores))[0])
        raise DataError(
            f"{name}: query {query_id!r} has the score NaN at passage {ids[first]!r}, so its order "
            "means nothing; look for empty texts or an overflow in the model that scored it"
        )


def _check_passages(ranking: Ranking, known: Collection[str], name: str) -> None:
    """Refuse hits that are not of the corpus, with their share and the first of them."""
    hits = sum(len(ids) for ids, _ in ranking.hits.values())
    unknown = [(q, p) for q in sorted(ranking.hits) for p in ranking.ids(q) if p not in known]
    if unknown:
        query_id, passage_id = unknown[0]
        raise DataError(
            f"{name}: {len(unknown):,} of {hits:,} results ({len(unknown) / hits:.1%}) are not in "
            f"the corpus of {len(known):,} passages, the first is {passage_id!r} for query "
            f"{query_id!r}; score the run against the corpus that it was made over"
        )
