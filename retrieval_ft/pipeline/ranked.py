"""The rankings of the systems that `evaluate` measures: one model after another, then the reranking."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_ft.config import Config
from retrieval_ft.console import note
from retrieval_ft.dataset import Ranking
from retrieval_ft.index import FusionSpec
from retrieval_ft.models import resolve
from retrieval_ft.pipeline.judge import load_judge
from retrieval_ft.pipeline.ranking import rank_systems
from retrieval_ft.pipeline.reranking import reranked
from retrieval_ft.pipeline.systems import (
    BM25,
    DENSE,
    HYBRID,
    RRF,
    Asked,
    Remote,
    is_reranked,
)
from retrieval_ft.pipeline.workbench import Workbench, embedding_cache, encoder_of

if TYPE_CHECKING:
    from retrieval_ft.encoder.protocol import TextEncoder

Load = Callable[[], "TextEncoder"]


@dataclass(frozen=True)
class Models:
    """Where every model is, found before the first is loaded."""

    primary: Path | None
    others: Mapping[str, Path]
    remote: Mapping[str, tuple[Remote, Load]]
    reranker: Path | None

    def shown(self) -> dict[str, str]:
        """Where each model is, but for the primary."""
        remote = {name: str(one) for name, (one, _) in self.remote.items()}
        return {**{name: str(path) for name, path in self.others.items()}, **remote}


def find_models(asked: Asked, primary: Path | None) -> Models:
    """Find every model, so that what is missing is told before the work starts.

    Raises:
        DependencyError: a model, a package or a key is not to be had.
        ConfigError: the address of an endpoint cannot be used.
    """
    remote = {name: (one, _remote(name, one, asked)) for name, one in asked.endpoints.items()}
    others = {name: resolve(model).path for name, model in asked.models.items()}
    reranker = None
    if asked.rerank:
        reranker = resolve(asked.cross_encoder, kind="cross-encoder").path
    return Models(primary, others, remote, reranker)


def rank_all(
    bench: Workbench, models: Models, *, first: int, fusion: FusionSpec | None = None
) -> tuple[dict[str, Ranking], dict[str, Any]]:
    """Rank the test queries by BM25, by every model and its hybrids, and reranked.

    A model is loaded, asked and freed before the next one. The fusion of the primary is the one given,
    that of the others (and its own where none is given) is chosen on dev. Where there is a reranker, it
    reads the `first` hits of each system that it is to reorder.

    Returns:
        Rankings by the name of their system, and the choices that were made, as JSON values.
    """
    config = bench.config
    rankings = {BM25: bench.lexical_ranking("test", k=config.evaluation.depth)}
    choices: dict[str, Any] = {}
    for prefix, load in _loads(config, models):
        encoder = load()
        found = rank_systems(bench, encoder, fusion=None if prefix else fusion)
        ranked = {DENSE: found.dense, HYBRID: found.hybrid, RRF: found.rrf}
        rankings |= {prefix + kind: ranking for kind, ranking in ranked.items()}
        choices[f"{prefix}fusion"] = asdict(found.fusion)
        del encoder
        _free()
    if models.reranker is not None:
        judge = load_judge(models.reranker, config)
        if judge is not None:
            chosen = {name: found for name, found in rankings.items() if is_reranked(name)}
            rankings |= reranked(chosen, bench, judge, first=first)
    return rankings, {**choices, "lexical": bench.lexical.spec.describe()}


def _loads(config: Config, models: Models) -> Iterator[tuple[str, Load]]:
    """What stands before the names of a model's systems, and how the model is loaded."""
    if models.primary is not None:
        primary = models.primary
        yield "", lambda: encoder_of(primary, config.model)
    # The prompts of the config are those of the primary; every other model has its own.
    own = config.model.model_copy(update={"query_prompt": None, "passage_prompt": None})
    for name, path in models.others.items():
        note(f"{name}: {path}")
        yield f"{name}_", lambda path=path: encoder_of(path, own)  # type: ignore[misc]
    for name, (remote, load) in models.remote.items():
        note(f"{name}: {remote}, to which all passages and queries are sent as they are")
        yield f"{name}_", load


def _remote(name: str, remote: Remote, asked: Asked) -> Load:
    from retrieval_ft.encoder.endpoint import EndpointEncoder

    encoder = EndpointEncoder(
        remote.url,
        remote.model,
        place=f"--endpoint {name}",
        key_variable=asked.key_variable,
        cache_root=embedding_cache(),
    )
    return lambda: encoder


def _free() -> None:
    """Give back what the last model held; modules of torch are in cycles."""
    import sys

    gc.collect()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
