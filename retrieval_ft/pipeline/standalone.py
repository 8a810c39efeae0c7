"""`index` and `evaluate` on their own: on a run, or on any dataset with any model."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from retrieval_ft.config import Config, dump
from retrieval_ft.dataset import Dataset, splits
from retrieval_ft.errors import DataError
from retrieval_ft.evaluation import difference_rows, evaluate
from retrieval_ft.index import FusionSpec
from retrieval_ft.models import resolve
from retrieval_ft.pipeline import prepare
from retrieval_ft.pipeline.evaluate import MODEL, promoted_fusion, rank_systems
from retrieval_ft.pipeline.generate import read_run
from retrieval_ft.pipeline.index import FOLDER as INDEX
from retrieval_ft.pipeline.index import build, index_spec, sample_queries
from retrieval_ft.pipeline.run import CONFIG, Run
from retrieval_ft.pipeline.source import format_of, read_source, source_folder
from retrieval_ft.pipeline.target import is_run
from retrieval_ft.pipeline.workbench import Workbench, encoder_of, serving_encoder


def evaluate_model(config: Config, target: Path | None, *, model: str | None) -> dict[str, Any]:
    """Measure BM25, one model and their hybrid on the test split.

    Args:
        config: what to measure on and how.
        target: a run directory, or the config of one, means its data and its promoted model;
            otherwise the base of the config.
        model: a name or a folder instead of that.

    Returns:
        A results document with the systems `bm25`, `dense` and `hybrid`.
    """
    run = _run_of(config, target)
    dataset, dropped = _measurable(config, run)
    path = _model_path(config, run, model)
    bench = Workbench(config, dataset)
    encoder = encoder_of(path, config.model)
    found = rank_systems(bench, encoder)
    lexical = bench.lexical_ranking("test", k=config.evaluation.depth)
    qrels = dataset.qrels["test"]
    rankings = {"bm25": lexical, "dense": found.dense, "hybrid": found.hybrid}
    per_query = {name: evaluate(ranking, qrels) for name, ranking in rankings.items()}
    rows = difference_rows(
        per_query,
        (("hybrid", "bm25"), ("hybrid", "dense")),
        metrics=("recall@10", "ndcg@10"),
        seed=config.seed,
        resamples=config.evaluation.resamples,
    )
    return {
        "schema_version": 1,
        "model": str(path),
        "dataset": {
            "name": dataset.name,
            "passages": len(dataset.corpus),
            "queries": len(qrels),
            "dropped": dropped,
        },
        "systems": {name: values.means() for name, values in per_query.items()},
        "differences": rows,
        "choices": {"fusion": asdict(found.fusion), "lexical": bench.lexical.spec.describe()},
    }


def build_index(
    config: Config, target: Path | None, *, model: str | None, out: Path | None
) -> dict[str, Any]:
    """Build a hybrid index over the corpus of a run or of a folder with a corpus.jsonl.

    The fusion is the one that dev chose for the run's promoted model; elsewhere RRF.
    """
    run = _run_of(config, target)
    source = run / prepare.FOLDER if run else source_folder(config.data)
    # Beside the data of a dataset folder; a folder of documents stays as it is.
    beside = run is None and target is not None and target.is_dir()
    beside = beside and format_of(config.data) == "beir"
    folder = out or (source if beside else config.run_folder) / INDEX
    dataset = prepare.read_prepared(run) if run else None
    corpus, hygiene = (dataset.corpus, []) if dataset else prepare.read_corpus(config)
    path = _model_path(config, run, model)
    encoder = serving_encoder(path, config.model)
    fusion, place = FusionSpec(), str(path.resolve())
    if run and path == run / MODEL:
        fusion = promoted_fusion(Run(config, resume=False).record("evaluate"))
        place = f"../{MODEL}" if folder == run / INDEX else place  # so that a run can be moved
    spec = index_spec(config, encoder, place=place, fusion=fusion)
    queries = sample_queries(dataset.queries, dataset.qrels) if dataset else None
    build(corpus, encoder, spec=spec, queries=queries).save(folder)
    return {
        "schema_version": 1,
        "index": str(folder),
        "passages": len(corpus),
        "hygiene": hygiene,
        "model": str(path),
        "fusion": asdict(fusion),
    }


def _run_of(config: Config, target: Path | None) -> Path | None:
    """The run directory that a target stands for: itself, or that of a config run just so."""
    folder = config.run_folder
    if target is None or target.is_file():
        mine = is_run(folder) and (folder / CONFIG).read_text(encoding="utf-8") == dump(config)
    else:
        mine = is_run(target)
    return folder if mine and (folder / prepare.FOLDER).is_dir() else None


def _measurable(config: Config, run: Path | None) -> tuple[Dataset, dict[str, int]]:
    """The dataset to measure on, and how many queries were dropped from it, by reason."""
    dataset = read_run(run) if run else read_source(config, prepare.offsets_of(config)).dataset
    # Queries that no split judges do no harm here: a download often brings those of other splits.
    judged = dict.fromkeys(q for qrels in dataset.qrels.values() for q in qrels.query_ids)
    dataset = replace(dataset, queries=dataset.queries.select(judged))
    drop = config.data.unjudged_queries == "drop"
    dataset, dropped = splits.check_judged(dataset, drop=drop)
    if "test" not in dataset.qrels:
        raise DataError(f"{dataset.name}: no judged queries in qrels/test.tsv to measure on")
    return dataset, dropped


def _model_path(config: Config, run: Path | None, model: str | None) -> Path:
    if model is not None:
        return resolve(model).path
    if run and (run / MODEL).is_dir():
        return run / MODEL
    return resolve(config.model.base).path
