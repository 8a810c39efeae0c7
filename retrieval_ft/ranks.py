"""The processes of a run started by torchrun or accelerate: which one this is, and how many.

Outside a process group there is one. Imports torch; only heavy code imports this.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed


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
            mine += range(start + rank, start + count, who.size)
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
    used = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8)
    used = used.to(trained[0].device)
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
