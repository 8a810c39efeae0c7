import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries, beir
from retrieval_ft.errors import DataError

visible = st.text(min_size=1, max_size=20).filter(str.strip)
identifiers = visible.filter(lambda text: not set("\t\r\n") & set(text))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | visible,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(visible, inner, max_size=3),
    max_leaves=4,
)


def metadata_for(draw, count):
    """A mapping for each row; none at all where all would be empty."""
    rows = tuple(draw(st.dictionaries(visible, json_values, max_size=2)) for _ in range(count))
    return rows if any(rows) else ()


@st.composite
def datasets(draw):
    passage_ids = draw(st.lists(identifiers, min_size=2, max_size=6, unique=True))
    query_ids = draw(st.lists(identifiers, min_size=1, max_size=6, unique=True))
    corpus = Corpus(
        ids=tuple(passage_ids),
        texts=tuple(draw(visible) for _ in passage_ids),
        titles=tuple(draw(st.text(max_size=10)) for _ in passage_ids),
        metadata=metadata_for(draw, len(passage_ids)),
    )
    queries = Queries(
        tuple(query_ids),
        tuple(draw(visible) for _ in query_ids),
        metadata_for(draw, len(query_ids)),
    )
    views = draw(
        st.dictionaries(
            st.sampled_from(query_ids),
            st.dictionaries(st.sampled_from(passage_ids), visible, min_size=1),
        )
    )
    grades = st.dictionaries(
        st.sampled_from(query_ids),
        st.dictionaries(st.sampled_from(passage_ids), st.integers(-1, 3), min_size=1),
        min_size=1,
    )
    splits = draw(st.sets(st.sampled_from(["train", "dev", "test"]), min_size=1))
    qrels = {split: Qrels(draw(grades)) for split in sorted(splits)}
    return Dataset(name="made", corpus=corpus, queries=queries, qrels=qrels, views=views)


