import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries
from retrieval_ft.dataset.splits import check_judged, check_leaks, complete, normalize
from retrieval_ft.errors import DataError

CORPUS = Corpus(ids=("p1", "p2"), texts=("sea", "fox"), titles=("", ""))


def dataset_of(texts, **splits):
    return Dataset(
        "mine",
        CORPUS,
        Queries(tuple(texts), tuple(texts.values())),
        {split: Qrels(rows) for split, rows in splits.items()},
    )


def many(count, **splits):
    """`count` train queries of different texts, and other splits as given."""
    texts = {f"q{i}": f"text {i}" for i in range(count)}
    return dataset_of(texts, train={q: {"p1": 1} for q in texts}, **splits)


def test_a_judged_dataset_passes_as_it_is():
    data = tiny.dataset()
    same, dropped = check_judged(data, drop=False)
    assert same is data
    assert dropped == {}
    assert check_judged(data, drop=True) == (data, {})


UNJUDGED = {
    "texts": {"a": "one", "b": "two", "c": "three", "d": "four"},
    "train": {"a": {"p1": 1, "p2": 0}, "c": {"p1": 0}},
    "test": {"d": {"p1": 0, "p2": -1}},
}


def test_a_query_without_a_relevant_passage_is_refused():
    with pytest.raises(DataError) as got:
        check_judged(dataset_of(**UNJUDGED), drop=False)
    assert got.value.exit_code == 3
    assert str(got.value) == (
        "mine: 3 queries have no relevant passage: b (in no qrels); c (grade 0 only in train); "
        "d (grade 0 only in test); judge or remove them, or leave them out with "
        "--set data.unjudged_queries=drop"
    )


def test_or_dropped_with_a_count_by_reason():
    data, dropped = check_judged(dataset_of(**UNJUDGED), drop=True)
    assert dropped == {"queries_in_no_qrels": 1, "queries_without_relevant_passage": 2}
    assert data.queries == Queries(("a",), ("one",))
    assert data.qrels == {"train": Qrels({"a": {"p1": 1, "p2": 0}})}  # no empty test split
    assert check_judged(data, drop=False) == (data, {})


def test_a_query_relevant_in_another_split_is_kept_there():
    data, dropped = check_judged(
        dataset_of({"a": "one"}, train={"a": {"p1": 0}}, dev={"a": {"p1": 1}}), drop=True
    )
    assert dropped == {"queries_in_no_qrels": 0, "queries_without_relevant_passage": 1}
    assert data.queries.ids == ("a",)
    assert data.qrels == {"dev": Qrels({"a": {"p1": 1}})}


def test_a_long_list_is_cut_and_counted():
    data = dataset_of({f"q{i:02}": f"text {i}" for i in range(14)}, train={"q00": {"p1": 1}})
    with pytest.raises(DataError, match=r"13 queries .*q10 \(in no qrels\) and 3 more; judge"):
        check_judged(data, drop=False)


def test_a_text_in_two_splits_is_a_leak_and_the_pairs_are_listed():
    data = dataset_of(
        {
            "a": "The  Sea",
            "b": "the sea\n",
            "c": "fox",
            "d": "THE SEA",
            "e": "Straße",
            "f": "STRASSE",
        },
        train={"a": {"p1": 1}, "e": {"p1": 1}},
        dev={"b": {"p1": 1}, "c": {"p2": 1}},
        test={"d": {"p1": 1}, "f": {"p1": 1}},
    )
    with pytest.raises(DataError) as got:
        check_leaks(data)
    assert got.value.exit_code == 3
    assert str(got.value) == (
        "mine: 3 queries stand in two splits, so a figure on one would be a leak of the other: "
        "train a = dev b ('the sea'); train a = test d ('the sea'); train e = test f ('strasse'); "
        "keep each query text in one split"
    )


def test_one_query_judged_in_two_splits_is_a_leak():
    data = dataset_of({"a": "sea"}, dev={"a": {"p1": 1}}, test={"a": {"p2": 1}})
    with pytest.raises(DataError, match=r"1 queries .*dev a = test a \('sea'\)"):
        check_leaks(data)


def test_a_text_twice_in_one_split_is_no_leak():
    check_leaks(dataset_of({"a": "sea", "b": "Sea"}, train={"a": {"p1": 1}, "b": {"p2": 1}}))
    check_leaks(tiny.dataset())


