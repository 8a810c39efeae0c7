import os
import shutil
import signal

import pytest
from tiny_fit import CONFIG, EVERY, STEPS, interrupt, same, scores

from retrieval_ft.training.watch import out_of_patience


@pytest.mark.parametrize("at", [1, 2, EVERY, EVERY + 1, 2 * EVERY, STEPS - 1, STEPS])
def test_an_interrupted_run_resumes_to_the_same_bits(run, whole, capsys, at):
    expected = whole.result
    assert expected.steps == STEPS
    first = run()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        first.fit(at=at, then=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    assert first.loss.steps == at
    assert (first.folder / f"checkpoint-{at}" / "trainer_state.json").is_file()
    assert "stopping after this step, with a checkpoint" in capsys.readouterr().err
    second = run()
    found = second.fit(resume=True)
    assert f"resuming training from checkpoint {at}" in capsys.readouterr().err
    assert second.loss.steps == STEPS - at
    assert same(second.weights(), whole.weights())
    assert (found.steps, found.best_step) == (STEPS, expected.best_step)
    assert found.best_score == expected.best_score
    evaluations = [row["eval_score"] for row in found.log if "eval_score" in row]
    assert evaluations == [row["eval_score"] for row in expected.log if "eval_score" in row]


def test_an_interrupt_during_an_evaluation_ends_after_the_next_step(run, whole):
    first = run()

    def interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        return first.chance()

    with pytest.raises(KeyboardInterrupt):
        first.fit(dev=interrupted)
    assert first.loss.steps == EVERY + 1
    second = run()
    second.fit(resume=True)
    assert same(second.weights(), whole.weights())


def test_two_interrupts_and_two_resumes(run, whole):
    with pytest.raises(KeyboardInterrupt):
        run().fit(at=2, then=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run().fit(at=5, then=interrupt, resume=True)
    last = run()
    last.fit(resume=True)
    assert last.loss.steps == STEPS - 7
    assert same(last.weights(), whole.weights())


def test_a_second_signal_stops_at_once(run):
    def twice(loss):
        interrupt(loss)
        return interrupt(loss)

    job = run()
    with pytest.raises(KeyboardInterrupt):
        job.fit(at=2, then=twice)
    assert not list(job.folder.glob("checkpoint-*"))


class Killed(Exception):
    pass


def die(loss):
    raise Killed


def truncate(checkpoint):
    path = checkpoint / "trainer_state.json"
    path.write_bytes(path.read_bytes()[:-40])


def flip(checkpoint):
    path = checkpoint / "optimizer.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip,
        lambda checkpoint: (checkpoint / "optimizer.pt").unlink(),
        lambda checkpoint: (checkpoint / "manifest.json").unlink(),
        shutil.rmtree,
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_word(run, whole, capsys, damage):
    job = run()
    with pytest.raises(Killed):
        job.fit(at=8, then=die, dev=scores(0.5, 0.4))  # checkpoints 3, the best, and 6
    damage(job.folder / "checkpoint-6")
    last = run()
    last.fit(resume=True, dev=scores(0.4, 0.3, 0.2))
    said = capsys.readouterr().err
    assert "resuming training from checkpoint 3" in said
    assert ("passing over a checkpoint: " in said) == (damage is not shutil.rmtree)
    assert last.loss.steps == STEPS - 3
    assert same(last.seen[-1], whole.seen[-1])


def test_without_its_best_a_checkpoint_is_none(run, whole):
    with pytest.raises(Killed):
        run().fit(at=8, then=die, dev=scores(0.5, 0.4))
    shutil.rmtree(run().folder / "checkpoint-3")
    last = run()
    last.fit(resume=True)
    assert last.loss.steps == STEPS
    assert same(last.weights(), whole.weights())


def test_what_was_left_half_written_or_half_deleted_is_removed(run):
    with pytest.raises(Killed):
        run().fit(at=8, then=die)
    folder = run().folder
    for leftover in (".checkpoint-8", ".checkpoint-3.old", "checkpoint-9"):
        (folder / leftover).mkdir()
        (folder / leftover / "model.safetensors").write_bytes(b"half")
    last = run()
    last.fit(resume=True)
    found = {path.name for path in folder.glob("*checkpoint-*")}
    assert found == {f"checkpoint-{step}" for step in (last.result.best_step, STEPS)}


def test_a_moved_run_resumes(run, whole, tmp_path):
    with pytest.raises(Killed):
        run().fit(at=8, then=die)
    run().folder.rename(tmp_path / "moved")
    last = run("moved")
    last.fit(resume=True)
    assert last.loss.steps == STEPS - 6
    assert same(last.weights(), whole.weights())


def test_resume_without_a_checkpoint_starts_anew(run, whole):
    fresh = run()
    fresh.fit(resume=True)
    assert fresh.loss.steps == STEPS
    assert same(fresh.weights(), whole.weights())


def test_without_resume_old_checkpoints_are_removed(run, whole):
    with pytest.raises(KeyboardInterrupt):
        run().fit(at=7, then=interrupt)
    again = run()
    again.fit()
    assert again.loss.steps == STEPS
    assert same(again.weights(), whole.weights())
    assert not (again.folder / "checkpoint-7").exists()


def test_a_finished_run_is_resumed_without_a_step(run):
    first, second = run(), run()
    first.fit()
    second.fit(resume=True)
    assert second.loss.steps == 0
    assert same(second.weights(), first.weights())
    assert second.result.best_step == first.result.best_step


PATIENT = CONFIG.model_copy(update={"evaluations": 12, "patience": 2})
FALLING = (0.5, 0.4, 0.6, 0.5, 0.4, 0.9, 0.9)


def test_training_stops_when_patience_ends(run):
    job = run()
    result = job.fit(config=PATIENT, dev=scores(*FALLING))
    assert (result.steps, result.planned_steps, result.best_step) == (5, 12, 3)
    assert job.loss.steps == 5
    assert same(job.weights(), job.seen[2])


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_patience_counts_on_over_an_interrupt(run, at):
    whole, first, second = run("whole"), run(), run()
    whole.fit(config=PATIENT, dev=scores(*FALLING))
    with pytest.raises(KeyboardInterrupt):
        first.fit(config=PATIENT, dev=scores(*FALLING), at=at, then=interrupt)
    result = second.fit(config=PATIENT, dev=scores(*FALLING[at:]), resume=True)
    assert (result.steps, result.planned_steps, result.best_step) == (5, 12, 3)
    assert result.best_score == 0.6
    assert second.loss.steps == 5 - at
    assert same(second.weights(), whole.weights())


@pytest.mark.parametrize(
    ("values", "patience", "ended"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.4], 1, True),
        ([0.5, 0.4], 2, False),
        ([0.5, 0.5, 0.5], 2, True),  # equal is no new best
        ([0.5, 0.4, 0.6], 1, False),
        ([0.5, 0.4, 0.6, 0.1, 0.2], 2, True),
    ],
)
def test_patience_is_counted_from_the_best(values, patience, ended):
    log = [row for value in values for row in ({"loss": 1.0}, {"eval_score": value})]
    assert out_of_patience(log, patience=patience) is ended
