"""A run that goes wrong: no number, an exploding loss, too little memory. No GPU is to be had here, so
what a GPU raises is played."""

import math

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tiny_fit import CONFIG, STEPS, Loss, same

from retrieval_ft.encoder.encoder import embed as encode
from retrieval_ft.errors import RetrievalFTError
from retrieval_ft.training import loss as losses
from retrieval_ft.training.watch import exploded

STILL = CONFIG.model_copy(update={"dropout": 0.0})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_before_a_step_is_made_of_it(run, value):
    job = run()
    with pytest.raises(RetrievalFTError, match=rf"the loss is {value} at step 4, ") as got:
        job.fit(at=4, then=lambda loss: loss * value)
    assert got.value.exit_code == 1
    for words in (
        f"the last good checkpoint is {job.folder / 'checkpoint-3'}.",
        "a lower training.learning_rate (now 0.002)",
        "model.precision=fp32",
    ):
        assert words in str(got.value)
    assert all(weight.isfinite().all() for weight in job.weights().values())
    assert same(job.weights(), job.seen[-1])


def test_a_gradient_that_is_no_number_ends_the_run_as_well(run):
    def steep(loss):
        loss.register_hook(lambda gradient: gradient * math.inf)
        return loss

    job = run()
    with pytest.raises(
        RetrievalFTError, match=r"at step 2, its gradient's norm (inf|nan); no"
    ) as got:
        job.fit(at=2, then=steep)
    assert "no checkpoint was written yet" in str(got.value)
    assert all(weight.isfinite().all() for weight in job.weights().values())


def test_a_ruined_model_ends_the_run(run):
    job = run("first")
    job.fit(config=STILL.model_copy(update={"epochs": 16}))  # to a loss far below chance
    job.folder = job.folder.with_name("second")
    ruinous = {"epochs": 40, "learning_rate": 0.1, "warmup_share": 0.9, "evaluations": 8}
    with pytest.raises(RetrievalFTError, match="the loss has exploded: ") as got:
        job.fit(config=STILL.model_copy(update=ruinous))
    assert "lower training.learning_rate (now 0.1)" in str(got.value)
    assert job.loss.steps < 40 * 6


def rows(losses, chance):
    return [
        {"step": step, "loss": loss, "chance_loss": chance} for step, loss in enumerate(losses, 1)
    ]


@given(st.integers(1, 64), st.floats(0.1, 6.0), st.floats(0.1, 1.0), st.integers(0, 400), st.data())
def test_a_loss_that_falls_by_and_large_never_explodes(size, start, fall, steps, data):
    """Whatever the batch: each pair's loss is nothing or much, as often as the mean says."""
    chance = math.log(2 * size)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    means = torch.linspace(start, start * fall, max(1, steps))
    drawn = torch.poisson(means[:, None].expand(-1, size), generator).mean(1)
    log = rows(drawn.tolist()[:steps], chance)
    for end in range(0, steps + 1, 50):
        assert exploded(log[:end], [size] * steps) is None


