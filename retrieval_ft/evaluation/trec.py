"""Read and write TREC run files, so that a ranking can be scored by other tools and theirs by us.

A line is `query-id Q0 passage-id rank score tag`. We separate the columns by tabs, which every
reader of runs takes, so that ids may hold spaces; runs separated by spaces are read too.

trec_eval ignores the rank column and breaks ties of score by descending passage id, ours are
ascending: on a run with ties its figures may differ from ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.dataset.types import Ranking
from retrieval_ft.errors import ConfigError, DataError

_COLUMNS = 6


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
        DataError: an id holds a tab or a line break.
    """
    if tag.split() != [tag]:
        raise ConfigError(f"run tag {tag!r} must be one word, without blanks")
    with artifacts.atomic_open(path, "w") as file:
        for query_id in sorted(ranking.hits):
            scores = ranking.scores(query_id).tolist()
            hits = zip(ranking.ids(query_id), scores, strict=True)
            for rank, (passage_id, score) in enumerate(hits, start=1):
                for identifier in (query_id, passage_id):
                    if any(character in identifier for character in "\t\r\n"):
                        raise DataError(
                            f"{path}: id {identifier!r} holds a tab or a line break, which a TREC "
                            "run cannot hold; rename it"
                        )
                file.write(f"{query_id}\tQ0\t{passage_id}\t{rank}\t{score:.9g}\t{tag}\n")


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
        with path.open(encoding="utf-8") as file:
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
