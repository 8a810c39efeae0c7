import re
from collections import Counter
from dataclasses import asdict, fields
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import MiningConfig
from retrieval_ft.dataset import Corpus, Qrels, Queries
from retrieval_ft.errors import DataError
from retrieval_ft.mining import Calibration, calibrate, mine, negatives
from retrieval_ft.mining.select import REASONS, RUNGS

WORDS = ["sea", "boat", "hill", "fox", "漢字"]


def unit(generator, rows):
    vectors = generator.standard_normal((rows, 3)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def corpus_of(texts, ids=None):
    ids = tuple(ids or (f"p{i:02}" for i in range(len(texts))))
    return Corpus(ids=ids, texts=tuple(texts), titles=("",) * len(texts))


def world(seed, *, passages, queries, relevant=0.2, texts=None):
    """Arguments of `mine` drawn at random; every query has a relevant passage, some a judged one."""
    generator = np.random.default_rng(seed)
    if texts is None:
        texts = [" ".join(generator.choice(WORDS, size=4)) for _ in range(passages)]
    ids = [f"p{i:02}" for i in range(passages)]
    generator.shuffle(ids)
    corpus = corpus_of(texts, ids)
    query_ids = tuple(f"q{i}" for i in range(queries))
    grades = {}
    for query_id in query_ids:
        grade = np.where(generator.random(passages) < relevant, 1, -1)
        grade[generator.random(passages) < 0.1] = 0
        grade[generator.integers(passages)] = 2
        grades[query_id] = {p: int(g) for p, g in zip(ids, grade, strict=True) if g >= 0}

    def ranked():
        rows = np.stack([generator.permutation(passages) for _ in range(queries)])
        rows[np.arange(passages) >= generator.integers(passages + 1, size=queries)[:, None]] = -1
        return rows

    return {
        "corpus": corpus,
        "queries": Queries(query_ids, query_ids),
        "qrels": Qrels(grades),
        "rankings": {"dense": ranked(), "bm25": ranked()},
        "query_vectors": unit(generator, queries),
        "passage_vectors": unit(generator, passages),
    }


def mined(given, *, seed=5, keep=None, **settings):
    return mine(**given, config=MiningConfig(**settings), seed=seed, keep=keep)


def jaccard(a, b):
    x, y = (set(re.findall(r"\w+", text.lower())) for text in (a, b))
    return len(x & y) / len(x | y) if x | y else 0.0


def cosine(given, query_id, passage):
    query = given["query_vectors"][given["queries"].ids.index(query_id)]
    return float(given["passage_vectors"][given["corpus"].index_of[passage]] @ query)


def duplicate(given, query_id, passage, config):
    text = dict(zip(given["corpus"].ids, given["corpus"].passages, strict=True))
    relevant = given["qrels"].relevant(query_id)
    return any(jaccard(text[passage], text[p]) >= config.duplicate_jaccard for p in relevant)


def united(given, query_id, sources, low, high):
    """The window of the sources, by reciprocal rank sum, then by id."""
    strength = Counter()
    row = given["queries"].ids.index(query_id)
    for source in sources:
        for rank, place in enumerate(given["rankings"][source][row].tolist(), start=1):
            if low < rank <= high and place >= 0:
                strength[given["corpus"].ids[place]] += Fraction(1, 60 + rank)
    return sorted(strength, key=lambda p: (-strength[p], p))


def ceiling(scale, positive, config):
    if config.filter == "none":
        return np.inf
    if config.filter == "absolute":
        return positive - config.absolute_margin
    if config.filter == "relative":
        return positive - (1 - config.margin) * abs(positive)
    positive = max(positive, scale.positive_floor)
    return scale.random_mean + config.margin * (positive - scale.random_mean)


def expected_of(given, pair, scale, config, keep):
    """The rules for one pair, written down plainly, up to the random ones.

    Returns what is kept as (id, rung), and the reason of each candidate dropped.
    """
    query_id = pair.query_id
    grades, relevant = given["qrels"].grades[query_id], given["qrels"].relevant(query_id)
    judged = {p for grade in given["qrels"].grades.values() for p in grade}
    in_scope = judged if config.scope == "train" else set(given["corpus"].ids)
    lowest = min(cosine(given, query_id, p) for p in relevant)
    strict, own = (ceiling(scale, x, config) for x in (lowest, pair.positive_score))
    kept, dropped = [], {}

    def look(candidates, limit, rung):
        for passage in candidates:
            if len(kept) == keep:
                return
            if passage in relevant:
                dropped[passage] = "known_positive"
            elif limit is not None and cosine(given, query_id, passage) > limit:
                dropped[passage] = "over_margin"
            elif duplicate(given, query_id, passage, config):
                dropped[passage] = "duplicate_of_positive"
            else:
                dropped.pop(passage, None)
                kept.append((passage, rung))

    given_ones = [p for p, grade in grades.items() if grade == 0]
    given_ones.sort(key=lambda p: (-cosine(given, query_id, p), p))
    look(given_ones, None, "given")
    free = [p for p in in_scope if p not in given_ones]
    window = united(given, query_id, config.sources, config.skip_top, config.depth)
    window = [p for p in window if p in free]
    look(window, strict, "window")
    again = [p for p in window if dropped.get(p) == "over_margin"]
    look([p for p in again if cosine(given, query_id, p) <= own], own, "own_positive")
    deeper = united(given, query_id, config.sources, config.depth, 2 * config.depth)
    look([p for p in deeper if p in free and p not in window], own, "deeper")
    return kept, dropped


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 24),
    st.integers(1, 4),
    st.integers(0, 4),
    st.builds(
        MiningConfig,
        sources=st.sampled_from([("bm25", "dense"), ("dense",), ("bm25",)]),
        skip_top=st.sampled_from([0, 0, 2]),
        depth=st.sampled_from([1, 3, 5, 50]),
        scope=st.sampled_from(["all", "train"]),
        negatives=st.integers(0, 6),
        filter=st.sampled_from(["calibrated", "relative", "absolute", "none"]),
        margin=st.sampled_from([0.3, 0.95]),
        floor_quantile=st.sampled_from([0.0, 0.25, 1.0]),
        duplicate_jaccard=st.sampled_from([0.5, 0.8, 1.0]),
    ),
)
def test_the_negatives_are_what_the_rules_say(seed, passages, queries, spare, config):
    given = world(seed, passages=passages, queries=queries)
    keep = config.negatives + spare
    found = mine(**given, config=config, seed=seed, keep=keep)
    qrels, ids = given["qrels"], given["corpus"].ids
    assert [(p.query_id, p.positive_id) for p in found.pairs.items] == [
        (q, p) for q in given["queries"].ids for p in sorted(qrels.relevant(q))
    ]
    lines = list(zip(*(getattr(found.dropped, f.name) for f in fields(found.dropped)), strict=True))
    rungs = iter(found.kept.rungs.tolist())
    judged = {p for grade in qrels.grades.values() for p in grade}
    for place, pair in enumerate(found.pairs.items):
        kept, dropped = expected_of(given, pair, found.calibration, config, keep)
        got = [(n.passage_id, RUNGS[next(rungs)]) for n in pair.negatives]
        assert got[: len(kept)] == kept
        listed = {ids[p]: REASONS[r] for at, p, _, r in lines if at == place}
        assert dropped.items() <= listed.items()
        # Beyond that only random ones: new, never relevant, under the ceiling, no duplicate.
        own = ceiling(found.calibration, pair.positive_score, config)
        for passage, rung in got[len(kept) :]:
            assert rung == "random"
            assert passage not in {*dropped, *qrels.grades[pair.query_id]}
            assert config.scope == "all" or passage in judged
            assert cosine(given, pair.query_id, passage) <= own + 1e-6
            assert not duplicate(given, pair.query_id, passage, config)
        assert len({p for p, _ in got}) == len(got) <= keep
        if len(got) < keep:  # nothing in the corpus is left that would do
            left = judged if config.scope == "train" else set(ids)
            for passage in left - {p for p, _ in got} - set(qrels.grades[pair.query_id]):
                assert listed[passage] in ("over_margin", "duplicate_of_positive")
        used = [rung for _, rung in got[: config.negatives]]
        lowest = max(("window", *used), key=RUNGS.index)
        assert found.rungs[place] == ("short" if len(used) < config.negatives else lowest)
    assert found.pairs.dropped == Counter(REASONS[line[3]] for line in lines)
    assert Counter(found.rungs) == {name: n for name, n in found.account.items() if n}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1_000), st.integers(1, 7))
