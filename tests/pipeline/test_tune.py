import json
import math
import signal

import pytest
import yaml
from driver import cli, in_child
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retrieval_ft.pipeline.tune import Space, Trial, propose

SHORT = ["--set", "training.epochs=4"]
TUNED = ["train", "tiny.yaml", "--json", *SHORT, "--tune", "3"]
RATE = 3e-3


def rows(run):
    return [json.loads(line) for line in (run / "tuning/trials.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def searched(_finished, tmp_path_factory):
    """A run with a search of three trials that nothing disturbed, and how it ended."""
    import shutil
    from contextlib import chdir

    folder = tmp_path_factory.mktemp("searched")
    shutil.copy(_finished[0] / "tiny.yaml", folder)
    with chdir(folder):
        return folder / "runs/tiny", cli(*TUNED)


def test_the_search_is_told_before_and_tabled_after(searched):
    run, outcome = searched
    assert outcome.code in (0, 4), outcome.err
    said = outcome.err.splitlines()
    budget = next(
        i for i, line in enumerate(said) if line.startswith("tuning: 3 trials of about 20")
    )
    assert "learning rate 0.00075 to 0.012, epochs 2 to 6" in said[budget]
    assert budget < next(i for i, line in enumerate(said) if line.startswith("training: "))
    tuning = outcome.document["tuning"]
    assert tuning["trials"] == rows(run)
    assert [row["number"] for row in rows(run)] == [0, 1, 2]
    assert (rows(run)[0]["learning_rate"], rows(run)[0]["epochs"]) == (RATE, 4)
    for row in rows(run):
        assert RATE / 4 <= row["learning_rate"] <= 4 * RATE and 2 <= row["epochs"] <= 6
        assert row["score"] == pytest.approx(row["recall"] + row["ndcg"] / 1000)
        assert row["steps"] > 0 and row["seconds"] > 0 and not row["failed"]


def test_what_dev_liked_best_is_what_is_trained(searched):
    run, outcome = searched
    best = max(rows(run), key=lambda row: row["score"])
    document = outcome.document
    assert document["tuning"]["chosen"] == best
    for name in ("learning_rate", "epochs"):
        assert document["training"][name] == best[name]
    log = [json.loads(line) for line in (run / "checkpoints/log.jsonl").read_text().splitlines()]
    assert max(row.get("eval_score", 0) for row in log) == best["score"]  # the same training again
    config = yaml.safe_load((run / "config.resolved.yaml").read_text())
    assert config["training"]["learning_rate"] == RATE  # as it was asked for
    assert not list(run.rglob("checkpoint-*"))


def test_the_same_search_is_not_made_again_and_another_is(searched, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(searched[0].parents[1], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    assert cli(*TUNED).redone == []
    longer = cli(*TUNED[:-1], "4")
    assert longer.redone[0] == "tune" and longer.document["tuning"]["trials"][:3] == rows(
        searched[0]
    )
    assert longer.err.count("training: ") == 1 + ("train" in longer.redone)
    plain = cli(*TUNED[:-2])
    assert "tune" not in plain.redone and "tuning" not in plain.document
    assert plain.document["training"]["learning_rate"] == RATE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_search_goes_on_without_its_finished_trials(fresh, searched, number):
    before = rows(searched[0])
    at = before[0]["steps"] + 12  # within the second trial
    stopped = in_child(*TUNED, strike=f"step:{at}", number=number)
    assert stopped.code == (130 if number == signal.SIGINT else -number), stopped.err
    resumed = cli(*TUNED, "--resume")
    assert resumed.code == searched[1].code, resumed.err
    assert "(1 are done)" in resumed.err
    assert resumed.err.count("training: ") == 3  # two trials and the one that counts
    assert "resuming training from checkpoint" in resumed.err
    timeless = [{key: row[key] for key in row if key != "seconds"} for row in before]
    assert [
        {key: row[key] for key in row if key != "seconds"} for row in rows(fresh / "runs/tiny")
    ] == timeless
    weights = "checkpoints/tuned/model.safetensors"
    assert (fresh / "runs/tiny" / weights).read_bytes() == (searched[0] / weights).read_bytes()


def test_a_trial_that_fails_is_a_result_and_a_recipe_that_fails_an_error(fresh, monkeypatch):
    from retrieval_ft.training.loss import BatchLoss

    original, steps = BatchLoss.forward, []

    def failing(self, batch):
        steps.append(None)
        return original(self, batch) * (math.nan if len(steps) == broken else 1.0)

    monkeypatch.setattr(BatchLoss, "forward", failing)
    broken = 3
    found = cli(*TUNED)
    assert found.code == 1
    assert "the loss is nan at step 3" in found.err
    steps.clear()
    broken = 23  # the recipe's own training has 20 steps
    found = cli(*TUNED)
    assert found.code in (0, 4), found.err
    failed = rows(fresh / "runs/tiny")[1]
    assert failed["failed"] and failed["score"] == 0
    assert not rows(fresh / "runs/tiny")[2]["failed"]
    assert found.document["tuning"]["chosen"]["number"] != 1


SPACE = Space(learning_rate=(1e-5, 1.6e-4), epochs=(1, 3), start=(4e-5, 2))


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), max_size=12), st.integers(0, 1000))
def test_the_next_trial_is_a_function_of_those_before_it(scores, seed):
    done = []
    for number, score in enumerate(scores):
        rate, epochs = propose(SPACE, done, seed=seed)
        assert 1e-5 <= rate <= 1.6e-4 and 1 <= epochs <= 3
        assert rate == float(f"{rate:.3g}")
        assert (rate, epochs) == propose(SPACE, done, seed=seed)
        done.append(Trial(number, rate, epochs, score))
    assert propose(SPACE, [], seed=seed) == SPACE.start


def test_the_search_finds_the_better_half():
    """A dev score that peaks at one rate: the guided trials stand nearer to it than chance would."""

    def miss(rate):
        return abs(math.log(rate / 1.2e-5))

    done = []
    for number in range(30):
        rate, epochs = propose(SPACE, done, seed=5)
        done.append(Trial(number, rate, epochs, score=1 - miss(rate) / 4))
    by_chance = sum(miss(1e-5 * 16 ** (i / 100)) for i in range(101)) / 101
    guided = [miss(trial.learning_rate) for trial in done[15:]]
    assert sum(guided) / len(guided) < by_chance / 2


def test_without_optuna_it_ends_before_the_work(fresh, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    found = cli(*TUNED)
    assert found.code == 5
    assert "pip install 'retrieval-ft[tune]'" in found.err
    assert not (fresh / "runs").exists()


def test_a_tracker_that_is_missing_ends_the_job_before_the_work(fresh):
    found = cli("train", "tiny.yaml", "--set", "training.report_to=[mlflow]")
    assert found.code == 5
    assert "training.report_to: mlflow" in found.err
    assert not (fresh / "runs").exists()


def test_events_stay_with_the_run_for_every_training(fresh):
    found = cli(*TUNED, "--set", "training.report_to=[tensorboard]")
    assert found.code in (0, 4), found.err
    folders = sorted((fresh / "runs/tiny/checkpoints/tensorboard").iterdir())
    assert len(folders) == 4  # three trials and the one that counts
    for folder in folders:
        tracked = EventAccumulator(str(folder))
        tracked.Reload()
        assert {"train/loss", "eval/recall@10"} <= set(tracked.Tags()["scalars"])


def test_a_run_killed_outright_resumes_to_the_same_weights(fresh, _finished):
    stopped = in_child("train", "tiny.yaml", strike="step:44", number=signal.SIGKILL)
    assert stopped.code == -signal.SIGKILL
    resumed = cli("train", "tiny.yaml", "--resume")
    assert resumed.code == 0, resumed.err
    assert "resuming training from checkpoint" in resumed.err
    weights = "model/model.safetensors"
    whole = _finished[0] / "runs/tiny"
    assert (fresh / "runs/tiny" / weights).read_bytes() == (whole / weights).read_bytes()