@given(st.integers(8, 64), st.floats(0.05, 1.0), st.integers(60, 300))
@example(64, 0.05, 42)
def test_a_loss_that_rose_to_chance_has_exploded(size, start, steps):
    chance = math.log(2 * size)
    assume(start < chance / 3)
    head = -(-128 // size)
    tail = max(20, -(-640 // size))
    assume(head + tail <= steps)
    losses = [start] * head + [chance] * (steps - head)
    found = exploded(rows(losses, chance), [size] * steps)
    assert found is not None
    first, last = found
    assert (first.first, first.last, first.loss) == (1, head, pytest.approx(start))
    assert (last.first, last.last, last.loss) == (steps - tail + 1, steps, pytest.approx(chance))
    short = head + tail - 1
    assert exploded(rows(losses[:short], chance), [size] * steps) is None


@pytest.mark.parametrize(
    ("first", "last", "chance"),
    [
        (0.0, 0.0, 0.0),  # a batch of one pair without negatives
        (4.5, 5.0, 4.85),  # noise for labels, or a random model
        (9.0, 4.85, 4.85),
        (0.1, 0.3, 4.85),  # worse, but far from chance
    ],
)
def test_what_is_no_explosion(first, last, chance):
    log = rows([first] * 10 + [last] * 100, chance)
    assert exploded(log, [64] * 110) is None


class Tight(Loss):
    """A memory that holds so many tokens of a micro-batch, or fails at one pass of a step."""

    def __init__(self, encoder, *, holds=10**9, fails=()):
        super().__init__(encoder)
        self.holds, self.fails, self.passes = holds, set(fails), 0
        losses.embed = self.limited

    def forward(self, batch):
        self.passes = 0
        return super().forward(batch)

    def limited(self, model, micro, precision):
        for features in micro:
            self.passes += 1
            large = features["input_ids"].numel() > self.holds
            if large or (self.steps, self.passes) in self.fails:
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has"
                )
        return encode(model, micro, precision)


@pytest.fixture(autouse=True)
def _memory_as_before(monkeypatch, one_thread):
    monkeypatch.setattr(losses, "embed", encode)


def test_a_batch_that_does_not_fit_is_cut_until_it_does(run, capsys):
    tight, roomy = run("a"), run("b")
    tight.fit(config=STILL, loss=Tight(tight.encoder, holds=60))
    said = capsys.readouterr().err
    limit = tight.loss.graph_tokens
    assert limit <= 60
    assert "step 1 is done anew after: CUDA out of memory. Tried to allocate 2 GiB.\n" in said
    assert f"micro-batches have {limit} tokens at most from now on" in said
    loss = Loss(roomy.encoder)
    loss._limit = loss.graph_tokens = limit  # so from the beginning
    roomy.fit(config=STILL, loss=loss)
    assert tight.result.steps == roomy.result.steps == STEPS
    assert same(tight.weights(), roomy.weights())
    assert [row.get("loss") for row in tight.result.log] == [
        row.get("loss") for row in roomy.result.log
    ]


@pytest.mark.parametrize("where", ["first pass", "half-way through the gradients"])
def test_a_step_that_failed_half_way_leaves_nothing_behind(run, where):
    """With GradCache the gradients of some micro-batches are there when a later one fails."""
    tight, roomy = run("a"), run("b")

    class Cached(Tight):
        def __init__(self, encoder, *, shrink_at=None, **rest):
            super().__init__(encoder, **rest)
            self._limit = self.graph_tokens = 80
            self.shrink_at = shrink_at

        def forward(self, batch):
            if self.steps + 1 == self.shrink_at:
                self._cut(batch["micro_batches"])
                self.shrink()
            return super().forward(batch)

    parts = len(Cached(tight.encoder)._cut(tight.collator(plan_of(tight)[4])["micro_batches"]))
    assert parts > 2
    fails = [(5, 2 if where == "first pass" else parts + 2)]
    tight.fit(config=STILL, loss=Cached(tight.encoder, fails=fails))
    assert tight.loss.steps == STEPS + 1  # step 5 twice
    roomy.fit(config=STILL, loss=Cached(roomy.encoder, shrink_at=5))
    assert same(tight.weights(), roomy.weights())


def plan_of(job):
    from retrieval_ft.training.plan import plan_batches

    return plan_batches(job.pairs, epochs=2, batch_size=8, negatives_per_query=1, seed=13).batches


def test_where_one_text_does_not_fit_the_error_says_what_to_lower(run):
    job = run()
    with pytest.raises(RetrievalFTError, match="out of memory at step 1") as got:
        job.fit(config=STILL, loss=Tight(job.encoder, holds=4))
    assert got.value.exit_code == 1
    for words in ("Tried to allocate 2 GiB", "training.max_length", "training.batch_size"):
        assert words in str(got.value)
