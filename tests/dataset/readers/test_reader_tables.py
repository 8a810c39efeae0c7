import datetime
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

HUB = Path(__file__).with_name("hub_on_loopback.py")


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "a?b #.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE pages (key TEXT, body TEXT, size INTEGER, raw BLOB)")
        connection.execute("CREATE VIEW long AS SELECT key FROM pages")
        rows = [("a", "one", 3, b"x"), ("b", "two", None, None)]
        connection.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", rows)
    connection.close()
    return path


def columns(**given):
    return pyarrow.table(given)


def test_parquet_is_read_in_batches_and_keeps_what_json_can_hold(tmp_path, read):
    path = tmp_path / "a.parquet"
    table = columns(
        id=list(range(1500)),
        text=[f"text {i}" for i in range(1500)],
        day=[datetime.date(2024, 5, 1)] * 1500,
        tags=[["a", None]] * 1500,
        size=[float("nan")] + [1.5] * 1499,
        raw=[b"\xff"] * 1500,
    )
    pyarrow.parquet.write_table(table, path, row_group_size=100)
    found, account = read(path)
    assert list(found) == [str(i) for i in range(1500)]
    last = found["1499"]
    assert (last.text, last.where) == ("text 1499", f"{path}:1500")
    assert last.metadata == {"day": "2024-05-01", "tags": ["a", None], "size": 1.5}
    assert [(i.path, i.reason, i.detail) for i in account.skipped] == [
        (str(path), "column", f"column {name!r} (from {path}:1 on) holds no JSON value")
        for name in ("raw", "size")
    ]


@pytest.mark.parametrize("content", [b"", b"no parquet at all", b"PAR1" + b"x" * 100 + b"PAR1"])
def test_a_damaged_parquet_is_an_error(tmp_path, told, content):
    (tmp_path / "a.parquet").write_bytes(content)
    message, code = told(tmp_path / "a.parquet")
    assert message.startswith(f"{tmp_path}/a.parquet: no Parquet that can be read: ")
    assert code == 3


def test_a_faulty_row_of_a_parquet_is_named_by_its_number(tmp_path, told):
    pyarrow.parquet.write_table(columns(id=["a", "a"], text=["x", "y"]), tmp_path / "a.parquet")
    message, code = told(tmp_path / "a.parquet")
    assert f"{tmp_path}/a.parquet:2: the id 'a' stands already at {tmp_path}/a.parquet:1" in message
    assert code == 3


def test_a_saved_data_set_is_read_and_one_of_its_splits(tmp_path, read):
    made = datasets.Dataset.from_dict({"id": ["a", "b"], "text": ["one", "two"], "n": [1, 2]})
    made.save_to_disk(str(tmp_path / "plain"))
    datasets.DatasetDict({"dev": made}).save_to_disk(str(tmp_path / "splits"))
    plain, _ = read(tmp_path / "plain")
    split, _ = read(tmp_path / "splits", split="dev")
    for found in (plain, split):
        assert [(d.id, d.text, d.metadata) for d in found.values()] == [
            ("a", "one", {"n": 1}),
            ("b", "two", {"n": 2}),
        ]


def test_a_split_that_is_not_there_is_a_config_error(tmp_path, told):
    made = datasets.Dataset.from_dict({"text": ["one"]})
    datasets.DatasetDict({"dev": made, "test": made}).save_to_disk(str(tmp_path))
    message = f"data.split: {tmp_path} has no split 'train'; it has dev, test"
    assert told(tmp_path) == (message, 2)


def test_a_damaged_saved_data_set_is_an_error(tmp_path, told):
    made = datasets.Dataset.from_dict({"text": ["one"] * 50})
    made.save_to_disk(str(tmp_path))
    (arrow,) = tmp_path.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    message, code = told(tmp_path)
    assert message.startswith(f"{tmp_path}: no data set that can be read: ")
    assert code == 3


