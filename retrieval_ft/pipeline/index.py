"""Stage 5: the hybrid index of the promoted embedder."""

from __future__ import annotations

from typing import Any

from retrieval_ft.index import DenseIndex, FusionSpec, HybridIndex
from retrieval_ft.pipeline.evaluate import MODEL
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.workbench import Workbench, embedding_cache

FOLDER = "index"


def index_run(
    run: Run, bench: Workbench, prepared: StageRecord, evaluated: StageRecord
) -> StageRecord:
    """Index the corpus with the model in `model/` and the fusion that dev chose for it."""
    config = run.config

    def work(_: str) -> dict[str, Any]:
        from retrieval_ft.encoder.encoder import load_encoder

        # As it will be loaded to search: the prompts and the length are the ones saved in it.
        encoder = load_encoder(
            run.folder / MODEL,
            device=config.model.device,
            precision=config.model.precision,
            cache_root=embedding_cache(),
        )
        corpus = bench.dataset.corpus
        promoted = evaluated.facts["promoted"]
        index = HybridIndex(
            corpus=corpus,
            lexical=bench.lexical,
            dense=DenseIndex.build(corpus.ids, encoder.encode(corpus.passages, role="passage")),
            fusion=FusionSpec(**evaluated.facts["choices"][f"{promoted}_fusion"]),
            encoder_fingerprint=encoder.fingerprint,
            encoder_path=f"../{MODEL}",
        )
        index.save(run.folder / FOLDER)
        return {"passages": len(corpus), "fingerprint": encoder.fingerprint}

    return run.stage(
        "index",
        inputs={
            "dataset": prepared.digest,
            "evaluated": evaluated.digest,
            "lexical": config.lexical.model_dump(mode="json"),
            "precision": [config.model.device, config.model.precision],
        },
        outputs=[FOLDER],
        work=work,
    )
