"""`evaluate` on its own: embedders, BM25, hybrids, rerankers and run files of other tools, compared.

It measures on a run, on any dataset with any models, or on nothing but judgements and run files.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.config import Config
from retrieval_ft.console import note
from retrieval_ft.dataset import Dataset, Qrels, Ranking
from retrieval_ft.errors import ConfigError
from retrieval_ft.evaluation import (
    PerQuery,
    check_run,
    difference_rows,
    evaluate,
    read_qrels,
    read_trec_run,
    slice_rows,
    smallest_detectable,
)
from retrieval_ft.index import FusionSpec
from retrieval_ft.pipeline import prepare
from retrieval_ft.pipeline.evaluate import MODEL, promoted_fusion, query_groups
from retrieval_ft.pipeline.evidence import evidence_of
from retrieval_ft.pipeline.index import build, index_spec
from retrieval_ft.pipeline.judge import load_judge
from retrieval_ft.pipeline.judgements import measurable
from retrieval_ft.pipeline.measured_folder import check_out, identity_of, write_measured
from retrieval_ft.pipeline.ranked import Models, find_models, rank_all
from retrieval_ft.pipeline.run import Run
from retrieval_ft.pipeline.sliced import slices_on_test
from retrieval_ft.pipeline.standalone import model_path, run_of
from retrieval_ft.pipeline.systems import (
    BM25,
    DENSE,
    HYBRID,
    NO_MODEL,
    Asked,
    System,
    pairs,
    plan,
    plan_of_runs,
)
from retrieval_ft.pipeline.timing import index_speed
from retrieval_ft.pipeline.workbench import Workbench, encoder_of

METRICS = ("recall@10", "ndcg@10")
"""What is tested: the gate's metric, and one that sees the order."""
_SHOWN = 4
"""Pairs of systems whose differences the page draws query by query."""


@dataclass(frozen=True)
class _Measured:
    """What was measured, before it becomes a document."""

    about: dict[str, Any]
    """Model, dataset, runs, choices, slices: keys of the document beside the figures."""
    rankings: Mapping[str, Ranking]
    qrels: Qrels
    dataset: Dataset | None
    groups: Mapping[str, str] | None
    per_query: Mapping[str, PerQuery]


def evaluate_systems(
    config: Config, target: Path | None, asked: Asked, *, command: str = ""
) -> dict[str, Any]:
    """Measure systems on the test split and compare them.

    Args:
        config: what to measure on and how.
        target: a run directory, or the config of one, means its data and its promoted model;
            otherwise the base of the config. None with `asked.qrels`: run files alone.
        asked: which systems, against what, and where to write it.
        command: how this was asked for, for the report.

    Returns:
        A results document: means of each system, paired differences, slices, choices.

    Raises:
        ConfigError: the systems cannot be named or compared so, or there is nothing to measure.
        DataError: a faulty dataset, run file or judgement.
        DependencyError: a model, a package or an endpoint is not to be had.
    """
    check_out(asked.out)
    alone = target is None and asked.qrels is not None
    systems = _plan_of_files(asked) if alone else plan(asked)
    tests: dict[str, Any] = {"seed": config.seed, "resamples": config.evaluation.resamples}
    found = _files(asked) if alone else _corpus(config, target, asked, systems, tests)
    tested = pairs(systems, against=asked.against)
    rows = difference_rows(found.per_query, tested, metrics=METRICS, groups=found.groups, **tests)
    for row in rows:
        sides = found.per_query[row["system"]], found.per_query[row["against"]]
        row["detectable"] = _detectable(*sides, metric=row["metric"], groups=found.groups)
    document = {
        "schema_version": 1,
        **found.about,
        "systems": {name: values.means() for name, values in found.per_query.items()},
        "differences": rows,
        "references": {one.name: one.against for one in systems if one.against},
        **({"command": command} if command else {}),
    }
    if asked.out:
        known = found.dataset
        evidence = evidence_of(
            found.rankings,
            found.per_query,
            found.qrels,
            pairs=tested[:_SHOWN],
            texts=None if known is None else (known.corpus, known.queries),
            seed=config.seed,
        )
        write_measured(
            asked.out,
            document,
            found.rankings,
            found.per_query,
            found.qrels,
            identity=identity_of(known, found.qrels),
            evidence=evidence,
        )
    return document


def _plan_of_files(asked: Asked) -> tuple[System, ...]:
    """The plan without a corpus; what needs one is refused."""
    given = {
        "--with": asked.models,
        "--endpoint": asked.endpoints,
        "--rerank": asked.rerank,
        "--cluster": asked.cluster,
        "--time": asked.time,
        "--model": asked.model not in (None, NO_MODEL),
    }
    if needing := [option for option, value in given.items() if value]:
        raise ConfigError(
            f"{', '.join(needing)}: needs a corpus; name a dataset folder, a run or a config beside "
            "--qrels"
        )
    if not asked.runs:
        raise ConfigError(
            "--qrels: without a target there are only run files to score; give them as --run NAME=FILE, "
            "or name a dataset folder, a run or a config"
        )
    return plan_of_runs(asked)


def _files(asked: Asked) -> _Measured:
    """Run files against judgements: there is no corpus and no model."""
    qrels = read_qrels(asked.qrels or Path())
    without = sum(not qrels.relevant(q) for q in qrels.query_ids)
    rankings, runs = _read_runs(asked, qrels, None)
    per_query = {name: evaluate(ranking, qrels) for name, ranking in rankings.items()}
    about = {
        "model": NO_MODEL,
        "dataset": {
            "name": (asked.qrels or Path()).stem,
            "queries": len(qrels) - without,
            "dropped": {"queries_without_relevant_passage": without} if without else {},
        },
        "runs": runs,
        "choices": {},
    }
    return _Measured(about, rankings, qrels, None, None, per_query)


