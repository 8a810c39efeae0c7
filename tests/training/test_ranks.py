"""Two processes on one batch, over gloo, beside one process on the same batch."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_fit import CONFIG, EVERY, STEPS, Run, interrupt, scores

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


def in_two_processes(work, folder, *given):
    """What `work(*given)` returns in each of two processes of a group; None where one failed."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sentence_transformers", "datasets", "faiss"])
    folder.mkdir()
    both = [context.Process(target=member, args=(rank, folder, work, given)) for rank in range(2)]
    for process in both:
        process.start()
    found = []
    for rank, process in enumerate(both):
        process.join()
        path = folder / f"{rank}.pt"
        found.append(torch.load(path, weights_only=True) if process.exitcode == 0 else None)
    return found


def member(rank, folder, work, given):
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    torch.save(work(*given), folder / f"{rank}.pt")
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
    for together in in_two_processes(
        one_step, tmp_path / "two", model_folder, batches, graph_tokens
    ):
        for (loss, gradient), (expected_loss, expected) in zip(together, alone, strict=True):
            assert loss == pytest.approx(expected_loss, abs=1e-5)
            assert expected.abs().max() > 0.1
            torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0)


def one_fit(model_folder, folder, pairs, collator, settings):
    """The weights after a whole `fit`, what it says, and how often dev was scored here."""
    run = Run(model_folder, folder, pairs, lambda _: collator)
    rank, settings = ranks().rank, dict(settings)
    config = CONFIG.model_copy(update={"dropout": settings.pop("dropout", 0.0)})
    if "scores" in settings:
        settings["dev"] = scores(*settings.pop("scores"))
    if settings.pop("strike", None) == rank:
        settings |= {"at": 5, "then": interrupt}
    if rank:  # what the first process says holds, whatever another one is given
        with torch.no_grad():
            next(run.model.parameters()).zero_()
    try:
        result = run.fit(config=config, **settings)
    except KeyboardInterrupt:
        return {"interrupted": True}
    losses = [row["loss"] for row in result.log if "loss" in row]
    said = {"best": result.best_step, "steps": result.steps, "losses": losses}
    return {**said, "weights": run.weights(), "scored": len(run.seen)}


def nearly_the_same(a, b, *, within=1e-5):
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        # Attention does not change with a key's bias: its gradient is rounding, which Adam blows up.
        if within and name.endswith("key.bias"):
            continue
        torch.testing.assert_close(tensor, b[name], atol=within, rtol=0)


@pytest.mark.parametrize("graph_tokens", [1, 1_000_000])
def test_two_processes_train_the_weights_of_one(
    tmp_path, model_folder, collator_of, pairs, encoder, graph_tokens
):
    settings = {"graph_tokens": graph_tokens, "scores": (0.1, 0.2, 0.4, 0.3)}
    given = (pairs, collator_of(encoder, token_budget=100), settings)
    alone = one_fit(model_folder, tmp_path / "alone", *given)
    first, second = in_two_processes(
        one_fit, tmp_path / "meet", model_folder, tmp_path / "two", *given
    )
    assert alone["steps"] == STEPS and alone["best"] == 3 * EVERY
    assert first["scored"] == alone["scored"] == 4 and second["scored"] == 0
    nearly_the_same(first["weights"], alone["weights"])
    nearly_the_same(second["weights"], first["weights"], within=0.0)
    for both in (first, second):
        assert both["best"] == alone["best"] and both["steps"] == alone["steps"]
        assert both["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    kept = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("alone", "two")]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("struck", [0, 1])
def test_a_signal_to_one_process_ends_both_and_a_resumed_run_ends_the_same(
    tmp_path, model_folder, collator_of, pairs, encoder, struck
):
    given = (pairs, collator_of(encoder), {"dropout": 0.1})
    whole = in_two_processes(one_fit, tmp_path / "a", model_folder, tmp_path / "whole", *given)
    place = (model_folder, tmp_path / "cut", *given[:2])
    ended = in_two_processes(one_fit, tmp_path / "b", *place, {**given[2], "strike": struck})
    assert ended == [{"interrupted": True}] * 2
    assert (tmp_path / "cut" / "checkpoint-5").is_dir()
    resumed = in_two_processes(one_fit, tmp_path / "c", *place, {**given[2], "resume": True})
    for both, expected in zip(resumed, whole, strict=True):
        nearly_the_same(both["weights"], expected["weights"], within=1e-6)
        assert both["best"] == expected["best"] and both["losses"] == expected["losses"]