@settings(deadline=None)  # it writes files
@given(dataset=datasets())
def test_a_dataset_comes_back_as_it_was(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("beir") / "made"
    beir.write(dataset, folder)
    assert beir.read(folder) == dataset


def test_what_other_tools_write_is_read(tmp_path):
    rows = [{"_id": "1", "text": "caf\u00e9", "title": None, "metadata": {"x": 1}}, {"_id": "2"}]
    rows[1] |= {"title": "only a title", "text": "", "metadata": None}
    lines = [json.dumps(row, ensure_ascii=True) for row in rows]
    text = "\ufeff" + "\r\n".join(lines) + "\r\n\r\n"  # Excel and others put a BOM first
    (tmp_path / "corpus.jsonl").write_text(text, encoding="utf-8")
    corpus = beir.read_corpus(tmp_path / "corpus.jsonl")
    assert corpus.passages == ("café", "only a title")
    assert corpus.ids == ("1", "2")
    assert corpus.metadata == ({"x": 1}, {})


def test_without_metadata_and_views_nothing_of_them_is_written(tmp_path):
    corpus = Corpus(("p", "r"), ("sea", "fox é"), ("T", ""), ({}, {}))
    queries = Queries(("q",), ("why",))
    data = Dataset("made", corpus, queries, {"train": Qrels({"q": {"p": 1}})}, views={"q": {}})
    beir.write(data, tmp_path)
    assert (tmp_path / "corpus.jsonl").read_text(encoding="utf-8") == (
        '{"_id": "p", "title": "T", "text": "sea"}\n{"_id": "r", "title": "", "text": "fox é"}\n'
    )
    assert (tmp_path / "queries.jsonl").read_text() == '{"_id": "q", "text": "why"}\n'
    assert not (tmp_path / "views.jsonl").exists()
    again = beir.read(tmp_path)
    assert (again.corpus.metadata, again.queries.metadata, again.views) == ((), (), {})


def test_a_corpus_alone_is_read_where_labels_are_not_asked_for(tmp_path):
    data = Dataset("made", CORPUS, Queries((), ()), {})
    beir.write(data, tmp_path / "made")
    assert beir.read(tmp_path / "made", labelled=False) == data
    (tmp_path / "made" / "queries.jsonl").unlink()
    assert beir.read(tmp_path / "made", labelled=False) == data
    with pytest.raises(DataError, match=r"queries\.jsonl: no such file"):
        beir.read(tmp_path / "made")


def test_only_the_rows_that_have_metadata_carry_it(tmp_path):
    corpus = Corpus(("p", "r"), ("sea", "fox"), ("", ""), ({"document": "d"}, {}))
    beir.write_corpus(tmp_path / "c.jsonl", corpus)
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [row.get("metadata") for row in rows] == [{"document": "d"}, None]
    assert beir.read_corpus(tmp_path / "c.jsonl") == corpus


GOOD = '{"_id": "a", "text": "x"}\n'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{no json", r"c\.jsonl:2: not JSON"),
        ('["a"]', r"c\.jsonl:2: a JSON object is needed, found list"),
        ('{"text": "x"}', r'c\.jsonl:2: lacks "_id" \(keys found: text\)'),
        ('{"_id": "b"}', r'c\.jsonl:2: lacks "text" \(keys found: _id\)'),
        ("{}", r'c\.jsonl:2: lacks "_id" \(keys found: none\)'),
        ('{"_id": 7, "text": "x"}', r'c\.jsonl:2: "_id" must be a string'),
        ('{"_id": " ", "text": "x"}', r'c\.jsonl:2: "_id" must be a string that is not empty'),
        ('{"_id": "b\\tc", "text": "x"}', r'c\.jsonl:2: "_id" must hold no tab'),
        ('{"_id": "b", "text": 1}', r'c\.jsonl:2: "text" and "title" must be strings'),
        ('{"_id": "b", "text": "\\ud800"}', r"c\.jsonl:2: .* valid Unicode"),
        ('{"_id": "b", "text": " ", "title": ""}', r"c\.jsonl:2: 'b' has an empty text"),
        ('{"_id": "a", "text": "y"}', r"c\.jsonl:2: \"_id\" 'a' stands already at line 1"),
        ('{"_id": "b", "text": "y", "metadata": ["x"]}', r"c\.jsonl:2: .*an object.* found list"),
        ('{"_id": "b", "text": "y", "metadata": "x"}', r"c\.jsonl:2: .*an object.* found str"),
        ('{"_id": "b", "text": "y", "metadata": {"x": NaN}}', r"c\.jsonl:2: .*JSON .* no form for"),
        ('{"_id": "b", "text": "y", "metadata": {"x": "\\ud800"}}', r"c\.jsonl:2: .* no form for"),
    ],
)
def test_a_faulty_line_is_named_with_file_and_line(tmp_path, line, told):
    path = tmp_path / "c.jsonl"
    path.write_text(GOOD + line + "\n")
    for read in (beir.read_corpus, beir.read_queries):
        with pytest.raises(DataError, match=told) as caught:
            read(path)
        assert caught.value.exit_code == 3


