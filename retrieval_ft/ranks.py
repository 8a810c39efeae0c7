"""The processes of a run started by torchrun or accelerate: which one this is, and how many.

Outside a process group there is one. Imports torch; only heavy code imports this.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from retrieval_ft.errors import ConfigError

Made = TypeVar("Made")

_PATIENCE = timedelta(hours=2)
"""The longest that one process waits for another that lives: the first scores dev alone, say. One
that has died is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """This process's rank from 0, and the number of processes."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def rows(self, count: int) -> range:
        """The rows of `count` that are this process's share."""
        return range(self.rank, count, self.size)


def ranks() -> Ranks:
    """The processes of the default group; one where none was set up."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Ranks()
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def join() -> Store:
    """Join the others that the same launcher started, as its environment variables say.

    Tensors on a GPU go by NCCL and others by gloo; process i of a machine has its GPU number i.

    Returns:
        The launcher's store of small values, which all processes see.

    Raises:
        ConfigError: this machine has more processes than GPUs.
    """
    store: Store
    store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
    backend = "gloo"
    if torch.cuda.is_available():
        local, seen = int(os.environ.get("LOCAL_RANK", rank)), torch.cuda.device_count()
        if local >= seen:
            raise ConfigError(
                f"process {local + 1} of this machine has no GPU of its own, torch sees {seen}; start "
                "one process a GPU (--nproc_per_node), or set CUDA_VISIBLE_DEVICES= to use none"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    group = PrefixStore("group", store)
    distributed.init_process_group(
        backend, store=group, rank=rank, world_size=size, timeout=_PATIENCE
    )
    return store


def wait_for_all() -> None:
    """Return when every process has come here."""
    if ranks().size > 1:
        distributed.barrier()


def any_says(said: bool, /) -> bool:
    """Whether at least one of the processes says so."""
    if ranks().size == 1:
        return said
    flag = torch.tensor(int(said))
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag.item())


def from_main(make: Callable[[], Made]) -> Made:
    """What the first process makes, on every one of them; the others make nothing."""
    who = ranks()
    if who.size == 1:
        return make()
    box = [make() if who.main else None]
    distributed.broadcast_object_list(box)
    return box[0]  # type: ignore[return-value]


def share_weights(model: nn.Module) -> None:
    """Give every process the first one's weights, to the bit."""
    if ranks().size > 1:
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def gather_rows(own: Tensor, counts: list[int], who: Ranks) -> Tensor:
    """Every row that the processes computed, in the order of the whole, with no gradient but one's own.

    Args:
        own: [n, d], this process's rows: of each block in turn, its share (`Ranks.rows`).
        counts: rows of each block.
        who: this process among the others, which call this with the same counts.

    Returns:
        [sum of counts, d].
    """
    if who.size == 1:
        return own
    rows: list[list[int]] = [[] for _ in range(who.size)]
    start = 0
    for count in counts:
        for rank, mine in enumerate(rows):
            mine += [start + row for row in Ranks(rank, who.size).rows(count)]
        start += count
    padded = own.new_zeros((max(map(len, rows)), own.shape[1]))
    padded[: len(own)] = own.detach()
    parts = [torch.empty_like(padded) for _ in rows]
    distributed.all_gather(parts, padded)
    parts = [part[: len(mine)] for part, mine in zip(parts, rows, strict=True)]
    parts[who.rank] = own
    order = torch.tensor([row for mine in rows for row in mine], device=own.device)
    return torch.cat(parts)[torch.argsort(order)]


def sum_gradients(parameters: list[torch.nn.Parameter], who: Ranks) -> None:
    """Replace every gradient by its sum over the processes.

    A parameter that some have a gradient for counts as zero in the others; one that none has a
    gradient for (it is not used) keeps none, so that weight decay leaves it alone.
    """
    if who.size == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    # Not on the GPU, which nothing has to wait for here.
    used = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8)
    distributed.all_reduce(used, distributed.ReduceOp.MAX)
    gradients = []
    for parameter, has in zip(trained, used.tolist(), strict=True):
        if has:
            parameter.grad = (
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )
            gradients.append(parameter.grad)
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    totals = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, total in zip(gradients, totals, strict=True):
        gradient.copy_(total.view_as(gradient))
