"""Two processes on one batch, over gloo, beside one process on the same batch."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.encoder.encoder import load_encoder
from retrieval_ft.ranks import Ranks, ranks, sum_gradients
from retrieval_ft.training.loss import BatchLoss
from retrieval_ft.training.objective import Objective


@given(st.lists(st.integers(0, 9), max_size=5), st.integers(1, 4))
def test_shares_of_rows_are_even_and_whole(counts, size):
    for count in counts:
        shares = [list(Ranks(rank, size).rows(count)) for rank in range(size)]
        assert sorted(row for share in shares for row in share) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_is_the_main_one():
    assert ranks() == Ranks(0, 1) and ranks().main


def one_step(model_folder, batches, graph_tokens):
    """Loss and summed gradient of each batch."""
    encoder = load_encoder(model_folder, device="cpu", precision="fp32")
    objective = Objective(0.05, bidirectional=True, self_score_margin=0.3)
    loss = BatchLoss(
        encoder.model.train(),
        precision=encoder.precision,
        objective=objective,
        graph_tokens=graph_tokens,
    )
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found = []
    for batch in batches:
        encoder.model.zero_grad(set_to_none=True)
        value = loss(batch)
        value.backward()
        sum_gradients(list(encoder.model.parameters()), ranks())
        gradients = [p.grad for p in encoder.model.parameters() if p.grad is not None]
        found.append((value.item(), torch.cat([g.flatten() for g in gradients])))
    return found


def worker(rank, size, folder, model_folder, batches, graph_tokens):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size
    )
    found = one_step(model_folder, batches, graph_tokens)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("graph_tokens", [1, 1_000_000])
def test_two_processes_have_the_gradient_of_one(
    tmp_path, model_folder, collator_of, pairs, graph_tokens
):
    from retrieval_ft.training.plan import plan_batches

    encoder = load_encoder(model_folder, device="cpu", precision="fp32")
    plan = plan_batches(pairs, epochs=1, batch_size=10, negatives_per_query=2, seed=4)
    collator = collator_of(encoder, token_budget=100)
    batches = [collator(batch) for batch in plan.batches[:3]]
    alone = one_step(model_folder, batches, graph_tokens)
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sentence_transformers", "datasets", "faiss"])
    given = (2, tmp_path, model_folder, batches, graph_tokens)
    workers = [context.Process(target=worker, args=(rank, *given)) for rank in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
        assert process.exitcode == 0
    for rank in range(2):
        together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for (loss, gradient), (expected_loss, expected) in zip(together, alone, strict=True):
            assert loss == pytest.approx(expected_loss, abs=1e-5)
            assert expected.abs().max() > 0.1
            torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0)