def _corpus(
    config: Config,
    target: Path | None,
    asked: Asked,
    systems: Sequence[System],
    tests: Mapping[str, Any],
) -> _Measured:
    """All systems over the corpus of a target."""
    run = run_of(config, target)
    dataset, dropped, warnings = measurable(config, run, asked.qrels)
    for sentence in warnings:
        note(sentence)
    qrels = dataset.qrels["test"]
    given, runs = _read_runs(asked, qrels, dataset)
    primary = None if asked.model == NO_MODEL else model_path(config, run, asked.model)
    models = find_models(asked, primary)
    bench = Workbench(config, dataset)
    # Dev of a run may be made from its corpus: the run's own choice is the one to measure.
    promoted = run is not None and primary == run / MODEL
    fusion = promoted_fusion(Run(config, resume=False).record("evaluate")) if promoted else None
    ranked, choices = rank_all(bench, models, first=asked.rerank, fusion=fusion)
    ranked |= given
    rankings = {one.name: ranked[one.name] for one in systems}
    per_query = {name: evaluate(ranking, qrels) for name, ranking in rankings.items()}
    groups = query_groups(bench) if asked.cluster else None
    train = dataset.qrels.get("train")
    about: dict[str, Any] = {
        "model": str(primary) if primary else NO_MODEL,
        "dataset": {
            "name": dataset.name,
            "passages": len(dataset.corpus),
            "queries": len(qrels),
            **({"train_pairs": train.pair_count} if train else {}),
            "dropped": dropped,
        },
        "choices": choices,
    }
    optional = {"models": models.shown(), "warnings": warnings, "runs": runs}
    about |= {key: value for key, value in optional.items() if value}
    if primary:
        unseen = _unseen(config) if promoted and asked.qrels is None else None
        if asked.time:
            about["efficiency"] = _speed(bench, primary, models, asked, choices["fusion"])
        about["slices"] = _slices(bench, per_query, unseen, {**tests, "groups": groups})
    return _Measured(about, rankings, qrels, dataset, groups, per_query)


def _read_runs(
    asked: Asked, qrels: Qrels, dataset: Dataset | None
) -> tuple[dict[str, Ranking], dict[str, Any]]:
    """The run files, checked, and what each leaves out."""
    rankings, facts = {}, {}
    known = None if dataset is None else dataset.corpus.index_of
    judged = sum(bool(qrels.relevant(q)) for q in qrels.query_ids)
    for name, path in asked.runs.items():
        ranking = read_trec_run(path)
        absent = len(check_run(ranking, qrels, corpus_ids=known, name=str(path)))
        unjudged = sum(not qrels.relevant(q) for q in ranking.hits)
        if absent:
            note(f"{name}: {path} has no result for {absent:,} of {judged:,} queries; they count 0")
        if unjudged:
            note(
                f"{name}: {path} ranks {unjudged:,} queries that are not judged; they do not count"
            )
        rankings[name] = ranking
        facts[name] = {
            "file": str(path),
            "sha256": artifacts.sha256_file(path),
            "absent": absent,
            "unjudged": unjudged,
        }
    return rankings, facts


def _speed(
    bench: Workbench, primary: Path, models: Models, asked: Asked, fusion: Mapping[str, Any]
) -> dict[str, Any]:
    """Times of the primary model's systems, over an index in memory."""
    config, corpus = bench.config, bench.dataset.corpus
    encoder = encoder_of(primary, config.model)
    spec = index_spec(config, encoder, place=str(primary), fusion=FusionSpec(**fusion))
    queries = bench.dataset.queries_of("test")
    judge = load_judge(models.reranker, config, cached=False)
    return index_speed(
        build(corpus, encoder, spec=spec, queries=queries),
        encoder,
        queries=queries.texts,
        passages=corpus.passages,
        rerank=(judge, asked.rerank) if judge else None,
    )


def _unseen(config: Config) -> Sequence[str]:
    """Test queries about documents that the training of a run did not know."""
    account = artifacts.read_json(config.run_folder / prepare.FOLDER / "account.json")
    stage = "prepare" if account["tier"]["name"] == "labels" else "generate"
    facts = Run(config, resume=False).record(stage).facts
    found: Sequence[str] = facts["splits"]["unseen_test_queries"]
    return found


def _slices(
    bench: Workbench,
    per_query: Mapping[str, PerQuery],
    unseen: Sequence[str] | None,
    tests: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The primary hybrid against its two sides, slice by slice."""
    shown = {name: per_query[name] for name in (BM25, DENSE, HYBRID)}
    compared = ((HYBRID, DENSE), (HYBRID, BM25))
    slices = slices_on_test(bench, unseen)
    return slice_rows(shown, slices, compared, metrics=METRICS[:1], **tests)


def _detectable(
    system: PerQuery, against: PerQuery, *, metric: str, groups: Mapping[str, str] | None
) -> float:
    """Half-width of the 95% interval that queries with such differences give.

    With groups the deviation is that of their sums (Cameron and Miller 2015, "A Practitioner's Guide
    to Cluster-Robust Inference", for a mean): sqrt(sum over groups of (sum of d - mean)^2 / n).
    """
    d = system.of(metric) - against.of(metric)
    of = groups or {}
    sums: dict[str, float] = defaultdict(float)
    for query_id, off in zip(system.query_ids, (d - d.mean()).tolist(), strict=True):
        sums[of.get(query_id, query_id)] += off
    deviation = math.sqrt(sum(off * off for off in sums.values()) / len(d))
    return smallest_detectable(deviation, len(d))
