"""Stage 4: base and tuned on the whole corpus, fusion weights from dev, one look at test, the gate."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_ft import artifacts
from retrieval_ft.config import Config
from retrieval_ft.dataset import Ranking
from retrieval_ft.dataset.hygiene import clusters
from retrieval_ft.dataset.splits.groups import Groups
from retrieval_ft.evaluation import (
    Latency,
    PerQuery,
    Thresholds,
    Verdict,
    compare,
    decide,
    difference_rows,
    document_groups,
    evaluate,
    general_deltas,
    paired_latency,
    slice_rows,
    verdict_document,
    write_trec_run,
)
from retrieval_ft.evaluation.per_query import write_per_query
from retrieval_ft.evaluation.regression import PER_QUERY_FILE
from retrieval_ft.index import FusionSpec
from retrieval_ft.models import resolve
from retrieval_ft.pipeline.evidence import evidence_of_run
from retrieval_ft.pipeline.general import general_digest, general_sets, measure_general
from retrieval_ft.pipeline.judge import judge_digest, load_judge
from retrieval_ft.pipeline.prepare import NEAR_DUPLICATE
from retrieval_ft.pipeline.ranking import Systems, at_dimensions, rank_systems, without_query_prompt
from retrieval_ft.pipeline.reranking import RERANK, reranked
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.sliced import slices_on_test
from retrieval_ft.pipeline.timing import encoding_times, sampled
from retrieval_ft.pipeline.train import CANDIDATE
from retrieval_ft.pipeline.workbench import Workbench, dense_index, dense_ranking, encoder_of

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder

GATE_METRIC = "recall@10"
VERDICT = "verdict.json"
MODEL = "model"
FOLDER = "eval"
EVIDENCE = "evidence.json"
_NO_PROMPT = "_no_prompt"
_UNMIXED = "_unmixed"
_COMPARED = (
    ("tuned_dense", "base_dense"),
    ("tuned_hybrid", "base_hybrid"),
    ("tuned_hybrid", "bm25"),
    ("tuned_hybrid", "tuned_dense"),
    ("base_hybrid", "base_dense"),
    ("base_hybrid", "bm25"),
)


def evaluate_run(
    run: Run, bench: Workbench, prepared: StageRecord, trained: StageRecord
) -> StageRecord:
    """Measure base and candidate on test, pass judgement, and put the winner into `model/`."""
    config = run.config
    return run.stage(
        "evaluate",
        inputs={
            "dataset": prepared.digest,
            "trained": trained.digest,
            "model": bench.base_digest,
            "lexical": config.lexical.model_dump(mode="json"),
            "evaluation": config.evaluation.model_dump(mode="json"),
            "matryoshka": config.training.matryoshka,
            "reranker": judge_digest(reranker_path(config)),
            "general": general_digest(config),
            "seed": config.seed,
        },
        outputs=[FOLDER, VERDICT, MODEL],
        work=lambda _: _work(run, bench, prepared.facts, alpha=trained.facts["soup_alpha"]),
    )


def promoted_fusion(evaluated: StageRecord) -> FusionSpec:
    """The fusion that dev chose for the promoted embedder."""
    return FusionSpec(**evaluated.facts["choices"][f"{evaluated.facts['promoted']}_fusion"])


def _work(
    run: Run, bench: Workbench, dataset: Mapping[str, Any], *, alpha: float
) -> dict[str, Any]:
    config, qrels = run.config, bench.dataset.qrels["test"]
    encoder = encoder_of(run.folder / CANDIDATE, config.model)
    base = rank_systems(bench, bench.base, no_prompt=without_query_prompt(bench.base))
    given = base.fusion if _made_dev(bench) else None
    bare = without_query_prompt(encoder)
    tuned = rank_systems(bench, encoder, fusion=given, no_prompt=bare)
    rankings = _rankings(bench, base, tuned) | _unmixed(run, bench, alpha)
    per_query = {name: evaluate(ranking, qrels) for name, ranking in rankings.items()}
    tests = {
        **_resampling(config),
        "groups": query_groups(bench) if config.evaluation.cluster else None,
    }
    pairs = [*_COMPARED, *_reranked_pairs(per_query)]
    rows = difference_rows(per_query, pairs, metrics=(GATE_METRIC, "ndcg@10"), **tests)
    general, general_values = measure_general(
        general_sets(config, bench.dataset), bench.base, encoder, **_resampling(config)
    )
    latency = _latency(bench, encoder)
    verdict = _verdict(per_query, general, latency, config, tests)
    promoted = verdict.verdict == "promote"
    facts = {
        "verdict": verdict.verdict,
        "reason": verdict.rule,
        "systems": {name: found.means() for name, found in per_query.items()},
        "differences": rows,
        "slices": _slices(bench, per_query, dataset["splits"]["unseen_test_queries"], tests),
        "general": general,
        "dimensions": _dimensions(bench, encoder),
        "choices": {
            "base_fusion": asdict(base.fusion),
            "tuned_fusion": asdict(tuned.fusion),
            "lexical": bench.lexical.spec.describe(),
        },
        "promoted": "tuned" if promoted else "base",
    }
    evidence = evidence_of_run(
        bench, rankings, per_query, {"base": (bench.base, base), "tuned": (encoder, tuned)}
    )
    _write(run.folder / FOLDER, rankings, {"": per_query, **general_values}, facts, evidence)
    _promote(run, bench, tuned=promoted)
    artifacts.write_json(run.folder / VERDICT, verdict_document(verdict, differences=rows))
    # Not in metrics.json: the same command gives the same metrics to the last digit, and other times.
    return {**facts, "latency": latency.check(config.evaluation.max_latency_regression)}


def _resampling(config: Config) -> dict[str, Any]:
    """What every paired test of a run is given."""
    return {"seed": config.seed, "resamples": config.evaluation.resamples}


def query_groups(bench: Workbench) -> dict[str, str]:
    """Test queries by what they are about: documents, joined where they share a near-duplicate."""
    corpus = bench.dataset.corpus
    near = clusters(corpus, jaccard=NEAR_DUPLICATE).representative_of
    return document_groups(bench.dataset.qrels["test"], Groups(corpus, near).of)


def _latency(bench: Workbench, tuned: Encoder) -> Latency:
    """The time to encode a query with each model: all that can differ between two equal indexes."""
    texts = sampled(bench.dataset.queries_of("test").texts)
    times = encoding_times({"base": bench.base, "tuned": tuned}, texts)
    return paired_latency(times["base"], times["tuned"], seed=bench.config.seed)


def _dimensions(bench: Workbench, tuned: Encoder) -> list[dict[str, Any]]:
    """Both models by the first components of their vectors, where training aimed at shorter ones."""
    asked = bench.config.training.matryoshka
    if not asked:
        return []
    sizes = sorted({*asked, tuned.dimension}, reverse=True)
    sides = {
        "base": at_dimensions(bench, bench.base, sizes),
        "tuned": at_dimensions(bench, tuned, sizes),
    }
    return [{"dimension": n, **{name: by[n] for name, by in sides.items()}} for n in sizes]


def _verdict(
    per_query: Mapping[str, PerQuery],
    general: Sequence[Mapping[str, Any]],
    latency: Latency,
    config: Config,
    tests: Mapping[str, Any],
) -> Verdict:
    dense, hybrid = (
        compare(per_query[f"tuned_{kind}"], per_query[f"base_{kind}"], metric=GATE_METRIC, **tests)
        for kind in ("dense", "hybrid")
    )
    asked = config.evaluation
    return decide(
        dense,
        hybrid,
        metric=GATE_METRIC,
        thresholds=Thresholds(
            min_gain=asked.min_gain,
            max_forgetting=asked.max_forgetting,
            max_latency_regression=asked.max_latency_regression,
        ),
        general=general_deltas(general, metric=GATE_METRIC) if general else None,
        latency=latency,
    )


def _rankings(bench: Workbench, base: Systems, tuned: Systems) -> dict[str, Ranking]:
    """Each system by its name; those without the query prompt last."""
    sides = {"base": base, "tuned": tuned}
    rankings = {"bm25": bench.lexical_ranking("test", k=bench.config.evaluation.depth)}
    for name, systems in sides.items():
        rankings |= {f"{name}_dense": systems.dense, f"{name}_hybrid": systems.hybrid}
    for name, systems in sides.items():
        rankings[f"{name}_hybrid_rrf"] = systems.rrf
    rankings |= _reranked(bench, rankings)
    for name, systems in sides.items():
        if systems.no_prompt is not None:
            rankings[f"{name}_dense{_NO_PROMPT}"] = systems.no_prompt
    return rankings


def _unmixed(run: Run, bench: Workbench, alpha: float) -> dict[str, Ranking]:
    """Dense by the tuned weights alone, where the candidate is a soup and the config asks for it."""
    if alpha == 1 or not run.config.evaluation.unmixed:
        return {}
    from retrieval_ft.training.soup import unmix

    # Its weights are changed here, so its vectors are not those of any file: nothing is cached.
    encoder = encoder_of(run.folder / CANDIDATE, run.config.model, cached=False)
    own = unmix(bench.base.model.state_dict(), encoder.model.state_dict(), alpha=alpha)
    encoder.model.load_state_dict(own)
    index, queries = dense_index(encoder, bench.corpus_of("test")), bench.dataset.queries_of("test")
    ranking = dense_ranking(encoder, index, queries, k=run.config.evaluation.depth)
    return {f"tuned_dense{_UNMIXED}": ranking}


def _reranked(bench: Workbench, rankings: Mapping[str, Ranking]) -> dict[str, Ranking]:
    """BM25 and the hybrids in the order of a cross-encoder, where the config asks for it."""
    judge = load_judge(reranker_path(bench.config), bench.config)
    if judge is None:
        return {}
    chosen = {name: rankings[name] for name in ("bm25", "base_hybrid", "tuned_hybrid")}
    return reranked(chosen, bench, judge, first=bench.config.evaluation.rerank)


def _reranked_pairs(systems: Collection[str]) -> list[tuple[str, str]]:
    """What reranking brings each system, and what tuning still brings a reranked one."""
    found = [(name, name.removesuffix(RERANK)) for name in systems if name.endswith(RERANK)]
    both = f"tuned_hybrid{RERANK}", f"base_hybrid{RERANK}"
    return [*found, both] if found else []


def reranker_path(config: Config) -> Path | None:
    """The folder of the cross-encoder that reorders hits; None where none shall."""
    asked = config.evaluation
    return resolve(asked.cross_encoder, kind="cross-encoder").path if asked.rerank else None


def _made_dev(bench: Workbench) -> bool:
    """Whether dev queries were made from the corpus, as what the candidate was trained on.

    It is better at these than at any others, so they would give its side too much weight: on `cwe`
    all of it, and recall@10 of the hybrid fell from .55 to .52. The base's fusion is taken then.
    """
    queries = bench.dataset.queries
    return any("origin" in queries.metadata_of(q) for q in bench.dataset.qrels["dev"].query_ids)


def _slices(
    bench: Workbench,
    per_query: Mapping[str, PerQuery],
    unseen: Collection[str],
    tests: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The systems on the test queries by length, rare terms, overlap, source, seen documents, metadata."""
    slices = slices_on_test(bench, unseen)
    aside = (_NO_PROMPT, _UNMIXED, "_rrf", RERANK)
    shown = {name: found for name, found in per_query.items() if not name.endswith(aside)}
    return slice_rows(shown, slices, _COMPARED[:2], metrics=(GATE_METRIC,), **tests)


