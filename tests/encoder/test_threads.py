import threading
import time

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.encoder.threads import cores, side_by_side


@given(st.lists(st.integers(), max_size=9), st.integers(1, 3))
def test_results_come_in_order(items, at_once):
    assert list(side_by_side(str, items, at_once=at_once)) == [str(item) for item in items]


def test_pieces_run_at_once_on_one_thread_each():
    meeting, before = threading.Barrier(2, timeout=20), torch.get_num_threads()

    def work(_):
        meeting.wait()  # none gets on alone
        return torch.get_num_threads()

    assert list(side_by_side(work, range(4), at_once=2)) == [1] * 4
    assert torch.get_num_threads() == before


def test_an_error_comes_out_and_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()

    def work(item):
        time.sleep(0.01)
        if item == 1:
            raise ValueError("no")
        return item

    with pytest.raises(ValueError, match="no"):
        list(side_by_side(work, range(6), at_once=2))
    assert torch.get_num_threads() == before
    assert list(side_by_side(abs, [-1, -2, -3], at_once=2)) == [1, 2, 3]


def test_a_gpu_has_one_piece_at_a_time():
    assert cores(torch.device("cuda")) == 1
    assert cores(torch.device("cpu")) == torch.get_num_threads()


def test_vectors_do_not_depend_on_the_number_of_threads(encoder):
    texts = [" ".join(tiny.WORDS[i % 7 : 8 + i % 11]) for i in range(60)]
    encoder.token_budget = 64
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(encoder.encode(texts, role="passage"))
    torch.set_num_threads(before)
    assert all(np.array_equal(found[0], other) for other in found[1:])
