"""Several processes of one job, as torchrun and accelerate launch start them: one leads, the rest help.

The first process runs the whole pipeline and alone reads, decides and writes. The others wait for its
commands: to encode a share of many texts, or to take part in a training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_ft.config import TrainingConfig
from retrieval_ft.console import note
from retrieval_ft.errors import ConfigError, RetrievalFTError
from retrieval_ft.pipeline.crew import Crew

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder
    from retrieval_ft.training.collate import Collator
    from retrieval_ft.training.fit import FitResult
    from retrieval_ft.training.plan import Plan
    from retrieval_ft.training.trainer import DevScore

_CREW: ContextVar[Crew | None] = ContextVar("crew", default=None)
"""The crew that this process leads; none where it is the only one."""


@dataclass(frozen=True)
class Source:
    """A model folder that every process can load, and how."""

    path: Path
    settings: Mapping[str, Any]
    """Device, precision, prompts and the like, for `load_encoder`."""

    def load(
        self, *, cache_root: Path | None = None, passage_encoder: Encoder | None = None
    ) -> Encoder:
        """Load it; see `load_encoder`."""
        from retrieval_ft.encoder.encoder import load_encoder

        return load_encoder(
            self.path, **self.settings, cache_root=cache_root, passage_encoder=passage_encoder
        )


@dataclass(frozen=True)
class Fit:
    """A training as every process is given it; see `training.fit` for what the fields are."""

    source: Source
    training: TrainingConfig
    plan: Plan
    collator: Collator
    graph_tokens: int
    learning_rate: float
    folder: Path
    seed: int
    resume: bool

    def run(self, encoder: Encoder, *, dev: DevScore, reports: Path | None = None) -> FitResult:
        """Train an encoder, which `set_trainable` has made ready, in this process."""
        from retrieval_ft.training.fit import fit
        from retrieval_ft.training.loss import BatchLoss

        return fit(
            encoder.model,
            self.plan,
            collator=self.collator,
            loss=BatchLoss.of(encoder, self.training, graph_tokens=self.graph_tokens),
            dev=dev,
            config=self.training,
            learning_rate=self.learning_rate,
            folder=self.folder,
            seed=self.seed,
            resume=self.resume,
            reports=reports,
        )


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the one that leads."""
    return not launched() or os.environ["RANK"] == "0"


def lead_or_follow(command: Callable[[], None]) -> int:
    """Run a command in the first process, the others helping it; the exit code of all of them.

    Raises:
        RetrievalFTError: of the command in the first process; in another one what failed there.
        KeyboardInterrupt: in the first process.
    """
    from retrieval_ft.ranks import join, ranks

    crew = Crew(join(), rank=ranks().rank, size=ranks().size)
    if crew.rank:
        return crew.follow()
    note(f"{crew.size} processes share the work; this is the first, and speaks for all")
    before = _CREW.set(crew)
    code = 1
    try:
        command()
        code = 0
    except RetrievalFTError as error:
        code = error.exit_code
        raise
    except KeyboardInterrupt:
        code = 130
        raise
    finally:
        _CREW.reset(before)
        crew.dismiss(code)
    return code


def check_device(device: str) -> None:
    """Refuse a device that several processes would share.

    Raises:
        ConfigError: the device is one GPU by its number.
    """
    crew = _CREW.get()
    if crew and ":" in device:
        raise ConfigError(
            f"model.device: {device!r} is one GPU, and {crew.size} processes were started; use auto or "
            "cuda, and each process takes a GPU of its own"
        )


def shared(encoder: Encoder, source: Source) -> Encoder:
    """Let an encoder that stays as its folder has it encode many texts with the help of the others."""
    crew = _CREW.get()
    if crew:
        for side in filter(None, (encoder, encoder.passage_encoder)):
            side.helpers = partial(crew.encode, encoder, source)
    return encoder


def run_fit(job: Fit, encoder: Encoder, *, dev: DevScore, reports: Path | None = None) -> FitResult:
    """Train an encoder, which `set_trainable` has made ready, in all processes that there are."""
    crew = _CREW.get()
    if crew is None:
        return job.run(encoder, dev=dev, reports=reports)
    with crew.working("fit", job):
        return job.run(encoder, dev=dev, reports=reports)
