import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import MiningConfig
from retrieval_ft.dataset import Corpus, Negative, Pair, Pairs, Qrels, Queries
from retrieval_ft.mining.denoise import denoise

CORPUS = Corpus(tuple("abcdefgh"), tuple(f"text {c}" for c in "abcdefgh"), ("",) * 8)
QUERIES = Queries(("q1", "q2", "q3"), ("one", "two", "three"))


class Judge:
    """Looks logits up by query and passage, and remembers what it was asked."""

    def __init__(self, logits):
        self.logits, self.calls = logits, []

    def __call__(self, queries, passages):
        self.calls.append(list(zip(queries, passages, strict=True)))
        return np.array([self.logits[pair] for pair in self.calls[-1]], np.float32)


def judge(**of_query):
    """judge(one={"a": 1.0}) scores the passage `text a` for the query `one`."""
    return Judge({(q, f"text {p}"): x for q, row in of_query.items() for p, x in row.items()})


def pair(query_id, positive_id, negatives=""):
    """Negatives hardest first: cosines .9, .8, ..."""
    made = tuple(Negative(p, (9 - i) / 10, i + 1, None) for i, p in enumerate(negatives))
    return Pair(query_id, positive_id, 0.95, made)


def run(pairs, scorer, *, dropped=None, grades=None, views=None, **settings):
    if grades is None:
        grades = {}
        for each in pairs:
            grades.setdefault(each.query_id, {})[each.positive_id] = 1
    return denoise(
        Pairs(tuple(pairs), dropped or {}),
        queries=QUERIES,
        corpus=CORPUS,
        qrels=Qrels(grades),
        scorer=scorer,
        config=MiningConfig(**{"negatives": 2, **settings}),
        views=views,
    )


def kept(done):
    return {(p.query_id, p.positive_id): "".join(n.passage_id for n in p.negatives) for p in done}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logit(p):
    return float(np.log(p / (1 - p)))


# p(positive) = .8, so what scores over .48 is doubted.
ONE = judge(one={"a": logit(0.8), "b": logit(0.5), "c": logit(0.47), "d": -4.0, "e": -9.0})


def test_what_scores_over_the_share_of_the_positive_is_dropped_and_the_rest_is_kept_in_order():
    done = run([pair("q1", "a", "bcde")], ONE)
    assert kept(done.pairs.items) == {("q1", "a"): "cd"}
    assert done.pairs.dropped == {"false_negative": 1, "surplus": 1}
    (row,) = done.dropped
    assert row == {
        "query_id": "q1",
        "positive_id": "a",
        "passage_id": "b",
        "score": 0.9,
        "reason": "false_negative",
        "teacher": 0.0,
    }
    assert done.rungs == {"denoise_relaxed": 0, "denoise_short": 0}
    assert done.relabelled == ()


def test_the_threshold_is_the_configured_one():
    done = run([pair("q1", "a", "bcde")], ONE, denoise_threshold=0.7)
    assert kept(done.pairs.items) == {("q1", "a"): "bc"}


def test_the_scores_stay_on_the_pairs():
    (made,) = run([pair("q1", "a", "cde")], ONE).pairs.items
    assert made.positive_teacher == pytest.approx(logit(0.8))
    assert [n.teacher for n in made.negatives] == pytest.approx([logit(0.47), -4.0])


def test_the_account_of_mining_is_carried_on():
    done = run([pair("q1", "a", "bcde")], ONE, dropped={"over_margin": 7, "surplus": 2})
    assert done.pairs.dropped == {"over_margin": 7, "false_negative": 1, "surplus": 3}


def test_every_pair_of_texts_is_scored_once_in_one_go():
    scorer = judge(one={"a": 1, "b": 0.9, "c": -5, "d": -6}, two={"a": 1, "c": -5})
    run([pair("q1", "a", "cd"), pair("q1", "b", "dc"), pair("q2", "a", "c")], scorer)
    (asked,) = scorer.calls
    assert len(asked) == len(set(asked)) == 6


def test_nothing_is_asked_where_there_is_no_pair():
    scorer = judge()
    done = run([], scorer)
    assert (done.pairs.items, scorer.calls) == ((), [])
    assert np.isnan(done.floor)


def test_a_view_is_scored_in_place_of_its_passage():
    scorer = Judge({("one", "what is left of a"): 2.0, ("one", "text b"): -5.0})
    done = run([pair("q1", "a", "b")], scorer, views={"q1": {"a": "what is left of a"}})
    assert done.pairs.items[0].positive_teacher == 2.0


