"""Stage 3: fine-tune the base on the mined pairs; checkpoint and soup are chosen on dev."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_ft import artifacts
from retrieval_ft.console import note
from retrieval_ft.dataset import Corpus, Dataset, Pairs, Qrels, Queries
from retrieval_ft.evaluation import evaluate
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.workbench import Workbench, dense_index, dense_ranking, encoder_of

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder
    from retrieval_ft.training.fit import FitResult

CANDIDATE = "checkpoints/tuned"
LOG = "checkpoints/log.jsonl"
_STEPS = "checkpoints/steps"
_METRIC = "recall@10"
_DEPTH = 50


@dataclass(frozen=True)
class DevPool:
    """Dev queries and the passages they are scored against while training."""

    corpus: Corpus
    queries: Queries
    qrels: Qrels

    def score(self, encoder: Encoder) -> dict[str, float]:
        """Dense recall@10 and nDCG@10; `score` is the recall, nDCG deciding between equals."""
        ranking = dense_ranking(encoder, dense_index(encoder, self.corpus), self.queries, k=10)
        found = evaluate(ranking, self.qrels, metrics=(_METRIC, "ndcg@10"))
        recall, ndcg = found.mean(_METRIC), found.mean("ndcg@10")
        return {"score": recall + ndcg / 1000, "recall@10": recall, "ndcg@10": ndcg}


def dev_pool(bench: Workbench, *, size: int) -> DevPool:
    """The whole corpus where it is small enough; else what matters most of it.

    That is every relevant passage of a dev query, then up to `size` the candidates of the base model
    and of BM25 for them, first ranks first, then passages drawn at random.
    """
    corpus, qrels = bench.corpus_of("dev"), bench.dataset.qrels["dev"]
    queries = bench.dataset.queries_of("dev")
    if len(corpus) <= size:
        return DevPool(corpus, queries, qrels)
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
    return DevPool(corpus.select(chosen), queries, qrels)


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
    config = run.config
    return run.stage(
        f"{place}train",
        inputs={
            "dataset": prepared.digest,
            "mined": mined.digest,
            "model": bench.base_digest,
            "lexical": config.lexical.model_dump(mode="json"),
            "training": config.training.model_dump(mode="json"),
            "seed": config.seed,
        },
        outputs=[place + CANDIDATE, place + LOG],
        work=lambda key: _work(run, bench, pairs, key, place),
    )


def _work(run: Run, bench: Workbench, pairs: Pairs, key: str, place: str) -> dict[str, Any]:
    from retrieval_ft.export.model import check_exportable, export_model

    config = run.config
    pool = dev_pool(bench, size=config.training.dev_passages)
    encoder = encoder_of(bench.base_path, config.model, cached=False)
    check_exportable(encoder.model)
    base_dev = pool.score(bench.base)
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    fitted, work_done = _fit(run, bench, pairs, encoder, pool, key)
    alpha, curve = _soup(encoder, pool, before, config.training.soup_alphas, fitted.log)
    facts = {
        **work_done,
        "steps": fitted.steps,
        "planned_steps": fitted.planned_steps,
        "best_step": fitted.best_step,
        "fit_seconds": round(fitted.seconds, 1),
        "dev_base": base_dev,
        "soup_alpha": alpha,
        "soup_dev": curve,
        "precision": encoder.precision.reason,
    }
    artifacts.write_jsonl(run.folder / place / LOG, fitted.log)
    card = _card(run, bench, facts)
    export_model(encoder.serving_model(), run.folder / place / CANDIDATE, card=card)
    shutil.rmtree(run.folder / _STEPS, ignore_errors=True)
    return facts


def _fit(
    run: Run, bench: Workbench, pairs: Pairs, encoder: Encoder, pool: DevPool, key: str
) -> tuple[FitResult, dict[str, Any]]:
    import psutil
    import torch

    from retrieval_ft.encoder.batching import tokenize
    from retrieval_ft.training.fit import fit, graph_token_budget
    from retrieval_ft.training.loss import Collator, MaskedInfoNCE
    from retrieval_ft.training.plan import plan_batches
    from retrieval_ft.training.recipe import resolve_recipe

    config, dataset, model = run.config, bench.dataset, encoder.model
    training = config.training
    pairs, made = in_batch_only(pairs, dataset)
    recipe = resolve_recipe(
        training,
        pairs=len(pairs),
        hidden_size=model[0].auto_model.config.hidden_size,
        made=made,
    )
    length = min(training.max_length, encoder.max_length)
    queries = dataset.queries_of("train")
    plan = plan_batches(
        pairs,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        negatives_per_query=training.negatives_per_query,
        seed=config.seed,
        max_steps=training.max_steps,
    )
    prompts = encoder.prompts
    query_tokens = tokenize(model, queries.texts, prompt=prompts["query"], max_length=length)
    passage_tokens = tokenize(
        model, dataset.corpus.passages, prompt=prompts["passage"], max_length=length
    )
    views = {(q, p): text for q, row in dataset.views.items() for p, text in row.items()}
    view_tokens = tokenize(
        model, list(views.values()), prompt=prompts["passage"], max_length=length
    )
    # Of the memory that the machine has, not of what is free now: the same inputs, the same bytes.
    memory = psutil.virtual_memory().total
    if encoder.device.type == "cuda":
        memory = torch.cuda.get_device_properties(encoder.device).total_memory
    budget = training.graph_tokens or graph_token_budget(model, memory=memory, max_length=length)
    collator = Collator(
        query_tokens=dict(zip(queries.ids, query_tokens.ids, strict=True)),
        passage_tokens=dict(zip(dataset.corpus.ids, passage_tokens.ids, strict=True)),
        qrels=with_pairs(dataset.qrels["train"], pairs),
        pad_id=encoder.pad_id,
        token_budget=min(encoder.token_budget, budget),
        view_tokens=dict(zip(views, view_tokens.ids, strict=True)),
    )
    loss = MaskedInfoNCE(
        model,
        precision=encoder.precision,
        temperature=training.temperature,
        graph_tokens=budget,
    )
    if not run.resume:
        shutil.rmtree(run.folder / _STEPS, ignore_errors=True)
    note(f"training: {len(pairs):,} pairs, {plan.steps:,} steps, batch {recipe.batch_size}")
    result = fit(
        model,
        plan,
        collator=collator,
        loss=loss,
        dev=lambda: pool.score(encoder),
        config=training,
        learning_rate=recipe.learning_rate,
        folder=run.folder / _STEPS / key[:16],  # checkpoints of other inputs are never resumed
        seed=config.seed,
        resume=run.resume,
    )
    return result, {
        "pairs": len(pairs),
        **asdict(recipe),
        "graph_tokens": budget,
        "max_length": length,
        "truncated_passages": float(passage_tokens.truncated.mean()),
        "dev_passages": len(pool.corpus),
    }


def in_batch_only(pairs: Pairs, dataset: Dataset) -> tuple[Pairs, int]:
    """Take the mined negatives from pairs that are trained on a view, and count these.

    A view lacks what the query was taken from, mostly its title, and a mined negative is whole: the
    model would learn to tell the two by that. On `hpo` dense recall@10 fell from .80 to .58.
    """
    viewed = [pair.positive_id in dataset.views.get(pair.query_id, {}) for pair in pairs.items]
    items = (
        replace(pair, negatives=()) if view else pair
        for pair, view in zip(pairs.items, viewed, strict=True)
    )
    return replace(pairs, items=tuple(items)), sum(viewed)


def with_pairs(qrels: Qrels, pairs: Pairs) -> Qrels:
    """The judgements with every positive of the pairs: a cross-encoder may have found more."""
    grades = {query_id: dict(row) for query_id, row in qrels.grades.items()}
    for pair in pairs.items:
        row = grades.setdefault(pair.query_id, {})
        row[pair.positive_id] = max(row.get(pair.positive_id, 0), 1)
    return Qrels(grades)


def _soup(
    encoder: Encoder,
    pool: DevPool,
    before: dict[str, Any],
    alphas: tuple[float, ...],
    log: Sequence[Mapping[str, float]],
) -> tuple[float, dict[str, float]]:
    """Try less and less of the tuned weights on dev until it no longer helps; keep the best.

    The tuned weights themselves (alpha 1) were scored when their checkpoint was; that is in the log.
    """
    from retrieval_ft.training.soup import mix

    tuned = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    best = max((row for row in log if "eval_score" in row), key=lambda row: row["eval_score"])
    curve = {"1": best[f"eval_{_METRIC}"]}
    best_alpha, best_score = 1.0, best["eval_score"]
    for alpha in sorted(set(alphas) - {1.0}, reverse=True):
        encoder.model.load_state_dict(mix(before, tuned, alpha=alpha))
        found = pool.score(encoder)
        curve[f"{alpha:g}"] = found[_METRIC]
        note(f"soup alpha {alpha:g}: dev recall@10 {found[_METRIC]:.4f}")
        if found["score"] <= best_score:
            break
        best_alpha, best_score = alpha, found["score"]
    encoder.model.load_state_dict(mix(before, tuned, alpha=best_alpha))
    return best_alpha, curve


def _card(run: Run, bench: Workbench, facts: dict[str, Any]) -> str:
    from retrieval_ft.export.card import model_card

    return model_card(
        title=f"{run.config.model.base} tuned on {bench.dataset.name}",
        origin=f"Fine-tuned by retrieval_ft from {run.config.model.base}.",
        query_prompt=bench.base.prompts["query"],
        max_length=bench.base.max_length,
        facts={
            "train pairs": facts["pairs"],
            "steps": facts["steps"],
            "learning rate": facts["learning_rate"],
            "batch size": facts["batch_size"],
            "share of tuned weights (soup alpha, chosen on dev)": facts["soup_alpha"],
            "dev recall@10, base": round(facts["dev_base"][_METRIC], 4),
            "dev recall@10, this model": round(facts["soup_dev"][f"{facts['soup_alpha']:g}"], 4),
        },
    )
