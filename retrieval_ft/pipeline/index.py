"""Stage 5: the hybrid index of the promoted embedder."""

from __future__ import annotations

from typing import Any

from retrieval_ft.index import HybridIndex
from retrieval_ft.pipeline.evaluate import MODEL, promoted_fusion
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.workbench import Workbench, dense_index, serving_encoder

FOLDER = "index"


def index_run(
    run: Run, bench: Workbench, prepared: StageRecord, evaluated: StageRecord
) -> StageRecord:
    """Index the corpus with the model in `model/` and the fusion that dev chose for it."""
    config = run.config

    def work(_: str) -> dict[str, Any]:
        encoder = serving_encoder(run.folder / MODEL, config.model)
        corpus = bench.dataset.corpus
        index = HybridIndex(
            corpus=corpus,
            lexical=bench.lexical,
            dense=dense_index(encoder, corpus),
            fusion=promoted_fusion(evaluated),
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
