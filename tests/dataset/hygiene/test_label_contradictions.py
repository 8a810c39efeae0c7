from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries
from retrieval_ft.dataset.hygiene import clusters
from retrieval_ft.dataset.hygiene.labels import contradictions, settle

CORPUS = Corpus(("p1", "p2", "p3"), ("sea", "Sea", "fox"), ("",) * 3)
QUERIES = Queries(("a", "b", "c"), ("What is it?", "what  IS it?", "who runs"))


def dataset_of(**splits):
    return Dataset("mine", CORPUS, QUERIES, {split: Qrels(rows) for split, rows in splits.items()})


def test_queries_of_one_text_get_the_highest_grade_of_a_passage():
    data = dataset_of(train={"a": {"p1": 0, "p3": 1}, "b": {"p1": 2}, "c": {"p1": 0}})
    settled, check = settle(data)
    assert settled.qrels["train"].grades == {
        "a": {"p1": 2, "p3": 1},
        "b": {"p1": 2},
        "c": {"p1": 0},
    }
    assert data.qrels["train"].grades["a"]["p1"] == 0
    assert (check.name, check.touched, check.of) == ("contradictory_labels", 2, 4)
    (row,) = check.rows
    assert row == {
        "query": "What is it?",
        "judged": [
            {"split": "train", "query_id": "a", "passage_id": "p1", "grade": 0},
            {"split": "train", "query_id": "b", "passage_id": "p1", "grade": 2},
        ],
        "contradictory": True,
        "decided": "grade 2 for all",
    }
    assert "; 1 passages were relevant under one id and not under another" in check.done


def test_grades_that_differ_only_in_degree_are_no_contradiction_but_are_listed():
    settled, check = settle(dataset_of(train={"a": {"p1": 1}, "b": {"p1": 2}}))
    assert settled.qrels["train"].grades == {"a": {"p1": 2}, "b": {"p1": 2}}
    assert [row["contradictory"] for row in check.rows] == [False]


def test_labels_meet_across_splits():
    settled, check = settle(dataset_of(train={"a": {"p1": 1}}, test={"b": {"p1": 0, "p3": 1}}))
    assert settled.qrels["test"].grades == {"b": {"p1": 1, "p3": 1}}
    assert [judged["split"] for judged in check.rows[0]["judged"]] == ["train", "test"]


def test_a_passage_that_one_query_does_not_judge_stays_unjudged():
    data = dataset_of(train={"a": {"p1": 1}, "b": {"p3": 1}})
    settled, check = settle(data)
    assert settled is data
    assert (check.touched, check.rows) == (0, ())


def test_on_duplicates_that_are_only_listed_contradictions_are_too():
    data = dataset_of(train={"a": {"p1": 1, "p2": 0}, "b": {"p2": 1}, "c": {"p3": 1}})
    found = clusters(CORPUS, jaccard=0.9)
    check = contradictions(data, found)
    assert (check.name, check.touched, check.of) == ("contradictory_duplicates", 3, 4)
    assert check.rows[0]["decided"] == "left as it is"
    assert contradictions(dataset_of(train={"a": {"p1": 1, "p2": 1}}), found).rows == ()
