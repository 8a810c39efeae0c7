"""Pieces of work on the cores of a CPU, one thread of the maths library each.

A batch of texts is thousands of small operations. Where each of them is spread over the cores, waking
the threads costs as much as the work; where each core has a piece of its own, no thread waits for another
one, and a piece gives the same bits whatever the number of cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores(device: torch.device) -> int:
    """Pieces that run at once on a device: torch's threads on a CPU, 1 elsewhere."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], *, at_once: int
) -> Iterator[Result]:
    """Do the work for every item, `at_once` of them at a time, and give the results in order.

    Args:
        work: releases the interpreter's lock for most of its time, as torch does. What torch keeps
            by thread (gradient mode, autocast) it has to set itself.
        items: what it is done for.
        at_once: from `cores`.
    """
    if at_once == 1 or len(items) < 2:
        yield from map(work, items)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # MKL has one setting for all threads
    try:
        yield from _pool(at_once, os.getpid()).map(work, items)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=2)
def _pool(size: int, process: int) -> ThreadPoolExecutor:
    """The threads of a process, which a child that it forks does not have."""
    return ThreadPoolExecutor(size, "encode", initializer=torch.set_num_threads, initargs=(1,))
