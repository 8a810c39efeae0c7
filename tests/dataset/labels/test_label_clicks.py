"""Clicks become labels by the rules that the reader states, and by nothing else."""

import csv
import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import ClicksConfig
from retrieval_ft.dataset import Corpus, Dataset
from retrieval_ft.dataset.labels import read_labels
from retrieval_ft.dataset.splits import carve, normalize
from retrieval_ft.errors import ConfigError, DataError

CORPUS = Corpus(*(tuple(f"{kind}{i}" for i in range(6)) for kind in ("p", "text ")), ("",) * 6)


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path, *, queries=None, fmt="auto", **config):
    return read_labels(path, CORPUS, fmt=fmt, queries=queries, clicks=ClicksConfig(**config))


def grades(labels):
    rows = labels.qrels["train"].grades
    return {normalize(labels.queries.text_of[q]): dict(row) for q, row in rows.items()}


def log_of(query, shown, *, impression="i1"):
    """Rows of one impression: passage ids in order, the clicked ones with a star."""
    return [
        {
            "query": query,
            "doc_id": name.rstrip("*"),
            "rank": rank,
            "clicked": name.endswith("*"),
            "impression_id": impression,
        }
        for rank, name in enumerate(shown.split(), start=1)
    ]


def by_definition(rows, *, minimum, bias, skip_above):
    """Oracle: the rules of the module, one after the other, over the whole log at once."""
    clicks, found = defaultdict(set), {}
    for row in rows:
        if row["clicked"]:
            query = normalize(row["query"])
            clicks[query, row["doc_id"]].add((row["impression_id"], row["rank"]))
    for query in {q for q, _ in clicks}:
        enough = {
            p: sum(rank**bias for _, rank in seen)
            for (q, p), seen in clicks.items()
            if q == query and len(seen) >= minimum
        }
        if enough:
            best = max(enough.values())
            found[query] = {p: 2 if 2 * w >= best else 1 for p, w in enough.items()}
    for row in rows if skip_above else []:
        query = normalize(row["query"])
        below = [
            other["rank"]
            for other in rows
            if normalize(other["query"]) == query
            and other["impression_id"] == row["impression_id"]
            and other["clicked"]
        ]
        skipped = below and row["rank"] < max(below) and (query, row["doc_id"]) not in clicks
        if skipped and query in found:
            found[query][row["doc_id"]] = 0
    return found