def test_splits_that_are_there_are_kept():
    data = tiny.dataset()
    assert complete(data, dev_fraction=0.1, test_fraction=0.2, seed=1) == (data, {})


@given(
    st.lists(st.integers(0, 30), min_size=12, max_size=60),
    st.sampled_from([(0.1, 0.2), (0.3, 0.1), (0.45, 0.45)]),
    st.integers(0, 99),
)
def test_carving_takes_whole_texts_and_loses_no_query(numbers, shares, seed):
    texts = {
        f"q{i}": f"Text  {number}" if i % 2 else f"text {number}"
        for i, number in enumerate(numbers)
    }
    rows = {q: {"p1": 1, "p2": i % 3} for i, q in enumerate(texts)}
    data = dataset_of(texts, train=rows)
    groups = len(set(map(normalize, texts.values())))
    dev, test = round(shares[0] * groups), round(shares[1] * groups)
    if not (dev and test and dev + test < groups):
        return
    found, carved = complete(data, dev_fraction=shares[0], test_fraction=shares[1], seed=seed)
    assert (found.corpus, found.queries, found.name) == (data.corpus, data.queries, data.name)
    assert list(found.qrels) == ["train", "dev", "test"]
    merged = {q: row for qrels in found.qrels.values() for q, row in qrels.grades.items()}
    assert merged == rows
    assert sum(len(qrels) for qrels in found.qrels.values()) == len(rows)  # none stands twice
    assert carved == {split: len(found.qrels[split]) for split in ("test", "dev")}
    for split, count in (("dev", dev), ("test", test)):
        assert len({normalize(texts[q]) for q in found.qrels[split].grades}) == count
    check_leaks(found)
    assert complete(data, dev_fraction=shares[0], test_fraction=shares[1], seed=seed)[0] == found


def test_only_the_missing_split_is_carved():
    texts = {f"q{i}": f"text {i}" for i in range(21)}
    rows = {q: {"p1": 1} for q in texts}
    test = {"q20": rows.pop("q20")}
    found, carved = complete(
        dataset_of(texts, train=rows, test=test), dev_fraction=0.1, test_fraction=0.2, seed=1
    )
    assert carved == {"dev": 2}
    assert found.qrels["test"] == Qrels(test)
    assert len(found.qrels["train"]) == 18


def test_seeds_carve_differently_and_the_order_of_files_does_not_matter():
    def test_ids(data, seed):
        found, _ = complete(data, dev_fraction=0.1, test_fraction=0.2, seed=seed)
        return set(found.qrels["test"].grades)

    data = many(50)
    assert test_ids(data, 1) != test_ids(data, 2)
    texts = dict(reversed(data.queries.text_of.items()))
    turned = dataset_of(texts, train={q: {"p1": 1} for q in texts})
    assert test_ids(turned, 1) == test_ids(data, 1)


@pytest.mark.parametrize(
    ("count", "splits", "message"),
    [
        (1, {}, "mine: 1 train queries are too few to carve a test split of 20%; bring qrels/test"),
        (2, {}, "2 train queries are too few to carve a test split"),
        (
            3,
            {"test": {}},
            "3 train queries are too few to carve a dev split of 10%; bring qrels/dev",
        ),
    ],
)
def test_too_few_to_carve_from_is_said(count, splits, message):
    with pytest.raises(DataError, match=message) as got:
        complete(many(count, **splits), dev_fraction=0.1, test_fraction=0.2, seed=1)
    assert got.value.exit_code == 3


@pytest.mark.parametrize("splits", [{"test": {"a": {"p1": 1}}}, {"train": {"a": {"p1": 0}}}])
def test_no_train_pair_is_said(splits):
    with pytest.raises(
        DataError, match=r"mine: no train pairs: qrels/train\.tsv is missing"
    ) as got:
        complete(dataset_of({"a": "sea"}, **splits), dev_fraction=0.1, test_fraction=0.2, seed=1)
    assert got.value.exit_code == 3


@given(st.text())
def test_the_normal_form_is_stable(text):
    once = normalize(text)
    assert normalize(once) == once
    assert normalize(f"  {text}\n") == once
