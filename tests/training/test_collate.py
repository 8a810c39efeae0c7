from dataclasses import replace

import numpy as np
import pytest

from retrieval_ft.dataset import Negative, Pair, Pairs, Qrels
from retrieval_ft.training.collate import Collator, PairTeacher
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


def columns_of(batch, name_of):
    texts = texts_of(batch, name_of)
    return texts[len(texts) - batch["passages"] :]


def test_what_is_nearly_equal_to_a_positive_is_no_negative():
    collator, name_of = small_collator()
    collator = replace(collator, cluster_of={"a": 0, "e": 0, "b": 1, "x": 1})
    batch = collator(EXAMPLES)
    columns = columns_of(batch, name_of)
    hidden = ["".join(np.array(columns)[row]) for row in batch["masked"].numpy()]
    # e is like a; b is like x, which is relevant to q1 though it is in no row.
    assert ["".join(sorted(row)) for row in hidden] == ["bce", "", "d", ""]


def test_a_query_may_stand_without_its_prompt():
    collator, _ = small_collator()
    bare = {name: np.full(2, 70 + i, np.int32) for i, name in enumerate(("q1", "q2", "q3", "q4"))}
    collator = replace(collator, bare_query_tokens=bare)
    examples = [replace(e, bare=i % 2 == 1) for i, e in enumerate(EXAMPLES)]
    batch = collator(examples)
    first = [row[0] for part in batch["micro_batches"] for row in part["input_ids"].tolist()]
    found = [first[place] for place in batch["place"].tolist()][:4]
    whole = collator.query_tokens
    assert found == [whole["q1"][0], 71, whole["q3"][0], 73]


def test_passages_that_are_not_trained_are_not_encoded():
    collator, name_of = small_collator()
    whole = collator(EXAMPLES)
    asked = []

    def frozen(columns):
        asked.extend(columns)
        return np.ones((len(columns), 3), np.float32)

    batch = replace(collator, frozen=frozen)(EXAMPLES)
    assert texts_of(batch, name_of) == ["q1", "q2", "q3", "q4"]
    assert [passage_id for _, passage_id in asked] == columns_of(whole, name_of)
    assert batch["frozen"].shape == (5, 3)
    assert batch["target"].tolist() == whole["target"].tolist()
    assert batch["masked"].tolist() == whole["masked"].tolist()


def test_a_cross_encoder_teaches_what_it_scored():
    pairs = Pairs(
        (
            Pair("q1", "a", 0.5, (Negative("b", 0.1, 1, 1, teacher=-2.0),), positive_teacher=3.0),
            Pair("q1", "c", 0.5, (Negative("d", 0.1, 1, 1),), positive_teacher=1.5),
            Pair("q2", "b", 0.5, (), positive_teacher=4.0),
            Pair("q4", "d", 0.5, (Negative("e", 0.1, 1, 1),)),
        )
    )
    teacher = PairTeacher(pairs)
    assert len(teacher) == 1  # q1 alone has two scores
    collator, name_of = small_collator()
    batch = replace(collator, teacher=teacher)(EXAMPLES)
    columns = columns_of(batch, name_of)
    found = [
        {name: score for name, score in zip(columns, row, strict=True) if score == score}
        for row in batch["teacher"].tolist()
    ]
    assert found == [{"a": 3.0, "b": -2.0, "c": 1.5}, {"b": 4.0}, {}, {}]
