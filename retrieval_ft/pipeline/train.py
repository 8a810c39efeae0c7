"""Stage 3: fine-tune the base on the mined pairs; checkpoint and soup are chosen on dev."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_ft import artifacts
from retrieval_ft.config import TrainingConfig
from retrieval_ft.console import note
from retrieval_ft.dataset import Pairs
from retrieval_ft.errors import ConfigError
from retrieval_ft.pipeline.fitting import training_job
from retrieval_ft.pipeline.general import general_digest, general_sets
from retrieval_ft.pipeline.pool import RECALL, Pool
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.soup import soup
from retrieval_ft.pipeline.workbench import (
    Workbench,
    dense_index,
    dense_ranking,
    encoder_of,
    source_of,
)
from retrieval_ft.pipeline.workers import Fit, run_fit

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder
    from retrieval_ft.training.fit import FitResult

CANDIDATE = "checkpoints/tuned"
LOG = "checkpoints/log.jsonl"
_STEPS = "checkpoints/steps"
_DEPTH = 50


def dev_pool(bench: Workbench, *, size: int) -> Pool:
    """The whole corpus where it is small enough; else what matters most of it.

    That is every relevant passage of a dev query, then up to `size` the candidates of the base model
    and of BM25 for them, first ranks first, then passages drawn at random.
    """
    corpus, qrels = bench.corpus_of("dev"), bench.dataset.qrels["dev"]
    queries = bench.dataset.queries_of("dev")
    if len(corpus) <= size:
        return Pool(corpus, queries, qrels)
    dense = dense_ranking(bench.base, dense_index(bench.base, corpus), queries, k=_DEPTH)
    bm25 = bench.lexical_ranking("dev", k=_DEPTH)
    chosen: dict[str, None] = {}
    for query_id in queries.ids:
        chosen.update(dict.fromkeys(sorted(qrels.relevant(query_id))))
    hardest = (
        ranking.ids(query_id)[rank : rank + 1]
        for rank in range(_DEPTH)
        for ranking in (dense, bm25)
        for query_id in queries.ids
    )
    generator = np.random.default_rng(bench.config.seed)
    drawn = (corpus.ids[row] for row in generator.permutation(len(corpus)).tolist())
    for passage_id in chain(chain.from_iterable(hardest), drawn):
        if len(chosen) >= size:
            break
        chosen.setdefault(passage_id)
    return Pool(corpus.select(chosen), queries, qrels)


def train(
    run: Run,
    bench: Workbench,
    pairs: Pairs,
    prepared: StageRecord,
    mined: StageRecord,
    *,
    place: str = "",
) -> StageRecord:
    """Fine-tune, choose on dev, and leave the candidate in `checkpoints/tuned` below `place`."""
    return run.stage(
        f"{place}train",
        inputs={
            **training_inputs(run, bench, prepared, mined),
            "general": general_digest(run.config),
        },
        outputs=[place + CANDIDATE, place + LOG],
        work=lambda key: _work(run, bench, pairs, key, place),
    )


def training_inputs(
    run: Run, bench: Workbench, prepared: StageRecord, mined: StageRecord
) -> dict[str, Any]:
    """What a training depends on, but for the general sets: these matter to the soup alone."""
    config = run.config
    return {
        "dataset": prepared.digest,
        "mined": mined.digest,
        "model": bench.base_digest,
        "lexical": config.lexical.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json", exclude={"report_to"}),
        "seed": config.seed,
    }


def _work(run: Run, bench: Workbench, pairs: Pairs, key: str, place: str) -> dict[str, Any]:
    from retrieval_ft.export.model import check_exportable, export_encoder

    config = run.config
    _check_sides(bench, config.training)
    pool = dev_pool(bench, size=config.training.dev_passages)
    encoder = trainee(bench, config.training)
    check_exportable(encoder.model)
    base_dev = pool.score(bench.base)
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    if not run.resume:
        shutil.rmtree(run.folder / _STEPS, ignore_errors=True)
    fitted, work_done = fit_encoder(
        run,
        bench,
        pairs,
        encoder,
        pool=pool,
        training=config.training,
        folder=run.folder / _STEPS / key[:16],  # checkpoints of other inputs are never resumed
    )
    mixed = soup(
        encoder,
        pool,
        before,
        log=fitted.log,
        config=config.training,
        general=[found.dev for found in general_sets(config, bench.dataset)],
        base=bench.base,
    )
    facts = {
        **work_done,
        "steps": fitted.steps,
        "planned_steps": fitted.planned_steps,
        "best_step": fitted.best_step,
        "fit_seconds": round(fitted.seconds, 1),
        "dev_base": base_dev,
        **mixed,
        "precision": encoder.precision.reason,
    }
    artifacts.write_jsonl(run.folder / place / LOG, fitted.log)
    card = _card(run, bench, facts)
    export_encoder(encoder, run.folder / place / CANDIDATE, card=card)
    shutil.rmtree(run.folder / _STEPS, ignore_errors=True)
    return facts


def trainee(bench: Workbench, training: TrainingConfig) -> Encoder:
    """The base model as it stands before a training, in memory of its own."""
    passages = bench.base if training.freeze_docs else None
    return encoder_of(bench.base_path, bench.config.model, cached=False, passage_encoder=passages)


def fit_encoder(
    run: Run,
    bench: Workbench,
    pairs: Pairs,
    encoder: Encoder,
    *,
    pool: Pool,
    training: TrainingConfig,
    folder: Path,
) -> tuple[FitResult, dict[str, Any]]:
    """Train an encoder in place on mined pairs, checkpoints in `folder`; also facts of the job."""
    from retrieval_ft.training.trainable import make_plain, set_trainable

    trained = set_trainable(encoder.model, training, seed=run.config.seed)
    job = training_job(bench, pairs, encoder, training=training)
    note(
        f"training: {job.facts['pairs']:,} pairs, {job.plan.steps:,} steps, "
        f"batch {job.recipe.batch_size}"
    )
    fitting = Fit(
        source=source_of(bench.base_path, run.config.model),
        training=training,
        plan=job.plan,
        collator=job.collator,
        graph_tokens=job.facts["graph_tokens"],
        learning_rate=job.recipe.learning_rate,
        folder=folder,
        seed=run.config.seed,
        resume=run.resume,
    )
    reports = run.folder / "checkpoints/tensorboard" / folder.name
    result = run_fit(fitting, encoder, dev=lambda: pool.score(encoder), reports=reports)
    make_plain(encoder.model)
    return result, {**job.facts, "weights_trained": trained, "dev_passages": len(pool.corpus)}


def _check_sides(bench: Workbench, training: TrainingConfig) -> None:
    if bench.base.passage_encoder is not None and not training.freeze_docs:
        raise ConfigError(
            f"{bench.config.model.base}: its query side alone was tuned, and passages/ keeps the "
            "model for passages; set training.freeze_docs=true, or start from the model in passages/"
        )


def _card(run: Run, bench: Workbench, facts: dict[str, Any]) -> str:
    from retrieval_ft.export.card import model_card

    alpha = f"{facts['soup_alpha']:g}"
    dev = {"base": facts["dev_base"][RECALL], "this model": facts["soup_dev"][alpha]}
    rows = {f"dev recall@10, {name}": round(value, 4) for name, value in dev.items()}
    if "soup_general" in facts:
        other = {"base": facts["general_dev_base"], "this model": facts["soup_general"][alpha]}
        rows |= {
            f"dev recall@10 on sets of other domains, {name}": round(value, 4)
            for name, value in other.items()
        }
    return model_card(
        title=f"{run.config.model.base} tuned on {bench.dataset.name}",
        origin=f"Fine-tuned by retrieval_ft from {run.config.model.base}.",
        query_prompt=bench.base.prompts["query"],
        max_length=bench.base.max_length,
        separate_passages=run.config.training.freeze_docs,
        facts={
            "train pairs": facts["pairs"],
            "steps": facts["steps"],
            "learning rate": facts["learning_rate"],
            "batch size": facts["batch_size"],
            "share of tuned weights (soup alpha, chosen on dev)": facts["soup_alpha"],
            **rows,
        },
    )
