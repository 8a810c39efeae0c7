"""What a user reads when labels are not what they should be."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_ft.config import ClicksConfig
from retrieval_ft.dataset import Corpus
from retrieval_ft.dataset.labels import read_labels
from retrieval_ft.errors import ConfigError, DataError

CORPUS = Corpus(
    ("p1", "p2", "d#0", "d#1"),
    ("the sea", "a fox", "bread", "flour"),
    ("",) * 4,
    ({}, {}, {"document": "d"}, {"document": "d"}),
)
EMPTY = Corpus((), (), ())


def read(path, corpus=CORPUS, *, fmt="auto", queries=None):
    return read_labels(path, corpus, fmt=fmt, queries=queries, clicks=ClicksConfig())


def faulty(tmp_path, name, text, **kwargs):
    """The message that a file of this name and text is refused with."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as caught:
        read(path, **kwargs)
    assert caught.value.exit_code == 3
    return str(caught.value).replace(f"{tmp_path}/", "")


PAIR = '{"anchor": "q", "positive": "yes"}\n'
FLAG = '{"query": "q", "pos": ["yes"], "neg": ["no"]}\n'
LLAMA = {"queries": {"q": "sea"}, "corpus": {"n": "the sea"}, "relevant_docs": {"q": ["n"]}}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("x.jsonl", PAIR + '{"anchor": " ", "positive": "y"}', "x.jsonl:2: the query is empty"),
        ("x.jsonl", PAIR + '{"anchor": "q", "positive": ""}', "x.jsonl:2: the passage is empty"),
        (
            "x.jsonl",
            PAIR + '{"anchor": 7, "positive": "y"}',
            "x.jsonl:2: the query must be a strin",
        ),
        (
            "x.jsonl",
            PAIR + '{"anchor": "q", "positive": "\\ud800"}',
            "x.jsonl:2: the passage must be a string, found invalid Unicode",
        ),
        ("x.jsonl", PAIR + '{"anchor": "q"}', 'x.jsonl:2: lacks "positive" (found: anchor)'),
        ("x.jsonl", PAIR + "\n[1]", "x.jsonl:3: a JSON object is needed, found list"),
        ("x.jsonl", PAIR + "{", "x.jsonl:2: not JSON"),
        ("x.jsonl", FLAG + '{"query": "r"}', 'x.jsonl:2: lacks "pos" (found: query)'),
        (
            "x.jsonl",
            FLAG + '{"query": "r", "pos": "y"}',
            'x.jsonl:2: "pos" must be a list of texts',
        ),
        ("x.jsonl", FLAG + '{"query": "r", "pos": [""]}', "x.jsonl:2: the passage is empty"),
        (
            "x.jsonl",
            '{"query": "q", "pos": ["y"], "id": "a"}\n{"query": "r", "pos": ["y"], "id": "a"}',
            "x.jsonl:2: query id 'a' stands for another text already",
        ),
        ("x.csv", "query,answer,label\nq,y,1\nq,z,0.5\n", "x.csv:3: score '0.5' is not an integer"),
        ("x.csv", "query,answer,label\nq,y,\n", "x.csv:2: score '' is not an integer"),
        ("x.csv", 'query,answer\n"two\nlines",y\nq\n', "x.csv:4: 1 cells, the header has 2"),
        ("x.csv", 'query,answer\nq,y\nr,"open\n\n', "x.csv:3: not CSV (unexpected end of data)"),
        ("x.csv", "query,query\nq,y\n", "x.csv:1: two columns have one name"),
        ("x.csv", "query,answer\n", "x.csv: holds no labels"),
        ("x.csv", "query,answer,context\nq,y,z\n", "x.csv: columns answer and context could play"),
        (
            "x.csv",
            "when,what\n1,2\n",
            "x.csv: no known format of labels has the columns when, what",
        ),
        ("x.csv", b"query,answer\nq,\xff\n", "x.csv: not UTF-8 text"),
        ("x.parquet", b"PAR1 and no more", "x.parquet: not a Parquet file that can be read"),
        ("x.parquet", b"", "x.parquet: not a Parquet file that can be read"),
        ("x.jsonl", "\n \n", "x.jsonl: is empty"),
        ("x.json", "{\n1", "x.json:2: not JSON"),
        ("x.json", "{\n}", 'x.json: "queries" must be an object'),
        (
            "x.json",
            json.dumps({**LLAMA, "corpus": []}),
            'x.json: "corpus" must be an object; this format has queries, corpus, relevant_docs',
        ),
        (
            "x.json",
            json.dumps({**LLAMA, "relevant_docs": {"z": ["n"]}}),
            "x.json: relevant_docs['z']: query id 'z' is not in queries",
        ),
        (
            "x.json",
            json.dumps({**LLAMA, "relevant_docs": {"q": ["z"]}}),
            "x.json: relevant_docs['q']: passage id 'z' is not in the corpus, whose ids look like",
        ),
        (
            "x.json",
            json.dumps({**LLAMA, "relevant_docs": {"q": "n"}}),
            "x.json: relevant_docs['q']: a list of passage ids is needed, found 'n'",
        ),
        (
            "x.json",
            json.dumps({**LLAMA, "queries": {"q": ""}}),
            "x.json: queries['q']: the query is empty",
        ),
        (
            "x.json",
            json.dumps({**LLAMA, "corpus": {"p2": "another"}}),
            "x.json: corpus['p2']: passage id 'p2' stands for another text already",
        ),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path, name, text, told):
    assert faulty(tmp_path, name, text).startswith(told)


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.tsv"
    path.write_text("q\twhy the sea\nr\twhere foxes sleep\n")
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("q 0 p1 1\nz 0 p1 1\n", "x:2: query id 'z' is not in the file of queries"),
        (
            "q 0 p1 1\n\nq 0 z 1\n",
            "x:3: passage id 'z' is not in the corpus, whose ids look like 'p1'",
        ),
        (
            "q 0 p1 1\nq 0 d 1\n",
            "x:2: passage id 'd' is not in the corpus; it is a document, cut into 2 passages such as "
            "'d#0'",
        ),
        ("q 0 p1 1\nq 0 p2 high\n", "x:2: grade 'high' is not an integer"),
        ("q 0 p1 1\nq 0 p2\n", "x:2: 3 columns; TREC qrels have 4"),
        ("query-id\tcorpus-id\tscore\nq 0 p1 1\n", "x:2: 1 columns; TREC qrels have 4"),
        ("query-id\tcorpus-id\tscore\n", "x: no label in it"),
    ],
)
def test_a_fault_in_qrels_is_named_with_its_line(tmp_path, queries, text, told):
    assert faulty(tmp_path, "x", text, queries=queries).startswith(told)


