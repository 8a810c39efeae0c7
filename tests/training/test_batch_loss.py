import numpy as np
import pytest
import torch
from torch import nn

from retrieval_ft.training.loss import BatchLoss
from retrieval_ft.training.objective import Objective
from retrieval_ft.training.plan import plan_batches


@pytest.fixture
def examples(data, pairs):
    plan = plan_batches(pairs, epochs=1, batch_size=16, negatives_per_query=2, seed=1)
    chosen = plan.batches[0]
    passages = [p for e in chosen for p in (e.positive_id, *e.negative_ids)]
    assert len(set(passages)) < len(passages)  # else nothing is shared
    relevant = [data.qrels["train"].relevant(e.query_id) - {e.positive_id} for e in chosen]
    assert set(passages) & frozenset().union(*relevant)  # else nothing is masked
    return chosen


def gradient(encoder, batch, *, graph_tokens, scale=1.0, temperature=0.05):
    """The loss and every gradient, as one vector, of the model in training mode."""
    model = encoder.model.train()
    model.zero_grad(set_to_none=True)
    loss = BatchLoss(
        model,
        precision=encoder.precision,
        objective=Objective(temperature),
        graph_tokens=graph_tokens,
    )(batch)
    (loss * scale).backward()
    return loss.item(), flat_gradient(model)


def flat_gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def set_dropout(model, share):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


def plain_gradient(encoder, collator, data, examples, *, temperature=0.05):
    """Each query, positive and negative of each row encoded by itself, duplicates included."""
    model = encoder.model.train()
    model.zero_grad(set_to_none=True)

    def alone(ids):
        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        features = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        return nn.functional.normalize(model(features)["sentence_embedding"][0], dim=-1)

    queries = [alone(collator.query_tokens[e.query_id]) for e in examples]
    columns = [(i, p) for i, e in enumerate(examples) for p in (e.positive_id, *e.negative_ids)]
    vectors = [alone(collator.passage_tokens[p]) for _, p in columns]
    total = torch.zeros(())
    for i, example in enumerate(examples):
        own = next(c for c, column in enumerate(columns) if column == (i, example.positive_id))
        rivals = {example.positive_id: own}  # one copy of each passage counts, the own first
        for c, (_, passage) in enumerate(columns):
            rivals.setdefault(passage, c)
        hidden = data.qrels["train"].relevant(example.query_id) - {example.positive_id}
        logits = torch.stack(
            [vectors[c] @ queries[i] for passage, c in rivals.items() if passage not in hidden]
        )
        total = total - torch.log_softmax(logits / temperature, dim=0)[0]
    loss = total / len(examples)
    loss.backward()
    return loss.item(), flat_gradient(model)


@pytest.mark.parametrize("graph_tokens", [1, 1_000_000])
@pytest.mark.parametrize("token_budget", [64, 4_096])
def test_the_gradient_is_that_of_the_plain_computation(
    encoder, collator_of, data, examples, graph_tokens, token_budget
):
    set_dropout(encoder.model, 0.0)
    collator = collator_of(encoder, token_budget=token_budget)
    expected_loss, expected = plain_gradient(encoder, collator, data, examples)
    loss, found = gradient(encoder, collator(examples), graph_tokens=graph_tokens)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_gradcache_gives_the_gradient_of_the_kept_graph(
    encoder, collator_of, examples, dropout, scale
):
    set_dropout(encoder.model, dropout)
    batch = collator_of(encoder, token_budget=100)(examples)
    assert len(batch["micro_batches"]) > 3
    found, after = [], []
    for graph_tokens in (1_000_000, 1):
        torch.manual_seed(5)
        found.append(gradient(encoder, batch, graph_tokens=graph_tokens, scale=scale))
        after.append(torch.rand(3).tolist())
    (loss, direct), (cached_loss, cached) = found
    assert cached_loss == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(cached, direct, atol=1e-6, rtol=0)
    assert after[0] == after[1]  # what comes next draws the same numbers


def test_dropout_is_at_work_and_seeded(encoder, collator_of, examples):
    batch = collator_of(encoder)(examples)
    set_dropout(encoder.model, 0.2)
    losses = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        losses.append(gradient(encoder, batch, graph_tokens=1)[0])
    assert losses[0] == losses[1] != losses[2]


def test_the_loss_scales_the_gradient(encoder, collator_of, examples):
    set_dropout(encoder.model, 0.0)
    batch = collator_of(encoder)(examples)
    for graph_tokens in (1_000_000, 1):
        _, once = gradient(encoder, batch, graph_tokens=graph_tokens)
        _, scaled = gradient(encoder, batch, graph_tokens=graph_tokens, scale=3.0)
        torch.testing.assert_close(scaled, 3 * once)


def test_gradients_add_up_over_batches(encoder, collator_of, examples):
    set_dropout(encoder.model, 0.0)
    collator = collator_of(encoder)
    loss = BatchLoss(
        encoder.model.train(),
        precision=encoder.precision,
        objective=Objective(0.05),
        graph_tokens=1,
    )
    parts = [collator(examples[:8]), collator(examples[8:])]
    alone = [gradient(encoder, part, graph_tokens=1)[1] for part in parts]
    encoder.model.zero_grad(set_to_none=True)
    for part in parts:
        loss(part).backward()
    torch.testing.assert_close(flat_gradient(encoder.model), alone[0] + alone[1])


@pytest.mark.parametrize("graph_tokens", [1, 1_000_000])
def test_the_mode_of_the_model_does_not_stop_the_gradient(
    encoder, collator_of, examples, graph_tokens
):
    set_dropout(encoder.model, 0.0)
    batch = collator_of(encoder)(examples)
    expected_loss, expected = gradient(encoder, batch, graph_tokens=graph_tokens, temperature=0.1)
    model = encoder.model.eval()
    model.zero_grad(set_to_none=True)
    loss = BatchLoss(
        model, precision=encoder.precision, objective=Objective(0.1), graph_tokens=graph_tokens
    )
    loss(batch).backward()
    torch.testing.assert_close(flat_gradient(model), expected)
    with torch.no_grad():
        without = loss(batch)
    assert without.item() == pytest.approx(expected_loss)
    assert not without.requires_grad
