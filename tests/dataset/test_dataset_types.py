import numpy as np
import pytest

from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries, Ranking


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="1 ids, 2 texts, 1 titles"):
        Corpus(ids=("a",), texts=("x", "y"), titles=("",))
    with pytest.raises(ValueError, match="2 ids, 1 texts"):
        Queries(("a", "b"), ("x",))


def test_a_passage_is_its_title_and_its_text():
    corpus = Corpus(ids=("a", "b", "c"), texts=("x", "y", ""), titles=("T", "", "only"))
    assert corpus.passages == ("T x", "y", "only")
    assert [corpus.index_of[i] for i in corpus.ids] == [0, 1, 2]


def test_relevant_is_a_grade_above_zero():
    qrels = Qrels({"q": {"a": 2, "b": 0, "c": -1}, "p": {}})
    assert qrels.relevant("q") == {"a"}
    assert qrels.relevant("unknown") == frozenset()
    assert qrels.query_ids == ("p", "q")
    assert qrels.pair_count == 1


def test_the_queries_of_a_split_are_the_judged_ones():
    corpus = Corpus(ids=("a", "b"), texts=("x", "y"), titles=("", ""))
    queries = Queries(("q2", "q1", "q3"), ("two", "one", "three"))
    dataset = Dataset("d", corpus, queries, {"test": Qrels({"q2": {"a": 1}, "q1": {"b": 1}})})
    assert dataset.queries_of("test") == Queries(("q1", "q2"), ("one", "two"))


def test_an_absent_query_has_no_hits():
    ranking = Ranking({"q": (("a",), np.array([1.0], np.float32))})
    assert ranking.ids("z") == ()
    assert ranking.scores("z").shape == (0,)
    assert ranking.ids("q") == ("a",)
    assert len(ranking) == 1