def test_blocks_change_nothing(seed, size):
    given = world(seed, passages=20, queries=6)
    whole = mined(given, negatives=5, depth=4)
    before = negatives._BLOCK
    try:
        negatives._BLOCK = size
        parts = mined(given, negatives=5, depth=4)
    finally:
        negatives._BLOCK = before
    assert columns(parts) == columns(whole)


def columns(found):
    """Everything that mining returns, as values that can be compared."""
    arrays = [
        (field.name, getattr(part, field.name).tolist())
        for part in (found.kept, found.dropped)
        for field in fields(part)
    ]
    return arrays, asdict(found.pairs), asdict(found.calibration), found.rungs, found.account


def test_scores_and_ranks_are_those_of_the_candidate():
    given = world(1, passages=12, queries=3)
    found = mined(given, negatives=4, filter="none")
    for pair in found.pairs.items:
        row = given["queries"].ids.index(pair.query_id)
        assert pair.positive_score == pytest.approx(
            cosine(given, pair.query_id, pair.positive_id), abs=1e-6
        )
        for negative in pair.negatives:
            expected = cosine(given, pair.query_id, negative.passage_id)
            assert negative.score == pytest.approx(expected, abs=1e-6)
            place = given["corpus"].index_of[negative.passage_id]
            for rank, source in ((negative.dense_rank, "dense"), (negative.bm25_rank, "bm25")):
                ranked = given["rankings"][source][row].tolist()
                assert rank == (ranked.index(place) + 1 if place in ranked else None)
    for pair, passage, score in zip(
        found.dropped.pairs, found.dropped.passages, found.dropped.scores, strict=True
    ):
        query_id = found.pairs.items[pair].query_id
        expected = cosine(given, query_id, given["corpus"].ids[passage])
        assert score == pytest.approx(expected, abs=1e-6)


