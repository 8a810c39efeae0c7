import itertools
import json
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset.types import Corpus, Qrels, Queries
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation import PerQuery, difference_rows, holm
from retrieval_ft.evaluation.slices import (
    MINIMUM,
    VALUES,
    Slice,
    by_all_metadata,
    by_length,
    by_metadata,
    by_overlap,
    by_passage,
    by_rarest_term,
    by_seen,
    document_frequencies,
    slice_rows,
    slices_of,
    terms_of,
)


def queries_of(texts, metadata=()):
    ids = tuple(f"q{i:03}" for i in range(len(texts)))
    return Queries(ids, tuple(texts), tuple(metadata))


def by_label(slices):
    """Query ids by the first word of a slice's value."""
    return {found.value.split(" (")[0]: found.query_ids for found in slices}


CORPUS = Corpus(
    ids=("p1", "p2", "p3"),
    texts=("The red fox jumps", "a lazy dog sleeps", "red dog"),
    titles=("Foxes", "", ""),
    metadata=({"source": "wild"}, {"source": "home"}, {}),
)


@given(st.lists(st.integers(0, 12), max_size=60))
@settings(deadline=None)
def test_tertiles_part_all_queries_in_order_and_never_part_equals(lengths):
    queries = queries_of([" ".join(["word"] * length) or "?" for length in lengths])
    slices = by_length(queries)
    if len(set(lengths)) < 2:
        assert slices == ()
        return
    length_of = dict(zip(queries.ids, lengths, strict=True))
    assert sorted(q for found in slices for q in found.query_ids) == list(queries.ids)
    spans = [sorted(length_of[q] for q in found.query_ids) for found in slices]
    for before, after in itertools.pairwise(spans):
        assert before[-1] < after[0]
    for found, span in zip(slices, spans, strict=True):
        shown = f"{span[0]}" if span[0] == span[-1] else f"{span[0]} to {span[-1]}"
        unit = "word" if span[-1] == 1 else "words"
        assert found.name == "query length" and found.value.endswith(f" ({shown} {unit})")
    if len(set(lengths)) == len(lengths) and len(lengths) >= 3:
        assert max(map(len, spans)) - min(map(len, spans)) <= 1


def test_queries_of_a_script_without_spaces_are_long_by_their_characters():
    slices = by_length(queries_of(["one", "two words", "知識蒸留検索評価"]))
    assert by_label(slices)["long"] == ("q002",)


@given(st.text())
@settings(deadline=None)
def test_terms_are_folded_words(text):
    terms = terms_of(text)
    assert all(term and not term.isspace() for term in terms)
    assert terms == terms_of(unicodedata.normalize("NFKC", text).casefold())
    assert document_frequencies([text, text]) == dict.fromkeys(terms, 2)


def test_the_rarest_term_is_that_of_the_fewest_passages():
    frequency = document_frequencies(CORPUS.passages)
    assert (frequency["red"], frequency["dog"], frequency["fox"]) == (2, 2, 1)
    queries = queries_of(["red dog", "red fox", "red zebra", "...", "Dog"])
    for given_as in (frequency, frequency.__getitem__):
        slices = by_rarest_term(queries, given_as)
        assert {found.value: found.query_ids for found in slices} == {
            "rare (1 passage)": ("q001",),
            "common (2 passages)": ("q000", "q004"),
            "unknown (a term of no passage)": ("q002",),
            "without a term": ("q003",),
        }


def test_overlap_is_the_share_of_the_query_that_its_best_relevant_passage_has():
    queries = queries_of(["red fox", "red red cat here", "a lazy, LAZY dog", "zebra", "?", "new"])
    grades = {
        "q000": {"p1": 1, "p2": 1},  # red and fox: all of 2
        "q001": {"p3": 1, "p1": 0},  # red of red, cat, here: a third
        "q002": {"p2": 2},  # all of 3
        "q003": {"p1": 1},  # none
        "q004": {"p1": 1},  # nothing to have in common
        "q005": {"gone": 1},  # a relevant passage that the corpus lacks: in no slice
    }
    slices = by_overlap(queries, Qrels(grades), CORPUS)
    assert {found.value: found.query_ids for found in slices} == {
        "low (0%)": ("q003", "q004"),
        "medium (33%)": ("q001",),
        "high (100%)": ("q000", "q002"),
    }


