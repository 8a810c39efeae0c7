"""Run commands as a user does: in this process, or in a child that a signal hits half-way."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

import retrieval_ft
from retrieval_ft.cli import app, main


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self):
        return json.loads(self.out)

    @property
    def redone(self):
        """The stages that were done and not taken from the record, in order."""
        return [stage["name"] for stage in self.document["stages"] if not stage["cached"]]


def cli(*words, stdin=None):
    """Run a command in this process; a crash of the command is a crash of the test."""
    found = CliRunner().invoke(app, [str(word) for word in words], input=stdin)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Outcome(found.exit_code, found.stdout, found.stderr)


def python(*words):
    """Run a fresh interpreter that can import the package, installed or not."""
    root = str(Path(retrieval_ft.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(run.returncode, run.stdout, run.stderr)


def in_child(*words, strike=None, number=signal.SIGINT):
    """Run a command in a process of its own.

    Args:
        words: of the command line.
        strike: "write:NAME" sends the process a signal while it writes a file whose path ends so;
            "step:N" sends it in the N-th training step; None sends none.
        number: of that signal.
    """
    # A fork server imports the heavy packages once for all children of the session.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sentence_transformers", "datasets", "faiss"])
    said = Path.cwd() / f"said-{os.urandom(4).hex()}"
    said.mkdir()
    home = os.environ["RETRIEVAL_FT_HOME"]
    child = context.Process(
        target=_command,
        args=([str(word) for word in words], Path.cwd(), said, home, strike, number),
    )
    child.start()
    child.join()
    out, err = ((said / name).read_text(encoding="utf-8") for name in ("out", "err"))
    return Outcome(child.exitcode, out, err)


def _command(words, folder, said, home, strike, number):
    os.chdir(folder)
    os.environ["RETRIEVAL_FT_HOME"] = home
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = (said / "out").open("w", encoding="utf-8")
    sys.stderr = (said / "err").open("w", encoding="utf-8")
    sys.argv = ["retrieval-ft", *words]
    if strike:
        kind, _, value = strike.partition(":")
        {"write": _strike_on_write, "step": _strike_at_step}[kind](value, number)
    try:
        main()
    finally:
        sys.stdout.close()
        sys.stderr.close()


def _strike_on_write(ending, number):
    from retrieval_ft import artifacts

    original = artifacts.atomic_open

    def striking(path, *rest):
        opened = original(path, *rest)
        if not path.as_posix().endswith(ending):
            return opened
        with opened as file:
            file.write(b"half" if "b" in file.mode else "half")
            os.kill(os.getpid(), number)
            raise RuntimeError("the signal should have ended this write")

    artifacts.atomic_open = striking


def _strike_at_step(step, number):
    from retrieval_ft.training.loss import BatchLoss

    original, seen = BatchLoss.forward, []

    def striking(self, batch):
        seen.append(None)
        if len(seen) == int(step):
            os.kill(os.getpid(), number)
        return original(self, batch)

    BatchLoss.forward = striking