def one_query(cosines, *, texts=None, dense=None, bm25=(), relevant=("p00",), given=()):
    """A query along the x axis, and passages with the given cosines to it, first one relevant."""
    cosines = np.array(cosines, np.float32)
    texts = texts or [f"w{i}" for i in range(len(cosines))]
    corpus = corpus_of(texts)

    def rows(ids):
        return np.array([[corpus.index_of[p] for p in ids]], np.int64)

    return {
        "corpus": corpus,
        "queries": Queries(("q",), ("q",)),
        "qrels": Qrels({"q": dict.fromkeys(relevant, 1) | dict.fromkeys(given, 0)}),
        "rankings": {"dense": rows(corpus.ids if dense is None else dense), "bm25": rows(bm25)},
        "query_vectors": np.array([[1, 0]], np.float32),
        "passage_vectors": np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1),
    }


def ids_of(found):
    return [[n.passage_id for n in pair.negatives] for pair in found.pairs.items]


def dropped_of(given, found):
    ids = given["corpus"].ids
    at = zip(found.dropped.passages.tolist(), found.dropped.reasons.tolist(), strict=True)
    return [(ids[passage], REASONS[reason]) for passage, reason in at]


def test_a_candidate_over_the_margin_is_dropped_with_its_reason():
    given = one_query([0.9, 0.95, 0.898, 0.6, 0.5, 0.4], dense=["p01", "p02", "p03", "p04", "p05"])
    found = mined(given, negatives=3)
    limit = ceiling(found.calibration, 0.9, MiningConfig())
    assert 0.6 < limit < 0.898
    assert ids_of(found) == [["p03", "p04", "p05"]]
    assert dropped_of(given, found) == [("p01", "over_margin"), ("p02", "over_margin")]
    assert found.pairs.dropped == {"over_margin": 2}
    assert found.rungs == ("window",)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"filter": "relative", "margin": 0.9}, ["p03", "p04"]),  # up to .72
        ({"filter": "absolute", "absolute_margin": 0.05}, ["p02", "p03", "p04"]),  # up to .75
        ({"filter": "none"}, ["p01", "p02", "p03", "p04"]),
    ],
)
def test_each_filter_has_its_own_measure(settings, kept):
    given = one_query([0.8, 0.81, 0.74, 0.71, 0.1])
    assert ids_of(mined(given, negatives=4, **settings)) == [kept]


