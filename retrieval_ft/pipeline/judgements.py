"""What `evaluate` measures on: a dataset that is judged, by its own test split or by a file of qrels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrieval_ft.config import Config
from retrieval_ft.dataset import Dataset, Qrels, splits
from retrieval_ft.errors import DataError
from retrieval_ft.evaluation import read_qrels
from retrieval_ft.pipeline import prepare
from retrieval_ft.pipeline.generate import read_run
from retrieval_ft.pipeline.source import read_source


def measurable(
    config: Config, run: Path | None, qrels: Path | None = None
) -> tuple[Dataset, dict[str, int], list[str]]:
    """The dataset to measure on.

    Args:
        config: where it is.
        run: the run directory that holds it instead.
        qrels: judgements in place of those of the test split.

    Returns:
        The dataset, how many queries were dropped from it by reason, and sentences about what the
        figures must not be taken for.

    Raises:
        DataError: a fault in a file, or no test query that can be measured.
    """
    dataset = read_run(run) if run else read_source(config, prepare.offsets_of(config)).dataset
    warnings: list[str] = []
    if qrels is not None:
        dataset, warnings = judged_by(dataset, qrels)
    # Queries that no split judges do no harm here: a download often brings those of other splits.
    judged = dict.fromkeys(q for rows in dataset.qrels.values() for q in rows.query_ids)
    dataset = replace(dataset, queries=dataset.queries.select(judged))
    drop = config.data.unjudged_queries == "drop"
    dataset, dropped = splits.check_judged(dataset, drop=drop)
    if "test" not in dataset.qrels:
        raise DataError(
            f"{dataset.name}: no judged queries in qrels/test.tsv to measure on; give judgements with "
            "--qrels FILE"
        )
    return dataset, dropped, warnings


def judged_by(dataset: Dataset, path: Path) -> tuple[Dataset, list[str]]:
    """Put the judgements of a file in place of the test split's.

    A dev query that the file judges too is no longer dev: nothing may be chosen on what is measured.

    Returns:
        The dataset, and sentences about queries that training or dev may have seen.

    Raises:
        DataError: the file is faulty, or judges queries or passages that the dataset does not have.
    """
    qrels = read_qrels(path)
    known: dict[str, Collection[str]] = {
        "queries": dataset.queries.text_of,
        "passages": dataset.corpus.index_of,
    }
    found = {
        "queries": qrels.query_ids,
        "passages": sorted({p for row in qrels.grades.values() for p in row}),
    }
    for what, ids in found.items():
        if unknown := [one for one in ids if one not in known[what]]:
            raise DataError(
                f"{path}: {len(unknown):,} of {len(ids):,} judged {what} are not among the "
                f"{len(known[what]):,} of {dataset.name}, the first is {unknown[0]!r}; judge the {what} "
                "of this dataset, by the same ids"
            )
    kept: dict[Any, Qrels] = dict(dataset.qrels)
    warnings = []
    if seen := _both(kept.get("train"), qrels):
        warnings.append(
            f"{path}: {len(seen):,} of {len(qrels):,} judged queries are train queries of "
            f"{dataset.name}; a model tuned on it has seen them"
        )
    if chosen := _both(kept.get("dev"), qrels):
        dev = {q: row for q, row in kept["dev"].grades.items() if q not in chosen}
        kept["dev"] = Qrels(dev)
        warnings.append(
            f"{path}: {len(chosen):,} of {len(qrels):,} judged queries are dev queries of "
            f"{dataset.name}; they were left out of dev, {len(dev):,} stay"
        )
    kept = {split: rows for split, rows in kept.items() if len(rows)}
    return replace(dataset, qrels={**kept, "test": qrels}), warnings


def _both(split: Qrels | None, judged: Qrels) -> set[str]:
    return set(split.grades) & set(judged.grades) if split else set()
