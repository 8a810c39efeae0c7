"""Stage 2: pairs from the corpus itself, where labels are few or none; the splits become complete."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.config import Config
from retrieval_ft.console import note
from retrieval_ft.dataset import SPLITS, Dataset, Link, Qrels, Queries, beir
from retrieval_ft.errors import DataError
from retrieval_ft.index import depth_for
from retrieval_ft.mining.generate import (
    Filtered,
    GeneratedPair,
    GeneratedSet,
    Side,
    account,
    check_overlap,
    check_round_trip,
    describe,
    extract,
    hybrid_ranks,
    leave_some_whole,
    shown,
    to_dataset,
)
from retrieval_ft.mining.synthetic import plan, plan_text, write_queries
from retrieval_ft.packages import home
from retrieval_ft.pipeline.prepare import FOLDER as PREPARED
from retrieval_ft.pipeline.prepare import LINKS, Prepared, carve, counts, read_prepared
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.workbench import Workbench

FOLDER = "generated"
_ACCOUNT = "account.json"
_BLOCK = 1024
_NO_EFFECT = {"base_url", "api_key_variable", "concurrency", "timeout_s", "retries"}
"""Settings of the endpoint that do not change what it is asked."""


@dataclass(frozen=True)
class _Made:
    pairs: tuple[GeneratedPair, ...]
    account: dict[str, Any]


def generate(run: Run, bench: Workbench, prepared: StageRecord) -> tuple[Dataset, StageRecord]:
    """Make the pairs that the tier asks for; return the dataset with them, its splits complete."""
    tier = prepared.facts["tier"]["name"]
    if tier == "labels":
        return bench.dataset, prepared
    config = run.config
    synthetic = config.synthetic.model_dump(mode="json", exclude=_NO_EFFECT)
    record = run.stage(
        "generate",
        inputs={
            "dataset": prepared.digest,
            "model": bench.base_digest,
            "lexical": config.lexical.model_dump(mode="json"),
            "pairs": config.pairs.model_dump(mode="json"),
            "synthetic": synthetic if config.synthetic.base_url else None,
            "seed": config.seed,
        },
        outputs=[FOLDER],
        work=lambda _: _work(run, bench, prepared),
    )
    return read_generated(bench.dataset, run.folder / FOLDER), record


def draft(prepared: Prepared, config: Config) -> tuple[Dataset, dict[str, Any]]:
    """What `generate` would make of a dataset before any filter: for a look that writes nothing.

    Returns:
        The dataset with the pairs taken from it, and the account of the carving.
    """
    if prepared.account["tier"]["name"] == "labels":
        return prepared.dataset, {}
    dataset = prepared.dataset
    found = extract(dataset.corpus, config.pairs, seed=config.seed, links=_links(prepared.links))
    made = to_dataset(found.pairs, dataset.corpus, own=dataset.queries.texts)
    merged, _ = _merged(dataset, made, prepared.account)
    merged, carving = carve(merged, config)
    return merged, {"extracted": found.account, **carving, **counts(merged)}


def read_generated(dataset: Dataset, folder: Path) -> Dataset:
    """The prepared dataset with what `generated/` holds; every split's judgements are there."""
    path = folder / "queries.jsonl"
    own = beir.read_queries(path) if path.stat().st_size else Queries((), ())
    queries = joined(dataset.queries, own)
    found = {
        split: beir.read_qrels(
            folder / "qrels" / f"{split}.tsv", queries=queries, corpus=dataset.corpus
        )
        for split in SPLITS
    }
    views = beir.read_views(folder / "views.jsonl", queries=queries, corpus=dataset.corpus)
    kept = {query_id for qrels in found.values() for query_id in qrels.grades}
    return replace(
        dataset,
        queries=queries.select(q for q in queries.ids if q in kept),
        qrels=found,
        views={**dataset.views, **views},
    )


def read_run(run_folder: Path) -> Dataset:
    """The dataset that a run directory worked on, generated pairs and all."""
    dataset = read_prepared(run_folder)
    account = artifacts.read_json(run_folder / PREPARED / _ACCOUNT)
    if account["tier"]["name"] == "labels":
        return dataset
    return read_generated(dataset, run_folder / FOLDER)