@st.composite
def logs(draw):
    """Impressions of two to five passages each, at random; one rank holds one passage."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = []
    for impression in range(draw(st.integers(1, 14))):
        shown = rng.permutation(6)[: rng.integers(2, 6)]
        names = " ".join(f"p{p}{'*' if rng.random() < 0.4 else ''}" for p in shown)
        rows += log_of(rng.choice(["the sea", "The  Sea", "fox"]), names, impression=impression)
    return rows


@settings(deadline=None)  # it writes files
@given(logs(), st.integers(1, 3), st.sampled_from([0, 1, 2]), st.booleans())
def test_labels_follow_the_rules(tmp_path_factory, rows, minimum, bias, skip_above):
    path = jsonl(tmp_path_factory.mktemp("log") / "log.jsonl", rows)
    config = {"minimum": minimum, "bias": bias, "skip_above": skip_above}
    wanted = by_definition(rows, **config)
    if not wanted:
        with pytest.raises(DataError, match=r"no passage with clicks\.minimum clicks"):
            read(path, **config)
        return
    labels = read(path, **config)
    assert labels.format == "clicks"
    assert grades(labels) == wanted
    account = labels.account
    assert account["rows"] == len(rows)
    assert account["clicks"] == sum(row["clicked"] for row in rows)
    assert account.get("queries_without_enough_clicks", 0) == len(
        {normalize(row["query"]) for row in rows} - {*wanted}
    )
    flat = [grade for row in wanted.values() for grade in row.values()]
    assert account.get("skipped_above_a_click", 0) == flat.count(0)
    clicked = {(normalize(r["query"]), r["doc_id"]) for r in rows if r["clicked"]}
    under = len(clicked) - (len(flat) - flat.count(0))
    assert account.get("clicked_passages_under_minimum", 0) == under
    # whatever the order of the rows
    turned = jsonl(path.with_name("turned.jsonl"), rows[::-1])
    assert grades(read(turned, **config)) == wanted


@pytest.mark.parametrize(("bias", "top"), [(0.0, 2), (1.0, 1)])
def test_bias_says_how_much_more_a_click_far_down_weighs(tmp_path, bias, top):
    rows = [r for i in range(4) for r in log_of("q", "p0* p1 p2 p3 p4", impression=f"a{i}")]
    rows += [r for i in range(2) for r in log_of("q", "p0 p1 p2 p3 p4*", impression=f"b{i}")]
    # p0 and p4 weigh 4 and 2 without bias, 4 and 10 with it
    found = grades(read(jsonl(tmp_path / "x", rows), bias=bias))["q"]
    assert (found["p0"], found["p4"]) == (top, 2)


def test_what_was_clicked_once_anywhere_is_never_a_negative(tmp_path):
    rows = [r for i in range(2) for r in log_of("q", "p0 p1 p2*", impression=i)]
    rows += log_of("q", "p0* p3", impression=7)
    assert grades(read(jsonl(tmp_path / "x", rows)))["q"] == {"p2": 2, "p1": 0}


def test_passages_below_the_lowest_click_are_not_judged(tmp_path):
    rows = [r for i in range(2) for r in log_of("q", "p0* p1 p2* p3", impression=i)]
    assert grades(read(jsonl(tmp_path / "x", rows)))["q"] == {"p0": 1, "p2": 2, "p1": 0}


def test_an_impression_of_another_query_says_nothing(tmp_path):
    rows = [r for i in range(2) for r in log_of("q", "p0 p1*", impression=i)]
    rows += log_of("r", "p3 p4 p5", impression=0)
    labels = read(jsonl(tmp_path / "x", rows))
    assert grades(labels) == {"q": {"p1": 2, "p0": 0}}
    assert labels.account["queries_without_enough_clicks"] == 1


def test_a_session_stands_for_an_impression_where_there_is_none(tmp_path):
    rows = [r for i in range(2) for r in log_of("q", "p0 p1*", impression=f"s{i}")]
    for row in rows:
        row["session_id"] = row.pop("impression_id")
    assert grades(read(jsonl(tmp_path / "x", rows))) == {"q": {"p1": 2, "p0": 0}}


def test_a_second_click_in_one_impression_is_counted_apart(tmp_path):
    rows = log_of("q", "p0*") * 3 + log_of("q", "p1*", impression="i2")
    labels = read(jsonl(tmp_path / "x", rows), minimum=1)
    assert labels.account["clicks_repeated_in_an_impression"] == 2
    assert grades(labels) == {"q": {"p0": 2, "p1": 2}}


def test_a_log_of_clicks_only_needs_neither_ranks_nor_impressions(tmp_path):
    rows = [{"query": "q", "doc_id": "p1", "time": 0}] * 2 + [
        {"query": "q", "doc_id": "p2", "time": 5}
    ]
    labels = read(jsonl(tmp_path / "x", rows), fmt="clicks")
    assert grades(labels) == {"q": {"p1": 2}}
    assert labels.account["rows_without_rank"] == labels.account["rows_without_impression"] == 3
    assert labels.account["clicked_passages_under_minimum"] == 1


def test_csv_and_parquet_say_the_same_as_jsonl(tmp_path):
    rows = [r for i in range(3) for r in log_of("q, r", "p0 p1* p2", impression=i)]
    with (tmp_path / "x.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    found = [read(jsonl(tmp_path / "x.jsonl", rows))]
    found += [read(tmp_path / name) for name in ("x.csv", "x.parquet")]
    assert found[0] == found[1] == found[2]
    assert grades(found[0]) == {"q, r": {"p1": 2, "p0": 0}}


def test_queries_may_be_named_by_id(tmp_path):
    rows = [{"qid": 7, "docid": "p1", "position": 1, "click": 1}] * 2
    (tmp_path / "queries.tsv").write_text("7\twhy\n8\twhere\n")
    path = jsonl(tmp_path / "x", rows)
    labels = read(path, queries=tmp_path / "queries.tsv")
    assert (labels.queries.ids, labels.queries.texts) == (("7",), ("why",))
    with pytest.raises(DataError, match=r"x:1: this log names queries by id; give their texts"):
        read(path)
    jsonl(path, [*rows, {"qid": "9", "docid": "p1", "position": 1, "click": 1}])
    with pytest.raises(DataError, match=r"x:3: query id '9' is not in the file of queries"):
        read(path, queries=tmp_path / "queries.tsv")
    with pytest.raises(ConfigError, match=r"data\.queries: .*x:1 \(a log\) brings the texts"):
        read(jsonl(path, log_of("why", "p1*")), queries=tmp_path / "queries.tsv")


START = datetime(2026, 1, 1, tzinfo=UTC)
FORMS = {
    "iso": lambda moment: moment.isoformat(),
    "naive": lambda moment: moment.replace(tzinfo=None).isoformat(sep=" "),
    "seconds": lambda moment: int(moment.timestamp()),
    "text of seconds": lambda moment: str(int(moment.timestamp())),
    "milliseconds": lambda moment: int(moment.timestamp() * 1000),
    "elsewhere": lambda moment: moment.isoformat().replace("+00:00", "Z"),
}


@pytest.mark.parametrize("form", FORMS)
def test_first_and_last_time_of_a_query_are_kept_in_utc(tmp_path, form):
    moments = [START + timedelta(hours=h) for h in (5, 1, 9)]
    rows = [
        {"query": "q", "doc_id": "p1", "clicked": i < 2, "timestamp": FORMS[form](moment)}
        for i, moment in enumerate(moments)
    ]
    labels = read(jsonl(tmp_path / "x", rows))
    assert labels.queries.metadata == (
        {"time": "2026-01-01T01:00:00+00:00", "last_time": "2026-01-01T09:00:00+00:00"},
    )


@pytest.mark.parametrize("when", [START, START.replace(tzinfo=None), START.date()])
def test_times_of_parquet_are_moments(tmp_path, when):
    rows = [{"query": "q", "doc_id": "p1", "clicked": True, "time": when}] * 2
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").queries.metadata[0]["time"] == START.isoformat()


def test_a_log_with_times_is_split_by_time(tmp_path):
    rows = [
        {"query": f"q{i}", "doc_id": f"p{i % 6}", "clicked": 1, "time": i * 3600}
        for i in range(20)
        for _ in range(2)
    ]
    rows += [{"query": "q0", "doc_id": "p0", "clicked": 0, "time": 999_999}]
    labels = read(jsonl(tmp_path / "x", rows))
    data = Dataset("log", labels.corpus, labels.queries, labels.qrels)
    carving = carve(data, dev_fraction=0.1, test_fraction=0.2, seed=0)
    assert (carving.rule, carving.asked_again) == ("time", 1)
    text_of = data.queries.text_of
    test = {text_of[q] for q in carving.dataset.qrels["test"].query_ids}
    assert test == {"q16", "q17", "q18", "q19"}


GOOD = {"query": "q", "doc_id": "p1", "rank": 1, "clicked": 1, "time": 0}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"query": " "}, "x:2: the query is empty"),
        ({"query": None}, "x:2: the query must be a string, found NoneType"),
        ({"doc_id": "z"}, "x:2: passage id 'z' is not in the corpus, whose ids look like 'p0'"),
        ({"doc_id": None}, "x:2: passage id None must be a string"),
        ({"rank": 0}, "x:2: rank 0 is not an integer from 1"),
        ({"rank": 1.5}, "x:2: rank 1.5 is not an integer from 1"),
        ({"rank": "top"}, "x:2: rank 'top' is not an integer from 1"),
        ({"rank": True}, "x:2: rank True is not an integer from 1"),
        ({"clicked": 2}, "x:2: clicked is 2; 1 or 0, true or false are allowed"),
        ({"time": "soon"}, "x:2: time 'soon' is neither ISO 8601"),
        ({"time": None}, "x:2: time None is neither ISO 8601"),
        ({"time": 1e99}, "x:2: time 1e+99 is neither ISO 8601"),
    ],
)
def test_a_fault_in_a_log_is_named_with_its_line(tmp_path, change, told):
    with pytest.raises(DataError) as caught:
        read(jsonl(tmp_path / "x", [GOOD, GOOD | change]))
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(told)
    assert caught.value.exit_code == 3
