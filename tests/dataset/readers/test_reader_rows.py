import csv
import gzip
import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import DataConfig
from retrieval_ft.dataset import Section
from retrieval_ft.dataset.readers import read_documents


def put(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@settings(deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"text": st.text(min_size=1).filter(str.strip), "n": st.integers(), "x": st.none()}
        ),
        min_size=1,
    )
)
def test_every_row_is_a_document_with_its_own_id(rows, tmp_path_factory):
    path = put(tmp_path_factory.mktemp("rows") / "a.jsonl", *rows)
    documents = list(read_documents(DataConfig(path=path)).documents)
    assert [d.text for d in documents] == [row["text"] for row in rows]
    assert [d.metadata for d in documents] == [{"n": row["n"]} for row in rows]
    assert len({d.id for d in documents}) == len(rows)
    again = list(read_documents(DataConfig(path=path)).documents)
    assert documents == again


def test_columns_are_found_by_their_names_and_others_become_metadata(tmp_path, read):
    path = put(
        tmp_path / "a.jsonl",
        {"_id": "a", "id": 7, "title": "T", "content": "c", "text": "x", "headings": ["h"]},
        {"id": 12, "content": "only content", "title": None, "deep": {"a": [1, None]}},
    )
    found, account = read(path)
    first, second = found.values()
    assert (first.id, first.title, first.sections) == ("a", "T", (Section((), "x"),))
    assert first.where == f"{path}:1"
    assert first.metadata == {"id": 7, "content": "c", "headings_": ["h"]}
    assert (second.id, second.title, second.text) == ("12", "", "only content")
    assert second.metadata == {"deep": {"a": [1, None]}}
    assert account.summary() == {"documents": 2, "read": {"row": 2}, "skipped": {}}


def test_columns_are_named_by_the_config(tmp_path, read):
    path = put(tmp_path / "a.jsonl", {"doc": "d1", "head": "H", "body": "B", "text": "no"})
    found, _ = read(path, columns={"id": "doc", "title": "head", "text": "body"})
    assert (found["d1"].title, found["d1"].text) == ("H", "B")
    assert found["d1"].metadata == {"text": "no"}


def test_a_row_without_an_id_gets_one_from_its_text(tmp_path, read):
    path = put(tmp_path / "a.jsonl", *({"text": text} for text in ("one", "two", "one", "one")))
    ids = list(read(path)[0])
    assert ids[2:] == [f"{ids[0]}-2", f"{ids[0]}-3"]
    other = put(tmp_path / "b.jsonl", {"text": "two", "title": "other"}, {"text": "one", "id": ""})
    assert list(read(other)[0]) == [ids[1], ids[0]]


def test_empty_rows_are_counted_and_blank_lines_are_none(tmp_path, read):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": " "}\r\n\r\n{"text": null, "title": "T"}\r\n{"text": "x"}')
    found, account = read(path)
    assert [d.where.rpartition(":")[2] for d in found.values()] == ["3", "4"]
    assert [(i.path, i.reason) for i in account.skipped] == [(f"{path}:1", "empty")]


def test_the_same_rows_come_from_gzip_and_with_a_byte_order_mark(tmp_path, read):
    plain = put(tmp_path / "a.jsonl", {"id": "a", "text": "Grüße"}, {"id": "b", "text": "世界"})
    expected = {d.id: d.text for d in read(plain)[0].values()}
    text = plain.read_text()
    for name, data in {
        "gz.jsonl.gz": gzip.compress(text.encode()),
        "bom.jsonl": text.encode("utf-8-sig"),
        "wide.jsonl": text.encode("utf-16"),
        "wide.jsonl.gz": gzip.compress(text.encode("utf-16")),
    }.items():
        (tmp_path / name).write_bytes(data)
        found, _ = read(tmp_path / name)
        assert {d.id: d.text for d in found.values()} == expected


def test_a_corpus_in_beir_layout_is_read_by_its_rows(tmp_path, read):
    put(tmp_path / "corpus.jsonl", {"_id": "a", "title": "T", "text": "x", "metadata": {}})
    found, _ = read(tmp_path)
    assert (found["a"].title, found["a"].metadata) == ("T", {"metadata": {}})


