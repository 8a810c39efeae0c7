"""Splits by time: the latest queries are held out, and a text never stands on both sides."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries
from retrieval_ft.dataset.splits import carve, check_leaks
from retrieval_ft.errors import DataError

SHARES = {"dev_fraction": 0.1, "test_fraction": 0.2, "seed": 1}


def made(texts, metadata, passages=2):
    """Train queries of these texts, relevant to one passage each."""
    corpus = Corpus(
        *(tuple(f"{kind}{i}" for i in range(passages)) for kind in "px"), ("",) * passages
    )
    ids = tuple(f"q{i}" for i in range(len(texts)))
    rows = {q: {f"p{i % passages}": 1} for i, q in enumerate(ids)}
    return Dataset("made", corpus, Queries(ids, tuple(texts), metadata), {"train": Qrels(rows)})


def timed(times, *, texts=None, last=None):
    metadata = tuple(
        {"time": time} | ({"last_time": last[i]} if last and last[i] else {})
        for i, time in enumerate(times)
    )
    return made(texts or [f"query {i}" for i in range(len(times))], metadata)


def day(number):
    return f"2026-01-{number:02}"


def test_the_latest_queries_are_test_and_the_next_latest_dev():
    data = timed([day(i % 20 + 1) for i in range(20)])
    carving = carve(data, **SHARES)
    assert carving.rule == "time"
    assert carving.dataset.qrels["test"].query_ids == ("q16", "q17", "q18", "q19")
    assert carving.dataset.qrels["dev"].query_ids == ("q14", "q15")
    assert carving.asked_again == 0
    assert carving.why.startswith("dev and test carved by time: 0 of 4 test queries are about")


def test_a_text_stays_with_its_first_time_and_is_counted_when_it_returns():
    times = [day(i + 1) for i in range(20)]
    texts = [f"query {i}" for i in range(20)]
    texts[19] = "QUERY  0"  # asked on day 1 and on day 20, under two ids
    last = [None] * 20
    last[3], last[4] = day(18), day(10)  # asked again on days 18 and 10
    carving = carve(timed(times, texts=texts, last=last), **SHARES)
    check_leaks(carving.dataset)
    assert {"q0", "q19"} <= {*carving.dataset.qrels["train"].query_ids}
    assert carving.dataset.qrels["test"].query_ids == ("q15", "q16", "q17", "q18")
    assert carving.asked_again == 2  # the texts of q0 and of q3; q4 returned before dev began
    assert "2 query texts of train were asked again later and stay in train" in carving.why


@given(
    st.lists(st.tuples(st.integers(1, 28), st.integers(0, 40)), min_size=10, max_size=60),
    st.sampled_from([(0.1, 0.2), (0.3, 0.3)]),
)
def test_later_splits_hold_later_queries_and_equal_times_stay_together(rows, shares):
    texts = [f"text {number}" for _, number in rows]
    first = {}
    for (moment, _), text in zip(rows, texts, strict=True):
        first[text] = min(moment, first.get(text, 99))
    dev, test = (round(share * len(first)) for share in shares)
    assume(len({*first.values()}) > 2 and dev and test and dev + test < len(first))
    data = timed([day(moment) for moment, _ in rows], texts=texts)
    found = carve(data, dev_fraction=shares[0], test_fraction=shares[1], seed=0).dataset
    check_leaks(found)
    assert sum(map(len, found.qrels.values())) == len(rows)
    times = {
        split: {first[data.queries.text_of[q]] for q in qrels.query_ids}
        for split, qrels in found.qrels.items()
    }
    assert max(times["train"]) < min(times["dev"])
    assert max(times["dev"]) < min(times["test"])


def test_shares_come_as_near_as_equal_times_allow():
    data = timed([day(i // 5 + 1) for i in range(100)])  # five a day
    counts = carve(data, dev_fraction=0.12, test_fraction=0.13, seed=0).counts
    assert counts == {"test": 15, "dev": 10}  # 13 is nearer to 15 than to 10, 12 to 10 than to 15


def test_times_of_all_forms_are_compared_as_moments():
    times = [
        "2026-01-01",
        "2026-01-01T05:00:00+09:00",  # before the first: still 31 December in UTC
        "2026-01-01T00:00:01Z",
        "2026-01-01T00:00:02.5",
        "2026-01-02",
    ]
    data = timed([*times, *(day(20 + i) for i in range(5))])
    carving = carve(data, dev_fraction=0.4, test_fraction=0.49, seed=0)
    assert carving.dataset.qrels["train"].query_ids == ("q1",)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ((), "12 train queries have no time: q0; q1; q10; .* and 2 more; give each"),
        (({},) + ({"time": day(1)},) * 11, "1 train queries have no time: q0; give each"),
        (({"time": "soon"},) * 12, "query 'q0': time 'soon' is not ISO 8601"),
        (({"time": day(1)},) * 12, "have 1 different times, too few to carve test and dev from"),
        (({"time": day(1)},) * 11 + ({"time": day(2)},), "have 2 different times, too few"),
    ],
)
def test_times_that_cannot_part_queries_are_told(metadata, told):
    data = made([f"query {i}" for i in range(12)], metadata)
    with pytest.raises(DataError, match=told) as caught:
        carve(data, split_by="time", **SHARES)
    assert caught.value.exit_code == 3


def test_auto_takes_documents_where_times_are_missing_or_all_equal():
    for metadata in (({},) + ({"time": day(1)},) * 39, ({"time": day(1)},) * 40):
        data = made([f"query {i}" for i in range(40)], metadata, passages=40)
        assert carve(data, **SHARES).rule == "document"
