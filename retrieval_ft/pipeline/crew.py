"""How the processes of one job speak to each other: commands of the first, and what becomes of them.

A process may die, be interrupted or fail at any moment, and none of the others may then hang.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_ft.errors import DataError, GateNotPassed, RetrievalFTError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from retrieval_ft.encoder.encoder import Alone, Encoder, Role, Vectors
    from retrieval_ft.pipeline.workers import Fit, Source

_FEW = 32
"""Texts that are encoded faster than they are sent to another process."""
_IDLE = timedelta(days=30)
"""The longest that the first process works alone, mining say; where it dies the launcher ends the rest."""
_SOON_S = 5.0
"""Seconds in which a process hears of what has already happened to another."""
_FAILED, _STOP = "failed", "stop"


class Crew:
    """The processes of a job as one of them sees them.

    Commands are words in the launcher's store, so that the last one, `stop`, can be left there for
    a process that is busy or lost; what belongs to a command goes from process to process.
    """

    def __init__(self, store: Store, *, rank: int, size: int) -> None:
        from torch.distributed.distributed_c10d import PrefixStore

        self.rank, self.size = rank, size
        self._store = PrefixStore("crew", store)
        self._number = 0
        self._busy = False
        self._encoders: dict[tuple[Path, str], Encoder] = {}

    # The first process.

    @contextmanager
    def working(self, word: str, given: Any) -> Iterator[None]:
        """Have the others do a command while the block does this process's part of it.

        Raises:
            RetrievalFTError: another process failed, or one has not come back from a command before.
        """
        from torch import distributed

        if self._busy:
            raise RetrievalFTError(
                "the processes of this run are out of step since an error before; start it again, "
                "with --resume"
            )
        self._busy = True
        self._say(word)
        try:
            distributed.broadcast_object_list([given])
            yield
        except (RetrievalFTError, KeyboardInterrupt):
            self._busy = not self._all_ended()
            raise
        except RuntimeError as error:
            if not self._heard(_FAILED):
                raise
            failed = self._store.get(_FAILED).decode()
            raise RetrievalFTError(
                f"process {failed} of {self.size} failed; its own error says why"
            ) from error
        self._busy = False

    def encode(
        self,
        encoder: Encoder,
        source: Source,
        texts: Sequence[str],
        role: Role,
        alone: Alone,
    ) -> Vectors:
        """Encode texts, each process its share; float32 [n, dimension].

        Args:
            encoder: as loaded from the source; its fingerprint tells the others what to have.
            source: where they find it.
            texts: to encode.
            role: of the texts.
            alone: encodes texts in this process.
        """
        import torch
        from torch import distributed

        if self._busy or len(texts) < _FEW:
            return alone(texts, role)
        with self.working("encode", (source, encoder.fingerprint, texts, role)):
            own = alone(texts[:: self.size], role)
            vectors = np.empty((len(texts), own.shape[1]), np.float32)
            vectors[:: self.size] = own
            for rank in range(1, self.size):
                part = torch.from_numpy(np.empty_like(vectors[rank :: self.size]))
                if len(part):
                    distributed.recv(part, rank)
                    vectors[rank :: self.size] = part.numpy()
        return vectors

    def dismiss(self, code: int) -> None:
        """Let the others end with an exit code; the launcher's signals are of no use from here on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self._say(f"{_STOP} {code}")
        _leave_group(code)

    def _say(self, word: str) -> None:
        self._number += 1
        self._store.set(f"command/{self._number}", word)

    # The others.

    def follow(self) -> int:
        """Do what the first process says until it says stop; the exit code that it gives.

        Nothing is said meanwhile: the first process does.

        Raises:
            RetrievalFTError: what failed here, and not in the first process.
        """
        # An interrupt is the first process's to answer, which is sent one too.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with Path(os.devnull).open("w") as hole, redirect_stdout(hole), redirect_stderr(hole):
            try:
                return self._serve()
            except (RetrievalFTError, RuntimeError, OSError):
                self._store.set(_FAILED, f"{self.rank + 1}")
                code = self._ended_with()
                if code is None:
                    raise
                return code  # the first process failed, and so broke off what was done here

    def _serve(self) -> int:
        from torch import distributed

        work: dict[str, Callable[[Any], None]] = {"encode": self._encode, "fit": self._fit}
        while (word := self._next()) in work:
            given: list[Any] = [None]
            distributed.broadcast_object_list(given)
            try:
                work[word](given[0])
            except (RetrievalFTError, KeyboardInterrupt):
                if not self._all_ended():
                    raise
        code = _code(word)
        _leave_group(code)
        return code

    def _encode(self, given: tuple[Source, str, Sequence[str], Role]) -> None:
        import torch
        from torch import distributed

        source, fingerprint, texts, role = given
        own = texts[self.rank :: self.size]
        if own:
            encoder = self._encoder(source, fingerprint)
            distributed.send(torch.from_numpy(encoder.encode(own, role=role)), 0)

    def _encoder(self, source: Source, fingerprint: str) -> Encoder:
        key = (source.path, fingerprint)
        if key not in self._encoders:
            encoder = source.load()
            if encoder.fingerprint != fingerprint:
                raise DataError(f"{source.path}: not the model that the first process has loaded")
            self._encoders[key] = encoder
        return self._encoders[key]

    def _fit(self, job: Fit) -> None:
        from retrieval_ft.training.trainable import set_trainable

        encoder = job.source.load()
        set_trainable(encoder.model, job.training, seed=job.seed)
        job.run(encoder, dev=dict)

    def _next(self) -> str:
        self._number += 1
        key = f"command/{self._number}"
        self._store.wait([key], _IDLE)
        return self._store.get(key).decode()

    def _ended_with(self) -> int | None:
        """The exit code of the first process, where it ended or is about to."""
        if not self._heard(f"command/{self._number + 1}"):
            return None
        word = self._next()
        return _code(word) if word.startswith(_STOP) else None

    # All of them.

    def _all_ended(self) -> bool:
        """Whether all of them left the present command by an error, as they do by a common one."""
        places = [f"ended/{self._number}/{rank}" for rank in range(self.size)]
        self._store.set(places[self.rank], "")
        return self._heard(*places)

    def _heard(self, *keys: str) -> bool:
        """Whether others have left words in the store, or do so soon."""
        until = time.monotonic() + _SOON_S
        while not self._store.check(list(keys)):  # `wait` would print warnings when it gives up
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True


def _code(word: str) -> int:
    return int(word.removeprefix(_STOP))


def _leave_group(code: int) -> None:
    """Leave together; after an error the others may never come, and the end of the process does it."""
    from torch import distributed

    if code in (0, GateNotPassed.exit_code):
        distributed.destroy_process_group()
