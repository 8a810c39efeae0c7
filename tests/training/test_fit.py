import threading

import pytest
import torch
from safetensors.torch import load_file
from tiny_fit import CONFIG, EVERY, STEPS, same, scores

from retrieval_ft.errors import DataError
from retrieval_ft.training.fit import graph_token_budget


def test_the_loss_goes_down_and_the_result_says_what_was_done(run):
    config = CONFIG.model_copy(update={"epochs": 6, "dropout": 0.0})
    job = run()
    result = job.fit(config=config)
    losses = [row["loss"] for row in result.log if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert result.steps == result.planned_steps == job.loss.steps == 36
    assert result.seconds > 0
    assert not job.model.training


@pytest.mark.parametrize("best", range(4))
def test_the_model_ends_at_its_best_evaluation(run, best):
    values = [0.5, 0.4, 0.3, 0.2]
    values[best] = 0.9
    job = run()
    result = job.fit(dev=scores(*values))
    assert result.best_score == 0.9
    assert result.best_step == EVERY * (best + 1)
    assert len(job.seen) == 4
    assert [same(job.weights(), seen) for seen in job.seen] == [i == best for i in range(4)]


def test_of_equal_scores_the_first_is_taken(run):
    job = run()
    assert job.fit(dev=scores(0.1, 0.7, 0.7, 0.7)).best_step == 2 * EVERY
    assert same(job.weights(), job.seen[1])


def test_the_last_step_is_always_evaluated(run):
    job = run()  # 18 steps in 4 parts: at 5, 10, 15 and 18
    result = job.fit(config=CONFIG.model_copy(update={"epochs": 3}), dev=scores(0.1, 0.2, 0.3, 0.4))
    assert result.best_step == result.steps == 18
    assert same(job.weights(), job.seen[3])


def test_a_seed_gives_the_same_bits_and_another_does_not(run, whole):
    second, other = run("a"), run("b")
    torch.manual_seed(99)  # what came before does not matter
    second.fit()
    other.fit(seed=4)
    assert same(second.weights(), whole.weights())
    assert not same(other.weights(), whole.weights())
    losses = [[row.get("loss") for row in job.result.log] for job in (second, whole)]
    assert losses[0] == losses[1]


def test_gradcache_trains_to_nearly_the_same_weights(run):
    first, second = run("a"), run("b")
    values = [0.1, 0.2, 0.3, 0.4]
    first.fit(dev=scores(*values))
    second.fit(dev=scores(*values), graph_tokens=1)
    for name, tensor in first.weights().items():
        torch.testing.assert_close(second.weights()[name], tensor, atol=1e-3, rtol=0)


def test_checkpoints_hold_what_is_trained_and_no_pickled_arguments(run):
    job = run()
    job.fit()
    assert not list(job.folder.rglob("*.bin"))
    saved = load_file(job.folder / f"checkpoint-{job.result.best_step}" / "model.safetensors")
    assert same(saved, dict(job.model.named_parameters()))


def test_a_best_checkpoint_that_cannot_be_read_is_an_error(run):
    job = run()
    values = iter((0.9, 0.1, 0.1, 0.1))

    def spoiled():
        if (job.folder / "checkpoint-3").exists():
            (job.folder / "checkpoint-3" / "model.safetensors").unlink(missing_ok=True)
        return {"score": next(values)}

    with pytest.raises(DataError, match="checkpoint-3"):
        job.fit(dev=spoiled)


def test_it_runs_outside_the_main_thread(run, whole):
    job = run()
    thread = threading.Thread(target=job.fit)
    thread.start()
    thread.join()
    assert same(job.weights(), whole.weights())


def test_the_dropout_asked_for_is_the_one_in_the_model(run):
    job = run()
    job.fit(config=CONFIG.model_copy(update={"dropout": 0.25}))
    shares = {m.p for m in job.model.modules() if isinstance(m, torch.nn.Dropout)}
    assert shares == {0.25}


def test_the_progress_is_lines_and_nothing_else(run, capfd):
    run().fit(dev=lambda: {"score": 0.5, "recall@10": 0.25, "ndcg@10": 0.125})
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if "[transformers]" not in line]
    assert lines
    assert all(line.startswith("step ") for line in lines), lines
    assert f"step 3 of {STEPS}: dev recall@10 0.2500, dev nDCG@10 0.1250" in lines


def test_more_memory_keeps_more_and_one_text_always_fits(encoder):
    budgets = [
        graph_token_budget(encoder.model, memory=memory, max_length=64)
        for memory in (0, 10**6, 10**8, 10**9)
    ]
    assert budgets[0] == 64
    assert budgets == sorted(budgets)
    # two layers, 4 heads, hidden 32, 2 x the formula's bytes, 40% of the memory
    assert budgets[-1] == int(0.4 * 10**9 / (2 * 2 * (34 * 32 + 5 * 4 * 64)))