def test_the_lowest_positive_is_the_measure_and_all_positives_share_their_negatives():
    given = one_query([0.9, 0.6, 0.8, 0.5, 0.4], relevant=("p00", "p01"))
    found = mined(given, negatives=2, filter="relative")
    assert ids_of(found) == [["p03", "p04"]] * 2
    assert found.account == {"window": 2, "own_positive": 0, "deeper": 0, "random": 0, "short": 0}


def test_where_that_leaves_too_few_a_pair_is_measured_by_its_own_positive():
    given = one_query([0.9, 0.6, 0.8, 0.5], relevant=("p00", "p01"))
    found = mined(given, negatives=2, filter="relative")
    assert ids_of(found) == [["p03", "p02"], ["p03"]]
    assert found.rungs == ("own_positive", "short")
    assert dropped_of(given, found) == [  # of the first pair, then of the second
        ("p00", "known_positive"),
        ("p01", "known_positive"),
        ("p00", "known_positive"),
        ("p01", "known_positive"),
        ("p02", "over_margin"),
    ]


def test_then_ranks_beyond_the_window_and_then_random_ones():
    dense = ["p00", "p01", "p02", "p03", "p04", "p05", "p06"]
    given = one_query([0.9, *[0.1] * 9], dense=dense)
    assert found_by_rung(given, depth=2) == (["p01", "p02", "p03"], ["window", "deeper", "deeper"])
    passages, rungs = found_by_rung(given, depth=1)
    assert (passages[0], rungs) == ("p01", ["deeper", "random", "random"])
    assert set(passages[1:]) <= {f"p{i:02}" for i in range(2, 10)}


def found_by_rung(given, **settings):
    found = mined(given, negatives=3, **settings)
    return ids_of(found)[0], [RUNGS[rung] for rung in found.kept.rungs]


def test_the_first_ranks_can_be_passed_over():
    given = one_query([0.9, *[0.1] * 5], dense=["p01", "p02", "p00", "p03"], bm25=["p04", "p05"])
    assert ids_of(mined(given, negatives=2, skip_top=1)) == [["p02", "p05"]]


def test_judged_negatives_come_first_whatever_their_score():
    given = one_query(
        [0.5, 0.9, 0.1, 0.8, 0.2], given=("p01", "p02", "p04"), dense=["p01", "p03", "p04"]
    )
    found = mined(given, negatives=4, filter="relative")
    assert ids_of(found) == [["p01", "p04", "p02"]]
    assert [RUNGS[rung] for rung in found.kept.rungs] == ["given"] * 3
    assert ids_of(mined(given, negatives=2)) == [["p01", "p04"]]


def test_a_judged_negative_with_the_words_of_a_positive_is_dropped():
    given = one_query([0.9, 0.1, 0.1], texts=["a fox", "fox, A", "hill"], given=("p01", "p02"))
    found = mined(given, negatives=2)
    assert ids_of(found) == [["p02"]]
    assert ("p01", "duplicate_of_positive") in dropped_of(given, found)


def test_scope_train_takes_only_passages_that_train_judges():
    given = one_query([0.9, 0.1, 0.1, 0.1])
    given["queries"] = Queries(("q", "r"), ("q", "r"))
    given["qrels"] = Qrels({"q": {"p00": 1}, "r": {"p02": 1}})
    given["query_vectors"] = np.array([[1, 0], [1, 0]], np.float32)
    given["rankings"] = {name: np.repeat(r, 2, axis=0) for name, r in given["rankings"].items()}
    assert ids_of(mined(given, negatives=3, scope="train", filter="none")) == [["p02"], ["p00"]]
    assert ids_of(mined(given, negatives=3, filter="none"))[0] == ["p01", "p02", "p03"]


