from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retrieval_ft.dataset import Qrels
from retrieval_ft.training.loss import Collator, MaskedInfoNCE, info_nce
from retrieval_ft.training.plan import Example, plan_batches


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
    found = info_nce(
        torch.from_numpy(q),
        torch.from_numpy(p),
        target=torch.from_numpy(target),
        masked=torch.from_numpy(masked),
        temperature=temperature,
    )
    assert found.shape == ()
    np.testing.assert_allclose(found.item(), expected, rtol=1e-4, atol=1e-5)


def test_a_masked_passage_has_no_gradient():
    generator = np.random.default_rng(3)
    q = torch.from_numpy(unit(generator, 2)).requires_grad_()
    p = torch.from_numpy(unit(generator, 4)).requires_grad_()
    masked = torch.tensor([[False, False, True, False], [False, False, True, True]])
    target = torch.tensor([0, 1])
    info_nce(q, p, target=target, masked=masked, temperature=0.05).backward()
    assert (p.grad[2] == 0).all()
    assert all((p.grad[i] != 0).any() for i in (0, 1, 3))
    assert torch.isfinite(q.grad).all()


def test_a_query_with_all_but_its_positive_masked_learns_nothing():
    q = torch.eye(2).requires_grad_()
    masked = torch.tensor([[False, True], [True, False]])
    loss = info_nce(q, torch.eye(2), target=torch.arange(2), masked=masked, temperature=0.02)
    loss.backward()
    assert loss.item() == 0
    assert (q.grad == 0).all()


EXAMPLES = (
    Example("q1", "a", ("b", "c")),
    Example("q2", "b", ("a",)),
    Example("q3", "c", ()),
    Example("q4", "d", ("e", "b")),
)
QRELS = Qrels({"q1": {"a": 1, "c": 2, "x": 1}, "q2": {"b": 1, "d": 0}, "q3": {"c": 1, "d": 1}})


def small_collator(token_budget=16):
    lengths = {"q1": 3, "q2": 9, "q3": 1, "q4": 2, "a": 20, "b": 4, "c": 8, "d": 8, "e": 5}
    names = sorted(lengths)
    rows = {name: np.full(lengths[name], 10 + names.index(name), np.int32) for name in names}
    return Collator(
        query_tokens={name: rows[name] for name in names if name[0] == "q"},
        passage_tokens={name: rows[name] for name in names if name[0] != "q"},
        qrels=QRELS,
        pad_id=0,
        token_budget=token_budget,
    ), {10 + i: name for i, name in enumerate(names)}


def texts_of(batch, name_of):
    """The names of the batch's distinct texts, as `place` orders them."""
    first = [row[0] for part in batch["micro_batches"] for row in part["input_ids"].tolist()]
    return [name_of[first[place]] for place in batch["place"].tolist()]


@pytest.mark.parametrize("token_budget", [1, 16, 40, 10_000])
def test_each_distinct_text_stands_once_and_in_its_place(token_budget):
    collator, name_of = small_collator(token_budget)
    batch = collator(EXAMPLES)
    texts = texts_of(batch, name_of)
    assert texts == ["q1", "q2", "q3", "q4", "a", "b", "c", "d", "e"]
    assert batch["passages"] == 5
    passages = texts[-5:]
    for i, example in enumerate(EXAMPLES):
        assert texts[batch["query_rows"][i]] == example.query_id
        assert passages[batch["target"][i]] == example.positive_id
    for part in batch["micro_batches"]:
        rows, width = part["input_ids"].shape
        assert rows == 1 or rows * width <= token_budget
        assert (part["input_ids"].eq(0) == part["attention_mask"].eq(0)).all()


def test_the_mask_hides_other_positives_and_never_the_own():
    collator, _ = small_collator()
    masked = collator(EXAMPLES)["masked"]
    hidden = {"q1": "c", "q2": "", "q3": "d", "q4": ""}  # d is judged 0 for q2, q4 is not judged
    for i, example in enumerate(EXAMPLES):
        assert "".join(np.array(list("abcde"))[masked[i].numpy()]) == hidden[example.query_id]


def test_a_query_that_stands_twice_is_encoded_once():
    collator, name_of = small_collator()
    batch = collator([Example("q1", "a", ()), Example("q1", "c", ("b",))])
    assert texts_of(batch, name_of) == ["q1", "a", "c", "b"]
    assert batch["query_rows"].tolist() == [0, 0]
    assert batch["target"].tolist() == [0, 1]
    assert batch["masked"].tolist() == [[False, True, False], [True, False, False]]


def test_a_view_is_encoded_for_its_own_query_and_is_its_passage_to_the_others():
    collator, _ = small_collator()
    seen = {("q1", "a"): np.full(6, 90, np.int32), ("q3", "c"): np.full(2, 91, np.int32)}
    collator = replace(collator, view_tokens=seen)
    examples = [Example("q1", "a", ("c",)), Example("q2", "b", ("a",)), Example("q3", "c", ())]
    batch = collator(examples)
    first = [row[0] for part in batch["micro_batches"] for row in part["input_ids"].tolist()]
    columns = [first[place] for place in batch["place"].tolist()][3:]
    c, b, a = (int(collator.passage_tokens[name][0]) for name in "cba")
    assert columns == [90, c, b, a, 91]
    assert batch["target"].tolist() == [0, 2, 4]
    hidden = [[columns[i] for i in np.flatnonzero(row)] for row in batch["masked"].numpy()]
    # q1 has a and c for its own, however they are seen; q3 has c (and d).
    assert hidden == [[c, a, 91], [], [c]]


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
    loss = MaskedInfoNCE(
        model, precision=encoder.precision, temperature=temperature, graph_tokens=graph_tokens
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
    loss = MaskedInfoNCE(
        encoder.model.train(), precision=encoder.precision, temperature=0.05, graph_tokens=1
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
    loss = MaskedInfoNCE(
        model, precision=encoder.precision, temperature=0.1, graph_tokens=graph_tokens
    )
    loss(batch).backward()
    torch.testing.assert_close(flat_gradient(model), expected)
    with torch.no_grad():
        without = loss(batch)
    assert without.item() == pytest.approx(expected_loss)
    assert not without.requires_grad