def test_ids_without_texts_and_texts_without_need_are_told(tmp_path, queries):
    told = faulty(tmp_path, "x", "q 0 p1 1\n")
    assert told.startswith("x: these labels name queries by id; give their texts with --set data.q")
    told = faulty(tmp_path, "x", "q 0 p1 1\n", queries=queries, corpus=EMPTY)
    assert told.startswith("x:1: passage id 'p1' is not in the corpus, which is empty: labels that")
    (tmp_path / "x.jsonl").write_text(PAIR)
    with pytest.raises(ConfigError, match=r"data\.queries: .*x\.jsonl \(pairs\) brings the texts"):
        read(tmp_path / "x.jsonl", queries=queries)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("q\twhy\nr no tab\n", "queries.tsv:2: a query needs an id, a tab and a text"),
        ("q\twhy\nr\t \n", "queries.tsv:2: a query needs an id, a tab and a text"),
        ("q\twhy\n\t x\n", "queries.tsv:2: query id '' must be a string that is not empty"),
        ("q\twhy\nq\twhere\n", "queries.tsv:2: query id 'q' has two texts"),
        ('{"_id": "q"}', 'queries.tsv:1: lacks "text"'),
        ("", "queries.tsv: is empty"),
    ],
)
def test_a_fault_in_the_queries_is_named_with_its_line(tmp_path, text, told):
    (tmp_path / "queries.tsv").write_text(text)
    found = faulty(tmp_path, "x", "q 0 p1 1\n", queries=tmp_path / "queries.tsv")
    assert found.startswith(told)


def test_what_is_not_there_or_holds_no_labels_is_told(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder of labels"):
        read(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        DataError, match="no labels here; a folder of labels holds train, dev or te"
    ):
        read(tmp_path)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match="saved: not a `datasets` folder that can be read"):
        read(tmp_path / "saved")
    with pytest.raises(DataError, match="saved: a `datasets` folder, where trec labels are a file"):
        read(tmp_path / "saved", fmt="trec")


def test_a_row_of_parquet_is_named_by_its_number(tmp_path):
    rows = [{"anchor": "q", "positive": "yes"}, {"anchor": None, "positive": "yes"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: row 2: the query must be a string, found No"):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("fmt", "text", "told"),
    [
        ("trec", PAIR, "x:1: grade '\"yes\"}' is not an integer"),  # it has four words
        ("trec", "one two\n", "x:1: 2 columns; TREC"),
        ("triplets", PAIR, "x:1: no negative; columns found: anchor, positive"),
        ("flagembedding", PAIR, 'x:1: lacks "query"'),
        ("clicks", PAIR, "x:1: a log needs a column of queries"),
        ("llamaindex", PAIR, 'x: "queries" must be an object'),
        ("pairs", '{"id": "7", "a": "q", "b": "yes"}', "x:1: pairs need a column of queries"),
        ("pairs", '{"query": "q"}', "x:1: pairs need a column of queries"),
    ],
)
def test_a_format_that_was_given_and_is_not_there_is_told(tmp_path, queries, fmt, text, told):
    by_id = queries if fmt == "trec" else None
    assert faulty(tmp_path, "x", text, fmt=fmt, queries=by_id).startswith(told)


def test_a_pair_judged_in_two_ways_is_refused_with_both_lines(tmp_path):
    rows = [
        {"anchor": "the sea", "positive": "waves", "negative": "foxes"},
        {"anchor": "bread", "positive": "flour", "negative": "waves"},
        {"anchor": "The Sea", "positive": "Foxes", "negative": "flour"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    found = faulty(tmp_path, "x.jsonl", text)
    assert found.startswith("1 pair is judged in two ways: 'the sea' and passage '")
    assert found.endswith("': grade 0 at x.jsonl:1, 1 at x.jsonl:3; keep one judgement of each")


def test_two_grades_above_zero_contradict_too(tmp_path, queries):
    told = faulty(tmp_path, "x", "q 0 p1 1\nq 0 p1 2\n", queries=queries)
    assert told == (
        "1 pair is judged in two ways: 'why the sea' and passage 'p1': grade 1 at x:1, 2 at x:2; "
        "keep one judgement of each"
    )


def test_ten_contradictions_are_listed_and_the_rest_counted(tmp_path):
    rows = [{"query": f"q{i:02}", "pos": ["same"], "neg": ["SAME"]} for i in range(12)]
    told = faulty(tmp_path, "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert told.startswith("12 pairs are judged in two ways: 'q00' and passage")
    assert "x.jsonl:10" in told and "x.jsonl:11" not in told
    assert "and 2 more; keep one judgement of each" in told