def test_blank_lines_do_not_shift_the_line_that_is_named(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("\n\n" + GOOD + "\nbad\n")
    with pytest.raises(DataError, match=r"c\.jsonl:5: not JSON"):
        beir.read_corpus(path)


def test_a_missing_an_empty_and_a_one_passage_corpus_are_told_apart(tmp_path):
    path = tmp_path / "corpus.jsonl"
    with pytest.raises(DataError, match="no such file; a dataset folder holds"):
        beir.read_corpus(path)
    path.write_text("")
    with pytest.raises(DataError, match="is empty; retrieval needs at least two passages"):
        beir.read_corpus(path)
    path.write_text(GOOD)
    with pytest.raises(DataError, match="holds one passage"):
        beir.read_corpus(path)
    path.write_bytes(b'{"_id": "a", "text": "\xff"}\n')
    with pytest.raises(DataError, match="not UTF-8 text"):
        beir.read_corpus(path)


def test_no_queries_is_told(tmp_path):
    (tmp_path / "queries.jsonl").write_text("\n")
    with pytest.raises(DataError, match="at least one query is needed"):
        beir.read_queries(tmp_path / "queries.jsonl")


HEADER = "query-id\tcorpus-id\tscore\n"
CORPUS = Corpus(ids=("p", "r"), texts=("x", "y"), titles=("", ""))
QUERIES = Queries(("q",), ("x",))


def read_qrels(path):
    return beir.read_qrels(path, queries=QUERIES, corpus=CORPUS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("q\tp\t1\n", r"t\.tsv:1: bad header 'q\\tp\\t1'; expected 'query-id<tab>corpus-id<tab>"),
        ("\nq\tp\t1\n", r"t\.tsv:2: bad header"),
        (HEADER + "q p 1\n", r"t\.tsv:2: 1 columns, 3 are needed"),
        (HEADER + "q\tp\thigh\n", r"t\.tsv:2: score 'high' is not an integer"),
        (HEADER + "q\tp\t0.5\n", r"t\.tsv:2: score '0.5' is not an integer"),
        (HEADER + "q\tp\t1\nz\tp\t1\n", r"t\.tsv:3: query id 'z' is not in queries"),
        (HEADER + "q\tz\t1\n", r"t\.tsv:2: passage id 'z' is not in corpus"),
        (HEADER + "q\tp\t1\nq\tp\t2\n", r"t\.tsv:3: 'q' and 'p' are judged twice, 1 and 2"),
        (HEADER, "holds no judgement"),
        ("", "holds no judgement"),
    ],
)
def test_a_faulty_judgement_is_named_with_file_and_line(tmp_path, text, told):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(DataError, match=told) as caught:
        read_qrels(tmp_path / "t.tsv")
    assert caught.value.exit_code == 3


def test_the_same_judgement_twice_is_one(tmp_path):
    (tmp_path / "t.tsv").write_text("\n" + HEADER + "q\tp\t1\r\nq\tp\t1\n\nq\tr\t0\n")
    qrels = read_qrels(tmp_path / "t.tsv")
    assert qrels.grades == {"q": {"p": 1, "r": 0}}
    assert qrels.relevant("q") == {"p"}


VIEW = '{"query-id": "q", "corpus-id": "p", "text": "y"}\n'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[]", r"v\.jsonl:2: a JSON object is needed, found list"),
        ('{"query-id": "q", "text": "y"}', r'v\.jsonl:2: lacks "corpus-id"'),
        (VIEW.replace('"y"', '" "'), r"v\.jsonl:2: query-id, corpus-id, text must be strings"),
        (VIEW.replace('"q"', "7"), r"v\.jsonl:2: query-id, corpus-id, text must be strings"),
        (VIEW.replace('"q"', '"z"'), r"v\.jsonl:2: query id 'z' is not in queries\.jsonl"),
        (VIEW.replace('"p"', '"z"'), r"v\.jsonl:2: passage id 'z' is not in corpus\.jsonl"),
        (VIEW, r"v\.jsonl:2: 'q' and 'p' have two views"),
    ],
)
def test_a_faulty_view_is_named_with_file_and_line(tmp_path, line, told):
    (tmp_path / "v.jsonl").write_text(VIEW + line)
    with pytest.raises(DataError, match=told) as caught:
        beir.read_views(tmp_path / "v.jsonl", queries=QUERIES, corpus=CORPUS)
    assert caught.value.exit_code == 3


def test_a_folder_without_qrels_or_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match="no such dataset folder"):
        beir.read(tmp_path / "nothing")
    (tmp_path / "corpus.jsonl").write_text(GOOD + '{"_id": "b", "text": "y"}\n')
    (tmp_path / "queries.jsonl").write_text(GOOD)
    with pytest.raises(DataError, match=r"no train\.tsv, dev\.tsv or test\.tsv found"):
        beir.read(tmp_path)


@given(st.permutations(list(string.ascii_lowercase[:6])))
def test_qrels_are_written_in_one_order(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("qrels") / "t.tsv"
    beir.write_qrels(path, {q: dict.fromkeys(order, 1) for q in order})
    rows = path.read_text().splitlines()[1:]
    assert rows == sorted(rows)
    assert len(rows) == 36