def test_sqlite_is_read_by_its_query(database, read):
    sql = "SELECT key AS id, body AS text, size, raw FROM pages ORDER BY key DESC"
    found, account = read(database, sql=sql)
    assert [(d.id, d.text, d.metadata, d.where) for d in found.values()] == [
        ("b", "two", {}, f"{database}:1"),
        ("a", "one", {"size": 3}, f"{database}:2"),
    ]
    assert [item.detail for item in account.skipped] == [
        f"column 'raw' (from {database}:2 on) holds no JSON value"
    ]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (None, "data.sql: a query is needed for a sqlite file; "),
        ("SELECT body FROM page", "data.sql: no such table: page; "),
        ("SELEC 1", 'data.sql: near "SELEC": syntax error; '),
        (
            "SELECT 1 AS a, 2 AS a",
            "data.sql: a SELECT that names each column once is needed, found",
        ),
        ("SELECT 1; SELECT 2", "data.sql: You can only execute one statement at a time"),
        ("DELETE FROM pages", "data.sql: attempt to write a readonly database; "),
        ("ATTACH 'other.db' AS other", "data.sql: not authorized; "),
        ("VACUUM INTO 'other.db'", "data.sql: authorization denied; "),
    ],
)
def test_a_query_that_cannot_be_run_is_a_config_error_that_lists_the_tables(
    database, told, sql, said, monkeypatch
):
    monkeypatch.chdir(database.parent)
    before = database.read_bytes()
    message, code = told(database, sql=sql)
    assert said in message
    assert message.endswith(f"{database} has the tables long, pages")
    assert code == 2
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_a_file_that_is_no_sqlite_is_an_error(tmp_path, told):
    (tmp_path / "a.db").write_text("no sqlite " * 100)
    message, code = told(tmp_path / "a.db", sql="SELECT 1")
    assert message == f"{tmp_path}/a.db: cannot be read as sqlite: file is not a database"
    assert code == 3


def test_a_cell_of_sqlite_that_is_not_utf_8_is_an_error_that_names_its_row(database, told):
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("INSERT INTO pages VALUES ('c', CAST(x'ff' AS TEXT), 1, NULL)")
    connection.close()
    message, code = told(database, sql="SELECT body AS text FROM pages ORDER BY key")
    assert message.startswith(f"{database}: cannot be read as sqlite after row 2: Could not decode")
    assert code == 3


def run(tmp_path, program, **variables):
    environment = {**os.environ, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", **variables}
    done = subprocess.run(
        [sys.executable, *program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_data_set_of_the_hub_is_read_as_a_stream(tmp_path):
    found = run(tmp_path, [str(HUB)])
    assert found["found"] == [[str(i), f"page {i}", f"me/pages:{i + 1}"] for i in range(3)]
    assert not list((tmp_path / "datasets").glob("**/*.arrow"))
    for asked, said in {
        "split": "data.name: 'me/pages' cannot be had: Bad split: dev. Available splits: ['train']",
        "subset": "data.name: 'me/pages' cannot be had: BuilderConfig 'small' not found.",
        "absent": "data.name: 'me/nothing' cannot be had: Dataset 'me/nothing' doesn't exist",
    }.items():
        message, code = found[asked]
        assert message.startswith(said)
        assert "Check data.name, data.subset and data.split" in message
        assert code == 2


def test_a_hub_that_cannot_be_reached_is_a_missing_dependency(tmp_path):
    ask = (
        f"import json, sys; sys.path.insert(0, {str(HUB.parent)!r}); import hub_on_loopback as hub; "
        "json.dump(hub.outcome(name='me/pages'), sys.stdout)"
    )
    message, code = run(tmp_path, ["-c", ask], HF_HUB_OFFLINE="1")
    assert message.startswith(
        "data.name: 'me/pages' could not be fetched: Couldn't reach 'me/pages'"
    )
    assert (
        "save it elsewhere with datasets.save_to_disk and give that folder as data.path" in message
    )
    assert code == 5
