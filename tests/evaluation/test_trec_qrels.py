import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset import beir
from retrieval_ft.dataset.types import Qrels, Ranking
from retrieval_ft.errors import DataError
from retrieval_ft.evaluation.trec import check_run, read_qrels, write_qrels

identifiers = st.text(
    st.characters(blacklist_characters="\t\r\n\ufeff", blacklist_categories=["Cs"]), min_size=1
).filter(str.strip)
judged = st.dictionaries(identifiers, st.integers(-3, 5), min_size=1, max_size=5)


@given(st.dictionaries(identifiers, judged, min_size=1, max_size=5))
@settings(deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, grades):
    path = tmp_path_factory.mktemp("qrels") / "a.qrels"
    write_qrels(path, Qrels(grades))
    assert read_qrels(path) == Qrels(grades)


def test_pytrec_eval_reads_what_we_write(tmp_path):
    path = tmp_path / "a.qrels"
    grades = {"q2": {"b": 0, "a": 2}, "q1": {"ü": -1, "c": 1}, "none": {}}
    write_qrels(path, Qrels(grades))
    with path.open(encoding="utf-8") as file:
        assert pytrec_eval.parse_qrel(file) == {q: row for q, row in grades.items() if row}


def test_beirs_tsv_and_columns_parted_by_blanks_are_read_too(tmp_path):
    grades = {"q": {"a": 1, "with blank": 0}}
    beir.write_qrels(tmp_path / "test.tsv", grades)
    assert read_qrels(tmp_path / "test.tsv").grades == grades
    path = tmp_path / "a.qrels"
    path.write_text("q  0 a  2\n\nq\t0 b -1\nq 0 a 2\n", encoding="utf-8-sig")
    assert read_qrels(path).grades == {"q": {"a": 2, "b": -1}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q 0 a", "3 columns; TREC qrels have 4 (query-id 0 passage-id grade), BEIR's TSV has 3"),
        ("q 0 a b 1", "5 columns; TREC qrels have 4"),
        ("q 0 b 1.0", "grade '1.0' is not an integer of at most 9 digits"),
        ("q 0 b 1_0", "grade '1_0' is not an integer of at most 9 digits"),
        ("q 0 b " + "9" * 400, "grade '999"),
        ("q 0 a 0", "'q' and 'a' are judged twice, 1 and 0; keep one"),
    ],
)
def test_a_faulty_line_is_named(tmp_path, line, message):
    path = tmp_path / "a.qrels"
    path.write_text(f"q 0 a 1\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError) as info:
        read_qrels(path)
    assert str(info.value).startswith(f"{path}:2: {message}")
    assert info.value.exit_code == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file of qrels"),
        (b"\n \n", "is empty"),
        (b"query-id\tcorpus-id\tscore\n", "is empty"),
        (b"q\xff", "not UTF-8 text"),
    ],
)
def test_a_faulty_file_is_named(tmp_path, content, message):
    path = tmp_path / "a.qrels"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as info:
        read_qrels(path)
    assert str(info.value).startswith(f"{path}: ")


@pytest.mark.parametrize("grades", [{"a\tb": {"p": 1}}, {"q": {"a\nb": 0}}, {"q": {"\ufeffp": 1}}])
def test_an_id_that_a_line_cannot_hold_leaves_no_file(tmp_path, grades):
    with pytest.raises(DataError, match="holds a tab or a line break"):
        write_qrels(tmp_path / "a.qrels", Qrels(grades))
    assert list(tmp_path.iterdir()) == []


def run_of(rows, score=1.0):
    return Ranking(
        {q: (tuple(ids), np.full(len(ids), score, np.float32)) for q, ids in rows.items()}
    )


QRELS = Qrels({"q1": {"a": 1}, "q2": {"b": 1, "c": 0}, "q3": {"c": 0}, "q4": {"a": 2}})


def test_a_sound_run_passes_and_the_judged_queries_without_results_are_told():
    run = run_of({"q1": ["a", "x"], "q2": [], "other": ["b"]})
    assert check_run(run, QRELS) == ("q2", "q4")
    for corpus in (["a", "b", "x"], {"a", "b", "x"}, {"a": 0, "b": 1, "x": 2}):
        assert check_run(run, QRELS, corpus_ids=corpus) == ("q2", "q4")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            run_of({"q1": ["a", "new"], "q2": ["b", "z"], "q4": []}),
            r"r\.trec: 2 of 4 results \(50\.0%\) are not in the corpus of 3 passages, the first is "
            "'new' for query 'q1'; score the run against the corpus",
        ),
        (run_of({"q1": ["a", "b", "a"]}), "query 'q1' has passage 'a' 2 times; .* keep the best"),
        (run_of({"q1": ["a", "b"]}, score=np.nan), "query 'q1' has the score NaN at passage 'a'"),
        (
            run_of({"Q1": ["a"], "7": ["b"]}),
            "none of its 2 queries is among the 3 that are judged with a relevant passage .its first "
            "is '7', the first of those is 'q1'.* give the run and the qrels of the same queries",
        ),
        (run_of({"q3": ["c"]}), "none of its 1 queries is among the 3 that are judged with a"),
        (run_of({"q1": []}), "holds no result for any query"),
        (run_of({}), "holds no result for any query"),
    ],
)
def test_a_run_that_would_give_a_wrong_number_is_refused(run, message):
    with pytest.raises(DataError, match=message) as info:
        check_run(run, QRELS, corpus_ids=("a", "b", "c"), name="r.trec")
    assert str(info.value).startswith("r.trec: ")
    assert info.value.exit_code == 3


def test_nothing_judged_is_no_query_in_common():
    with pytest.raises(DataError, match=r"among the 0 that are judged .*of those is none"):
        check_run(run_of({"q": ["a"]}), Qrels({}))
