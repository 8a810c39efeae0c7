import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import TrainingConfig
from retrieval_ft.training.objective import Objective, listwise, margin_mse


def unit(generator, rows, size=6):
    vectors = generator.standard_normal((rows, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.sampled_from([0.02, 0.1, 1.0]), st.data())
def test_it_is_the_mean_cross_entropy_over_what_is_not_masked(queries, passages, temperature, data):
    generator = np.random.default_rng(data.draw(st.integers(0, 999)))
    q, p = unit(generator, queries), unit(generator, passages)
    target = generator.integers(passages, size=queries)
    masked = generator.random((queries, passages)) < 0.4
    masked[np.arange(queries), target] = False
    expected = 0.0
    for i in range(queries):
        logits = np.float64(p @ q[i]) / temperature
        rivals = [logits[j] for j in range(passages) if not masked[i, j]]
        expected -= (logits[target[i]] - np.logaddexp.reduce(rivals)) / queries
    found = Objective(temperature)(
        torch.from_numpy(q),
        torch.from_numpy(p),
        target=torch.from_numpy(target),
        masked=torch.from_numpy(masked),
    )
    assert found.shape == ()
    np.testing.assert_allclose(found.item(), expected, rtol=1e-4, atol=1e-5)


def test_a_masked_passage_has_no_gradient():
    generator = np.random.default_rng(3)
    q = torch.from_numpy(unit(generator, 2)).requires_grad_()
    p = torch.from_numpy(unit(generator, 4)).requires_grad_()
    masked = torch.tensor([[False, False, True, False], [False, False, True, True]])
    target = torch.tensor([0, 1])
    Objective(0.05)(q, p, target=target, masked=masked).backward()
    assert (p.grad[2] == 0).all()
    assert all((p.grad[i] != 0).any() for i in (0, 1, 3))
    assert torch.isfinite(q.grad).all()


def test_a_query_with_all_but_its_positive_masked_learns_nothing():
    q = torch.eye(2).requires_grad_()
    masked = torch.tensor([[False, True], [True, False]])
    loss = Objective(0.02)(q, torch.eye(2), target=torch.arange(2), masked=masked)
    loss.backward()
    assert loss.item() == 0
    assert (q.grad == 0).all()


def batch_of(seed, queries=4, passages=7, size=8):
    generator = np.random.default_rng(seed)
    q, p = (torch.from_numpy(unit(generator, n, size)) for n in (queries, passages))
    target = torch.from_numpy(generator.permutation(passages)[:queries])
    masked = torch.from_numpy(generator.random((queries, passages)) < 0.3)
    masked[torch.arange(queries), target] = False
    return q, p, {"target": target, "masked": masked}


@given(st.integers(0, 200), st.floats(0, 1))
def test_a_passage_above_the_positive_by_the_margin_is_masked(seed, margin):
    q, p, batch = batch_of(seed)
    scores = (q @ p.T).numpy()
    own = scores[np.arange(len(q)), batch["target"]]
    hidden = batch["masked"].numpy() | (scores > own[:, None] + np.float32(margin))
    expected = Objective(0.05)(q, p, target=batch["target"], masked=torch.from_numpy(hidden))
    found = Objective(0.05, self_score_margin=margin)(q, p, **batch)
    torch.testing.assert_close(found, expected)


@given(st.integers(0, 200))
def test_the_other_direction_is_each_passage_among_the_queries(seed):
    q, p, batch = batch_of(seed)
    target, masked = batch["target"].numpy(), batch["masked"].numpy()
    scores = np.float64((q @ p.T).numpy()) / 0.1
    total = 0.0
    for i, place in enumerate(target):
        rivals = [
            scores[j, place]
            for j in range(len(q))
            if j == i or not (masked[j, place] or target[j] == place)
        ]
        total -= (scores[i, place] - np.logaddexp.reduce(rivals)) / len(q)
    forward = Objective(0.1)(q, p, **batch).item()
    found = Objective(0.1, bidirectional=True)(q, p, **batch).item()
    assert found == pytest.approx((forward + total) / 2, rel=1e-4, abs=1e-5)


def test_queries_of_one_passage_are_no_negatives_of_it():
    q = torch.eye(3)[[0, 1]]
    p = torch.eye(3)[[2]]
    batch = {"target": torch.tensor([0, 0]), "masked": torch.zeros(2, 1, dtype=torch.bool)}
    assert Objective(0.1, bidirectional=True)(q, p, **batch).item() == 0


@given(st.integers(0, 100))
def test_shorter_dimensions_are_scored_as_vectors_of_their_own(seed):
    q, p, batch = batch_of(seed)
    parts = []
    for size in (8, 4, 2):
        short = [torch.nn.functional.normalize(side[:, :size], dim=-1) for side in (q, p)]
        parts.append(Objective(0.1)(*short, **batch).item())
    found = Objective(0.1, matryoshka=(4, 2))(q, p, **batch).item()
    assert found == pytest.approx(np.mean(parts), rel=1e-4, abs=1e-6)


def taught(seed):
    q, p, batch = batch_of(seed)
    generator = np.random.default_rng(seed + 1)
    teacher = generator.normal(size=(len(q), len(p))).astype(np.float32) * 3
    teacher[generator.random(teacher.shape) < 0.3] = np.nan
    return q, p, {**batch, "teacher": torch.from_numpy(teacher)}


@given(st.integers(0, 200), st.sampled_from(["listwise", "margin_mse"]), st.floats(0.5, 4))
def test_a_teacher_is_learnt_over_what_it_scored_and_the_mask_leaves(seed, loss, temperature):
    q, p, batch = taught(seed)
    scores, teacher = (q @ p.T).double().numpy() / 0.1, batch["teacher"].double().numpy()
    target, masked = batch["target"].numpy(), batch["masked"].numpy()
    rows = []
    for i, place in enumerate(target):
        allowed = np.flatnonzero(~masked[i])
        contrast = np.logaddexp.reduce(scores[i, allowed]) - scores[i, place]
        known = [j for j in allowed if not np.isnan(teacher[i, j])]
        if len(known) < 2 or place not in known:
            rows.append(contrast)
            continue
        ours, theirs = scores[i, known], teacher[i, known] / temperature
        if loss == "listwise":
            ours, theirs = (x - np.logaddexp.reduce(x) for x in (ours, theirs))
            learnt = (np.exp(theirs) * (theirs - ours)).sum()
        else:
            at = known.index(place)
            error = (ours[at] - ours) - (theirs[at] - theirs)
            learnt = (np.delete(error, at) ** 2).mean()
        rows.append(learnt + 0.3 * contrast)
    objective = Objective(0.1, loss=loss, teacher_temperature=temperature, info_nce_weight=0.3)
    assert objective(q, p, **batch).item() == pytest.approx(np.mean(rows), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("loss", ["infonce", "listwise", "margin_mse"])
def test_every_gradient_is_a_number(loss):
    for seed in range(20):
        q, p, batch = taught(seed)
        batch["teacher"][0] = float("nan")
        q.requires_grad_(), p.requires_grad_()
        objective = Objective(
            0.02, loss=loss, bidirectional=True, self_score_margin=0.1, matryoshka=(4,)
        )
        objective(q, p, **batch).backward()
        assert torch.isfinite(q.grad).all() and torch.isfinite(p.grad).all()


@pytest.mark.parametrize("loss", [listwise, margin_mse])
def test_a_model_that_scores_as_its_teacher_has_nothing_to_learn(loss):
    scores = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    known = torch.ones(5, 6, dtype=torch.bool)
    shifted = scores.detach() + 3.0  # only differences count
    found = loss(scores, shifted, torch.zeros(5, dtype=torch.int64), known)
    torch.testing.assert_close(found, torch.zeros(5), atol=1e-5, rtol=0)
    found.sum().backward()
    torch.testing.assert_close(scores.grad, torch.zeros(5, 6), atol=1e-5, rtol=0)


def test_an_objective_takes_its_settings_from_the_config():
    config = TrainingConfig(temperature=0.5, bidirectional=True, matryoshka=(8,))
    found = Objective.of(config)
    assert (found.temperature, found.bidirectional, found.matryoshka) == (0.5, True, (8,))
    assert found.self_score_margin is config.self_score_margin is None
