import json

import pytest
import tiny

from retrieval_ft import artifacts
from retrieval_ft.config import HygieneConfig
from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries
from retrieval_ft.dataset.hygiene import clean
from retrieval_ft.errors import DataError

LONG = "the pump fills the tank when the level falls under the mark that was set by hand " * 2


def messy():
    rows = {
        "d#0": (LONG, {"document": "d"}),
        "d#1": ("12", {"document": "d"}),
        "e#0": (LONG.upper(), {"document": "e"}),
        "e#1": (LONG + "again", {"document": "e"}),
        "f#0": ("the boat sails at noon", {"document": "f"}),
    }
    corpus = Corpus(
        tuple(rows),
        tuple(t for t, _ in rows.values()),
        ("",) * 5,
        tuple(m for _, m in rows.values()),
    )
    queries = Queries(("q1", "q2"), ("When is it filled?", "when is it filled?"))
    qrels = {"train": Qrels({"q1": {"e#0": 1, "f#0": 0}, "q2": {"d#0": 0, "f#0": 1}})}
    return Dataset("mine", corpus, queries, qrels)


def cleaned(dataset, **options):
    config = HygieneConfig(near_duplicate_jaccard=0.8, **options)
    return clean(dataset, config=config, base="bge-small-en-v1.5", seed=3)


def test_everything_that_is_touched_is_counted_and_listed(tmp_path):
    got = cleaned(messy())
    assert got.dataset.corpus.ids == ("d#0", "f#0")
    assert got.dataset.corpus.metadata_of("d#0") == {"document": "d", "duplicates": ["e#0", "e#1"]}
    assert got.dataset.qrels["train"].grades == {
        "q1": {"d#0": 1, "f#0": 1},
        "q2": {"d#0": 1, "f#0": 1},
    }
    assert [(row["check"], row["touched"], row["of"]) for row in got.table] == [
        ("short_passages", 1, 5),
        ("equal_passages", 1, 4),
        ("near_duplicates", 1, 4),
        ("merged_labels", 0, 4),
        ("contradictory_labels", 4, 4),
        ("languages", 0, 5),
    ]
    assert all(set(row) == {"check", "touched", "of", "what was done"} for row in got.table)
    assert sorted(got.files) == [
        "contradictory_labels",
        "equal_passages",
        "near_duplicates",
        "short_passages",
    ]
    for name, rows in got.files.items():
        artifacts.write_jsonl(tmp_path / f"{name}.jsonl", rows)
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [dict(row) for row in rows]


def test_report_leaves_duplicates_and_lists_the_same_ones():
    data = messy()
    got, collapsed = cleaned(data, duplicates="report"), cleaned(data)
    assert got.dataset.corpus.ids == ("d#0", "e#0", "e#1", "f#0")
    for name in ("equal_passages", "near_duplicates"):
        assert got.files[name] == collapsed.files[name]
    assert got.dataset.qrels["train"].grades == {
        "q1": {"e#0": 1, "f#0": 1},
        "q2": {"d#0": 0, "f#0": 1},
    }
    assert [row["decided"] for row in got.files["contradictory_duplicates"]] == ["left as it is"]


def test_a_clean_dataset_is_left_as_it_is():
    data = tiny.dataset()
    got = cleaned(data)
    assert got.dataset == data
    assert sum(row["touched"] for row in got.table) == 0
    assert got.files == {}
    assert got.warnings == ()


def test_cleaning_twice_is_cleaning_once():
    once = cleaned(messy())
    twice = cleaned(once.dataset)
    assert twice.dataset == once.dataset
    assert sum(row["touched"] for row in twice.table) == 0


def test_a_corpus_of_one_passage_many_times_is_an_error():
    corpus = Corpus(("a", "b", "c"), ("the sea", "The sea", "the  sea"), ("",) * 3)
    data = Dataset("mine", corpus, Queries((), ()), {})
    with pytest.raises(DataError) as got:
        cleaned(data)
    assert got.value.exit_code == 3
    assert str(got.value) == (
        "mine: all passages are duplicates of one (a), and retrieval needs at least two passages; "
        "see whether the source was read as it should be"
    )


def test_a_tokenizer_that_knows_nothing_of_it_refuses_before_anything_else():
    with pytest.raises(DataError, match="97% of the tokens"):
        clean(
            messy(),
            config=HygieneConfig(),
            base="bge-small-en-v1.5",
            seed=3,
            unknown_share=lambda texts: 0.97,
        )
