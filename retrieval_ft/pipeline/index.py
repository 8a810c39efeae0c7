"""Stage 5: the hybrid index of the promoted embedder."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.config import Config
from retrieval_ft.console import note
from retrieval_ft.dataset import SPLITS, Corpus, Qrels, Queries, Split
from retrieval_ft.errors import DataError
from retrieval_ft.index import AnnSpec, DenseSpec, FusionSpec, HybridIndex, IndexSpec, store
from retrieval_ft.index.ann_recall import MEASURED_QUERIES
from retrieval_ft.index.writer import check_unchanged
from retrieval_ft.pipeline.evaluate import MODEL, promoted_fusion, reranker_path
from retrieval_ft.pipeline.judge import load_judge
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.timing import index_speed, weigh
from retrieval_ft.pipeline.workbench import Workbench, lexical_spec, serving_encoder

if TYPE_CHECKING:
    from retrieval_ft.encoder.cross_encoder import CrossEncoder
    from retrieval_ft.encoder.encoder import Encoder

FOLDER = "index"


def index_run(
    run: Run, bench: Workbench, prepared: StageRecord, evaluated: StageRecord
) -> StageRecord:
    """Index the corpus with the model in `model/` and the fusion that dev chose for it, and time it.

    Raises:
        DataError: the run's index was changed since it was built; it is left as it is.
    """
    config = run.config

    def work(_: str) -> dict[str, Any]:
        _make_way(run.folder / FOLDER)
        encoder = serving_encoder(run.folder / MODEL, config.model)
        spec = index_spec(config, encoder, place=f"../{MODEL}", fusion=promoted_fusion(evaluated))
        dataset = bench.dataset
        asked = sample_queries(dataset.queries, dataset.qrels)
        index = build(dataset.corpus, encoder, spec=spec, queries=asked)
        # A run's index begins anew, so that the same run has the same bytes.
        with artifacts.atomic_folder(run.folder / FOLDER) as fresh:
            index.save(fresh)
        speed = index_speed(
            index,
            encoder,
            queries=bench.dataset.queries_of("test").texts,
            passages=dataset.corpus.passages,
            side=evaluated.facts["promoted"],
            rerank=reranker_to_time(config),
        )
        return {
            "passages": len(dataset.corpus),
            "fingerprint": encoder.fingerprint,
            "query_prompt": encoder.prompts["query"],
            "speed": {**speed, **weigh(run.folder / FOLDER)},
        }

    return run.stage(
        "index",
        inputs={
            "dataset": prepared.digest,
            "evaluated": evaluated.digest,
            "lexical": config.lexical.model_dump(mode="json"),
            "index": config.index.model_dump(mode="json"),
            "timed": [config.evaluation.rerank, config.evaluation.cross_encoder],
            "precision": [config.model.device, config.model.precision],
        },
        outputs=[FOLDER],
        work=work,
    )


def index_spec(config: Config, encoder: Encoder, *, place: str, fusion: FusionSpec) -> IndexSpec:
    """What an index is, as a config asks for it.

    Args:
        config: its sections `lexical` and `index`.
        encoder: that makes the vectors.
        place: where the encoder is, absolute or relative to the index.
        fusion: how the two sides become one ranking.
    """
    asked = config.index
    return IndexSpec(
        encoder_fingerprint=encoder.fingerprint,
        encoder_path=place,
        dimension=encoder.dimension,
        prompts={str(role): prompt for role, prompt in encoder.prompts.items()},
        lexical=lexical_spec(config.lexical),
        dense=DenseSpec(dimension=asked.dimension, precision=asked.vectors),
        ann=AnnSpec(
            kind=asked.kind,
            min_recall=asked.min_recall,
            memory_gb=asked.memory_gb,
            deletes=asked.deletes,
        ),
        fusion=fusion,
        tenant_key=asked.tenant_key,
    )


def build(
    corpus: Corpus, encoder: Encoder, *, spec: IndexSpec, queries: Queries | None
) -> HybridIndex:
    """Encode a corpus and index it, in memory; queries measure what is not exact."""
    vectors = encoder.encode(corpus.passages, role="passage")
    asked: npt.NDArray[np.float32] | None = None
    if queries is not None and len(queries) and spec.loses(len(corpus)):
        asked = encoder.encode(queries.texts, role="query")
    return HybridIndex.build(corpus, vectors, spec=spec, queries=asked)


def reranker_to_time(config: Config) -> tuple[CrossEncoder, int] | None:
    """The cross-encoder that reorders hits, without its cache, and how many; None where none does."""
    judge = load_judge(reranker_path(config), config, cached=False)
    return None if judge is None else (judge, config.evaluation.rerank)


def sample_queries(queries: Queries, qrels: Mapping[Split, Qrels]) -> Queries | None:
    """Real queries to measure an index on: of dev, else train, else any."""
    judged = next((qrels[split] for split in (*SPLITS[1::-1], "test") if split in qrels), None)
    names = queries.ids if judged is None else judged.query_ids
    step = max(1, len(names) // MEASURED_QUERIES)
    return queries.select(names[::step][:MEASURED_QUERIES]) if names else None


def _make_way(folder: Path) -> None:
    """See that a run's index can be built anew; a damaged one is put aside, not thrown away."""
    if not store.exists(folder):
        return
    try:
        found = store.current(folder)
    except DataError as error:
        aside = folder.with_name(f"{folder.name}.damaged-{secrets.token_hex(2)}")
        folder.replace(aside)
        note(f"{error}; it is kept as {aside}")
        return
    check_unchanged(folder, found)
