"""SIGKILL at any moment, then resume: the weights of a run that nothing disturbed, bit for bit."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import tiny
import torch
from tiny_fit import CONFIG, STEPS, Run, same

from retrieval_ft import artifacts

# A checkpoint after each of 24 steps.
OFTEN = CONFIG.model_copy(update={"epochs": 4, "evaluations": 2 * STEPS, "patience": 99})
SAVES = ["_save", "_save_optimizer_and_scheduler", "_save_rng_state"]
MOMENTS = [
    *(f"{when} {name}" for name in SAVES for when in ("before", "after")),
    "half the state",
    "before seal",
    "after seal",
    "before rename",
    "after rename",
    "half rmtree",
    "step 2",
]


def collator(encoder):
    from retrieval_ft.training.collate import Collator

    data = tiny.dataset()
    queries, corpus = data.queries_of("train"), data.corpus
    tokens = encoder.tokenize(queries.texts, "query").ids
    passages = encoder.tokenize(corpus.passages, "passage").ids
    return Collator(
        query_tokens=dict(zip(queries.ids, tokens, strict=True)),
        passage_tokens=dict(zip(corpus.ids, passages, strict=True)),
        qrels=data.qrels["train"],
        pad_id=encoder.pad_id,
        token_budget=4_096,
    )


def worker(model_folder, folder, pairs, moment, ready):
    torch.set_num_threads(1)
    job = Run(model_folder, folder, pairs, collator)
    settings = strike(moment) if moment else {}
    ready.send(None)
    job.fit(config=OFTEN, resume=True, **settings)
    artifacts.write_json(folder / "result.json", [job.result.best_step, job.result.best_score])
    torch.save(job.weights(), folder / "weights.pt.tmp")
    (folder / "weights.pt.tmp").rename(folder / "weights.pt")


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def strike(moment):
    """Make this process kill itself the second time that it comes to a moment."""
    from transformers.trainer_callback import TrainerState

    from retrieval_ft.training.trainer import PlannedTrainer

    when, _, name = moment.partition(" ")
    if when == "step":
        return {"at": int(name), "then": die}
    owner, name = {
        "seal": (artifacts, "seal"),
        "rename": (Path, "rename"),
        "rmtree": (shutil, "rmtree"),
        "the state": (TrainerState, "save_to_json"),
    }.get(name, (PlannedTrainer, name))
    original, calls = getattr(owner, name), []

    def striking(*args, **kwargs):
        calls.append(None)
        if len(calls) < 2:
            return original(*args, **kwargs)
        if when == "after":
            original(*args, **kwargs)
        elif name == "save_to_json":
            original(*args, **kwargs)
            os.truncate(args[1], Path(args[1]).stat().st_size // 2)
        elif name == "rmtree":
            next(path for path in Path(args[0]).iterdir() if path.is_file()).unlink()
        die()

    setattr(owner, name, striking)
    return {}


@pytest.fixture(scope="module")
def context():
    """Children of a server that has the heavy packages loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sentence_transformers", "datasets", "tiny_fit"])
    return context


@pytest.fixture(scope="module")
def undisturbed(model_folder, tmp_path_factory, pairs):
    job = Run(model_folder, tmp_path_factory.mktemp("undisturbed"), pairs, collator)
    started, threads = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(1)  # as in the children: sums depend on how they are split
    try:
        job.fit(config=OFTEN)
    finally:
        torch.set_num_threads(threads)
    return job, time.monotonic() - started


def run(context, folder, model_folder, pairs, *, moment=None, after=None):
    """One run to its end, to the moment, or to a SIGKILL from outside `after` so many seconds."""
    here, there = context.Pipe()
    child = context.Process(target=worker, args=(model_folder, folder, pairs, moment, there))
    child.start()
    here.recv()
    child.join(after)
    if child.is_alive():
        child.kill()
        child.join()
    for checkpoint in folder.glob("checkpoint-*"):
        artifacts.verify(checkpoint, what="checkpoint")  # whole, or not there
    return child.exitcode


def check(folder, undisturbed):
    job, _ = undisturbed
    assert same(torch.load(folder / "weights.pt", weights_only=True), job.weights())
    result = [job.result.best_step, job.result.best_score]
    assert artifacts.read_json(folder / "result.json") == result


def test_killed_wherever_a_checkpoint_is_written(
    context, tmp_path, model_folder, pairs, undisturbed
):
    """Each time the run gets one step further and is killed there at another moment."""
    for moment in MOMENTS:
        found = run(context, tmp_path, model_folder, pairs, moment=moment)
        assert found == -signal.SIGKILL, moment
    assert run(context, tmp_path, model_folder, pairs) == 0
    check(tmp_path, undisturbed)


def test_killed_at_random(context, tmp_path, model_folder, pairs, undisturbed):
    draw = random.Random(4)
    killed = 0
    for _ in range(6):
        found = run(
            context, tmp_path, model_folder, pairs, after=draw.uniform(0, undisturbed[1] / 3)
        )
        killed += found == -signal.SIGKILL
    assert killed > 2
    assert run(context, tmp_path, model_folder, pairs) == 0
    check(tmp_path, undisturbed)
