"""sentence-transformers' Trainer, fed from the plan: our batches, our loss, our stop signal."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
from torch.utils.data import DataLoader
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState

from retrieval_ft.config import TrainingConfig
from retrieval_ft.console import note
from retrieval_ft.errors import RetrievalFTError
from retrieval_ft.ranks import ranks, sum_gradients, wait_for_all
from retrieval_ft.training import checkpoint
from retrieval_ft.training.collate import Collator
from retrieval_ft.training.loss import BatchLoss
from retrieval_ft.training.plan import Plan
from retrieval_ft.training.trainable import load_trained, save_trained
from retrieval_ft.training.watch import Meter, Watch, exploded, out_of_patience

DevScore = Callable[[], Mapping[str, float]]
"""Scores the model being trained on dev; the key `score` decides which checkpoint is best."""


class PlannedTrainer(SentenceTransformerTrainer):
    """Takes its batches from a plan and its loss from the collated batch.

    Each of several processes is given every batch, whole (see `BatchLoss`), so nothing is wrapped in
    torch's DistributedDataParallel and no loader is cut into shards.
    """

    def __init__(self, plan: Plan, collator: Collator, batch_loss: BatchLoss, **rest: Any) -> None:
        self._plan, self._collator, self._batch_loss = plan, collator, batch_loss
        # The base class wants a dataset; only its length is used.
        rows = Dataset.from_dict({"row": list(range(plan.steps))})
        super().__init__(train_dataset=rows, loss=batch_loss, **rest)
        self._who = ranks()
        self.model._is_accelerate_prepared = True  # accelerate wraps no model that has its mark
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self._folder = Path(self.args.output_dir)
        self._meter = Meter(self.args.device)
        self._loss = torch.zeros(())

    def add_model_card_callback(self, *_: Any) -> None:
        """The base class would write examples of its dataset into a card that is never saved."""

    def get_train_dataloader(self) -> Any:
        """One planned batch an item, in the plan's order."""
        loader: DataLoader[Any] = DataLoader(
            self._plan.batches,  # type: ignore[arg-type]
            batch_size=1,
            shuffle=False,
            collate_fn=lambda items: self._collator(items[0]),
            pin_memory=torch.cuda.is_available(),
        )
        return loader if self._who.size > 1 else self.accelerator.prepare(loader)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One step; where its batch does not fit in memory, anew in smaller micro-batches.

        Raises:
            RetrievalFTError: not even one text at a time fits.
        """
        self._meter.count(inputs)
        if self._who.size > 1:
            # A dropout of its own for each process, the same in a resumed run with no state to save.
            facts = (self.args.seed, self.state.global_step, self._who.rank)
            torch.manual_seed(int(np.random.SeedSequence(facts).generate_state(1)[0]))
        while True:
            try:
                self._loss = super().training_step(model, inputs, num_items_in_batch)
            except torch.OutOfMemoryError as error:
                reason = str(error).partition(" GPU ")[0]
            else:
                sum_gradients(list(self.model.parameters()), self._who)
                return self._loss
            # Only here, where the error no longer holds the tensors of the step that failed.
            self._make_room(reason)

    def _make_room(self, reason: str) -> None:
        step = self.state.global_step + 1
        self.model.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        # Of several processes the others wait at the middle of this step and cannot do it again.
        limit = self._batch_loss.shrink() if self._who.size == 1 else None
        if limit is None:
            raise RetrievalFTError(
                f"training: out of memory at step {step} ({reason}); lower training.graph_tokens, "
                "training.max_length or training.batch_size"
            )
        note(f"step {step} is done anew after: {reason}")
        note(f"micro-batches have {limit:,} tokens at most from now on (training.graph_tokens)")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        """The loss of a collated batch."""
        loss = self._batch_loss(inputs)
        return (loss, {}) if return_outputs else loss

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip the gradient; stop before a step of the optimizer that ruins every weight.

        Raises:
            RetrievalFTError: the loss or the norm of the gradient is not a number.
        """
        norm = super()._clip_grad_norm(model)
        if not torch.isfinite(norm + self._loss):
            step = self.state.global_step + 1
            raise self._failed(
                f"the loss is {self._loss.item():.4g} at step {step}, its gradient's norm "
                f"{norm.item():.4g}",
                good=step - 1,
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add speed, memory and chance to a row of the log, and judge the loss.

        Raises:
            RetrievalFTError: the loss has exploded (see `exploded`).
        """
        training = "loss" in logs
        super().log({**logs, **self._meter.read()} if training else logs, start_time)
        if not training:
            return
        if found := exploded(self.state.log_history, self._plan.sizes):
            start, end = found
            raise self._failed(
                f"the loss has exploded: {end.loss:.2f} on average in steps {end.first} to {end.last}, "
                f"where a model that cannot tell has {end.chance:.2f}, after {start.loss:.2f} in steps "
                f"{start.first} to {start.last}",
                good=end.first - 1,
            )

    def _failed(self, what: str, *, good: int) -> RetrievalFTError:
        """The error for a run that went wrong after a step."""
        last = checkpoint.newest(self._folder, until=good)
        where = f"the last good checkpoint is {last}" if last else "no checkpoint was written yet"
        return RetrievalFTError(
            f"training: {what}; {where}. Train anew with a lower training.learning_rate (now "
            f"{self.args.learning_rate:g}), or with model.precision=fp32"
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint that appears whole: the base class writes it file by file in place."""
        step = self.state.global_step
        best = self.state.best_global_step or step
        if self._who.main:
            staged = checkpoint.staged(self._folder, step)
            self._save(str(staged))
            self._save_optimizer_and_scheduler(str(staged))
            self._save_rng_state(str(staged))
            self.state.save_to_json(str(staged / TRAINER_STATE_NAME))
            checkpoint.finish(self._folder, step, best=best)
        wait_for_all()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save what is trained alone: the base class would add a pickle of its arguments."""
        save_trained(self.model, Path(str(output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(self.model, Path(resume_from_checkpoint))

    def load_best(self) -> None:
        """Load the best checkpoint or fail: the base class would keep the last weights.

        By its step, since a run directory may have been moved since it was written.
        """
        best = checkpoint.place_of(self._folder, self.state.best_global_step)
        self._load_from_checkpoint(str(best))

    def take_finished(self, found: Path, *, patience: int) -> bool:
        """Take the state of a run that patience had ended at this checkpoint, if it had."""
        state = TrainerState.load_from_json(str(found / TRAINER_STATE_NAME))
        if not out_of_patience(state.log_history, patience=patience):
            return False
        self.state = state
        return True


class DevEvaluator(SentenceEvaluator):
    """Calls the dev score where the Trainer wants an evaluator."""

    primary_metric = "score"

    def __init__(self, dev: DevScore) -> None:
        super().__init__()
        self._dev = dev

    def __call__(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the model as it is now; of several processes the first is asked, and tells the others."""
        return dict(self._dev())


def build_trainer(
    model: Any,
    plan: Plan,
    *,
    collator: Collator,
    loss: BatchLoss,
    dev: DevScore,
    config: TrainingConfig,
    learning_rate: float,
    folder: Path,
    seed: int,
    stop: threading.Event,
) -> PlannedTrainer:
    """Set the Trainer up: AdamW, linear decay after a warm-up, best checkpoint by dev score."""
    every = max(1, math.ceil(plan.steps / config.evaluations))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,  # the plan holds all epochs
        learning_rate=learning_rate,
        warmup_steps=round(config.warmup_share * plan.steps),
        weight_decay=config.weight_decay,
        optim="adamw_torch_fused",
        max_grad_norm=config.max_grad_norm,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=every,
        save_steps=every,
        metric_for_best_model="eval_score",
        greater_is_better=True,
        logging_steps=max(1, every // 4),
        logging_nan_inf_filter=False,  # looked at before, and the filter would wait for the device
        disable_tqdm=True,
        dataloader_drop_last=True,  # said of a loader that is not used; else a warning about it
        report_to="none",
        seed=seed,
        use_cpu=torch.device(model.device).type == "cpu",
    )
    return PlannedTrainer(
        plan,
        collator,
        loss,
        model=model,
        args=arguments,
        evaluator=DevEvaluator(dev),
        callbacks=[Watch(stop, patience=config.patience, sizes=plan.sizes)],
    )
