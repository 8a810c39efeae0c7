"""The main job, top to bottom: prepare > generate > mine > train > evaluate > index > report."""

from __future__ import annotations

from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.config import Config
from retrieval_ft.console import note
from retrieval_ft.pipeline.environment import environment
from retrieval_ft.pipeline.evaluate import evaluate_run
from retrieval_ft.pipeline.general import general_folders
from retrieval_ft.pipeline.generate import generate
from retrieval_ft.pipeline.index import index_run
from retrieval_ft.pipeline.mine import mine_pairs
from retrieval_ft.pipeline.prepare import prepare
from retrieval_ft.pipeline.report import Stages, data_facts, report, warnings_of
from retrieval_ft.pipeline.run import Run, StageRecord, open_run
from retrieval_ft.pipeline.train import CANDIDATE, train
from retrieval_ft.pipeline.tune import search_recipe
from retrieval_ft.pipeline.workbench import Workbench
from retrieval_ft.pipeline.workers import check_device


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
        indexed = index_run(run, bench, generated, evaluated)
        # 7. What a person reads.
        stages = Stages(prepared, generated, mined, trained, evaluated, indexed)
        return report(run, bench, stages, command=command)


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
            **data_facts(prepared, generated),
            "mining": dict(mined.facts),
            "stages": run.timings,
        }


def _say(prepared: StageRecord, generated: StageRecord) -> None:
    """Tell, before any training, what it will be done on and what the test set can tell."""
    note(prepared.facts["tier"]["reason"])
    for sentence in (generated.facts["splits"]["why"], *warnings_of(prepared, generated)):
        note(sentence)
