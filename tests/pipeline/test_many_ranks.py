"""The job in two processes, as a launcher starts them, beside the same job in one."""

import functools
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path

import driver
import pytest
import torch
from driver import Outcome, cli, python

from retrieval_ft.errors import DataError
from retrieval_ft.pipeline import crew

_SECONDS = 120


def launch(work, *given):
    """Run `work(rank, *given)` as two processes of one launcher, which keeps their store.

    Returns:
        Exit code, stdout and stderr of each. A process that does not end is a failure.
    """
    from torch.distributed import TCPStore

    store = TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=_SECONDS)
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sentence_transformers", "datasets", "faiss"])
    said = Path.cwd() / f"said-{os.urandom(4).hex()}"
    members = []
    for rank in range(2):
        (said / f"{rank}").mkdir(parents=True)
        place = (rank, store.port, said / f"{rank}", Path.cwd(), os.environ["RETRIEVAL_FT_HOME"])
        members.append(context.Process(target=_member, args=(place, work, given)))
        members[-1].start()
    found = []
    for rank, member in enumerate(members):
        member.join(_SECONDS)
        if member.exitcode is None:
            for one in members:
                one.kill()
            pytest.fail(f"process {rank} hangs")
        words = ((said / f"{rank}" / name).read_text(encoding="utf-8") for name in ("out", "err"))
        found.append(Outcome(member.exitcode, *words))
    return found


def _member(place, work, given):
    rank, port, said, folder, home = place
    os.chdir(folder)
    os.environ |= {
        "RETRIEVAL_FT_HOME": home,
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "RANK": f"{rank}",
        "LOCAL_RANK": f"{rank}",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": f"{port}",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = (said / "out").open("w", encoding="utf-8")
    sys.stderr = (said / "err").open("w", encoding="utf-8")
    try:
        work(rank, *given)
    finally:
        sys.stdout.close()
        sys.stderr.close()


def command(rank, words, trouble=None):
    """Run a command line; `trouble(rank)` is called before."""
    if trouble:
        trouble(rank)
    sys.argv = ["retrieval-ft", *words]
    crew._SOON_S = 1.0
    driver.main()


def torchrun(*words):
    """The same under the real launcher."""
    return python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *words)


def files(folder):
    """Names of all files; that of a segment has a hash of vectors, which differ by rounding."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return {re.sub(r"segments/(\d+)-\w+", r"segments/\1", name) for name in names}


def close(found, expected):
    """Whether two JSON values are the same but for 1e-5 in their numbers."""
    if isinstance(expected, dict):
        same = isinstance(found, dict) and found.keys() == expected.keys()
        return same and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        return found == pytest.approx(expected, abs=1e-5)
    return found == expected


MEASURED = ("verdict", "systems", "differences", "slices", "forgetting", "choices", "mining")


def assert_same_job(found, expected):
    for part in MEASURED:
        assert close(found[part], expected[part]), part
    assert [s["name"] for s in found["stages"]] == [s["name"] for s in expected["stages"]]
    assert found["training"]["steps"] == expected["training"]["steps"]
    assert found["training"]["best_step"] == expected["training"]["best_step"]


@pytest.fixture
def own_home(fresh, monkeypatch):
    """No vectors are in the cache yet, so that all of them are made."""
    monkeypatch.setenv("RETRIEVAL_FT_HOME", str(fresh / "home"))
    return fresh


def no_file_from_the_second(rank):
    """Let the system refuse every byte that the second process writes to a file."""
    if rank:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def failing_encoder(rank):
    if rank:
        from retrieval_ft.encoder.encoder import Encoder

        def encode(self, texts, *, role):
            raise DataError("no vectors to be had")

        Encoder.encode = encode


def failing_step(rank, *, of=1, how="memory"):
    """Let one process run out of memory, be killed, or write to a full disk, at its third step."""
    if rank != of:
        return
    from retrieval_ft.training.loss import BatchLoss

    original, seen = BatchLoss.forward, []

    def forward(self, batch):
        seen.append(None)
        if len(seen) == 3:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise torch.OutOfMemoryError("out of memory")
        return original(self, batch)

    BatchLoss.forward = forward


def interrupted(rank):
    if rank:
        driver._strike_at_step(30, signal.SIGINT)


def interrupted_mining(rank):
    if not rank:
        driver._strike_on_write("pairs.jsonl", signal.SIGINT)


def interrupted_encoding(rank):
    if not rank:
        from retrieval_ft.encoder.encoder import Encoder

        original = Encoder._encode

        def encode(self, *given, **rest):
            os.kill(os.getpid(), signal.SIGINT)
            return original(self, *given, **rest)

        Encoder._encode = encode


def second_trial_fails(rank):
    if not rank:
        from retrieval_ft.pipeline import tune

        tune.propose = lambda space, done, *, seed: (1e30, 2) if done else space.start


STRIKING = """
import os, signal, time
from retrieval_ft.cli import run_command
from retrieval_ft.training.loss import BatchLoss