def joined(one: Queries, other: Queries) -> Queries:
    """Both sets of queries, in this order."""
    metadata: tuple[Any, ...] = ()
    if one.metadata or other.metadata:
        metadata = tuple(q.metadata_of(i) for q in (one, other) for i in q.ids)
    return Queries((*one.ids, *other.ids), (*one.texts, *other.texts), metadata)


def _work(run: Run, bench: Workbench, prepared: StageRecord) -> dict[str, Any]:
    dataset, config = bench.dataset, run.config
    made = _pairs(run, bench)
    overlapping = check_overlap(made.pairs, dataset.corpus, config=config.pairs)
    ranks = round_trip_ranks(bench, overlapping.kept)
    tripped = check_round_trip(overlapping.kept, ranks, config=config.pairs)
    note(describe(overlapping, tripped, config=config.pairs))
    kept = leave_some_whole(tripped.kept, seed=config.seed)
    generated = to_dataset(kept, dataset.corpus, own=dataset.queries.texts)
    merged, left_out = _merged(dataset, generated, prepared.facts)
    if not merged.qrels["train"]:
        raise DataError(_nothing(made, overlapping, tripped))
    merged, carving = carve(merged, config)
    merged, repeated = _one_view_a_passage(merged)
    facts: dict[str, Any] = {
        **made.account,
        "filters": account(overlapping, tripped),
        "dropped": {**generated.dropped, **left_out, "second_view_of_a_passage": repeated},
        **carving,
        **counts(merged),
        "generated_queries": _origins(merged),
    }
    _write(run.folder / FOLDER, merged, generated, (overlapping, tripped), facts)
    return facts


def _nothing(made: _Made, *steps: Filtered) -> str:
    return (
        f"no pair could be made from the corpus: taken and dropped by kind {made.account['extracted']}, "
        f"by filters {account(*steps)}; loosen pairs.max_overlap or pairs.round_trip_k, set "
        "synthetic.base_url, or bring labels (data.labels)"
    )


def _pairs(run: Run, bench: Workbench) -> _Made:
    """Pairs taken from the corpus, and those that a language model writes."""
    config, corpus = run.config, bench.dataset.corpus
    extraction = extract(
        corpus, config.pairs, seed=config.seed, links=_links(_rows(run.folder / PREPARED / LINKS))
    )
    pairs = extraction.pairs
    facts: dict[str, Any] = {"extracted": extraction.account}
    if config.synthetic.base_url:
        given = _asking(bench.dataset, config)
        note(plan_text(plan(**given)))
        result = write_queries(**given)
        pairs += result.pairs
        facts["synthetic"] = {
            **asdict(result.account),
            "prompt_tokens": result.prompt_tokens,
            "answer_tokens": result.answer_tokens,
            "estimated_tokens": result.estimated_tokens,
            "earlier_tokens": result.earlier_tokens,
            "cost": result.cost,
            "stopped_by": result.stopped_by,
            "message": result.message,
        }
        facts["incomplete"] = result.stopped_by == "endpoint"
    return _Made(pairs, facts)


def asking_plan(dataset: Dataset, config: Config) -> str | None:
    """What an endpoint would be asked, and at what cost, in words; None where none is set."""
    return plan_text(plan(**_asking(dataset, config))) if config.synthetic.base_url else None


def _asking(dataset: Dataset, config: Config) -> dict[str, Any]:
    train = dataset.qrels.get("train", Qrels({}))
    return {
        "passages": list(zip(dataset.corpus.ids, dataset.corpus.passages, strict=True)),
        "config": config.synthetic,
        "examples": dataset.queries.select(train.query_ids).texts,
        "cache": home() / "synthetic",
        "seed": config.seed,
    }


