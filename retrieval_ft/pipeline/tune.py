"""`--tune N`: a search over learning rate and epochs, each trial a training that dev judges.

Every finished trial is a file of the run directory, and the next one is a function of the seed, its
number and the trials before it: an interrupted or a longer search goes on where the last one ended.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_ft import __version__, artifacts
from retrieval_ft.config import Config, TrainingConfig
from retrieval_ft.console import note
from retrieval_ft.dataset import Pairs
from retrieval_ft.errors import DependencyError, RetrievalFTError
from retrieval_ft.pipeline.dry_run import TRAIN_COST, forward_tokens_per_second, training_cost
from retrieval_ft.pipeline.fitting import in_batch_only
from retrieval_ft.pipeline.pool import NDCG, RECALL, Pool
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.train import dev_pool, fit_encoder, trainee, training_inputs
from retrieval_ft.pipeline.workbench import Workbench, encoder_of

if TYPE_CHECKING:
    from retrieval_ft.training.recipe import Recipe

STAGE = "tune"
TRIALS = "tuning/trials.jsonl"
_RATE_SPAN = 4.0
_DRAWN = 4
"""Trials before the first that is guided by others: the recipe's own values and three at random."""
_SAMPLE = 200


@dataclass(frozen=True)
class Trial:
    """One training and what dev said of its best checkpoint."""

    number: int
    learning_rate: float
    epochs: int
    score: float
    """Recall@10, nDCG@10 deciding between equals; 0 for a training that failed."""
    recall: float = 0.0
    ndcg: float = 0.0
    best_step: int = 0
    steps: int = 0
    seconds: float = 0.0
    failed: bool = False
    """The loss was no number or exploded, mostly from a rate too high; the log says why."""


@dataclass(frozen=True)
class Space:
    """What is searched: the rate on a log scale, and the epochs."""

    learning_rate: tuple[float, float]
    epochs: tuple[int, int]
    start: tuple[float, int]
    """The recipe's own rate and epochs, which are tried first: the choice is never worse on dev."""


def search_recipe(
    run: Run,
    bench: Workbench,
    pairs: Pairs,
    prepared: StageRecord,
    mined: StageRecord,
    *,
    trials: int,
) -> Run:
    """Train `trials` times, and return the run under the config that dev likes best.

    The table of trials is in the facts of the stage `tune`, and in `tuning/trials.jsonl`.

    Raises:
        DependencyError: optuna is not installed.
        RetrievalFTError: the training under the recipe's own values failed.
    """
    inputs = training_inputs(run, bench, prepared, mined)
    search = artifacts.sha256_json({"version": __version__, **inputs})[:16]
    record = run.stage(
        STAGE,
        inputs={**inputs, "trials": trials},
        outputs=[TRIALS],
        work=lambda _: _work(run, bench, pairs, search=search, trials=trials),
    )
    best = record.facts["chosen"]
    tuned = copy.copy(run)  # the same records, and what follows under this config
    tuned.config = _with(run.config, learning_rate=best["learning_rate"], epochs=best["epochs"])
    return tuned


def tuning_facts(run: Run) -> dict[str, Any]:
    """The table of trials for the report, where this run made the search."""
    searched = any(stage["name"] == STAGE for stage in run.timings)
    return {"tuning": dict(run.record(STAGE).facts)} if searched else {}