def test_a_split_of_ones_own_is_taken():
    def terms(text):
        return [t for t in terms_of(text) if t not in ("the", "a")]

    queries = queries_of(["the fox", "the dog"])
    qrels = Qrels({"q000": {"p1": 1}, "q001": {"p1": 1}})
    shares = {found.value for found in by_overlap(queries, qrels, CORPUS, terms=terms)}
    assert shares == {"low (0%)", "high (100%)"}


def test_passages_of_several_sources_are_told_apart_from_those_of_one():
    qrels = Qrels(
        {
            "q1": {"p1": 1},
            "q2": {"p1": 1, "p2": 0},
            "q3": {"p1": 1, "p2": 1},
            "q4": {"p3": 1},
            "q5": {"p3": 0},
            "q6": {"elsewhere": 1},
        }
    )
    slices = by_passage(qrels, CORPUS)
    assert [(found.name, found.value, found.query_ids) for found in slices] == [
        ("passage source", "wild", ("q1", "q2")),
        ("passage source", "(none)", ("q4",)),
        ("passage source", "(several)", ("q3",)),
    ]


def test_seen_and_unseen_hold_the_queries_that_were_asked():
    assert by_label(by_seen(["b", "a", "c"], unseen={"c", "elsewhere"})) == {
        "seen": ("a", "b"),
        "unseen": ("c",),
    }
    assert by_seen(["a", "b"], unseen=[]) == ()


def test_metadata_values_have_a_slice_each_and_what_lacks_the_key_has_one():
    values = ["de", "en", "de", None, True, ["x", "y"], True]
    queries = queries_of("x" * 7, [{} if v is None else {"lang": v} for v in values])
    assert {found.value: found.query_ids for found in by_metadata(queries, "lang")} == {
        "de": ("q000", "q002"),
        "true": ("q004", "q006"),
        "(none)": ("q003",),
        '["x", "y"]': ("q005",),
        "en": ("q001",),
    }


def test_rare_values_share_a_slice():
    values = [f"v{i:02}" for i in range(VALUES + 3) for _ in range(2 if i < VALUES else 1)]
    queries = queries_of(values, [{"key": value} for value in values])
    slices = by_metadata(queries, "key")
    assert [found.value for found in slices] == [f"v{i:02}" for i in range(VALUES)] + ["(other)"]
    assert len(slices[-1].query_ids) == 3


def test_many_numbers_go_by_tertiles_and_few_by_value():
    many = queries_of("x" * 40, [{"year": 1990 + i} if i else {} for i in range(40)])
    slices = by_metadata(many, "year")
    assert [found.value for found in slices] == [
        "low (1,991 to 2,003)",
        "medium (2,004 to 2,016)",
        "high (2,017 to 2,029)",
        "(none)",
    ]
    few = queries_of("x" * 40, [{"year": 1990 + i % 2} for i in range(40)])
    assert [found.value for found in by_metadata(few, "year")] == ["1990", "1991"]


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), "x", {"a": [1]}, [], "文"])
def test_any_value_of_metadata_is_taken(value):
    queries = queries_of("x" * 30, [{"key": value if i < 2 else i} for i in range(30)])
    slices = by_metadata(queries, "key")
    assert sum(len(found.query_ids) for found in slices) == 30


def test_values_that_no_two_queries_share_and_times_part_nothing():
    metadata = [
        {"ticket": f"T{i}", "time": f"2026-01-0{i % 3 + 1}", "team": "ab"[i % 2]} for i in range(9)
    ]
    queries = queries_of("x" * 9, metadata)
    assert by_metadata(queries, "ticket") == ()
    assert {found.name for found in by_all_metadata(queries)} == {"team"}
    assert by_all_metadata(queries_of("x" * 9)) == ()


def test_all_kinds_at_once_are_those_one_by_one():
    queries = queries_of(
        ["red fox", "lazy", "dog that sleeps", "not judged"],
        [{"team": "a"}, {"team": "b"}, {"team": "a"}, {"team": "c"}],
    )
    qrels = Qrels({"q000": {"p1": 1}, "q001": {"p2": 1}, "q002": {"p3": 1}})
    judged = queries.select(qrels.query_ids)
    assert slices_of(queries, qrels, CORPUS, unseen=["q001"]) == (
        *by_length(judged),
        *by_rarest_term(judged, document_frequencies(CORPUS.passages)),
        *by_overlap(judged, qrels, CORPUS),
        *by_passage(qrels, CORPUS),
        *by_seen(qrels.query_ids, ["q001"]),
        *by_metadata(judged, "team"),
    )
    names = {found.name for found in slices_of(queries, qrels, CORPUS)}
    assert "document" not in names and "query length" in names
    assert slices_of(Queries((), ()), Qrels({}), CORPUS, unseen=()) == ()