def round_trip_ranks(bench: Workbench, pairs: Sequence[GeneratedPair]) -> npt.NDArray[np.float64]:
    """The rank that the base hybrid gives each pair's passage, its view in its place; float64 [n]."""
    corpus, encoder = bench.dataset.corpus, bench.base
    depth = depth_for(bench.config.pairs.round_trip_k)
    texts = [pair.query for pair in pairs]
    views = [shown(pair, corpus) for pair in pairs]
    queries = encoder.encode(texts, role="query")
    scores = np.einsum("nd,nd->n", queries, encoder.encode(views, role="passage"))
    rows = np.array([corpus.index_of[pair.passage_id] for pair in pairs], np.int64)
    ranks = np.empty(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        part = slice(start, start + _BLOCK)
        dense = bench.base_index.search(queries[part], k=depth + 1)
        bm25 = bench.lexical.search(texts[part], k=depth + 1)
        ranks[part] = hybrid_ranks(
            Side.of(dense, scores[part], depth=depth),
            Side.of(bm25, bench.lexical.score_texts(texts[part], views[part]), depth=depth),
            passages=rows[part],
        )
    return ranks


def _links(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[Link, ...]]]:
    for row in rows:
        yield row["document"], (Link(row["text"], row["target"]),)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _merged(
    dataset: Dataset, generated: GeneratedSet, prepared: Mapping[str, Any]
) -> tuple[Dataset, dict[str, int]]:
    """The dataset with the generated pairs in train; documents held out for test stay so."""
    own = prepared.get("splits", {}).get("unseen_test_queries", [])
    corpus = dataset.corpus
    held_out = {corpus.document_of(p) for q in own for p in dataset.qrels["test"].relevant(q)}
    grades = {
        query_id: row
        for query_id, row in generated.grades.items()
        if not held_out & {corpus.document_of(passage_id) for passage_id in row}
    }
    train = dataset.qrels.get("train", Qrels({}))
    return replace(
        dataset,
        queries=joined(dataset.queries, generated.queries.select(grades)),
        qrels={**dataset.qrels, "train": Qrels({**train.grades, **grades})},
        views={**dataset.views, **{q: v for q, v in generated.views.items() if q in grades}},
    ), {"of_a_held_out_document": len(generated.grades) - len(grades)}


def _one_view_a_passage(dataset: Dataset) -> tuple[Dataset, int]:
    """Drop dev and test queries whose passage stands as another query's view there."""
    qrels, dropped = dict(dataset.qrels), 0
    for split in ("dev", "test"):
        taken: set[str] = set()
        kept = {}
        for query_id in qrels[split].query_ids:
            viewed = dataset.views.get(query_id, {}).keys()
            if taken & viewed:
                dropped += 1
                continue
            taken |= viewed
            kept[query_id] = qrels[split].grades[query_id]
        qrels[split] = Qrels(kept)
    return replace(dataset, qrels=qrels), dropped


def _origins(dataset: Dataset) -> dict[str, dict[str, int]]:
    """How many queries of each split were generated, by kind."""
    return {
        split: dict(
            Counter(
                origin
                for query_id in qrels.query_ids
                if (origin := dataset.queries.metadata_of(query_id).get("origin"))
            )
        )
        for split, qrels in dataset.qrels.items()
    }


def _write(
    folder: Path,
    merged: Dataset,
    generated: GeneratedSet,
    steps: tuple[Filtered, Filtered],
    facts: dict[str, Any],
) -> None:
    kept = {query_id for qrels in merged.qrels.values() for query_id in qrels.grades}
    queries = generated.queries.select(q for q in generated.queries.ids if q in kept)
    views = {q: v for q, v in generated.views.items() if q in kept}
    dropped = (
        {**asdict(found.pair), "reason": found.reason, "value": str(found.value)}
        for step in steps
        for found in step.dropped
    )
    with artifacts.atomic_folder(folder) as fresh:
        beir.write_queries(fresh / "queries.jsonl", queries)
        for split, qrels in merged.qrels.items():
            beir.write_qrels(fresh / "qrels" / f"{split}.tsv", qrels.grades)
        beir.write_views(fresh / "views.jsonl", views)
        artifacts.write_jsonl(fresh / "dropped.jsonl", dropped)
        artifacts.write_json(fresh / _ACCOUNT, facts)
