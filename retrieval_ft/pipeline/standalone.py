"""`index` on its own, on a run or on any corpus with any model; what `evaluate` shares with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval_ft.config import Config, dump
from retrieval_ft.index import FusionSpec
from retrieval_ft.models import resolve
from retrieval_ft.pipeline import prepare
from retrieval_ft.pipeline.evaluate import MODEL, promoted_fusion
from retrieval_ft.pipeline.index import FOLDER as INDEX
from retrieval_ft.pipeline.index import build, index_spec, sample_queries
from retrieval_ft.pipeline.run import CONFIG, Run
from retrieval_ft.pipeline.source import format_of, source_folder
from retrieval_ft.pipeline.target import is_run
from retrieval_ft.pipeline.workbench import serving_encoder


def build_index(
    config: Config, target: Path | None, *, model: str | None, out: Path | None
) -> dict[str, Any]:
    """Build a hybrid index over the corpus of a run or of a folder with a corpus.jsonl.

    The fusion is the one that dev chose for the run's promoted model; elsewhere RRF.
    """
    run = run_of(config, target)
    source = run / prepare.FOLDER if run else source_folder(config.data)
    # Beside the data of a dataset folder; a folder of documents stays as it is.
    beside = run is None and target is not None and target.is_dir()
    beside = beside and format_of(config.data) == "beir"
    folder = out or (source if beside else config.run_folder) / INDEX
    dataset = prepare.read_prepared(run) if run else None
    corpus, hygiene = (dataset.corpus, []) if dataset else prepare.read_corpus(config)
    path = model_path(config, run, model)
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


def run_of(config: Config, target: Path | None) -> Path | None:
    """The run directory that a target stands for: itself, or that of a config run just so."""
    folder = config.run_folder
    if target is None or target.is_file():
        mine = is_run(folder) and (folder / CONFIG).read_text(encoding="utf-8") == dump(config)
    else:
        mine = is_run(target)
    return folder if mine and (folder / prepare.FOLDER).is_dir() else None


def model_path(config: Config, run: Path | None, model: str | None) -> Path:
    """The folder of the model that was named, else the run's promoted one, else the base."""
    if model is not None:
        return resolve(model).path
    if run and (run / MODEL).is_dir():
        return run / MODEL
    return resolve(config.model.base).path