def _promote(run: Run, bench: Workbench, *, tuned: bool) -> None:
    target = run.folder / MODEL
    if tuned:
        with artifacts.atomic_folder(target) as fresh:
            shutil.copytree(run.folder / CANDIDATE, fresh, dirs_exist_ok=True)
        return
    from retrieval_ft.export.card import model_card
    from retrieval_ft.export.model import export_encoder

    base = run.config.model.base
    card = model_card(
        title=base,
        origin=f"The weights of {base} itself: tuning on {bench.dataset.name} was not better.",
        query_prompt=bench.base.prompts["query"],
        max_length=bench.base.max_length,
        facts={"tuned": "no"},
        separate_passages=bench.base.passage_encoder is not None,
    )
    export_encoder(bench.base, target, card=card)


def _write(
    folder: Path,
    rankings: Mapping[str, Ranking],
    measured: Mapping[str, Mapping[str, PerQuery]],
    facts: Mapping[str, Any],
    evidence: Mapping[str, Any],
) -> None:
    """Write rankings, facts and values per query; `measured` has the target's under no name."""
    with artifacts.atomic_folder(folder) as fresh:
        for name, ranking in rankings.items():
            write_trec_run(fresh / f"{name}.trec", ranking, tag=name)
        artifacts.write_json(fresh / "metrics.json", facts)
        artifacts.write_json(fresh / EVIDENCE, evidence)
        for name, per_query in measured.items():
            place = fresh / "general" / name if name else fresh
            write_per_query(place / PER_QUERY_FILE, per_query)
