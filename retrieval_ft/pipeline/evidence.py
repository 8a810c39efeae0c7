"""What a report draws: curves, differences query by query, wins and losses with their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrieval_ft.dataset import Corpus, Qrels, Queries, Ranking
from retrieval_ft.evaluation import PerQuery
from retrieval_ft.evaluation.evidence import examples, query_deltas, recall_curves, separation
from retrieval_ft.pipeline.ranking import Systems, scored_pairs
from retrieval_ft.pipeline.workbench import Workbench

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder

METRIC = "recall@10"
SHOWN = ("tuned_hybrid", "base_hybrid")
"""Whose wins and losses a run shows."""
_CURVES = 6
"""Curves that one plot can hold apart."""


def evidence_of(
    rankings: Mapping[str, Ranking],
    per_query: Mapping[str, PerQuery],
    qrels: Qrels,
    *,
    pairs: Sequence[tuple[str, str]],
    texts: tuple[Corpus, Queries] | None,
    seed: int,
) -> dict[str, Any]:
    """What any comparison can show, as JSON values for `report_html`.

    Args:
        rankings: Of each system.
        per_query: Their values.
        qrels: Judgements.
        pairs: `(system, against)` to show query by query; of the first also wins and losses.
        texts: Of passages and queries; None where they are not known, and then nothing is shown.
        seed: Of the bootstrap.
    """
    main = [name for name in rankings if _is_main(name)] or list(rankings)
    found: dict[str, Any] = {
        "schema_version": 1,
        "curves": recall_curves(
            {name: rankings[name] for name in main[:_CURVES]}, qrels, seed=seed
        ),
        "deltas": query_deltas(per_query, pairs, metric=METRIC),
    }
    if texts is not None and pairs:
        system, against = pairs[0]
        corpus, queries = texts
        found["examples"] = examples(
            rankings,
            per_query,
            corpus=corpus,
            queries=queries,
            qrels=qrels,
            system=system,
            against=against,
            metric=METRIC,
        )
    return found


def evidence_of_run(
    bench: Workbench,
    rankings: Mapping[str, Ranking],
    per_query: Mapping[str, PerQuery],
    sides: Mapping[str, tuple[Encoder, Systems]],
) -> dict[str, Any]:
    """That of a run, with the scores of both models and the fusions that dev was asked about.

    Args:
        bench: The dataset.
        rankings: Of each system on test.
        per_query: Their values.
        sides: The two models, `base` and `tuned`, and their systems.
    """
    dataset = bench.dataset
    pairs = scored_pairs(bench, rankings["bm25"])
    scores = {name: pairs.scores(encoder) for name, (encoder, _) in sides.items()}
    return {
        **evidence_of(
            rankings,
            per_query,
            dataset.qrels["test"],
            pairs=(SHOWN, ("tuned_dense", "base_dense")),
            texts=(bench.corpus_of("test"), dataset.queries),
            seed=bench.config.seed,
        ),
        "separation": separation(scores),
        "fusion": [found.curve.facts(name) for name, (_, found) in sides.items() if found.curve],
    }


def _is_main(name: str) -> bool:
    """Whether a system is BM25, a model or its chosen hybrid."""
    return name in ("bm25", "dense", "hybrid") or name.endswith(("_dense", "_hybrid"))