original, seen = BatchLoss.forward, []

def forward(self, batch):
    seen.append(None)
    if len(seen) == 30 and os.environ["RANK"] == "0":
        os.kill(os.getppid(), signal.SIGINT)
    if len(seen) >= 30:
        time.sleep(0.2)  # until the launcher has passed it on
    return original(self, batch)

BatchLoss.forward = forward
run_command("train")
"""
"""The job with a launcher that is interrupted in the 30th step."""


def test_torchrun_does_the_job_of_one_process(own_home, _finished, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    found = torchrun("-m", "retrieval_ft.train", "tiny.yaml", "--json")
    assert found.code == 0, found.err
    assert_same_job(found.document, _finished[1].document)
    assert files("runs/tiny") == files(_finished[0] / "runs/tiny")
    environment = json.loads(Path("runs/tiny/env.json").read_text(encoding="utf-8"))
    assert environment["variables"]["WORLD_SIZE"] == "2"


@pytest.mark.parametrize(
    "settings",
    [
        ["training.freeze_docs=true"],
        ["training.method=lora", "training.prompt_dropout=0.3"],
        ["training.loss=listwise", "training.teacher=bm25", "training.graph_tokens=1"],
        ["mining.rounds=2"],
    ],
)
def test_two_processes_do_any_job_and_the_second_says_and_writes_nothing(own_home, settings):
    words = ["train", "tiny.yaml", "--json", "--set", "training.epochs=4"]
    words += [word for setting in settings for word in ("--set", setting)]
    alone = cli(*words, "--name", "alone")
    first, second = launch(command, [*words, "--name", "two"], no_file_from_the_second)
    assert (first.code, second.code) == (alone.code, alone.code), first.err + second.err
    assert (second.out, second.err) == ("", "")
    assert_same_job(first.document, alone.document)
    assert files("runs/two") == files("runs/alone")


@pytest.mark.parametrize("words", [["mine"], ["evaluate"], ["index", "--out", "built"]])
def test_other_commands_share_their_encoding_too(own_home, words):
    words = [*words, "tiny.yaml", "--json"]
    first, second = launch(command, words, no_file_from_the_second)
    assert first.code == second.code == 0, first.err + second.err
    assert (second.out, second.err) == ("", "")
    shutil.rmtree("home")
    shutil.rmtree("runs", ignore_errors=True)
    alone = cli(*words).document
    found = first.document
    for document in (found, alone):
        document.pop("stages", None)  # their seconds
        document.pop("command", None)
    assert close(found, alone)


def test_a_base_that_stays_ends_every_process_with_4(fresh):
    words = ["train", "tiny.yaml", "--json", "--set", "training.learning_rate=1e-9"]
    first, second = launch(command, words)
    assert first.code == second.code == 4
    assert first.document["verdict"] == "hold"
    assert (second.out, second.err) == ("", "")


def test_an_error_is_said_once_and_ends_every_process(fresh):
    first, second = launch(command, ["train", "tiny.yaml", "--set", "training.epochs=none"])
    assert first.code == second.code == 2
    assert "training.epochs" in first.err
    assert (second.out, second.err) == ("", "")


def test_a_loss_that_is_no_number_is_said_once_and_ends_every_process(fresh):
    first, second = launch(command, ["train", "tiny.yaml", "--set", "training.learning_rate=1e30"])
    assert first.code == second.code == 1
    assert "the loss" in first.err and "Traceback" not in first.err
    assert (second.out, second.err) == ("", "")


def test_a_trial_that_fails_in_every_process_is_a_result_of_the_search(fresh):
    words = ["train", "tiny.yaml", "--json", "--tune", "2", "--set", "training.epochs=15"]
    first, second = launch(command, words, second_trial_fails)
    assert first.code == second.code == 0, first.err + second.err
    assert [trial["failed"] for trial in first.document["tuning"]["trials"]] == [False, True]
    assert (second.out, second.err) == ("", "")


def test_a_gpu_named_by_its_number_is_refused(fresh):
    first, second = launch(command, ["train", "tiny.yaml", "--set", "model.device=cuda:0"])
    assert first.code == second.code == 2
    assert "2 processes" in first.err and second.err == ""


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(failing_encoder, "no vectors to be had"), (failing_step, "out of memory at step 3")],
)
def test_a_failure_of_the_second_process_ends_the_run_and_is_said(own_home, trouble, said):
    first, second = launch(command, ["train", "tiny.yaml"], trouble)
    assert first.code == 1 and second.code in (1, 3)
    assert "error: " in second.err and said in second.err
    assert "error: process 2 of 2 failed" in first.err
    assert "Traceback" not in first.err + second.err


@pytest.mark.parametrize(("of", "how"), [(0, "memory"), (0, "killed"), (1, "killed")])
def test_no_process_outlives_another_that_died(fresh, of, how):
    trouble = functools.partial(failing_step, of=of, how=how)
    found = launch(command, ["train", "tiny.yaml"], trouble)
    assert all(one.code not in (0, None) for one in found)
    if how == "memory":
        assert "error: training: out of memory at step 3" in found[0].err
        assert found[1].code == 1 and found[1].err == ""


def test_a_training_that_the_launcher_interrupts_goes_on_from_its_checkpoint(
    fresh, _finished, monkeypatch
):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    Path("striking.py").write_text(STRIKING)
    stopped = torchrun("striking.py", "tiny.yaml")
    assert stopped.code != 0 and "stopping after this step" in stopped.err
    first, second = launch(command, ["train", "tiny.yaml", "--json", "--resume"])
    assert first.code == second.code == 0, first.err + second.err
    assert re.search("resuming training from checkpoint 3[0-9]", first.err)
    assert_same_job(first.document, _finished[1].document)


def test_a_signal_to_the_second_process_ends_the_training_of_both(fresh):
    first, second = launch(command, ["train", "tiny.yaml"], interrupted)
    assert first.code == second.code == 130
    assert list(Path("runs/tiny/checkpoints/steps").glob("*/checkpoint-30"))


@pytest.mark.parametrize("trouble", [interrupted_mining, interrupted_encoding])
def test_an_interrupt_outside_training_ends_every_process_with_130(own_home, trouble):
    first, second = launch(command, ["train", "tiny.yaml"], trouble)
    assert first.code == second.code == 130
    assert "interrupted" in first.err and second.err == ""


def test_a_dry_run_is_done_by_the_first_process_alone(fresh):
    first, second = launch(command, ["train", "tiny.yaml", "--dry-run", "--json"])
    assert first.code == second.code == 0
    assert first.document["schema_version"] == 1
    assert (second.out, second.err) == ("", "")
