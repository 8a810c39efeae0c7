"""The same judgements, written as every format, are read as the same judgements."""

import csv
import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import ClicksConfig
from retrieval_ft.dataset import Corpus, Qrels
from retrieval_ft.dataset.labels import names_ids, read_labels
from retrieval_ft.dataset.splits import normalize

EMPTY = Corpus((), (), ())
PASSAGES = {
    "p1": "Boats rise with the tide.",
    "p2": "Bread needs salt, “flour” and time",
    "p3": "Füchse schlafen am Tag",
    "p4": "A kite, a string; and wind\nand a second line",
    "p5": 'They said "no", twice',
}
CORPUS = Corpus(tuple(PASSAGES), tuple(PASSAGES.values()), ("",) * 5)
QUERIES = ["why do boats rise", "what goes into bread?", 'wo schlafen "Füchse"', "kite, flying"]


def read(path, corpus=CORPUS, *, fmt="auto", queries=None):
    return read_labels(path, corpus, fmt=fmt, queries=queries, clicks=ClicksConfig())


def by_text(labels, split="train"):
    """Query text -> passage text -> grade."""
    text_of = dict(zip(labels.corpus.ids, labels.corpus.texts, strict=True))
    return {
        labels.queries.text_of[q]: {text_of[p]: grade for p, grade in row.items()}
        for q, row in labels.qrels[split].grades.items()
    }


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_csv(path, rows, delimiter=","):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def as_dataset(path, rows):
    from datasets import Dataset

    Dataset.from_list(rows).save_to_disk(str(path))
    return path


TABLES = {
    "x.jsonl": jsonl,
    "x.csv": as_csv,
    "x.tsv": lambda path, rows: as_csv(path, rows, "\t"),
    "semicolons.csv": lambda path, rows: as_csv(path, rows, ";"),
    "x.parquet": as_parquet,
    "saved": as_dataset,
}

# Every query has a relevant passage and one that is not.
judgements = st.dictionaries(
    st.sampled_from(QUERIES),
    st.permutations(list(PASSAGES.values())).flatmap(
        lambda order: st.tuples(st.integers(1, 3), st.integers(1, 2)).map(
            lambda n: {t: int(i < n[0]) for i, t in enumerate(order[: sum(n)])}
        )
    ),
    min_size=1,
)


def of_grade(row, grade):
    return [text for text, found in row.items() if found == grade]


def triplet_rows(wanted):
    """A row for each positive; negatives fill as many columns as there are."""
    return [
        {"anchor": q, "positive": text}
        | {f"negative_{i}": n for i, n in enumerate([*of_grade(row, 0), ""][:2], start=1)}
        for q, row in wanted.items()
        for text in of_grade(row, 1)
    ]


