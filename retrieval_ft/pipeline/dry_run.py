"""`--dry-run`: what a run would do, from a look at the data and a second of the model; no writes."""

from __future__ import annotations

import time
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_ft import config as configs
from retrieval_ft.config import Config, TrainingConfig
from retrieval_ft.console import stdout
from retrieval_ft.dataset import Qrels
from retrieval_ft.mining import mine
from retrieval_ft.pipeline.fitting import in_batch_only
from retrieval_ft.pipeline.generate import asking_plan, draft
from retrieval_ft.pipeline.mine import lexical_rows
from retrieval_ft.pipeline.prepare import read_checked
from retrieval_ft.pipeline.workbench import Workbench, encoder_of

if TYPE_CHECKING:
    from retrieval_ft.training.recipe import Recipe

_TRIPLETS = 3
_SAMPLE = 200
TRAIN_COST = 2.8
"""A trained token in encoded ones: bge-small trained 2,700 a second where it encoded 7,600."""


def describe(config: Config) -> dict[str, Any]:
    """Resolved config, counts, lengths and truncation, steps, time estimate, first triplets."""
    from retrieval_ft.training.recipe import resolve_recipe

    prepared = read_checked(config)
    dataset, made = draft(prepared, config)
    account = {**prepared.account, **made}
    bench = Workbench(config, dataset)
    encoder = encoder_of(bench.base_path, config.model, cached=False)
    corpus = dataset.corpus
    lengths = {
        "passage": encoder.tokenize(corpus.passages, "passage"),
        "query": encoder.tokenize(dataset.queries.texts, "query"),
    }
    pairs = dataset.qrels["train"].pair_count
    training = config.training
    recipe = resolve_recipe(
        training,
        pairs=pairs,
        hidden_size=encoder.model[0].auto_model.config.hidden_size,
        made=sum(len(dataset.views.get(q, {})) for q in dataset.qrels["train"].query_ids),
    )
    mean = {role: float(tokens.lengths.mean()) for role, tokens in lengths.items()}
    cut = min(training.max_length, encoder.max_length)
    passage = float(np.minimum(lengths["passage"].lengths, cut).mean())
    steps, trained = training_cost(
        training, recipe, pairs=pairs, query_tokens=mean["query"], passage_tokens=passage
    )
    pool = min(len(corpus), training.dev_passages)
    encoded = 2 * mean["passage"] * len(corpus) + 2 * mean["query"] * len(dataset.queries)
    encoded += (training.evaluations + 2) * pool * mean["passage"]
    speed = forward_tokens_per_second(encoder, bench)
    return {
        "schema_version": 1,
        "config": config.model_dump(mode="json"),
        "dataset": account,
        "synthetic": asking_plan(prepared.dataset, config),
        "tokens": {
            role: {
                "mean": round(mean[role], 1),
                "p50": int(np.median(tokens.lengths)),
                "p95": int(np.quantile(tokens.lengths, 0.95)),
                "truncated_share": round(float(tokens.truncated.mean()), 4),
            }
            for role, tokens in lengths.items()
        },
        "recipe": asdict(recipe),
        "steps": steps,
        "precision": encoder.precision.reason,
        "estimate": {
            "tokens_per_second": round(speed),
            "minutes": round((trained * TRAIN_COST + encoded) / speed / 60, 1),
        },
        "first_triplets": _triplets(bench, encoder),
    }