def test_what_was_dropped_does_not_come_back_at_random():
    given = one_query([0.5, 0.9, 0.8, 0.7, 0.6, 0.1])
    for seed in range(20):
        found = mined(given, negatives=4, seed=seed)
        assert ids_of(found) == [["p05"]]
        assert found.pairs.dropped == {"known_positive": 1, "over_margin": 4}
        assert found.account["short"] == 1


def test_random_ones_are_held_to_the_ceiling_too():
    given = one_query([0.5, *[0.9] * 30, 0.1], dense=())
    found = mined(given, negatives=3, filter="relative")
    assert ids_of(found) == [["p31"]]
    assert found.pairs.dropped == {"over_margin": 30}
    assert found.rungs == ("short",)


def test_a_duplicate_of_any_positive_is_never_a_negative():
    texts = ["The sea is wide.", "a boat", "the SEA, is wide!", "a boat", "fox", "bread"]
    given = one_query([0.9, 0.8, 0.1, 0.1, 0.1, 0.1], texts=texts, relevant=("p00", "p01"))
    for width in (6, 0):  # as candidates, and as random ones
        given["rankings"]["dense"] = np.arange(width)[None]
        for seed in range(10):
            found = mined(given, negatives=4, seed=seed)
            assert [sorted(ids) for ids in ids_of(found)] == [["p04", "p05"]] * 2
            assert found.pairs.dropped["duplicate_of_positive"] == 4


def test_candidates_come_by_the_sum_of_reciprocal_ranks_then_by_id():
    dense, bm25 = ["p05", "p01", "p04"], ["p04", "p02", "p06"]
    given = one_query([0.9] + [0.0] * 6, dense=dense, bm25=bm25)
    strength = {
        "p04": 1 / 63 + 1 / 61,
        "p05": 1 / 61,
        "p01": 1 / 62,
        "p02": 1 / 62,
        "p06": 1 / 63,
    }
    expected = sorted(strength, key=lambda p: (-strength[p], p))
    assert ids_of(mined(given, negatives=5)) == [expected]
    first = mined(given, negatives=5, depth=1)
    assert ids_of(first)[0][:2] == ["p04", "p05"]  # tied, each first on one side


def test_random_alone_is_a_source_of_its_own():
    given = one_query([0.9] + [0.1] * 40)
    given["rankings"] = {}
    draws = {
        tuple(ids_of(mined(given, negatives=4, sources=("random",), seed=s))[0]) for s in range(9)
    }
    assert len(draws) > 5
    assert all(len(set(drawn)) == 4 and "p00" not in drawn for drawn in draws)
    assert mined(given, negatives=4, sources=("random",)).rungs == ("window",)


def test_more_than_is_asked_for_can_be_kept():
    given = one_query([0.9] + [0.1] * 9)
    found = mined(given, negatives=2, keep=5)
    assert ids_of(found) == [["p01", "p02", "p03", "p04", "p05"]]
    assert found.rungs == ("window",)


def test_spare_ones_go_down_the_ladder_but_the_pair_does_not():
    given = one_query([0.9] + [0.1] * 9, dense=["p01", "p02", "p03"])
    found = mined(given, negatives=2, keep=4, depth=2)
    assert ids_of(found)[0][:3] == ["p01", "p02", "p03"]
    assert found.kept.rungs.tolist() == [RUNGS.index(n) for n in ("window",) * 2] + [
        RUNGS.index("deeper"),
        RUNGS.index("random"),
    ]
    assert found.rungs == ("window",)


def test_where_every_passage_is_relevant_there_is_no_negative():
    everything = tuple(f"p{i:02}" for i in range(5))
    found = mined(one_query([0.9, 0.8, 0.7, 0.6, 0.5], relevant=everything))
    assert len(found.pairs) == 5
    assert ids_of(found) == [[]] * 5
    assert found.pairs.dropped == {"known_positive": 25}
    assert found.account["short"] == 5


