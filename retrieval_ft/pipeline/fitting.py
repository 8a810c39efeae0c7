"""From mined pairs to a training job: recipe, plan of batches and collator, as the config asks.

The stage, the search over recipes and the benchmarks all train what is built here.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.config import TrainingConfig
from retrieval_ft.dataset import Dataset, Pairs, Qrels
from retrieval_ft.dataset.hygiene import clusters
from retrieval_ft.errors import ConfigError
from retrieval_ft.pipeline.workbench import Workbench

if TYPE_CHECKING:
    from retrieval_ft.encoder.batching import Tokens
    from retrieval_ft.encoder.encoder import Encoder
    from retrieval_ft.training.collate import Collator, Column, Teacher
    from retrieval_ft.training.plan import Plan
    from retrieval_ft.training.recipe import Recipe

_TOPIC_BATCHES = 8
"""Batches that a topic is large enough for, so that it meets itself in more than one way."""


@dataclass(frozen=True)
class Job:
    """What `fit` is given, and the facts of it for the report."""

    plan: Plan
    collator: Collator
    recipe: Recipe
    facts: dict[str, Any]


def training_job(
    bench: Workbench, pairs: Pairs, encoder: Encoder, *, training: TrainingConfig
) -> Job:
    """Lay out the training of an encoder on mined pairs.

    Args:
        bench: the dataset, the base model and BM25.
        pairs: as mined, for the train split.
        encoder: the model to train, its prompts and precision.
        training: the settings; what they leave open is filled in by the recipe.

    Raises:
        ConfigError: the settings ask for what the pairs do not have.
    """
    from retrieval_ft.training.plan import plan_batches
    from retrieval_ft.training.recipe import resolve_recipe

    pairs, made = in_batch_only(pairs, bench.dataset)
    _check_matryoshka(training, dimension=encoder.dimension)
    recipe = resolve_recipe(
        training,
        pairs=len(pairs),
        hidden_size=encoder.model[0].auto_model.config.hidden_size,
        made=made,
    )
    plan = plan_batches(
        pairs,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        negatives_per_query=training.negatives_per_query,
        seed=bench.config.seed,
        max_steps=training.max_steps,
        prompt_dropout=training.prompt_dropout if encoder.prompts["query"] else 0.0,
        groups=_groups(bench, pairs, how=training.batches, batch_size=recipe.batch_size),
    )
    length = min(training.max_length, encoder.max_length)
    budget = training.graph_tokens or _graph_tokens(encoder, max_length=length)
    collator, passages = _collator(
        bench, pairs, encoder, training=training, length=length, budget=budget
    )
    facts = {
        "pairs": len(pairs),
        **asdict(recipe),
        "graph_tokens": budget,
        "max_length": length,
        "truncated_passages": float(passages.truncated.mean()) if passages.ids else 0.0,
    }
    return Job(plan, collator, recipe, facts)


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


def known_positives(dataset: Dataset, pairs: Pairs) -> Qrels:
    """What no query of train may have for a negative.

    That is its judgements, the positives of its pairs (a cross-encoder may have found more), and
    those of every query with the same words.
    """
    grades = {query_id: dict(row) for query_id, row in dataset.qrels["train"].grades.items()}
    for pair in pairs.items:
        row = grades.setdefault(pair.query_id, {})
        row[pair.positive_id] = max(row.get(pair.positive_id, 0), 1)
    of_text: dict[str, list[str]] = {}
    for query_id in grades:
        text = " ".join(dataset.queries.text_of[query_id].casefold().split())
        of_text.setdefault(text, []).append(query_id)
    found = Qrels(grades)
    for same in of_text.values():
        if len(same) > 1:
            shared = frozenset().union(*(found.relevant(query_id) for query_id in same))
            for query_id in same:
                own = grades[query_id]
                grades[query_id] = {**own, **{p: max(own.get(p, 0), 1) for p in sorted(shared)}}
    return Qrels(grades)


def _collator(
    bench: Workbench,
    pairs: Pairs,
    encoder: Encoder,
    *,
    training: TrainingConfig,
    length: int,
    budget: int,
) -> tuple[Collator, Tokens]:
    """The collator over what the pairs name, and the tokens of their passages."""
    from retrieval_ft.encoder.batching import tokenize
    from retrieval_ft.encoder.threads import cores
    from retrieval_ft.training.collate import Collator

    dataset, model, prompts = bench.dataset, encoder.model, encoder.prompts
    queries = dataset.queries_of("train")
    named = {p for pair in pairs.items for p in (pair.positive_id, *_negatives(pair.negatives))}
    passages = dataset.corpus.select(named)
    views = _views(pairs, dataset)

    def tokens(texts: Sequence[str], prompt: str) -> Tokens:
        return tokenize(model, texts, prompt=prompt, max_length=length)

    passage_tokens = tokens(passages.passages, prompts["passage"])
    view_tokens = tokens(list(views.values()), prompts["passage"])
    bare = tokens(queries.texts, "").ids if training.prompt_dropout else ()
    near = clusters(passages, jaccard=bench.config.mining.duplicate_jaccard)
    number = {name: i for i, name in enumerate(near.members)}
    collator = Collator(
        query_tokens=_by_id(queries.ids, tokens(queries.texts, prompts["query"]).ids),
        passage_tokens=_by_id(passages.ids, passage_tokens.ids),
        qrels=known_positives(dataset, pairs),
        pad_id=encoder.pad_id,
        token_budget=min(encoder.token_budget * cores(encoder.device), budget),
        view_tokens=dict(zip(views, view_tokens.ids, strict=True)),
        bare_query_tokens=_by_id(queries.ids, bare) if bare else {},
        cluster_of={p: number[name] for name, row in near.members.items() for p in row},
        frozen=_FrozenPassages(bench, views) if training.freeze_docs else None,
        teacher=_teacher(bench, pairs, training),
    )
    return collator, passage_tokens


def _views(pairs: Pairs, dataset: Dataset) -> dict[Column, str]:
    """The text that stands for the positive of a pair, where there is one, by query and passage."""
    columns = ((pair.query_id, pair.positive_id) for pair in pairs.items)
    return {(q, p): dataset.views[q][p] for q, p in columns if p in dataset.views.get(q, {})}


def _by_id(
    ids: Sequence[str], rows: Sequence[npt.NDArray[np.int32]]
) -> dict[str, npt.NDArray[np.int32]]:
    return dict(zip(ids, rows, strict=True))


def _negatives(negatives: Sequence[Any]) -> list[str]:
    return [negative.passage_id for negative in negatives]


class _FrozenPassages:
    """The base model's vectors of passages and views, for training of the query side alone."""

    def __init__(self, bench: Workbench, views: Mapping[Column, str]) -> None:
        self._corpus = bench.dataset.corpus
        self._vectors = bench.base.encode(self._corpus.passages, role="passage")
        vectors = bench.base.encode(list(views.values()), role="passage")
        self._views = dict(zip(views, vectors, strict=True))

    def __call__(self, columns: Sequence[Column]) -> npt.NDArray[np.float32]:
        place = self._corpus.index_of
        return np.stack([self._views[c] if c[0] else self._vectors[place[c[1]]] for c in columns])


