"""What is seen of a training run while it goes: progress, speed, memory, and the signs to stop."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from transformers import TrainerCallback

from retrieval_ft.console import note
from retrieval_ft.ranks import any_says

_FIRST_PAIRS = 128
_LAST_PAIRS, _LAST_STEPS = 640, 20
_WORSE, _NEAR_CHANCE = 2.0, 0.8
_SHOWN = {"loss": "loss", "eval_recall@10": "dev recall@10", "eval_ndcg@10": "dev nDCG@10"}
_LOGGED = (
    *("step", "loss", "chance_loss", "grad_norm", "learning_rate"),
    *("tokens_per_second", "pairs_per_second", "peak_memory_bytes"),
)

_NOT_LOGGED = ("eval_samples_per_second", "eval_steps_per_second")  # of a dataset that is not there


def rows_of(history: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], ...]:
    """The Trainer's log as one row a step.

    Each has the step, the mean loss since the row before, what it would be by chance, norm of the
    last gradient before clipping, learning rate, tokens and pairs a second of training alone, and
    the peak memory so far. Where dev was scored the row has its scores too, as `eval_...`.
    """
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        row = rows.setdefault(int(entry["step"]), {})
        row |= {key: float(entry[key]) for key in _LOGGED if key in entry}
        if "eval_score" in entry:
            scores = (key for key in entry if key.startswith("eval_") and key not in _NOT_LOGGED)
            row |= {key: float(entry[key]) for key in scores}
    return tuple(row for row in rows.values() if len(row) > 1)


class Meter:
    """Tokens, pairs and seconds of the steps since it was read; the clock stands between."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._reset()

    def _reset(self) -> None:
        self._started: float | None = None
        self._pairs = self._steps = 0
        self._tokens = torch.zeros((), dtype=torch.int64, device=self._device)
        self._chance = torch.zeros((), device=self._device)

    def count(self, batch: Mapping[str, Any]) -> None:
        """Take a collated batch in, at the start of its step; nothing waits for the device."""
        if self._started is None:
            self._started = time.monotonic()
        self._steps += 1
        self._pairs += len(batch["target"])
        for part in batch["micro_batches"]:
            self._tokens += part["attention_mask"].sum()
        self._chance += (~batch["masked"]).sum(1).log().mean()

    def read(self) -> dict[str, float]:
        """What a row of the log says of them, the device having done its work; starts anew."""
        tokens, chance = self._tokens.item(), self._chance.item() / max(1, self._steps)
        seconds = time.monotonic() - (self._started or 0.0)
        found = {
            "chance_loss": chance,
            "tokens_per_second": tokens / seconds,
            "pairs_per_second": self._pairs / seconds,
            "peak_memory_bytes": float(peak_memory(self._device)),
        }
        self._reset()
        return found


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: tensors on a GPU, else the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def out_of_patience(log: Sequence[Mapping[str, float]], *, patience: int) -> bool:
    """Whether the last `patience` dev evaluations of a log all failed to beat the best before."""
    scores = [row["eval_score"] for row in log if "eval_score" in row]
    return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= patience


@dataclass(frozen=True)
class Stretch:
    """Steps `first` to `last` of a run and the means over them."""

    first: int
    last: int
    loss: float
    chance: float

    @property
    def steps(self) -> int:
        """How many."""
        return self.last - self.first + 1


def exploded(
    log: Sequence[Mapping[str, float]], sizes: Sequence[int]
) -> tuple[Stretch, Stretch] | None:
    """The start and the end of a run whose loss has exploded, else None.

    A loss that is no number is seen at its step. This is for weights that are ruined but finite:
    InfoNCE over normalised vectors is bounded, and a ruined model gives every text the same vector,
    so its loss ends at `chance_loss` (log of the candidates) with no gradient to come back by. It
    has exploded where the last steps (20 at least, with 640 pairs at least) average over .8 of
    that and over twice the first steps (128 pairs, in the warm-up, so nearly the base model's loss).

    An ordinary run cannot look so. Every stretch draws from the same pairs in random order, and
    training lowers their mean: where the end is near chance the base was near it or worse, and 128
    pairs with half the mean of all are more than 5 deviations off even where the loss of a pair
    deviates as much as its mean. Noise for labels starts above chance; tiny batches only make the stretches
    longer; hard negatives come in every stretch. The loss of a teacher has another scale, but one
    that does not grow twofold in training either.

    Args:
        log: rows with `step`, `loss` and `chance_loss`.
        sizes: pairs of each step of the plan.
    """
    stretches, before = [], 0
    for row in log:
        if "loss" in row:
            step = int(row["step"])
            stretches.append(Stretch(before + 1, step, row["loss"], row["chance_loss"]))
            before = step
    start = _joined(stretches, sizes, pairs=_FIRST_PAIRS, steps=1)
    end = _joined(stretches[::-1], sizes, pairs=_LAST_PAIRS, steps=_LAST_STEPS)
    if start is None or end is None or end.first <= start.last:
        return None
    bad = end.loss > _WORSE * start.loss and end.loss >= _NEAR_CHANCE * end.chance
    return (start, end) if bad else None


def _joined(
    stretches: Sequence[Stretch], sizes: Sequence[int], *, pairs: int, steps: int
) -> Stretch | None:
    """The first stretches together, as many as it takes to have so many pairs and steps."""
    for count in range(1, len(stretches) + 1):
        part = stretches[:count]
        total = sum(one.steps for one in part)
        if total >= steps and sum(sum(sizes[one.first - 1 : one.last]) for one in part) >= pairs:
            return Stretch(
                min(one.first for one in part),
                max(one.last for one in part),
                sum(one.loss * one.steps for one in part) / total,
                sum(one.chance * one.steps for one in part) / total,
            )
    return None


class Watch(TrainerCallback):
    """Reports progress, asks for rows and evaluations where they are due, and ends the run early.

    Patience is counted from the log, which a checkpoint holds: the Trainer's own callback would
    count from zero in a resumed run, which could then end elsewhere.
    """

    def __init__(self, stop: threading.Event, *, patience: int, sizes: Sequence[int]) -> None:
        self._stop, self._patience = stop, patience
        seen = enumerate(accumulate(sizes), start=1)
        self._first = next((step for step, pairs in seen if pairs >= _FIRST_PAIRS), 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint where the run ends, after the evaluation if one is due."""
        if state.global_step == state.max_steps:
            control.should_save = control.should_evaluate = True
        if any_says(self._stop.is_set()):
            self._stop.set()  # a signal to one process ends all of them at this step
            control.should_save = control.should_training_stop = True
        # A checkpoint has the log up to its step; the first pairs have a row of their own.
        if control.should_save or state.global_step == self._first:
            control.should_log = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop where dev no longer gets better."""
        if out_of_patience(state.log_history, patience=self._patience):
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Print the loss or the dev score."""
        shown = [f"{_SHOWN[key]} {value:.4f}" for key, value in logs.items() if key in _SHOWN]
        if shown:
            note(f"step {state.global_step} of {state.max_steps}: {', '.join(shown)}")
