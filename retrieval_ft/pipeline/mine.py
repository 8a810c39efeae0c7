"""Stage 2: hard negatives for every train pair, from BM25 and the base model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.dataset import Negative, Pair, Pairs
from retrieval_ft.errors import DataError
from retrieval_ft.mining import MinedPairs, mine
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.workbench import Workbench, dense_index, dense_ranking

FOLDER = "mined"


def mine_pairs(run: Run, bench: Workbench, prepared: StageRecord) -> tuple[Pairs, StageRecord]:
    """Mine negatives for the train split and return the pairs as they stand in `mined/`."""
    config = run.config
    folder = run.folder / FOLDER

    def work(_: str) -> dict[str, Any]:
        corpus, queries = bench.dataset.corpus, bench.dataset.queries_of("train")
        depth = config.mining.depth
        dense = dense_index(bench.base, corpus)
        mined = mine(
            corpus,
            queries,
            qrels=bench.dataset.qrels["train"],
            dense=dense_ranking(bench.base, dense, queries, k=depth),
            bm25=bench.lexical_ranking("train", k=depth),
            query_vectors=bench.base.encode(queries.texts, role="query"),
            passage_vectors=bench.base.encode(corpus.passages, role="passage"),
            config=config.mining,
            seed=config.seed,
        )
        facts = _facts(mined)
        facts["truncation"] = {
            "passage": bench.base.truncated_share(corpus.passages, "passage"),
            "query": bench.base.truncated_share(bench.dataset.queries.texts, "query"),
        }
        _write(folder, mined, facts)
        return facts

    record = run.stage(
        "mine",
        inputs={
            "dataset": prepared.digest,
            "model": bench.base_digest,
            "lexical": config.lexical.model_dump(mode="json"),
            "mining": config.mining.model_dump(mode="json"),
            "seed": config.seed,
        },
        outputs=[FOLDER],
        work=work,
    )
    return read_pairs(folder), record


def _facts(mined: MinedPairs) -> dict[str, Any]:
    negatives = [negative for pair in mined.pairs.items for negative in pair.negatives]
    origin = Counter(
        "random"
        if n.dense_rank is None and n.bm25_rank is None
        else "both"
        if n.dense_rank is not None and n.bm25_rank is not None
        else "dense"
        if n.bm25_rank is None
        else "bm25"
        for n in negatives
    )
    return {
        "pairs": len(mined.pairs),
        "negatives": len(negatives),
        "origin": dict(sorted(origin.items())),
        "dropped": dict(mined.pairs.dropped),
        "calibration": asdict(mined.calibration),
    }


def _write(folder: Path, mined: MinedPairs, facts: dict[str, Any]) -> None:
    with artifacts.atomic_folder(folder) as fresh:
        artifacts.write_jsonl(fresh / "pairs.jsonl", (asdict(pair) for pair in mined.pairs.items))
        artifacts.write_jsonl(fresh / "dropped.jsonl", mined.dropped)
        artifacts.write_json(fresh / "account.json", facts)


def read_pairs(folder: Path) -> Pairs:
    """Read `mined/` back.

    Raises:
        DataError: the files are not there or not what mining wrote.
    """
    account = artifacts.read_json(folder / "account.json")
    path = folder / "pairs.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            items = tuple(_pair(json.loads(line)) for line in file)
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise DataError(f"{path}: not what mining wrote ({error}); mine again") from error
    return Pairs(items, account["dropped"])


def _pair(row: dict[str, Any]) -> Pair:
    negatives = tuple(Negative(**negative) for negative in row.pop("negatives"))
    return Pair(**row, negatives=negatives)
