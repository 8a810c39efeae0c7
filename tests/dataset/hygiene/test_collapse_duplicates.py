import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries
from retrieval_ft.dataset.hygiene import clusters, collapse

TEXTS = ("the red fox", "a boat", "The Red Fox", "a kite", "THE RED FOX", "a boat ")
CORPUS = Corpus(("p0", "p1", "p2", "p3", "p4", "p5"), TEXTS, ("",) * 6)
QUERIES = Queries(("q1", "q2", "q3"), ("what is red", "what sails", "what is red"))


def dataset_of(train, views=None, corpus=CORPUS, **splits):
    qrels = {"train": train, **splits}
    return Dataset("mine", corpus, QUERIES, {s: Qrels(g) for s, g in qrels.items()}, views or {})


def labelled(dataset):
    return {p for judged in dataset.qrels.values() for row in judged.grades.values() for p in row}


def collapsed(dataset):
    found = clusters(dataset.corpus, jaccard=0.9, labelled=labelled(dataset))
    clean, checks = collapse(dataset, found)
    return clean, {check.name: check for check in checks}


def test_each_cluster_leaves_one_id_and_its_labels_follow():
    data = dataset_of({"q1": {"p2": 1}, "q2": {"p5": 2, "p3": 0}}, test={"q3": {"p4": 1}})
    clean, checks = collapsed(data)
    assert clean.corpus.ids == ("p2", "p3", "p5")
    assert clean.corpus.texts == ("The Red Fox", "a kite", "a boat ")
    assert clean.qrels["train"].grades == {"q1": {"p2": 1}, "q2": {"p5": 2, "p3": 0}}
    assert clean.qrels["test"].grades == {"q3": {"p2": 1}}
    assert clean.corpus.metadata_of("p2") == {"duplicates": ["p0", "p4"]}
    assert clean.corpus.metadata_of("p3") == {}
    equal = checks["equal_passages"]
    assert (equal.touched, equal.of) == (3, 6)
    assert [(row["passage_id"], row["same_as"]) for row in equal.rows] == [
        ("p0", "p2"),
        ("p1", "p5"),
        ("p4", "p2"),
    ]
    assert checks["near_duplicates"].touched == 0
    assert checks["merged_labels"].touched == 0


def test_equal_queries_stay_apart():
    clean, _ = collapsed(dataset_of({"q1": {"p0": 1}, "q3": {"p2": 1}}))
    assert clean.queries == QUERIES
    assert clean.qrels["train"].grades == {"q1": {"p0": 1}, "q3": {"p0": 1}}


def test_judgements_that_meet_keep_the_highest_grade_and_contradictions_are_counted():
    data = dataset_of({"q1": {"p0": 0, "p2": 1, "p4": 0}, "q2": {"p1": 1, "p5": 2}})
    clean, checks = collapsed(data)
    assert clean.qrels["train"].grades == {"q1": {"p0": 1}, "q2": {"p1": 2}}
    merged = checks["merged_labels"]
    assert (merged.touched, merged.of) == (5, 5)
    assert merged.done == (
        "the highest grade kept; relevant and not relevant met 1 times, and relevant won"
    )
    assert merged.rows == (
        {
            "split": "train",
            "query_id": "q1",
            "passage_id": "p0",
            "judged": {"p0": 0, "p2": 1, "p4": 0},
            "grade": 1,
            "contradictory": True,
        },
        {
            "split": "train",
            "query_id": "q2",
            "passage_id": "p1",
            "judged": {"p1": 1, "p5": 2},
            "grade": 2,
            "contradictory": False,
        },
    )


def test_views_follow_and_the_representatives_own_comes_first():
    views = {"q1": {"p4": "late", "p2": "later"}, "q2": {"p5": "other", "p1": "own"}}
    data = dataset_of({"q1": {"p0": 1}, "q2": {"p1": 1}}, views)
    clean, _ = collapsed(data)
    assert clean.views == {"q1": {"p0": "later"}, "q2": {"p1": "own"}}


def test_metadata_of_what_fell_is_listed_and_earlier_duplicates_are_carried():
    metadata = ({}, {}, {"url": "two", "duplicates": ["old"]}, {}, {"url": "four"}, {})
    corpus = Corpus(CORPUS.ids, TEXTS, CORPUS.titles, metadata)
    clean, checks = collapsed(dataset_of({"q1": {"p0": 1}}, corpus=corpus))
    assert clean.corpus.metadata_of("p0") == {"duplicates": ["p2", "old", "p4"]}
    by_id = {row["passage_id"]: row["metadata"] for row in checks["equal_passages"].rows}
    assert by_id["p4"] == {"url": "four"}
    json.dumps([dict(row) for check in checks.values() for row in check.rows])


def test_near_duplicates_are_listed_with_their_similarity():
    text = " ".join(f"w{i}" for i in range(40))
    corpus = Corpus(("a", "b", "c"), (text, text + " end", "other words"), ("",) * 3)
    clean, checks = collapsed(dataset_of({"q1": {"c": 1}}, corpus=corpus))
    assert clean.corpus.ids == ("a", "c")
    (row,) = checks["near_duplicates"].rows
    assert row["jaccard"] == pytest.approx(38 / 39, abs=1e-4)
    assert (row["passage_id"], row["same_as"]) == ("b", "a")
    assert checks["equal_passages"].touched == 0


def test_a_dataset_without_duplicates_comes_back_itself():
    corpus = CORPUS.select(["p0", "p1", "p3"])
    data = dataset_of({"q1": {"p0": 1}}, corpus=corpus)
    clean, checks = collapsed(data)
    assert clean is data
    assert [check.touched for check in checks.values()] == [0, 0, 0]


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["fox", "FOX", "fox ", "sea", "Sea", "hill"]), max_size=8),
    data=st.data(),
)
def test_collapsing_twice_is_collapsing_once_and_no_label_is_lost(texts, data):
    ids = tuple(f"p{i}" for i in range(len(texts)))
    corpus = Corpus(ids, tuple(texts), ("",) * len(texts))
    row = st.dictionaries(st.sampled_from(ids), st.integers(0, 2)) if ids else st.just({})
    grades = data.draw(st.fixed_dictionaries({"q1": row, "q2": row}))
    before = dataset_of(grades, corpus=corpus)
    once, _ = collapsed(before)
    twice, checks = collapsed(once)
    assert twice == once
    assert all(check.touched == 0 for check in checks.values())
    assert len(once.corpus) == len({" ".join(text.casefold().split()) for text in texts})
    named = [d for i in once.corpus.ids for d in once.corpus.metadata_of(i).get("duplicates", [])]
    assert sorted([*once.corpus.ids, *named]) == sorted(ids)
    for query_id, judged in grades.items():
        text_of = dict(zip(ids, texts, strict=True))
        best = {}
        for passage_id, grade in judged.items():
            key = text_of[passage_id].casefold().strip()
            best[key] = max(grade, best.get(key, grade))
        after = once.qrels["train"].grades[query_id]
        assert {text_of[p].casefold().strip(): g for p, g in after.items()} == best
