import pytest

from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries
from retrieval_ft.dataset.hygiene.short import drop_short
from retrieval_ft.dataset.hygiene.words import word_count
from retrieval_ft.errors import DataError

QUERIES = Queries(("q",), ("what",))


def dataset_of(rows, judged=()):
    ids = tuple(rows)
    texts = tuple(text for text, _ in rows.values())
    metadata = tuple({"document": name} if name else {} for _, name in rows.values())
    corpus = Corpus(ids, texts, ("a long enough title",) * len(ids), metadata)
    return Dataset("mine", corpus, QUERIES, {"train": Qrels({"q": dict.fromkeys(judged, 1)})})


def test_short_passages_of_documents_go_and_rows_with_their_own_ids_stay():
    data = dataset_of(
        {
            "a": ("three words here", "d"),
            "b": ("two words", "d"),
            "c": ("--- --- 7", "d"),
            "d": ("row", None),
            "e": ("", "d"),
        }
    )
    clean, check = drop_short(data, min_words=3, labelled=set())
    assert clean.corpus.ids == ("a", "d")
    assert (check.name, check.touched, check.of) == ("short_passages", 3, 5)
    assert check.done == "dropped: under 3 words"
    assert [row["passage_id"] for row in check.rows] == ["b", "c", "e"]
    assert check.rows[0]["text"] == "two words"


def test_a_passage_that_a_label_names_stays():
    data = dataset_of({"a": ("three words here", "d"), "b": ("two words", "d")}, judged=["b"])
    clean, check = drop_short(data, min_words=3, labelled={"b"})
    assert clean is data
    assert check.touched == 0


def test_nothing_left_is_an_error():
    data = dataset_of({"a": ("one", "d"), "b": ("two", "d"), "c": ("a few words", "d")})
    with pytest.raises(DataError) as got:
        drop_short(data, min_words=3, labelled=set())
    assert got.value.exit_code == 3
    assert str(got.value) == (
        "mine: 2 of 3 passages have under 3 words, and retrieval needs at least two passages; lower "
        "hygiene.min_words, or see whether the documents hold text"
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("| --- | ___ |", 0), ("a b-c, d", 3), ("水泵停止。", 4), ("é 1", 2)],
)
def test_words_hold_a_letter_or_a_digit(text, count):
    assert word_count(text) == count
