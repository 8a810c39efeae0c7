from dataclasses import replace

import numpy as np
import pytest

from retrieval_ft.dataset import Qrels
from retrieval_ft.training.collate import Collator
from retrieval_ft.training.plan import Example

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
