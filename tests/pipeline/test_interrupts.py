"""An interrupt at any stage: exit 130, nothing half-written, and --resume gives the same result."""

import signal

import pytest
from driver import cli, in_child

STAGES = ["prepare", "mine", "train", "evaluate", "index", "report"]
WEIGHTS = "model/model.safetensors"


@pytest.mark.parametrize(
    ("stage", "strike", "unwritten"),
    [
        ("prepare", "write:qrels/dev.tsv", "dataset"),
        ("mine", "write:dropped.parquet", "mined"),
        ("train", "step:21", "checkpoints/tuned"),
        ("train", "write:checkpoints/log.jsonl", "checkpoints/log.jsonl"),
        ("evaluate", "write:per_query.parquet", "eval"),
        ("evaluate", "write:verdict.json", "verdict.json"),
        ("index", "write:arrays.safetensors", "index"),
        ("report", "write:report.md", "report.md"),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_result(
    fresh, _finished, outcome, stage, strike, unwritten
):
    run = fresh / "runs/tiny"
    stopped = in_child("train", "tiny.yaml", "--json", strike=strike)
    assert stopped.code == 130, stopped.err
    assert stopped.out == ""
    assert "interrupted" in stopped.err and "Traceback" not in stopped.err
    assert not (run / unwritten).exists()
    assert not list(run.rglob("*.tmp")) and not list(run.rglob("*.old"))

    resumed = cli("train", "tiny.yaml", "--json", "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.redone == STAGES[STAGES.index(stage) :]
    assert ("resuming training from checkpoint" in resumed.err) == (stage == "train")
    for key in ("verdict", "systems", "differences", "choices"):
        assert resumed.document[key] == outcome.document[key]
    whole = _finished[0] / "runs/tiny"
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.parametrize("step", [19, 75])
def test_training_stopped_where_dev_is_measured_resumes_to_the_same_weights(fresh, _finished, step):
    assert in_child("train", "tiny.yaml", strike=f"step:{step}").code == 130
    resumed = cli("train", "tiny.yaml", "--resume")
    assert resumed.code == 0, resumed.err
    whole = _finished[0] / "runs/tiny"
    assert (fresh / "runs/tiny" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_sigterm_is_an_interrupt_too(fresh):
    stopped = in_child("train", "tiny.yaml", strike="step:5", number=signal.SIGTERM)
    assert stopped.code == 130, stopped.err
    stopped = in_child("train", "tiny.yaml", strike="write:log.jsonl", number=signal.SIGTERM)
    assert stopped.code == 130, stopped.err


def test_without_resume_training_starts_anew(fresh):
    assert in_child("train", "tiny.yaml", strike="step:30").code == 130
    again = cli("train", "tiny.yaml")
    assert again.code == 0
    assert "resuming" not in again.err


def test_checkpoints_of_other_settings_are_not_resumed(fresh):
    assert in_child("train", "tiny.yaml", strike="step:30").code == 130
    other = cli("train", "tiny.yaml", "--resume", "--set", "training.learning_rate=2e-3")
    assert other.code in (0, 4)
    assert "resuming" not in other.err