def test_a_small_corpus_gives_what_it_has():
    assert ids_of(mined(one_query([0.9, 0.1]), negatives=4)) == [["p01"]]
    assert ids_of(mined(one_query([0.9, 0.1], texts=["fox", "fox"]), negatives=4)) == [[]]
    nothing = mined(one_query([0.9, 0.1]), negatives=0)
    assert (ids_of(nothing), nothing.rungs) == ([[]], ("window",))


def test_the_same_inputs_give_the_same_bytes_and_another_seed_others():
    def content(seed):
        return repr(columns(mined(world(3, passages=30, queries=6), seed=seed, depth=4))).encode()

    assert content(5) == content(5)
    assert content(5) != content(6)


def test_a_query_without_a_relevant_passage_gives_no_pair_and_none_at_all_is_an_error():
    given = one_query([0.9, 0.1])
    given["qrels"] = Qrels({"q": {"p01": 0}})
    with pytest.raises(DataError, match="none of the 1 train queries has a relevant") as caught:
        mined(given)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("rankings", "words"),
    [
        ({"dense": np.zeros((1, 1), np.int64)}, "'bm25', but its ranking is not given"),
        ({"dense": np.full((1, 2), 7), "bm25": np.zeros((1, 0), int)}, "passages up to 7"),
        ({"dense": np.zeros((3, 1), int), "bm25": np.zeros((1, 0), int)}, "has 3 rows"),
    ],
)
def test_rankings_that_do_not_fit_are_refused(rankings, words):
    with pytest.raises(ValueError, match=words):
        mined({**one_query([0.9, 0.1]), "rankings": rankings})


def test_the_ceiling_lies_on_the_scale_between_chance_and_the_positive():
    scale = Calibration(random_mean=0.6, positive_mean=0.8, positive_floor=0.7)
    scores = np.array([0.9, 0.65], np.float32)
    found = scale.ceilings(scores, config=MiningConfig(margin=0.95))
    expected = [0.6 + 0.95 * (0.9 - 0.6), 0.6 + 0.95 * (0.7 - 0.6)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(scale.ceilings(scores[:1], config=MiningConfig(margin=1.0)), 0.9)
    relative = MiningConfig(filter="relative", margin=0.9)
    below = scale.ceilings(np.array([-0.5], np.float32), config=relative)
    np.testing.assert_allclose(below, [-0.55])  # a lower score than the positive's, never a higher


@pytest.mark.parametrize("quantile", [0.0, 0.25, 1.0])
def test_the_scale_is_measured_on_the_positives_and_on_chance(quantile):
    generator = np.random.default_rng(2)
    queries, passages = unit(generator, 200), unit(generator, 50)
    positives = [(q, p) for q in range(150) for p in (q % 50, (q + 7) % 50)]
    known = np.array([queries[q] @ passages[p] for q, p in positives])

    def measured(seed):
        asked = np.array(positives)[:, 0]
        return calibrate(
            queries, passages, queries=asked, known=known, floor_quantile=quantile, seed=seed
        )

    found = measured(1)
    assert found.positive_mean == pytest.approx(known.mean(), abs=1e-6)
    assert found.positive_floor == pytest.approx(np.quantile(known, quantile), abs=1e-6)
    every = queries[:150] @ passages.T  # queries without a positive are not asked
    error = every.std() / np.sqrt(150 * 20)
    assert abs(found.random_mean - every.mean()) < 4 * error
    assert measured(1) == found
    assert measured(2).random_mean != found.random_mean


def test_a_view_gives_the_score_of_its_positive():
    given = world(3, passages=20, queries=4)
    query_id = given["queries"].ids[0]
    (passage_id,) = sorted(given["qrels"].relevant(query_id))[:1]
    seen = unit(np.random.default_rng(8), 1)[0]
    plain = mined(given)
    found = mine(**given, config=MiningConfig(), seed=5, views={(query_id, passage_id): seen})
    for before, pair in zip(plain.pairs.items, found.pairs.items, strict=True):
        if (pair.query_id, pair.positive_id) == (query_id, passage_id):
            expected = float(given["query_vectors"][0] @ seen)
            assert pair.positive_score == pytest.approx(expected, abs=1e-6)
            assert pair.positive_score != before.positive_score
        else:
            assert pair.positive_score == before.positive_score