def rejected():
    """q1's positive is rejected; the others' are typical, and the median of all is 0."""
    return judge(
        one={"a": -9.0, "c": -8.0, "d": -7.0, "e": logit(0.29), "f": logit(0.31), "g": 3.0},
        two={"a": 0.0},
        three={"a": 2.0},
    )


def test_a_rejected_positive_is_judged_at_the_median_of_all_positives():
    done = run([pair("q1", "a", "gfedc"), pair("q2", "a"), pair("q3", "a")], rejected())
    assert done.floor == 0.0  # p = .5, and .6 of it is .3
    assert kept(done.pairs.items)["q1", "a"] == "ed"
    assert [row["passage_id"] for row in done.dropped] == ["g", "f"]


def test_the_weakest_positive_of_a_query_is_the_reference_for_all_of_its_pairs():
    scorer = judge(one={"a": 6.0, "b": 1.0, "c": 0.5, "d": -3.0}, two={"a": -9.0}, three={"a": 0.9})
    pairs = [pair("q1", "a", "cd"), pair("q1", "b", "cd"), pair("q2", "a"), pair("q3", "a")]
    done = run(pairs, scorer, negatives=1)
    assert kept(done.pairs.items)["q1", "a"] == kept(done.pairs.items)["q1", "b"] == "d"


def test_too_few_take_back_the_least_doubted_and_say_so():
    scorer = judge(one={"a": 2.0, "b": 3.0, "c": 1.9, "d": 1.0, "e": 1.5, "f": -5.0})
    done = run([pair("q1", "a", "bcdef")], scorer, negatives=3)
    assert kept(done.pairs.items) == {("q1", "a"): "def"}
    assert done.rungs == {"denoise_relaxed": 2, "denoise_short": 0}
    assert [row["passage_id"] for row in done.dropped] == ["b", "c"]
    assert done.pairs.dropped == {"false_negative": 2}


def test_what_scores_as_high_as_the_positive_never_comes_back():
    scorer = judge(one={"a": 2.0, "b": 3.0, "c": 2.0, "d": -5.0})
    done = run([pair("q1", "a", "bcd")], scorer, negatives=3)
    assert kept(done.pairs.items) == {("q1", "a"): "d"}
    assert done.rungs == {"denoise_relaxed": 0, "denoise_short": 1}


def test_relabel_makes_the_better_candidate_a_positive_of_the_query():
    scorer = judge(one={"a": 2.0, "b": 3.0, "c": 1.9, "d": -5.0, "e": -6.0})
    grades = {"q1": {"a": 2}}
    done = run([pair("q1", "a", "bcde")], scorer, grades=grades, denoise="relabel")
    assert kept(done.pairs.items) == {("q1", "a"): "de", ("q1", "b"): "de"}
    new = done.pairs.items[1]
    assert (new.positive_score, new.positive_teacher) == (0.9, 3.0)
    assert done.qrels.grades == {"q1": {"a": 2, "b": 1}}
    assert done.relabelled == ({"query_id": "q1", "passage_id": "b", "score": 0.9, "teacher": 3.0},)
    assert done.pairs.dropped == {"false_negative": 1, "relabelled": 1}
    assert grades == {"q1": {"a": 2}}


def test_a_relabelled_passage_is_a_negative_of_no_pair_of_its_query():
    scorer = judge(one={"a": 2.0, "b": 2.5, "c": 4.0, "d": -5.0}, two={"a": 3.0, "c": -5.0})
    pairs = [pair("q1", "a", "cd"), pair("q1", "b", "dc"), pair("q2", "a", "c")]
    done = run(pairs, scorer, denoise="relabel", negatives=2)
    assert kept(done.pairs.items) == {
        ("q1", "a"): "d",
        ("q1", "b"): "d",
        ("q1", "c"): "d",
        ("q2", "a"): "c",
    }
    assert len(done.relabelled) == 1
    assert done.pairs.dropped["relabelled"] == 2