IDS = tuple(f"q{i:03}" for i in range(120))
RNG = np.random.default_rng(0)
BASE = RNG.random(120) * 0.5
SYSTEMS = {
    "base": PerQuery(IDS, {"recall@10": BASE, "map": BASE}),
    "tuned": PerQuery(IDS, {"recall@10": BASE + 0.4, "map": BASE}),
}
PAIRS = [("tuned", "base")]
LARGE = Slice("size", "large", IDS[:MINIMUM])
SMALL = Slice("size", "small", IDS[: MINIMUM - 1])


def rows_of(slices, **changes):
    settings = {"metrics": ["recall@10", "map"], "seed": 3, "resamples": 500, **changes}
    return slice_rows(SYSTEMS, slices, PAIRS, **settings)


def test_a_row_has_the_means_and_the_tests_of_its_queries_alone():
    (row,) = rows_of([LARGE])
    own = {name: values.select(LARGE.query_ids) for name, values in SYSTEMS.items()}
    assert (row["name"], row["value"], row["queries"]) == ("size", "large", MINIMUM)
    assert row["systems"] == {name: values.means() for name, values in own.items()}
    plain = difference_rows(own, PAIRS, metrics=["recall@10", "map"], seed=3, resamples=500)
    assert [{k: v for k, v in d.items() if k != "finding"} for d in row["differences"]] == plain
    assert [found["finding"] for found in row["differences"]] == [True, False]
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_slice_under_the_minimum_is_never_a_finding_and_costs_the_others_nothing():
    small, large = rows_of([SMALL, LARGE])
    (alone,) = rows_of([LARGE])
    assert small["differences"][0]["p"] < 0.01
    assert [(d["finding"], d["p_holm"]) for d in small["differences"]] == [(False, None)] * 2
    assert large == alone


@given(st.lists(st.integers(1, 120), min_size=1, max_size=6), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_p_is_adjusted_over_all_slices_that_are_large_enough(sizes, start):
    slices = [Slice("size", str(size), IDS[start : start + size]) for size in sizes]
    rows = slice_rows(SYSTEMS, slices, PAIRS, metrics=["recall@10", "map"], seed=1, resamples=100)
    assert [row["queries"] for row in rows] == [len(found.query_ids) for found in slices]
    large = [d for row in rows if row["queries"] >= MINIMUM for d in row["differences"]]
    assert [d["p_holm"] for d in large] == holm([d["p"] for d in large])
    for row in rows:
        for found in row["differences"]:
            sure = row["queries"] >= MINIMUM and found["p_holm"] < 0.05
            assert found["finding"] == sure


def test_what_was_not_measured_does_not_count_and_an_empty_slice_has_no_row():
    mixed = Slice("size", "mixed", (*IDS[:5], "unmeasured"))
    (row,) = rows_of([Slice("size", "gone", ("unmeasured",)), mixed])
    assert (row["value"], row["queries"]) == ("mixed", 5)


def test_groups_are_resampled_within_a_slice_and_one_group_is_no_finding():
    groups = {query_id: str(i // 40) if i < 40 else query_id for i, query_id in enumerate(IDS)}
    of_one, of_many = Slice("document", "one", IDS[:40]), Slice("document", "many", IDS[40:])
    one, many = rows_of([of_one, of_many], groups=groups)
    assert [(d["finding"], d["p_holm"]) for d in one["differences"]] == [(False, None)] * 2
    assert "groups" not in one["differences"][0]
    assert many["differences"][0]["groups"] == 80 and many["differences"][0]["finding"]
    with pytest.raises(DataError, match="have no group"):
        rows_of([LARGE], groups={IDS[0]: "x"})


def test_what_does_not_fit_is_named():
    with pytest.raises(ConfigError, match="unknown system 'soup'; measured: base, tuned"):
        slice_rows(SYSTEMS, [LARGE], [("soup", "base")], metrics=["map"], seed=0)
    with pytest.raises(ConfigError, match="'mrr@10' was not measured"):
        rows_of([LARGE], metrics=["mrr@10"])
    other = {**SYSTEMS, "bm25": SYSTEMS["base"].select(IDS[1:])}
    with pytest.raises(
        DataError, match=re.escape("different ones (base 120, tuned 120, bm25 119 queries)")
    ):
        slice_rows(other, [LARGE], PAIRS, metrics=["map"], seed=0)


def test_no_slices_no_rows():
    assert rows_of([]) == []