def test_rows_of_several_files_are_one_source(tmp_path, read, told):
    put(tmp_path / "b.jsonl", {"id": "b", "text": "x"})
    put(tmp_path / "a.jsonl", {"id": "a", "text": "x"})
    (tmp_path / "c.md").write_text("x")
    found, _ = read(tmp_path / "*.jsonl")
    assert [d.where for d in found.values()] == [f"{tmp_path}/a.jsonl:1", f"{tmp_path}/b.jsonl:1"]
    found, account = read(tmp_path, format="jsonl")
    assert list(found) == ["a", "b"]
    assert [(i.path, i.reason) for i in account.skipped] == [("c.md", "other format")]
    assert told(tmp_path, format="parquet") == (f"{tmp_path}: no parquet files there", 3)
    put(tmp_path / "b.jsonl", {"id": "a", "text": "y"})
    message, _ = told(tmp_path / "*.jsonl")
    assert f"{tmp_path}/b.jsonl:1: the id 'a' stands already at {tmp_path}/a.jsonl:1" in message


GOOD = '{"id": "a", "text": "x"}\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD + "{no json}", r"a.jsonl:2: not JSON (Expecting property name"),
        (GOOD + '["x"]', "a.jsonl:2: a JSON object is needed, found list"),
        (GOOD + '{"id": 1' + "0" * 5000 + "}", "a.jsonl:2: JSON that cannot be read (Exceeds the"),
        (GOOD + '{"text": ' + "[" * 100_000, "a.jsonl:2: JSON that cannot be read"),
        (
            GOOD + '{"id": "b", "body": "x"}',
            "a.jsonl:2: no column 'text' or 'content' for the text",
        ),
        (
            GOOD + '{"id": "b", "body": "x"}',
            "(columns found: 'id', 'body'); name it: data.columns: {t",
        ),
        (GOOD + '{"id": "a", "text": "y"}', "a.jsonl:2: the id 'a' stands already at "),
        (GOOD + '{"id": "b", "text": 5}', "a.jsonl:2: column 'text' must hold text, found int"),
        (
            GOOD + '{"id": "b", "text": "\\ud800"}',
            "a.jsonl:2: column 'text' holds half a surrogate",
        ),
        (
            GOOD + '{"id": 1.5, "text": "x"}',
            "a.jsonl:2: the id must be a string or an integer, found",
        ),
        (GOOD + '{"id": true, "text": "x"}', "a.jsonl:2: the id must be a string or an integer"),
        (
            GOOD + '{"id": "a\\tb", "text": "x"}',
            "a.jsonl:2: the id must hold more than space, and no",
        ),
        (GOOD + '{"id": "\\udfff", "text": "x"}', "a.jsonl:2: the id holds half a surrogate pair"),
        (GOOD + '{"text": "a\0b"}', "a.jsonl:2: holds a NUL: no text, or damaged"),
        ("", "a.jsonl: holds no rows; there is nothing to read"),
        ('{"text": ""}\n' * 3, "a.jsonl: all 3 rows are empty; there is nothing to read"),
    ],
)
def test_a_faulty_row_is_an_error_that_names_file_and_line(tmp_path, told, content, said):
    (tmp_path / "a.jsonl").write_text(content)
    message, code = told(tmp_path / "a.jsonl")
    assert said in message
    assert code == 3


def test_a_line_that_is_not_utf_8_is_an_error_that_names_it(tmp_path, told):
    (tmp_path / "a.jsonl").write_bytes(GOOD.encode() + '{"text": "café"}'.encode("latin-1"))
    message, code = told(tmp_path / "a.jsonl")
    assert f"{tmp_path}/a.jsonl:2: not UTF-8 (byte 0xe9 at 13 of the line); convert" in message
    assert code == 3
    wide = GOOD.encode("utf-16") + b"\x00\xd8"
    (tmp_path / "a.jsonl").write_bytes(wide)
    assert "not what its byte order mark says; convert it" in told(tmp_path / "a.jsonl")[0]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_a_line_of_500_mb_is_an_error_and_never_held(tmp_path, told, name):
    with (tmp_path / name).open("wb") as file:
        file.write(GOOD.encode() if name == "a.jsonl" else b"text\n")
        file.truncate(500 << 20)  # sparse: takes no room on disk
    tracemalloc.start()
    message, code = told(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"{tmp_path}/{name}:2: a line of over 64 MiB; a row is one line" in message
    assert code == 3
    assert peak < 200 << 20


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"no gzip at all"])
def test_a_damaged_gzip_is_an_error(tmp_path, told, content):
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    message, code = told(tmp_path / "a.jsonl.gz")
    assert "a.jsonl.gz: damaged after line 0 (" in message
    assert code == 3


