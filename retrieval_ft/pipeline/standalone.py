"""`index`, `search` and `evaluate` on their own: on a run, or on any dataset with any model."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from retrieval_ft.config import Config, dump
from retrieval_ft.dataset import Dataset, splits
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation import difference_rows, evaluate
from retrieval_ft.index import FusionSpec, HybridIndex
from retrieval_ft.index.hybrid import Mode
from retrieval_ft.models import resolve
from retrieval_ft.pipeline import prepare
from retrieval_ft.pipeline.evaluate import MODEL, promoted_fusion, rank_systems
from retrieval_ft.pipeline.generate import read_run
from retrieval_ft.pipeline.index import FOLDER as INDEX
from retrieval_ft.pipeline.run import CONFIG, Run
from retrieval_ft.pipeline.source import format_of, read_source, source_folder
from retrieval_ft.pipeline.target import is_run
from retrieval_ft.pipeline.workbench import (
    Workbench,
    encoder_of,
    lexical_spec,
    serving_encoder,
)

if TYPE_CHECKING:
    from rich.table import Table

_MODES: tuple[Mode, ...] = get_args(Mode)
_SNIPPET = 300


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
    corpus = prepare.read_prepared(run).corpus if run else prepare.read_corpus(config)
    path = _model_path(config, run, model)
    encoder = serving_encoder(path, config.model)
    fusion, place = FusionSpec(), str(path.resolve())
    if run and path == run / MODEL:
        fusion = promoted_fusion(Run(config, resume=False).record("evaluate"))
        place = f"../{MODEL}" if folder == run / INDEX else place  # so that a run can be moved
    index = HybridIndex.build(
        corpus,
        encoder.encode(corpus.passages, role="passage"),
        encoder_fingerprint=encoder.fingerprint,
        encoder_path=place,
        lexical=lexical_spec(config.lexical),
        fusion=fusion,
    )
    index.save(folder)
    return {
        "schema_version": 1,
        "index": str(folder),
        "passages": len(corpus),
        "model": str(path),
        "fusion": asdict(fusion),
    }


def search_index(
    text: str, *, k: int, folder: Path | None, model: str | None, mode: str
) -> dict[str, Any]:
    """Search an index for one query; the model is loaded only where the mode needs it.

    Raises:
        ConfigError: an unknown mode.
        DataError: no index, a damaged one, or one built with another model.
    """
    if mode not in _MODES:
        raise ConfigError(f"--mode {mode!r}: choose one of {', '.join(_MODES)}")
    folder = folder or _newest_index()
    index = HybridIndex.load(folder)
    vectors, fingerprint = None, None
    if mode != "bm25":
        from retrieval_ft.encoder.encoder import load_encoder

        # The index says where its model is, relative to itself where they are in one run.
        path = resolve(model or str((folder / index.encoder_path).resolve())).path
        encoder = load_encoder(path)
        fingerprint = encoder.fingerprint
        index.check_encoder(fingerprint)
        vectors = encoder.encode([text], role="query")
    hits = index.search([text], vectors, encoder_fingerprint=fingerprint, k=k, mode=mode)[0]
    return {
        "schema_version": 1,
        "query": text,
        "index": str(folder),
        "mode": mode,
        "hits": [{"rank": rank, **asdict(hit)} for rank, hit in enumerate(hits, start=1)],
    }


def hits_table(document: dict[str, Any]) -> Table:
    """The hits of `search_index` as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("#", "score", "BM25", "dense"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("passage")
    for hit in document["hits"]:
        body = f"{hit['title']}: {hit['text']}" if hit["title"] else hit["text"]
        cells = [hit["rank"], f"{hit['score']:.4f}", hit["bm25_rank"] or "-"]
        cells += [hit["dense_rank"] or "-", hit["id"], body[:_SNIPPET]]
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


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


def _newest_index() -> Path:
    found = sorted(Path("runs").glob(f"*/{INDEX}/manifest.json"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise DataError(
            "runs/*/index: no index here; run the main job, or name one with --index FOLDER"
        )
    return found[-1].parent
