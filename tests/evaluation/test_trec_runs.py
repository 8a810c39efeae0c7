import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset.types import Ranking
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation import read_trec_run, write_trec_run

identifiers = st.text(
    st.characters(blacklist_characters="\t\r\n\ufeff", blacklist_categories=["Cs"]), min_size=1
).filter(str.strip)
scores = st.floats(width=32, allow_nan=False, allow_infinity=False)


def sorted_ranking(rows):
    hits = {}
    for query_id, row in rows.items():
        ids = tuple(sorted(row, key=lambda p: (-row[p], p)))
        hits[query_id] = (ids, np.array([row[p] for p in ids], np.float32))
    return Ranking(hits)


@given(
    st.dictionaries(
        identifiers, st.dictionaries(identifiers, scores, min_size=1, max_size=6), min_size=1
    )
)
@settings(deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("run") / "a.trec"
    ranking = sorted_ranking(rows)
    write_trec_run(path, ranking, tag="ours")
    back = read_trec_run(path)
    assert set(back.hits) == set(ranking.hits)
    for query_id in ranking.hits:
        assert back.ids(query_id) == ranking.ids(query_id)
        assert back.scores(query_id).dtype == np.float32
        assert (back.scores(query_id) == ranking.scores(query_id)).all()


def test_lines_have_six_columns_and_ranks_from_1(tmp_path):
    path = tmp_path / "a.trec"
    ranking = sorted_ranking({"q2": {"a": 1.0}, "q1": {"b": 0.5, "a": 2.0}, "none": {}})
    write_trec_run(path, ranking, tag="base_dense")
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines == [
        ["q1", "Q0", "a", "1", "2", "base_dense"],
        ["q1", "Q0", "b", "2", "0.5", "base_dense"],
        ["q2", "Q0", "a", "1", "1", "base_dense"],
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_query_id(tmp_path):
    path = tmp_path / "a.trec"
    path.write_text("q Q0 a 1 1.5 x\n", encoding="utf-8-sig")
    assert list(read_trec_run(path).hits) == ["q"]


def test_a_run_of_another_tool_is_sorted_by_score_then_id(tmp_path):
    path = tmp_path / "a.trec"
    path.write_text("q Q0 b 1 1.5 x\n\nq  Q0  c 9 2 x\nq Q0\ta 3 1.5 x\n", encoding="utf-8")
    assert read_trec_run(path).ids("q") == ("c", "a", "b")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 a 1 0.5", "5 columns, 6 are needed: query-id Q0 passage-id rank score tag"),
        ("q Q0 a 1 0.5 x y", "7 columns, 6 are needed"),
        ("q Q0 a 1 nan x", "score 'nan' is not a finite float32 number"),
        ("q Q0 a 1 -inf x", "score '-inf' is not a finite float32 number"),
        ("q Q0 a 1 1e300 x", "score '1e300' is not a finite float32 number"),
        ("q Q0 a 1 high x", "score 'high' is not a number"),
        ("q Q0 first 2 0.5 x", "query 'q' has passage 'first' already at line 1; keep one"),
    ],
)
def test_a_faulty_line_is_named(tmp_path, line, message):
    path = tmp_path / "a.trec"
    path.write_text(f"q Q0 first 1 1 x\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError) as info:
        read_trec_run(path)
    assert str(info.value).startswith(f"{path}:2: {message}")
    assert info.value.exit_code == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such run file"), (b"\n \n", "is empty"), (b"q\xff", "not UTF-8 text")],
)
def test_a_faulty_file_is_named(tmp_path, content, message):
    path = tmp_path / "a.trec"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as info:
        read_trec_run(path)
    assert str(info.value).startswith(f"{path}: ")


@pytest.mark.parametrize("identifier", ["a\tb", "a\nb", "a\rb", "\ufeffa"])
def test_an_id_that_a_line_cannot_hold_leaves_no_file(tmp_path, identifier):
    path = tmp_path / "a.trec"
    with pytest.raises(DataError, match="holds a tab or a line break"):
        write_trec_run(path, sorted_ranking({"q": {"ok": 2.0, identifier: 1.0}}), tag="x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tag", ["", "two words", "tab\t", "line\n"])
def test_a_tag_is_one_word(tmp_path, tag):
    with pytest.raises(ConfigError, match="must be one word"):
        write_trec_run(tmp_path / "a.trec", sorted_ranking({}), tag=tag)
