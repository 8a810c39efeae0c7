"""The last stage: one document of everything that was measured, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval_ft import artifacts
from retrieval_ft.config import dump
from retrieval_ft.evaluation import (
    advice_rows,
    advise,
    assemble,
    facts_of,
    report_markdown,
)
from retrieval_ft.pipeline.environment import environment
from retrieval_ft.pipeline.evaluate import EVIDENCE, FOLDER, MODEL
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.train import LOG
from retrieval_ft.pipeline.tune import tuning_facts

if TYPE_CHECKING:
    from retrieval_ft.pipeline.workbench import Workbench

_SIZES = ("name", "passages", "train_pairs", "train_queries", "dev_queries", "test_queries")
_MINED = ("scope", "pairs", "negatives", "origin", "rungs", "dropped", "false_negatives", "denoise")


@dataclass(frozen=True)
class Stages:
    """The records of the stages before this one."""

    prepared: StageRecord
    generated: StageRecord
    mined: StageRecord
    trained: StageRecord
    evaluated: StageRecord
    indexed: StageRecord


def report(run: Run, bench: Workbench, stages: Stages, *, command: str) -> dict[str, Any]:
    """Write report.html, report.md and report.json; return the document that `--json` prints."""
    document = {**_document(run, stages), "command": command}

    def work(_: str) -> dict[str, Any]:
        from retrieval_ft.evaluation.html import report_html

        whole = {**document, "stages": run.timings}
        artifacts.write_json(run.folder / "report.json", whole)
        artifacts.write_text(run.folder / "report.md", report_markdown(whole))
        html = report_html(whole, _evidence(run, bench, stages))
        artifacts.write_text(run.folder / "report.html", html)
        return {}

    run.stage(
        "report",
        inputs={
            "document": {key: value for key, value in document.items() if key != "command"},
            "evaluated": stages.evaluated.digest,
        },
        outputs=["report.html", "report.md", "report.json"],
        work=work,
    )
    return {**document, "stages": run.timings}


def _document(run: Run, stages: Stages) -> dict[str, Any]:
    facts, trained, mined = stages.evaluated.facts, stages.trained.facts, stages.mined.facts
    document: dict[str, Any] = {
        "schema_version": 1,
        "verdict": facts["verdict"],
        "reason": facts["reason"],
        "run": str(run.folder),
        **data_facts(stages.prepared, stages.generated),
        "base": run.config.model.base,
        "systems": facts["systems"],
        "differences": facts["differences"],
        "slices": facts["slices"],
        "dimensions": facts["dimensions"],
        "forgetting": _forgetting(trained, facts["general"]),
        "choices": {"soup_alpha": trained["soup_alpha"], **facts["choices"]},
        "mining": {key: mined[key] for key in _MINED if key in mined},
        "training": _numbers(trained),
        **tuning_facts(run),
        "truncation": mined["truncation"],
        "efficiency": {**stages.indexed.facts["speed"], "latency_check": facts["latency"]},
    }
    measured = facts_of(document, source=str(run.folder))
    return {**document, "advice": advice_rows(advise(*assemble(measured, {}, source="a run")))}


def _evidence(run: Run, bench: Workbench, stages: Stages) -> dict[str, Any]:
    """What the page shows besides the document."""
    from retrieval_ft.export.loading import loading

    lines = (run.folder / LOG).read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    dev = [row for row in log if "eval_recall@10" in row]
    losses = [row for row in log if "loss" in row]
    speed = stages.indexed.facts
    return {
        **artifacts.read_json(run.folder / FOLDER / EVIDENCE),
        "training": {
            "steps": [row["step"] for row in losses],
            "loss": [row["loss"] for row in losses],
            "dev": [{"step": r["step"], "recall@10": r["eval_recall@10"]} for r in dev],
        },
        "loading": loading(
            str(run.folder / MODEL),
            query_prompt=speed["query_prompt"],
            separate_passages=(run.folder / MODEL / "passages").is_dir(),
        ),
        "config": dump(run.config),
        "environment": environment(),
        "hashes": {
            "dataset": stages.generated.digest,
            "mined pairs": stages.mined.digest,
            "trained weights": stages.trained.digest,
            "embedder fingerprint": speed["fingerprint"],
        },
    }


def _forgetting(trained: Mapping[str, Any], sets: list[dict[str, Any]]) -> dict[str, Any]:
    """Both axes: the general sets before and after, and the curve of the soup on dev."""
    general = trained.get("soup_general", {})
    base = {"target": trained["dev_base"]["recall@10"], "general": trained.get("general_dev_base")}
    curve = [
        {"alpha": float(alpha), "target": recall, "general": general.get(alpha)}
        for alpha, recall in trained["soup_dev"].items()
    ]
    return {
        "sets": sets,
        "alphas": [*curve, {"alpha": 0.0, **base}],
        "why": trained.get("soup_why", ""),
    }


def data_facts(prepared: StageRecord, generated: StageRecord) -> dict[str, Any]:
    """What a document says of the data: sizes, what was cleaned, where the pairs came from."""
    facts, made = prepared.facts, generated.facts
    pairs = {"tier": facts["tier"]["reason"], "splits": made["splits"]["why"]}
    if "filters" in made:
        pairs |= {"kept and dropped by kind": made["filters"], "queries": made["generated_queries"]}
    return {
        "dataset": {key: made[key] for key in _SIZES if key in made},
        "hygiene": facts["hygiene"],
        "pairs": pairs,
        "warnings": warnings_of(prepared, generated),
    }


def warnings_of(prepared: StageRecord, generated: StageRecord) -> list[str]:
    """What a reader must know before the figures."""
    made = generated.facts
    found = [*prepared.facts["warnings"], made["power"], *made["power_warnings"]]
    if made.get("generated_queries", {}).get("test"):
        found.append(
            "The test queries were made from the corpus, no person asked them: bring real ones "
            "(qrels/test.tsv) before you trust the verdict."
        )
    return found


def _numbers(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if isinstance(value, int | float | str)}
