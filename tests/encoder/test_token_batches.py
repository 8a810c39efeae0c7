import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.encoder.batching import Tokens, pad, token_batches

LENGTHS = st.lists(st.integers(1, 600), max_size=60)
MULTIPLE = 8


def width(lengths, rows):
    return -(-max(lengths[row] for row in rows) // MULTIPLE) * MULTIPLE


@given(LENGTHS, st.integers(1, 5_000))
def test_every_row_stands_in_one_batch_within_the_budget(lengths, budget):
    batches = token_batches(np.array(lengths, np.int64), budget=budget)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * width(lengths, batch) <= budget


@given(LENGTHS, st.integers(1, 5_000))
def test_a_batch_is_full_and_holds_rows_of_like_length(lengths, budget):
    batches = token_batches(np.array(lengths, np.int64), budget=budget)
    flat = [lengths[row] for batch in batches for row in batch.tolist()]
    assert flat == sorted(lengths, reverse=True)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * width(lengths, batch) > budget


@given(LENGTHS.filter(bool), st.integers(1, 5_000), st.data())
def test_some_of_the_rows_can_be_batched_alone(lengths, budget, data):
    chosen = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    order = np.array(sorted(chosen, key=lambda row: -lengths[row]), np.int64)
    batches = token_batches(np.array(lengths, np.int64), budget=budget, order=order)
    assert [row for batch in batches for row in batch.tolist()] == order.tolist()


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=40), min_size=1, max_size=8))
def test_padding_keeps_the_tokens_and_masks_the_rest(rows):
    features = pad([np.array(row, np.int32) for row in rows], pad_id=77)
    ids, mask = features["input_ids"].numpy(), features["attention_mask"].numpy()
    assert ids.shape == mask.shape == (len(rows), width([len(r) for r in rows], range(len(rows))))
    assert mask.sum(axis=1).tolist() == [len(row) for row in rows]
    for i, row in enumerate(rows):
        assert ids[i, : len(row)].tolist() == row
        assert (ids[i, len(row) :] == 77).all()
        assert (mask[i, : len(row)] == 1).all()


def test_no_text_has_no_length():
    assert Tokens((), np.zeros(0, np.bool_)).lengths.shape == (0,)
    assert token_batches(np.zeros(0, np.int64), budget=8) == []
