"""Stage 3: hard negatives for every train pair, from BM25 and the base model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.dataset import Corpus, Dataset, Negative, Pair, Pairs, Queries
from retrieval_ft.errors import DataError
from retrieval_ft.index import LexicalIndex
from retrieval_ft.mining import MinedPairs, exact_top_k, mine, random_scores
from retrieval_ft.mining.select import REASONS, RUNGS
from retrieval_ft.pipeline.judge import Judgement, judge, judge_digest, judge_path, load_judge
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.workbench import Workbench, encoder_of, model_digest

if TYPE_CHECKING:
    import pyarrow as pa

    from retrieval_ft.encoder.encoder import Encoder

_SPARE = 2
_SCOPE = {"all": "the whole corpus", "train": "passages that train judges"}
FOLDER = "mined"


def mine_pairs(
    run: Run, bench: Workbench, prepared: StageRecord, *, place: str = "", tuned: str | None = None
) -> tuple[Pairs, StageRecord]:
    """Mine negatives for the train split and return the pairs as they stand in `mined/`.

    Args:
        run: the run directory and its config.
        bench: the dataset and the base model.
        prepared: the stage that the dataset comes from.
        place: folder of an earlier round below the run directory, with its slash.
        tuned: folder of the model of the round before, whose vectors are used in place of the base's.
    """
    config = run.config
    folder = run.folder / place / FOLDER
    judged_by = judge_path(config)

    def work(_: str) -> dict[str, Any]:
        encoder = encoder_of(run.folder / tuned, config.model) if tuned else bench.base
        mined, chance = _mined(bench, encoder)
        judged = judge(
            mined.pairs,
            dataset=bench.dataset,
            config=config,
            judge=load_judge(judged_by, config),
            random_scores=chance,
        )
        facts = _facts(mined, judged, scope=_SCOPE[config.mining.scope])
        facts["truncation"] = {
            "passage": encoder.truncated_share(bench.dataset.corpus.passages, "passage"),
            "query": encoder.truncated_share(bench.dataset.queries.texts, "query"),
        }
        _write(folder, mined, judged, facts, bench.dataset)
        return facts

    record = run.stage(
        f"{place}mine",
        inputs={
            "dataset": prepared.digest,
            "model": bench.base_digest,
            "tuned": model_digest(run.folder / tuned, config.model) if tuned else None,
            "lexical": config.lexical.model_dump(mode="json"),
            "mining": config.mining.model_dump(mode="json", exclude={"rounds"}),
            "cross_encoder": judge_digest(judged_by),
            "seed": config.seed,
        },
        outputs=[place + FOLDER],
        work=work,
    )
    return read_pairs(folder), record


def _mined(bench: Workbench, encoder: Encoder) -> tuple[MinedPairs, npt.NDArray[np.float32]]:
    """Mined pairs under an encoder, with spare negatives for a cross-encoder, and chance scores."""
    dataset, config = bench.dataset, bench.config.mining
    corpus, queries = dataset.corpus, dataset.queries_of("train")
    query_vectors = encoder.encode(queries.texts, role="query")
    passage_vectors = encoder.encode(corpus.passages, role="passage")
    rankings: dict[str, npt.NDArray[np.int64]] = {}
    depth = 2 * config.depth
    if "dense" in config.sources:
        rankings["dense"] = exact_top_k(query_vectors, passage_vectors, ids=corpus.ids, k=depth)[0]
    if "bm25" in config.sources:
        rankings["bm25"] = lexical_rows(bench.lexical, queries, k=depth)
    views = {(q, p): text for q in queries.ids for p, text in dataset.views.get(q, {}).items()}
    mined = mine(
        corpus,
        queries,
        qrels=dataset.qrels["train"],
        rankings=rankings,
        query_vectors=query_vectors,
        passage_vectors=passage_vectors,
        views=dict(zip(views, encoder.encode(list(views.values()), role="passage"), strict=True)),
        config=config,
        seed=bench.config.seed,
        keep=_SPARE * config.negatives if config.cross_encoder else config.negatives,
    )
    chance = random_scores(
        query_vectors, passage_vectors, queries=np.arange(len(queries)), seed=bench.config.seed
    )
    return mined, chance.ravel()


def lexical_rows(index: LexicalIndex, queries: Queries, *, k: int) -> npt.NDArray[np.int64]:
    """BM25's best passages of each query as positions in the index, int64 [q, k], -1 at the end."""
    rows = np.full((len(queries), k), -1)
    for row, (positions, _) in zip(rows, index.search(queries.texts, k=k), strict=True):
        row[: len(positions)] = positions
    return rows


def _facts(mined: MinedPairs, judged: Judgement, *, scope: str) -> dict[str, Any]:
    origins = zip(mined.pairs.items, _parts(mined), strict=True)
    origin_of = {
        (pair.query_id, negative.passage_id): _origin(negative, rung)
        for pair, rungs in origins
        for negative, rung in zip(pair.negatives, rungs, strict=True)
    }
    kept = [(p.query_id, n.passage_id) for p in judged.pairs.items for n in p.negatives]
    return {
        "scope": scope,
        "pairs": len(judged.pairs),
        "negatives": len(kept),
        "origin": dict(sorted(Counter(map(origin_of.__getitem__, kept)).items())),
        "rungs": dict(mined.account),
        "dropped": dict(judged.pairs.dropped),
        "calibration": asdict(mined.calibration),
        **judged.facts(),
    }


def _parts(mined: MinedPairs) -> list[list[int]]:
    """Rungs of the negatives, pair by pair."""
    ends = np.cumsum([len(pair.negatives) for pair in mined.pairs.items])[:-1]
    return [part.tolist() for part in np.split(mined.kept.rungs, ends)]


def _origin(negative: Negative, rung: int) -> str:
    if RUNGS[rung] == "given":
        return "given"
    if negative.dense_rank is None:
        return "random" if negative.bm25_rank is None else "bm25"
    return "dense" if negative.bm25_rank is None else "both"


def _write(
    folder: Path, mined: MinedPairs, judged: Judgement, facts: dict[str, Any], dataset: Dataset
) -> None:
    import pyarrow.parquet as pq

    with artifacts.atomic_folder(folder) as fresh:
        artifacts.write_jsonl(fresh / "pairs.jsonl", (asdict(pair) for pair in judged.pairs.items))
        with artifacts.atomic_open(fresh / "dropped.parquet") as file:
            pq.write_table(_dropped(mined, dataset.queries_of("train"), dataset.corpus), file)
        judged.write(fresh)
        artifacts.write_json(fresh / "account.json", facts)


def _dropped(mined: MinedPairs, queries: Queries, corpus: Corpus) -> pa.Table:
    """Every dropped candidate: query_id, positive_id, passage_id, score, reason."""
    import pyarrow as pa

    items, index = mined.pairs.items, corpus.index_of
    asked = np.array([queries.index_of[pair.query_id] for pair in items])
    positives = np.array([index[pair.positive_id] for pair in items])
    columns = {
        "query_id": (asked[mined.dropped.pairs], queries.ids),
        "positive_id": (positives[mined.dropped.pairs], corpus.ids),
        "passage_id": (mined.dropped.passages, corpus.ids),
        "reason": (mined.dropped.reasons, REASONS),
    }
    named = {name: pa.array(names).take(pa.array(at)) for name, (at, names) in columns.items()}
    return pa.table({**named, "score": mined.dropped.scores})


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