def check_optuna() -> None:
    """Tell a missing package before the work starts.

    Raises:
        DependencyError: optuna is not installed.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            "--tune needs optuna: pip install 'retrieval-ft[tune]', or leave --tune out"
        ) from error


def _with(config: Config, *, learning_rate: float, epochs: int) -> Config:
    changed = {"learning_rate": learning_rate, "epochs": epochs}
    training = config.training.model_copy(update=changed)
    return config.model_copy(update={"training": training})


def _work(run: Run, bench: Workbench, pairs: Pairs, *, search: str, trials: int) -> dict[str, Any]:
    check_optuna()
    folder = run.folder / "tuning" / search
    pool = dev_pool(bench, size=run.config.training.dev_passages)
    recipe = _recipe(run.config.training, bench, pairs)
    space = _space(run.config.training, recipe)
    done = _finished(folder)[:trials]
    cost = _cost(run, bench, recipe, pairs=len(pairs), pool=len(pool.corpus))
    note(_budget(cost, space, trials=trials, done=len(done)))
    for number in range(len(done), trials):
        rate, epochs = propose(space, done, seed=run.config.seed)
        trial = _try(run, bench, pairs, pool, place=folder, number=number, rate=rate, epochs=epochs)
        artifacts.write_json(_file(folder, number), asdict(trial))
        done.append(trial)
        left = sum(one.seconds for one in done) / len(done) * (trials - number - 1)
        note(
            f"trial {number + 1} of {trials}: learning rate {rate:g}, epochs {epochs}: dev recall@10 "
            f"{trial.recall:.4f}; about {left / 60:.0f} minutes for the rest"
        )
    best = max(done, key=lambda trial: trial.score)  # of equals the first
    note(f"chosen on dev: learning rate {best.learning_rate:g}, epochs {best.epochs}")
    rows = [asdict(trial) for trial in done]
    artifacts.write_jsonl(run.folder / TRIALS, rows)
    return {"chosen": asdict(best), "space": asdict(space), "trials": rows}


def _space(training: TrainingConfig, recipe: Recipe) -> Space:
    """A quarter to four times the recipe's rate, half to one and a half times its epochs.

    With `max_steps` the epochs stay as they are.
    """
    rate, epochs = recipe.learning_rate, recipe.epochs
    around = 0 if training.max_steps else max(1, epochs // 2)
    return Space(
        learning_rate=(rate / _RATE_SPAN, rate * _RATE_SPAN),
        epochs=(max(1, epochs - around), epochs + around),
        start=(rate, epochs),
    )


def _recipe(training: TrainingConfig, bench: Workbench, pairs: Pairs) -> Recipe:
    from retrieval_ft.training.recipe import resolve_recipe

    pairs, made = in_batch_only(pairs, bench.dataset)
    hidden = bench.base.model[0].auto_model.config.hidden_size
    return resolve_recipe(training, pairs=len(pairs), hidden_size=hidden, made=made)


def propose(space: Space, done: Sequence[Trial], *, seed: int) -> tuple[float, int]:
    """Learning rate and epochs of the next trial, by Optuna's TPE sampler over those that are done.

    Tree-structured Parzen estimator: Bergstra et al. 2011, "Algorithms for hyper-parameter
    optimization".
    """
    import optuna
    from optuna.distributions import FloatDistribution, IntDistribution

    if not done:
        return space.start
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {
        "learning_rate": FloatDistribution(*space.learning_rate, log=True),
        "epochs": IntDistribution(*space.epochs),
    }
    sampler = optuna.samplers.TPESampler(seed=seed + len(done), n_startup_trials=_DRAWN)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in done:
        study.add_trial(
            optuna.trial.create_trial(
                params={"learning_rate": trial.learning_rate, "epochs": trial.epochs},
                distributions=distributions,
                value=trial.score,
            )
        )
    found = study.ask(distributions).params
    low, high = space.learning_rate
    return min(high, max(low, float(f"{found['learning_rate']:.3g}"))), found["epochs"]


def _try(
    run: Run,
    bench: Workbench,
    pairs: Pairs,
    pool: Pool,
    *,
    place: Path,
    number: int,
    rate: float,
    epochs: int,
) -> Trial:
    """Train the base model under these values; a failure of one trial is one of its results."""
    encoder = trainee(bench, run.config.training)
    training = _with(run.config, learning_rate=rate, epochs=epochs).training
    steps = run.folder / "checkpoints" / "steps" / f"{place.name}-{number:02}"
    try:
        fitted, _ = fit_encoder(
            run, bench, pairs, encoder, pool=pool, training=training, folder=steps
        )
    except RetrievalFTError as error:
        if number == 0 or type(error) is not RetrievalFTError:
            raise
        note(f"trial {number + 1} failed: {error}")
        fitted = None
    shutil.rmtree(steps, ignore_errors=True)
    if fitted is None:
        return Trial(number, rate, epochs, score=0.0, failed=True)
    best = next(row for row in fitted.log if row["step"] == fitted.best_step)
    return Trial(
        number,
        rate,
        epochs,
        score=fitted.best_score,
        recall=best[f"eval_{RECALL}"],
        ndcg=best[f"eval_{NDCG}"],
        best_step=fitted.best_step,
        steps=fitted.steps,
        seconds=round(fitted.seconds, 1),
    )


def _file(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:02}.json"


def _finished(folder: Path) -> list[Trial]:
    """The trials of this search that an earlier run finished, in order."""
    found: list[Trial] = []
    while (path := _file(folder, len(found))).is_file():
        found.append(Trial(**artifacts.read_json(path)))
    return found


def _cost(
    run: Run, bench: Workbench, recipe: Recipe, *, pairs: int, pool: int
) -> tuple[int, float]:
    """Steps of a trial and its seconds, from a second of the model."""
    training = run.config.training
    encoder = encoder_of(bench.base_path, run.config.model, cached=False)
    lengths = {
        "query": encoder.tokenize(bench.dataset.queries_of("train").texts[:_SAMPLE], "query"),
        "passage": encoder.tokenize(bench.dataset.corpus.passages[:_SAMPLE], "passage"),
    }
    cut = min(training.max_length, encoder.max_length)
    mean = {role: float(np.minimum(found.lengths, cut).mean()) for role, found in lengths.items()}
    steps, trained = training_cost(
        training, recipe, pairs=pairs, query_tokens=mean["query"], passage_tokens=mean["passage"]
    )
    tokens = TRAIN_COST * trained + training.evaluations * mean["passage"] * pool
    return steps, tokens / forward_tokens_per_second(encoder, bench)


def _budget(cost: tuple[int, float], space: Space, *, trials: int, done: int) -> str:
    """What the search will cost, in words."""
    steps, seconds = cost
    low, high = space.learning_rate
    return (
        f"tuning: {trials} trials of about {steps:,} steps, {seconds / 60:.1f} minutes each "
        f"({done} are done), then the training itself; learning rate {low:g} to {high:g}, epochs "
        f"{space.epochs[0]} to {space.epochs[1]}, judged by recall@10 on dev"
    )
