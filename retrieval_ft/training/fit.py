"""The training run itself, on sentence-transformers' Trainer.

The Trainer gives the loop, the optimizer, the schedule, checkpoints and resume; ours are the plan of
batches, the collator and the loss. A signal ends the run at the next step with a checkpoint.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from torch import nn

from retrieval_ft.config import TrainingConfig
from retrieval_ft.console import note
from retrieval_ft.ranks import any_says, from_main, ranks, share_weights, wait_for_all
from retrieval_ft.training.checkpoint import resumable
from retrieval_ft.training.collate import Collator
from retrieval_ft.training.loss import BatchLoss
from retrieval_ft.training.plan import Plan
from retrieval_ft.training.trackers import trackers
from retrieval_ft.training.trainer import DevScore, build_trainer
from retrieval_ft.training.watch import rows_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class FitResult:
    """What a run did; the model itself was changed in place to its best checkpoint."""

    steps: int
    planned_steps: int
    best_step: int
    best_score: float
    seconds: float
    log: tuple[dict[str, float], ...]
    """One row a logged step; see `rows_of`."""


def graph_token_budget(model: SentenceTransformer, *, memory: int, max_length: int) -> int:
    """Padded tokens of a batch whose activations fit in 40% of the memory, in bytes.

    A transformer layer keeps about 34 h + 5 a s bytes a token at 2 bytes a number (Korthikanti et
    al., https://arxiv.org/abs/2205.05198, eq. 1; h hidden size, a heads, s sequence length); doubled
    here for what autocast keeps in float32.
    """
    config = model[0].auto_model.config
    heads, hidden = config.num_attention_heads, config.hidden_size
    per_token = 2 * config.num_hidden_layers * (34 * hidden + 5 * heads * max_length)
    return max(max_length, int(0.4 * memory / per_token))


def fit(
    model: SentenceTransformer,
    plan: Plan,
    *,
    collator: Collator,
    loss: BatchLoss,
    dev: DevScore,
    config: TrainingConfig,
    learning_rate: float,
    folder: Path,
    seed: int,
    resume: bool,
    reports: Path | None = None,
) -> FitResult:
    """Train `model` in place and leave it at its best dev checkpoint.

    Of several processes (see `ranks`) each calls this with the same arguments. They train one model
    on the same batches, each encoding its share of the texts; only the first writes, scores dev and
    reports, and a signal to any of them ends all at the same step.

    Args:
        model: the model to train; `loss` and `collator` belong to it.
        plan: every batch, in order.
        collator: makes the tensors of a planned batch.
        loss: the scalar loss of a collated batch.
        dev: called at evenly spaced steps; larger `score` is better.
        config: schedule, evaluations, patience, dropout.
        learning_rate: peak of the schedule.
        folder: for checkpoints.
        seed: of dropout; the batches are in the plan already.
        resume: go on from the last whole checkpoint in `folder`; otherwise the folder is emptied.
        reports: folder for files of trackers (`report_to`); by default in `folder`.

    Raises:
        KeyboardInterrupt: a signal came; a checkpoint was written first.
        ConfigError: there is no tracker of a name in `report_to`.
        DependencyError: the package of a tracker is not installed.
        RetrievalFTError: the loss is no longer a number or has exploded, or memory does not suffice
            for one text at a time.
    """
    checkpoint = from_main(lambda: _start_from(folder, resume=resume))
    share_weights(model)
    _prepare(model, dropout=config.dropout)
    started = time.monotonic()
    with _signals() as stop:
        trainer = build_trainer(
            model,
            plan,
            collator=collator,
            loss=loss,
            dev=dev,
            config=config,
            learning_rate=learning_rate,
            folder=folder,
            seed=seed,
            stop=stop,
        )
        if checkpoint is None or not trainer.take_finished(checkpoint, patience=config.patience):
            names = config.report_to if ranks().main else ()
            for tracker in trackers(names, folder=reports or folder / "tensorboard"):
                trainer.add_callback(tracker)
            if checkpoint is not None:
                note(f"resuming training from {checkpoint.name.replace('-', ' ')}")
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if any_says(stop.is_set()):
        raise KeyboardInterrupt
    trainer.load_best()
    wait_for_all()  # what comes next may delete the checkpoints
    state = trainer.state
    model.eval()
    return FitResult(
        steps=state.global_step,
        planned_steps=plan.steps,
        best_step=int(state.best_global_step),
        best_score=float(state.best_metric),
        seconds=time.monotonic() - started,
        log=rows_of(state.log_history),
    )


def _start_from(folder: Path, *, resume: bool) -> Path | None:
    """The checkpoint to go on from; where there is none, the folder is emptied."""
    checkpoint = resumable(folder) if resume else None
    if checkpoint is None and folder.exists():
        shutil.rmtree(folder)
    return checkpoint


def _prepare(model: SentenceTransformer, *, dropout: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Let SIGINT and SIGTERM set an event; a second signal interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        note("stopping after this step, with a checkpoint (once more to stop at once)")
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
