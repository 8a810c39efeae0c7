import builtins

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_fit import CONFIG, EVERY, STEPS, interrupt

from retrieval_ft.errors import ConfigError, DependencyError
from retrieval_ft.training.trackers import trackers

ALWAYS = {
    "step",
    "loss",
    "chance_loss",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "pairs_per_second",
    "peak_memory_bytes",
}
DEV = {"score": 0.5, "recall@10": 0.25, "ndcg@10": 0.125}
TRACKED = CONFIG.model_copy(update={"report_to": ("tensorboard",)})


def test_every_row_has_it_all_and_dev_where_dev_was_scored(run):
    result = run().fit(dev=lambda: DEV)
    assert [row["step"] for row in result.log] == list(range(1, STEPS + 1))
    for row in result.log:
        dev = {f"eval_{name}" for name in DEV} | {"eval_runtime"}
        assert set(row) == ALWAYS | (dev if row["step"] % EVERY == 0 else set())
        assert row["tokens_per_second"] > row["pairs_per_second"] > 0
        assert row["peak_memory_bytes"] > 10**8  # torch alone
        assert row["grad_norm"] > 0 and row["loss"] > 0


def test_speed_is_of_training_alone(run):
    """The tokens and pairs of a row over the seconds since the one before, less dev's."""
    import time

    def slow():
        time.sleep(2)
        return DEV

    result = run().fit(config=CONFIG.model_copy(update={"evaluations": 2}), dev=slow)
    after = result.log[[row["step"] for row in result.log].index(7.0)]
    assert after["pairs_per_second"] > 8 / 1.5  # 8 pairs; with the 2 seconds it would be under 4


def test_chance_is_the_loss_of_vectors_that_are_all_the_same(run, pairs):
    import torch

    job = run()
    for layer in job.model.modules():
        if isinstance(layer, torch.nn.LayerNorm):
            layer.weight.data.zero_()
            layer.bias.data.fill_(1.0)
    frozen = CONFIG.model_copy(update={"learning_rate": 1e-12})
    for row in job.fit(config=frozen).log:
        assert row["loss"] == pytest.approx(row["chance_loss"], abs=1e-5)


def test_an_interrupt_costs_the_log_nothing(run):
    """A checkpoint holds the log up to its step, so that no loss is lost and no row comes twice."""
    config = CONFIG.model_copy(update={"evaluations": 1})  # a row each 3 steps
    whole = {row["step"]: row["loss"] for row in run("whole").fit(config=config).log}
    with pytest.raises(KeyboardInterrupt):
        run().fit(config=config, at=4, then=interrupt)
    log = {row["step"]: row["loss"] for row in run().fit(config=config, resume=True).log}
    assert list(log) == [3, 4, 6, 9, 12]
    assert (log.pop(4) + 2 * log[6]) / 3 == pytest.approx(whole.pop(6))
    del log[6]
    assert log == whole


def events(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: {event.step: event.value for event in found.Scalars(tag)}
        for tag in found.Tags()["scalars"]
    }


def test_tensorboard_gets_the_log(run, tmp_path):
    job = run()
    result = job.fit(config=TRACKED, dev=lambda: DEV, reports=tmp_path / "events")
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))
    found = events(tmp_path / "events")
    assert found["eval/recall@10"] == dict.fromkeys(range(EVERY, STEPS + 1, EVERY), 0.25)
    for name in ALWAYS - {"step"}:
        logged = {int(row["step"]): row[name] for row in result.log}
        assert found[f"train/{name}"] == pytest.approx(logged, rel=1e-6)


def test_tensorboard_writes_below_the_run_by_default_and_elsewhere_if_told(
    run, tmp_path, monkeypatch
):
    run("a").fit(config=TRACKED)
    assert list((tmp_path / "a").rglob("events.out.tfevents.*"))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "told"))
    run("b").fit(config=TRACKED)
    assert not list((tmp_path / "b").rglob("events.out.tfevents.*"))
    assert list((tmp_path / "told").glob("events.out.tfevents.*"))


def test_without_a_tracker_nothing_is_tracked(run):
    job = run()
    job.fit()
    assert not list(job.folder.rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named(tmp_path, name):
    with pytest.raises(DependencyError, match=rf"training.report_to: {name} ") as got:
        trackers([name], folder=tmp_path)
    assert got.value.exit_code == 5
    assert f"pip install {name}" in str(got.value)


def test_a_tracker_that_fails_to_import_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith(("torch.utils.tensorboard", "tensorboardX")):
            raise ImportError(f"no {name}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyError, match="tensorboard cannot be used here"):
        trackers(["tensorboard"], folder=tmp_path)


def test_a_tracker_that_does_not_exist_is_a_fault_of_the_config(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no tracker 'tensorbord'; transformers has .*tensorboard"
    ):
        trackers(["tensorbord"], folder=tmp_path)