@pytest.mark.parametrize(
    ("logits", "grades"),
    [
        ({"a": 2.0, "b": 3.0, "c": 4.0, "d": 3.5}, {"a": 1, "c": 1}),  # under one positive
        ({"a": -9.0, "b": -5.0, "c": -8.0, "d": -5.0}, {"a": 1, "c": 1}),  # under the median
        ({"a": 2.0, "b": 5.0, "c": 2.5, "d": 5.0}, {"a": 1, "c": 1, "b": 0, "d": 0}),  # judged
    ],
)
def test_relabel_takes_nothing_that_is_in_doubt(logits, grades):
    scorer = judge(one=logits, two={"a": 0.0}, three={"a": 0.0})
    pairs = [pair("q1", "a", "bd"), pair("q1", "c", "db"), pair("q2", "a"), pair("q3", "a")]
    rows = {"q1": grades, "q2": {"a": 1}, "q3": {"a": 1}}
    done = run(pairs, scorer, grades=rows, denoise="relabel")
    assert done.relabelled == ()
    assert done.qrels.grades == rows
    assert len(done.pairs) == len(pairs)


def test_drop_relabels_nothing():
    scorer = judge(one={"a": 2.0, "b": 3.0, "c": -5.0})
    done = run([pair("q1", "a", "bc")], scorer, denoise="drop")
    assert (len(done.pairs), done.relabelled) == (1, ())


@st.composite
def mined(draw):
    """Pairs with few distinct logits, so that ties are common."""
    logits, pairs = {}, []
    scores = st.sampled_from([-9.0, -2.0, -0.5, 0.0, 0.5, 2.0, 9.0])
    for query_id, text in zip(QUERIES.ids, QUERIES.texts, strict=True):
        logits |= {(text, t): draw(scores) for t in CORPUS.texts}
        positives = draw(st.sets(st.sampled_from("abc"), max_size=3))
        for positive in sorted(positives):
            rest = draw(st.permutations([c for c in "abcdefgh" if c not in positives]))
            pairs.append(pair(query_id, positive, rest[: draw(st.integers(0, 6))]))
    return pairs, logits


@given(mined(), st.integers(0, 4), st.sampled_from(["drop", "relabel"]))
@settings(max_examples=150, deadline=None)
def test_every_candidate_is_kept_or_counted_and_no_pair_is_lost(made, negatives, how):
    pairs, logits = made
    done = run(pairs, Judge(logits), negatives=negatives, denoise=how)
    given = [(p.query_id, p.positive_id) for p in pairs]
    old = [p for p in done.pairs.items if (p.query_id, p.positive_id) in given]
    assert [(p.query_id, p.positive_id) for p in old] == given
    assert len(done.pairs) == len(pairs) + len(done.relabelled)
    held = sum(len(p.negatives) for p in pairs)
    assert sum(len(p.negatives) for p in old) + sum(done.pairs.dropped.values()) == held
    assert done.pairs.dropped.get("false_negative", 0) == len(done.dropped)
    for before, after in zip(pairs, old, strict=True):
        order = [n.passage_id for n in before.negatives]
        chosen = [n.passage_id for n in after.negatives]
        assert len(chosen) <= negatives
        assert chosen == [p for p in order if p in chosen]
        assert replace(after, negatives=before.negatives, positive_teacher=None) == before
    for after in done.pairs.items:
        relevant = done.qrels.relevant(after.query_id)
        assert after.positive_id in relevant
        assert not relevant & {n.passage_id for n in after.negatives}


@given(mined())
@settings(max_examples=30, deadline=None)
def test_what_is_dropped_is_what_the_formula_says(made):
    pairs, logits = made
    done = run(pairs, Judge(logits), negatives=0)
    text = dict(zip(QUERIES.ids, QUERIES.texts, strict=True))
    known = {
        (p.query_id, p.positive_id): logits[text[p.query_id], f"text {p.positive_id}"]
        for p in pairs
    }
    floor = np.median(list(known.values())) if known else 0
    wanted = []
    for each in pairs:
        weakest = min(x for (query_id, _), x in known.items() if query_id == each.query_id)
        for n in each.negatives:
            p = sigmoid(logits[text[each.query_id], f"text {n.passage_id}"])
            if p > 0.6 * sigmoid(max(weakest, floor)):
                wanted.append((each.query_id, each.positive_id, n.passage_id))
    assert [(r["query_id"], r["positive_id"], r["passage_id"]) for r in done.dropped] == wanted


def test_twice_the_same_gives_the_same_bytes():
    first, second = (
        json.dumps(asdict(run([pair("q1", "a", "bcde")], ONE, denoise="relabel"))) for _ in range(2)
    )
    assert first == second
