"""The main job, top to bottom: prepare > generate > mine > train > evaluate > index > report."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from retrieval_ft import __version__, artifacts
from retrieval_ft.config import Config
from retrieval_ft.console import note
from retrieval_ft.evaluation import report_markdown
from retrieval_ft.pipeline.evaluate import evaluate_run
from retrieval_ft.pipeline.general import general_folders
from retrieval_ft.pipeline.generate import generate
from retrieval_ft.pipeline.index import index_run
from retrieval_ft.pipeline.mine import mine_pairs
from retrieval_ft.pipeline.prepare import prepare
from retrieval_ft.pipeline.run import Run, StageRecord, open_run
from retrieval_ft.pipeline.train import CANDIDATE, train
from retrieval_ft.pipeline.tune import search_recipe, tuning_facts
from retrieval_ft.pipeline.workbench import Workbench
from retrieval_ft.pipeline.workers import check_device

_SIZES = ("name", "passages", "train_pairs", "train_queries", "dev_queries", "test_queries")
_MINED = ("scope", "pairs", "negatives", "origin", "rungs", "dropped", "false_negatives", "denoise")
_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE")
_PACKAGES = ("torch", "sentence-transformers", "transformers", "faiss-cpu", "numpy", "rank-bm25")


def run_all(config: Config, *, resume: bool, command: str, tune: int = 0) -> dict[str, Any]:
    """Do every stage that is not done yet and return the document that `--json` prints."""
    with open_run(config, resume=resume) as run:
        artifacts.write_json(run.folder / "env.json", environment())
        check_device(config.model.device)
        general_folders(config)  # a fault in their names is told now, not after the mining
        # 1. What is trained and measured on, checked and split.
        dataset, prepared = prepare(run)
        bench = Workbench(config, dataset)
        # 2. Pairs from the corpus itself, where labels are few or none.
        bench.dataset, generated = generate(run, bench, prepared)
        _say(prepared, generated)
        # 3. Hard negatives for every train pair.
        # 4. The candidate; checkpoint and soup are chosen on dev. Both again in each further round.
        mined, trained = _rounds(run, bench, generated, trials=tune)
        # 5. One look at test; the winner goes to model/.
        evaluated = evaluate_run(run, bench, generated, trained)
        # 6. Its index. After the gate, since the index belongs to the promoted embedder.
        index_run(run, bench, generated, evaluated)
        # 7. What a person reads.
        return _report(run, command, prepared, generated, mined, trained, evaluated)


def _rounds(
    run: Run, bench: Workbench, generated: StageRecord, *, trials: int
) -> tuple[StageRecord, StageRecord]:
    """Mine and train; from the second round on, negatives are mined with the model of the last."""
    tuned: str | None = None
    for number in range(1, run.config.mining.rounds):
        place = f"round-{number}/"
        pairs, mined = mine_pairs(run, bench, generated, place=place, tuned=tuned)
        train(run, bench, pairs, generated, mined, place=place)
        tuned = place + CANDIDATE
    pairs, mined = mine_pairs(run, bench, generated, tuned=tuned)
    if trials:
        run = search_recipe(run, bench, pairs, generated, mined, trials=trials)
    return mined, train(run, bench, pairs, generated, mined)


def run_mining(config: Config) -> dict[str, Any]:
    """Do the stages up to the mined pairs only."""
    with open_run(config, resume=False) as run:
        dataset, prepared = prepare(run)
        bench = Workbench(config, dataset)
        bench.dataset, generated = generate(run, bench, prepared)
        _say(prepared, generated)
        _, mined = mine_pairs(run, bench, generated)
        return {
            "schema_version": 1,
            "run": str(run.folder),
            **_data(prepared, generated),
            "mining": dict(mined.facts),
            "stages": run.timings,
        }


def environment() -> dict[str, Any]:
    """What the figures of a run depend on besides its inputs."""
    return {
        "retrieval_ft": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: version(name) for name in _PACKAGES},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _report(
    run: Run,
    command: str,
    prepared: StageRecord,
    generated: StageRecord,
    mined: StageRecord,
    trained: StageRecord,
    evaluated: StageRecord,
) -> dict[str, Any]:
    facts = evaluated.facts
    document: dict[str, Any] = {
        "schema_version": 1,
        "verdict": facts["verdict"],
        "reason": facts["reason"],
        "run": str(run.folder),
        **_data(prepared, generated),
        "base": run.config.model.base,
        "systems": facts["systems"],
        "differences": facts["differences"],
        "slices": facts["slices"],
        "forgetting": _forgetting(trained.facts, facts["general"]),
        "choices": {"soup_alpha": trained.facts["soup_alpha"], **facts["choices"]},
        "mining": {key: mined.facts[key] for key in _MINED if key in mined.facts},
        "training": _numbers(trained.facts),
        **tuning_facts(run),
        "truncation": mined.facts["truncation"],
        "command": command,
    }

    def work(_: str) -> dict[str, Any]:
        whole = {**document, "stages": run.timings}
        artifacts.write_text(run.folder / "report.md", report_markdown(whole))
        artifacts.write_json(run.folder / "report.json", whole)
        return {}

    run.stage(
        "report",
        inputs={"document": {key: value for key, value in document.items() if key != "command"}},
        outputs=["report.md", "report.json"],
        work=work,
    )
    return {**document, "stages": run.timings}


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


def _data(prepared: StageRecord, generated: StageRecord) -> dict[str, Any]:
    """What a document says of the data: sizes, what was cleaned, where the pairs came from."""
    facts, made = prepared.facts, generated.facts
    pairs = {"tier": facts["tier"]["reason"], "splits": made["splits"]["why"]}
    if "filters" in made:
        pairs |= {"kept and dropped by kind": made["filters"], "queries": made["generated_queries"]}
    return {
        "dataset": {key: made[key] for key in _SIZES if key in made},
        "hygiene": facts["hygiene"],
        "pairs": pairs,
        "warnings": _warnings(prepared, generated),
    }


def _warnings(prepared: StageRecord, generated: StageRecord) -> list[str]:
    made = generated.facts
    found = [*prepared.facts["warnings"], made["power"], *made["power_warnings"]]
    if made.get("generated_queries", {}).get("test"):
        found.append(
            "The test queries were made from the corpus, no person asked them: bring real ones "
            "(qrels/test.tsv) before you trust the verdict."
        )
    return found


def _say(prepared: StageRecord, generated: StageRecord) -> None:
    """Tell, before any training, what it will be done on and what the test set can tell."""
    note(prepared.facts["tier"]["reason"])
    for sentence in (generated.facts["splits"]["why"], *_warnings(prepared, generated)):
        note(sentence)


def _numbers(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if isinstance(value, int | float | str)}