@pytest.mark.parametrize("corpus", [CORPUS, EMPTY])
@settings(deadline=None)  # it writes files
@given(wanted=judgements)
def test_formats_that_carry_texts_agree(corpus, tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("labels")
    graded = [
        {"query": q, "answer": t, "label": g} for q, row in wanted.items() for t, g in row.items()
    ]
    flag = [
        {"query": q, "pos": of_grade(row, 1), "neg": of_grade(row, 0)} for q, row in wanted.items()
    ]
    llama = {
        "queries": {f"id {i}": q for i, q in enumerate(wanted)},
        "corpus": {f"node {i}": t for i, t in enumerate(PASSAGES.values())},
        "relevant_docs": {
            f"id {i}": [f"node {list(PASSAGES.values()).index(t)}" for t in of_grade(row, 1)]
            for i, row in enumerate(wanted.values())
        },
        "mode": "text",
    }
    (folder / "llama.json").write_text(json.dumps(llama, indent=4))
    (folder / "llama-one-line.json").write_text(json.dumps(llama))
    found = {
        "pairs": read(as_csv(folder / "pairs.csv", graded), corpus),
        "triplets": read(as_csv(folder / "triplets.csv", triplet_rows(wanted)), corpus),
        "flagembedding": read(jsonl(folder / "flag.jsonl", flag), corpus),
    }
    for fmt, labels in found.items():
        assert labels.format == fmt
        assert by_text(labels) == wanted
        assert list(labels.qrels) == ["train"]
        assert labels.account["relevant"] == sum(g for row in wanted.values() for g in row.values())
        same = {t for row in wanted.values() for t in row}
        counts = ("passages_matched_by_text", "passages_added")
        expected = (len(same), 0) if corpus is CORPUS else (0, len(same))
        assert tuple(labels.account[key] for key in counts) == expected
        assert labels.corpus.ids[: len(corpus)] == corpus.ids
    assert found["pairs"].qrels == found["triplets"].qrels == found["flagembedding"].qrels
    relevant = {q: dict.fromkeys(of_grade(row, 1), 1) for q, row in wanted.items()}
    for name in ("llama.json", "llama-one-line.json"):
        labels = read(folder / name, corpus)
        assert (labels.format, by_text(labels)) == ("llamaindex", relevant)
        assert len(labels.corpus) == len(PASSAGES)  # all of its passages, relevant or not
        nodes = tuple(llama["corpus"]) if corpus is EMPTY else CORPUS.ids
        assert labels.corpus.ids == nodes


@settings(deadline=None)  # it writes files
@given(wanted=judgements)
def test_formats_that_name_passages_agree(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("labels")
    ids = {text: passage_id for passage_id, text in PASSAGES.items()}
    trec, tsv = [], ["query-id\tcorpus-id\tscore"]
    for number, row in enumerate(wanted.values()):
        trec += [f"{number} 0 {ids[text]} {grade}" for text, grade in row.items()]
        tsv += [f"{number}\t{ids[text]}\t{grade}" for text, grade in row.items()]
    (folder / "qrels.txt").write_text("\n".join(trec) + "\n")
    (folder / "qrels.tsv").write_text("\r\n".join(tsv) + "\r\n")
    (folder / "queries.tsv").write_text("".join(f"{i}\t{q}\n" for i, q in enumerate(wanted)))
    rows = [{"_id": str(i), "text": q, "metadata": {"n": i + 1}} for i, q in enumerate(wanted)]
    jsonl(folder / "queries.jsonl", rows)
    found = [
        read(folder / qrels, queries=folder / queries)
        for qrels in ("qrels.txt", "qrels.tsv")
        for queries in ("queries.tsv", "queries.jsonl")
    ]
    for labels in found:
        assert (labels.format, by_text(labels)) == ("trec", wanted)
        assert labels.corpus is CORPUS
        assert labels.queries.ids == tuple(str(i) for i in range(len(wanted)))
        assert labels.qrels == found[0].qrels
    assert found[0].queries.metadata == ()
    assert found[1].queries.metadata == tuple({"n": i + 1} for i in range(len(wanted)))


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_all_kinds_hold_the_same_rows(tmp_path, name):
    rows = triplet_rows({QUERIES[2]: {PASSAGES["p3"]: 1, PASSAGES["p4"]: 0, PASSAGES["p5"]: 0}})
    labels = read(TABLES[name](tmp_path / name, rows))
    assert labels.format == "triplets"
    assert by_text(labels) == {
        QUERIES[2]: {PASSAGES["p3"]: 1, PASSAGES["p4"]: 0, PASSAGES["p5"]: 0}
    }


@pytest.mark.parametrize(
    ("fmt", "row"),
    [
        ("pairs", {"anchor": "q", "positive": "yes"}),
        ("pairs", {"Question": "q", "Context": "yes"}),
        ("pairs", {"sentence1": "q", "sentence2": "yes", "score": 1.0}),
        ("pairs", {"query": "q", "passage": ["yes"]}),
        ("triplets", {"query": "q", "positive": "yes", "negative": "no"}),
        ("triplets", {"query": "q", "document": "yes", "hard_negatives": ["no"]}),
    ],
)
def test_columns_are_known_by_the_names_that_tools_give_them(tmp_path, fmt, row):
    labels = read(jsonl(tmp_path / "x.jsonl", [row]), EMPTY)
    assert labels.format == fmt
    assert by_text(labels) == {"q": {"yes": 1} | ({"no": 0} if fmt == "triplets" else {})}


@pytest.mark.parametrize(
    ("fmt", "row", "wanted"),
    [
        ("pairs", {"a": "q", "b": "yes"}, {"yes": 1}),
        ("pairs", {"a": "q", "b": "no", "label": 0}, {"no": 0}),
        ("triplets", {"a": "q", "b": "yes", "c": "no", "d": "nor"}, {"yes": 1, "no": 0, "nor": 0}),
        ("triplets", {"a": "q", "b": "yes", "negative": "no"}, {"yes": 1, "no": 0}),
    ],
)
def test_unknown_names_play_their_parts_in_order_if_the_format_is_given(tmp_path, fmt, row, wanted):
    labels = read(jsonl(tmp_path / "x.jsonl", [row]), EMPTY, fmt=fmt)
    assert by_text(labels) == {"q": wanted}
    assert not {"columns_not_used", "judgements_repeated"} & {*labels.account}


def test_a_stray_column_is_not_a_text_and_is_counted(tmp_path):
    rows = [{"id": "17", "anchor": "q", "positive": "yes", "negative": "no"}]
    labels = read(jsonl(tmp_path / "x.jsonl", rows), EMPTY)
    assert by_text(labels) == {"q": {"yes": 1, "no": 0}}
    assert labels.account["columns_not_used"] == 1


def test_later_rows_of_jsonl_may_have_more_negatives(tmp_path):
    rows = [
        {"anchor": "q", "positive": "yes"},
        {"anchor": "r", "positive": "yes", "negative_1": "no", "negative_2": None},
    ]
    labels = read(jsonl(tmp_path / "x.jsonl", rows), EMPTY)
    assert by_text(labels) == {"q": {"yes": 1}, "r": {"yes": 1, "no": 0}}
    assert labels.account["negatives_empty"] == 1


def test_one_query_text_is_one_query_and_ids_come_from_the_text(tmp_path):
    rows = [
        {"anchor": "The  Sea", "positive": "one"},
        {"anchor": "the sea", "positive": "two"},
        {"anchor": "THE SEA\n", "positive": "ONE"},
        {"anchor": "fox", "positive": "two"},
    ]
    labels = read(jsonl(tmp_path / "x.jsonl", rows), EMPTY)

    def made_id(text):
        return hashlib.sha256(normalize(text).encode()).hexdigest()[:24]

    assert labels.queries.ids == (made_id("the sea"), made_id("fox"))
    assert labels.queries.texts == ("The  Sea", "fox")
    assert labels.corpus.ids == (made_id("one"), made_id("two"))
    assert labels.corpus.texts == ("one", "two")
    assert labels.account == {
        "judgements_repeated": 1,
        "not_relevant": 0,
        "passages_added": 2,
        "passages_matched_by_text": 0,
        "queries": 2,
        "relevant": 3,
        "rows": 4,
    }


def test_queries_of_two_ids_and_one_text_become_one_and_are_counted(tmp_path):
    (tmp_path / "q.tsv").write_text("qid\ttext\na\tThe Sea\nb\tthe sea\nc\tfox\n")
    (tmp_path / "qrels").write_text("a 0 p1 1\nb Q0 p2 2\nb Q0 p1 1\n")
    labels = read(tmp_path / "qrels", queries=tmp_path / "q.tsv")
    assert labels.queries.ids == ("a", "c")  # c is in no judgement, and not lost
    assert labels.qrels == {"train": Qrels({"a": {"p1": 1, "p2": 2}})}
    assert labels.account["query_ids_merged_by_text"] == 1
    assert labels.account["judgements_repeated"] == 1


def test_passages_are_matched_by_text_and_by_title_and_text(tmp_path):
    corpus = Corpus(
        ("a", "b", "c"),
        ("the sea rises", "foxes", "the sea rises"),
        ("Tide", "", ""),
        ({"document": "d"}, {}, {}),
    )
    rows = [
        {"anchor": "q", "positive": "Tide  THE sea rises"},
        {"anchor": "r", "positive": "the sea rises"},
        {"anchor": "r", "positive": "Foxes"},
        {"anchor": "r", "positive": "wolves"},
    ]
    labels = read(jsonl(tmp_path / "x.jsonl", rows), corpus)
    grades = labels.qrels["train"].grades
    new = labels.corpus.ids[3]
    # "the sea rises" is a's and c's text: the first in the corpus
    assert [*grades.values()] == [{"a": 1}, {"a": 1, "b": 1, new: 1}]
    assert labels.corpus.ids == ("a", "b", "c", new)
    assert labels.corpus.metadata == ({"document": "d"}, {}, {}, {})
    assert labels.account["passages_matched_by_text"] == 2
    assert labels.account["passages_added"] == 1


def test_ids_of_flagembedding_are_kept_and_what_has_no_place_is_counted(tmp_path):
    rows = [
        {"query": "q", "pos": ["a"], "neg": ["b"], "id": 7, "pos_scores": [0.9], "prompt": "find"},
        {"query": "r", "pos": ["b"], "id": "8", "neg_scores": []},
    ]
    labels = read(jsonl(tmp_path / "x.jsonl", rows), EMPTY)
    assert labels.queries.ids == ("7", "8")
    assert by_text(labels) == {"q": {"a": 1, "b": 0}, "r": {"b": 1}}
    assert labels.account["pos_scores_not_used"] == 1
    assert labels.account["prompt_not_used"] == 1
    assert "neg_scores_not_used" not in labels.account


def test_nodes_with_one_text_are_one_passage(tmp_path):
    document = {
        "queries": {"q": "sea"},
        "corpus": {"n1": "the sea", "n2": "The Sea", "n3": "fox"},
        "relevant_docs": {"q": ["n1", "n2"]},
    }
    (tmp_path / "x.json").write_text(json.dumps(document))
    labels = read(tmp_path / "x.json", EMPTY)
    assert labels.corpus.ids == ("n1", "n3")
    assert labels.qrels["train"].grades == {"q": {"n1": 1}}
    assert labels.account["passage_ids_replaced_by_that_of_an_equal_text"] == 1


# Splits


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", "train"), ("dev", "dev"), ("validation", "dev"), ("test", "test"), ("x", "train")],
)
def test_a_file_is_the_split_that_its_name_says(tmp_path, name, split):
    rows = [{"anchor": "q", "positive": "yes"}]
    labels = read(jsonl(tmp_path / f"{name}.jsonl", rows), EMPTY)
    assert list(labels.qrels) == [split]


def test_a_folder_gives_all_its_splits(tmp_path):
    jsonl(tmp_path / "train.jsonl", [{"anchor": "q", "positive": "yes"}])
    as_csv(tmp_path / "test.csv", [{"anchor": "r", "positive": "no"}])
    (tmp_path / "README.md").write_text("what this is")
    labels = read(tmp_path, EMPTY)
    assert by_text(labels, "train") == {"q": {"yes": 1}}
    assert by_text(labels, "test") == {"r": {"no": 1}}
    assert labels.account["files_not_read"] == 1


def test_a_folder_of_qrels_under_one_file_of_queries(tmp_path):
    for split, line in (("train", "a\tp1\t1"), ("test", "b\tp2\t1")):
        (tmp_path / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{line}\n")
    jsonl(tmp_path / "queries.jsonl", [{"_id": "a", "text": "x"}, {"_id": "b", "text": "y"}])
    labels = read(tmp_path, queries=tmp_path / "queries.jsonl")
    assert labels.qrels == {"train": Qrels({"a": {"p1": 1}}), "test": Qrels({"b": {"p2": 1}})}
    assert "query_ids_merged_by_text" not in labels.account


@pytest.mark.parametrize(
    ("text", "by_id"),
    [
        ("q 0 p1 1\n", True),
        ("query-id\tcorpus-id\tscore\nq\tp1\t1\n", True),
        ("query,doc_id,rank,clicked\nq,p1,1,1\n", True),
        ("query,answer\nq,yes\n", False),
        ('{"query": "q", "pos": ["yes"]}\n', False),
        ('{"queries": {}, "corpus": {}, "relevant_docs": {}}\n', False),
    ],
)
def test_labels_that_name_passages_by_id_are_told_from_those_that_bring_texts(
    tmp_path, text, by_id
):
    (tmp_path / "x").write_text(text)
    assert names_ids(tmp_path / "x", fmt="auto") == by_id
    assert names_ids(tmp_path / "x", fmt="clicks")


def test_a_saved_folder_of_several_splits_gives_them(tmp_path):
    from datasets import Dataset, DatasetDict

    parts = {
        "train": Dataset.from_list([{"anchor": "q", "positive": "yes"}]),
        "validation": Dataset.from_list([{"anchor": "r", "positive": "no"}]),
    }
    DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    labels = read(tmp_path / "saved", EMPTY)
    assert by_text(labels, "train") == {"q": {"yes": 1}}
    assert by_text(labels, "dev") == {"r": {"no": 1}}