def test_a_gzip_that_ends_too_early_is_an_error(tmp_path, told):
    rows = "".join(f'{{"id": {i}, "text": "{i * 7919}"}}\n' for i in range(5000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows.encode())[:-2000])
    message, _ = told(tmp_path / "a.jsonl.gz")
    assert "damaged after line" in message
    assert "fetch it again" in message


@pytest.mark.parametrize("part", ["id", "title", "text"])
def test_a_named_column_that_is_not_there_is_an_error(tmp_path, told, part):
    path = put(tmp_path / "a.jsonl", {"id": "a", "text": "x", "title": "t"})
    message, code = told(path, columns={part: "nope"})
    assert f"a.jsonl:1: no column 'nope' for the {part} (columns found: 'id', 'text', 't" in message
    assert code == 3


def test_a_part_that_rows_do_not_have_is_a_config_error(tmp_path, told):
    path = put(tmp_path / "a.jsonl", {"text": "x"})
    message, code = told(path, columns={"body": "text"})
    assert message == "data.columns: body: unknown; allowed are id, title, text"
    assert code == 2


def test_neither_path_nor_name_is_a_config_error(told):
    assert told(None) == ("data.path or data.name: one of them must say what to read", 2)


cells = st.text(alphabet='ab,;"\t \n', max_size=6)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(cells, cells.filter(str.strip)), min_size=1, max_size=5))
def test_csv_of_the_standard_library_comes_back_as_it_was(rows, tmp_path_factory):
    out = io.StringIO()
    csv.writer(out).writerows([("title", "text"), *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(out.getvalue().encode())
    documents = list(read_documents(DataConfig(path=path)).documents)
    assert [(d.title, d.text) for d in documents] == rows


def test_cells_with_line_ends_keep_the_line_that_their_row_begins_at(tmp_path, read):
    (tmp_path / "a.csv").write_text('\nid,text,n\n1,"two\nlines",5\n\n2,x,\n')
    found, _ = read(tmp_path / "a.csv")
    assert {name: (d.text, d.where, d.metadata) for name, d in found.items()} == {
        "1": ("two\nlines", f"{tmp_path}/a.csv:3", {"n": "5"}),
        "2": ("x", f"{tmp_path}/a.csv:6", {"n": ""}),
    }


def test_tsv_knows_no_quotes(tmp_path, read):
    (tmp_path / "a.tsv").write_text('id\ttext\n1\t"open quote\n2\tand, more; x"\n')
    assert {name: d.text for name, d in read(tmp_path / "a.tsv")[0].items()} == {
        "1": '"open quote',
        "2": 'and, more; x"',
    }


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_header_of_a_csv_says_what_parts_its_cells(tmp_path, read, mark):
    (tmp_path / "a.csv").write_text(f"id{mark}text\n1{mark}x\n")
    assert read(tmp_path / "a.csv")[0]["1"].text == "x"


def test_a_cell_may_be_long(tmp_path, read):
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f"text\n{'word ' * 100_000}\n")
    (document,) = read(tmp_path / "a.csv")[0].values()
    assert len(document.text) == 500_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,text\n1,x\n2,y,z\n", "a.csv:3: 3 cells, but the header names 2 columns (id, text)"),
        ("id,text\n1,x\n2\n", "a.csv:3: 1 cells, but the header names 2 columns (id, text)"),
        (
            'id,text\n1,x\n2,"y\n3,z\n',
            "a.csv:3: not CSV (unexpected end of data); a quote in a cell",
        ),
        ('id,text\n1,"a"b\n', "a.csv:2: not CSV (',' expected after '\"'); a quote in a cell is"),
        ("id,id\n1,x\n", "a.csv:1: the header must name each column once, found 'id,id'"),
        ("id,\n1,x\n", "a.csv:1: the header must name each column once, found 'id,'"),
        (
            "id,body\n1,x\n",
            "a.csv:2: no column 'text' or 'content' for the text (columns found: 'id'",
        ),
        ("id,text\n", "a.csv: holds no rows; there is nothing to read"),
        ("", "a.csv: holds no rows; there is nothing to read"),
        ("id,text\n1,x\n1,y\n", "a.csv:3: the id '1' stands already at "),
    ],
)
def test_a_faulty_csv_is_an_error_that_names_file_and_line(tmp_path, told, content, said):
    (tmp_path / "a.csv").write_text(content)
    message, code = told(tmp_path / "a.csv")
    assert said in message
    assert code == 3
