import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.training.objective import Objective, info_nce, listwise, margin_mse


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