def training_cost(
    training: TrainingConfig,
    recipe: Recipe,
    *,
    pairs: int,
    query_tokens: float,
    passage_tokens: float,
) -> tuple[int, float]:
    """Optimizer steps of a training, and the tokens that they train on.

    Args:
        training: the settings.
        recipe: what they leave open.
        pairs: to train on.
        query_tokens: mean tokens of a query.
        passage_tokens: mean tokens of a passage.
    """
    whole = recipe.epochs * -(-pairs // recipe.batch_size)
    steps = min(whole, training.max_steps or whole)
    texts = query_tokens + passage_tokens * (1 + training.negatives_per_query)
    return steps, pairs * recipe.epochs * steps / whole * texts


def forward_tokens_per_second(encoder: Any, bench: Workbench) -> float:
    """Tokens a second that a sample of the corpus is encoded with, here and now."""
    sample = bench.dataset.corpus.passages[:_SAMPLE]
    tokens = int(encoder.tokenize(sample, "passage").lengths.sum())
    encoder.encode(sample[:8], role="passage")
    started = time.monotonic()
    encoder.encode(sample, role="passage")
    return tokens / (time.monotonic() - started)


def _triplets(bench: Workbench, encoder: Any) -> list[dict[str, str]]:
    """Triplets of the first train queries, from BM25 candidates and a sample of the corpus."""
    dataset, config = bench.dataset, bench.config
    ids = dataset.qrels["train"].query_ids[:_TRIPLETS]
    queries = dataset.queries.select(ids)
    grades = {q: dataset.qrels["train"].grades[q] for q in ids}
    bm25 = lexical_rows(bench.lexical, queries, k=2 * config.mining.depth)
    ranked = np.unique(bm25[bm25 >= 0])
    corpus = dataset.corpus.select(
        chain(
            chain.from_iterable(grades.values()),
            (dataset.corpus.ids[row] for row in ranked),
            dataset.corpus.ids[:_SAMPLE],
        )
    )
    places = np.full(len(dataset.corpus) + 1, -1)  # the last entry is that of row -1
    places[[dataset.corpus.index_of[p] for p in corpus.ids]] = np.arange(len(corpus))
    mined = mine(
        corpus,
        queries,
        qrels=Qrels(grades),
        rankings={"dense": np.zeros((len(queries), 0), np.int64), "bm25": places[bm25]},
        query_vectors=encoder.encode(queries.texts, role="query"),
        passage_vectors=encoder.encode(corpus.passages, role="passage"),
        config=config.mining,
        seed=config.seed,
    )
    text_of = dict(zip(corpus.ids, corpus.passages, strict=True))
    pairs, _ = in_batch_only(mined.pairs, dataset)
    return [
        {
            "query": queries.text_of[pair.query_id],
            "positive": dataset.views.get(pair.query_id, {}).get(
                pair.positive_id, text_of[pair.positive_id]
            ),
            "negative": text_of[pair.negatives[0].passage_id] if pair.negatives else "",
        }
        for pair in pairs.items[:_TRIPLETS]
    ]


def plan_words(plan: dict[str, Any]) -> None:
    """Print what `describe` found."""
    out = stdout()
    config = configs.from_mapping(plan["config"], source="dry run")
    out.print(configs.dump(config), markup=False)
    sizes = {k: v for k, v in plan["dataset"].items() if isinstance(v, int | str)}
    out.print(f"dataset: {', '.join(f'{k} {v}' for k, v in sizes.items())}", markup=False)
    for word in ("dropped", "carved"):
        if plan["dataset"][word]:
            out.print(f"{word}: {plan['dataset'][word]}", markup=False)
    out.print(plan["dataset"]["tier"]["reason"], markup=False)
    if plan["synthetic"]:
        out.print(plan["synthetic"], markup=False)
    for role, found in plan["tokens"].items():
        out.print(
            f"{role} tokens: mean {found['mean']}, median {found['p50']}, 95% {found['p95']}; "
            f"{found['truncated_share']:.1%} are cut",
            markup=False,
        )
    estimate = plan["estimate"]
    recipe = ", ".join(f"{name} {value}" for name, value in plan["recipe"].items())
    out.print(
        f"{recipe}: {plan['steps']} steps; about {estimate['minutes']} minutes here, from "
        f"{estimate['tokens_per_second']:,} tokens a second encoded ({plan['precision']})",
        markup=False,
    )
    for number, triplet in enumerate(plan["first_triplets"], start=1):
        out.print(f"\ntriplet {number} (from a sample)", markup=False)
        for side, text in triplet.items():
            out.print(f"  {side}: {text[:200] or 'those of the batch'}", markup=False)
