"""sentence-transformers' Trainer, fed from the plan: our batches, our loss, our stop signal."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState

from retrieval_ft.config import TrainingConfig
from retrieval_ft.console import note
from retrieval_ft.errors import RetrievalFTError
from retrieval_ft.training.collate import Collator
from retrieval_ft.training.loss import BatchLoss
from retrieval_ft.training.plan import Plan

DevScore = Callable[[], Mapping[str, float]]
"""Scores the model being trained on dev; the key `score` decides which checkpoint is best."""


class PlannedTrainer(SentenceTransformerTrainer):
    """Takes its batches from a plan and its loss from the collated batch."""

    def __init__(
        self, plan: Plan, collator: Collator, batch_loss: BatchLoss, **rest: Any
    ) -> None:
        self._plan, self._collator, self._batch_loss = plan, collator, batch_loss
        # The base class wants a dataset; only its length is used.
        rows = Dataset.from_dict({"row": list(range(plan.steps))})
        super().__init__(train_dataset=rows, loss=batch_loss, **rest)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

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
        return self.accelerator.prepare(loader)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        """The loss of a collated batch.

        Raises:
            RetrievalFTError: it is not a number.
        """
        loss = self._batch_loss(inputs)
        if not torch.isfinite(loss):
            raise RetrievalFTError(
                f"training: the loss is {loss.item()} at step {self.state.global_step + 1}; "
                "lower training.learning_rate or set model.precision=fp32"
            )
        return (loss, {}) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the model alone: the base class would add a pickle of its arguments."""
        self.model.save_pretrained(output_dir, create_model_card=False)

    def _load_best_model(self) -> None:
        """Load it or fail: the base class would log the error and keep the last weights."""
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def take_finished(self, checkpoint: Path, *, patience: int) -> bool:
        """Take state and best weights of a run that patience had ended at this checkpoint, if so."""
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if not out_of_patience(state.log_history, patience=patience):
            return False
        self.state = state
        self._load_best_model()
        return True


class DevEvaluator(SentenceEvaluator):
    """Calls the dev score where the Trainer wants an evaluator."""

    primary_metric = "score"

    def __init__(self, dev: DevScore) -> None:
        super().__init__()
        self._dev = dev

    def __call__(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the model as it is now."""
        return dict(self._dev())


def out_of_patience(log: Sequence[Mapping[str, float]], *, patience: int) -> bool:
    """Whether the last `patience` dev evaluations of a log all failed to beat the best before."""
    scores = [row["eval_score"] for row in log if "eval_score" in row]
    return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= patience


class Watch(TrainerCallback):
    """Reports progress, evaluates the last step, and ends the run early.

    Patience is counted from the log, which a checkpoint holds: the Trainer's own callback would
    count from zero in a resumed run, which could then end elsewhere.
    """

    def __init__(self, stop: threading.Event, *, patience: int) -> None:
        self._stop, self._patience = stop, patience

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint where the run ends, after the evaluation if one is due."""
        if state.global_step == state.max_steps:
            control.should_save = control.should_evaluate = True
        if self._stop.is_set():
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop where dev no longer gets better."""
        if out_of_patience(state.log_history, patience=self._patience):
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Print the loss or the dev score."""
        names = {"loss": "loss", "eval_recall@10": "dev recall@10", "eval_ndcg@10": "dev nDCG@10"}
        shown = [f"{names[key]} {value:.4f}" for key, value in logs.items() if key in names]
        if shown:
            note(f"step {state.global_step} of {state.max_steps}: {', '.join(shown)}")


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
        max_grad_norm=config.max_grad_norm,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_score",
        greater_is_better=True,
        logging_steps=max(1, every // 4),
        disable_tqdm=True,
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
        callbacks=[Watch(stop, patience=config.patience)],
    )