class _Bm25Teacher:
    """BM25 of every query and passage of a batch; a view is scored by its own words."""

    def __init__(self, bench: Workbench) -> None:
        self._lexical, self._dataset = bench.lexical, bench.dataset

    def __call__(
        self, query_ids: Sequence[str], columns: Sequence[Column]
    ) -> npt.NDArray[np.float32]:
        place, views = self._dataset.corpus.index_of, self._dataset.views
        rows = [place[passage_id] for _, passage_id in columns]
        texts = [self._dataset.queries.text_of[query_id] for query_id in query_ids]
        scores = np.stack([self._lexical.scores(text)[rows] for text in texts])
        viewed = [i for i, (query_id, _) in enumerate(columns) if query_id]
        for i in viewed:
            query_id, passage_id = columns[i]
            view = [views[query_id][passage_id]] * len(texts)
            scores[:, i] = self._lexical.score_texts(texts, view)
        return scores.astype(np.float32)


def _teacher(bench: Workbench, pairs: Pairs, training: TrainingConfig) -> Teacher | None:
    from retrieval_ft.training.collate import PairTeacher

    if training.loss == "infonce":
        return None
    if training.teacher == "bm25":
        return _Bm25Teacher(bench)
    teacher = PairTeacher(pairs)
    if not len(teacher):
        raise ConfigError(
            f"training.loss={training.loss} learns a cross-encoder's scores, and no pair has two of "
            "them; set mining.cross_encoder (ms-marco-MiniLM-L-12-v2-int8, say; pairs made from the "
            "corpus have no mined negatives to score), or training.teacher=bm25"
        )
    return teacher


def _groups(bench: Workbench, pairs: Pairs, *, how: str, batch_size: int) -> list[str] | None:
    """The group of each pair: what it was made from, or its topic; None where any may meet."""
    if how == "mixed":
        return None
    queries, corpus = bench.dataset.queries, bench.dataset.corpus
    if how == "source":
        facts = [queries.metadata_of(pair.query_id) for pair in pairs.items]
        return [str(fact.get("source", fact.get("origin", ""))) for fact in facts]
    import faiss

    chosen = corpus.select({pair.positive_id for pair in pairs.items})
    vectors = bench.base.encode(chosen.passages, role="passage")
    count = len(pairs) // (_TOPIC_BATCHES * batch_size)
    if count < 2:
        return None
    kmeans = faiss.Kmeans(
        vectors.shape[1], count, niter=20, seed=bench.config.seed, spherical=True,
        min_points_per_centroid=1, max_points_per_centroid=2_048,
    )  # fmt: skip
    kmeans.train(vectors)
    topics = kmeans.index.search(vectors, 1)[1][:, 0].tolist()
    topic_of = dict(zip(chosen.ids, topics, strict=True))
    return [f"topic {topic_of[pair.positive_id]}" for pair in pairs.items]


def _check_matryoshka(training: TrainingConfig, *, dimension: int) -> None:
    wrong = [size for size in training.matryoshka if not 0 < size < dimension]
    if wrong or len(Counter(training.matryoshka)) < len(training.matryoshka):
        raise ConfigError(
            f"training.matryoshka: {list(training.matryoshka)} must be distinct dimensions from 1 "
            f"to {dimension - 1}; the whole {dimension} of the model is always trained"
        )


def _graph_tokens(encoder: Encoder, *, max_length: int) -> int:
    """Of the memory that the machine has, not of what is free now: same inputs, same bytes."""
    import psutil
    import torch

    from retrieval_ft.training.fit import graph_token_budget

    memory = psutil.virtual_memory().total // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if encoder.device.type == "cuda":
        memory = torch.cuda.get_device_properties(encoder.device).total_memory
    return graph_token_budget(encoder.model, memory=memory, max_length=max_length)
