import json
import re
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import MiningConfig
from retrieval_ft.dataset import Corpus, Qrels, Queries, Ranking
from retrieval_ft.mining import Calibration, calibrate, mine

WORDS = ["sea", "boat", "hill", "fox", "漢字"]


def unit(generator, rows):
    vectors = generator.standard_normal((rows, 3)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def corpus_of(texts):
    ids = tuple(f"p{i:02}" for i in range(len(texts)))
    return Corpus(ids=ids, texts=tuple(texts), titles=("",) * len(texts))


def ranking_of(lists):
    return Ranking({q: (tuple(ids), np.zeros(len(ids), np.float32)) for q, ids in lists.items()})


def world(seed, *, passages, queries, relevant=0.2, texts=None):
    """Arguments of `mine` drawn at random; every query has a relevant passage."""
    generator = np.random.default_rng(seed)
    if texts is None:
        texts = [" ".join(generator.choice(WORDS, size=4)) for _ in range(passages)]
    corpus = corpus_of(texts)
    query_ids = tuple(f"q{i}" for i in range(queries))
    grades = {}
    for query_id in query_ids:
        judged = generator.random(passages) < relevant
        judged[generator.integers(passages)] = True
        grades[query_id] = {p: 1 for p, yes in zip(corpus.ids, judged, strict=True) if yes}
        grades[query_id].update({p: 0 for p in corpus.ids[:2] if p not in grades[query_id]})

    def ranked():
        sizes = generator.integers(passages + 1, size=queries)
        return ranking_of(
            {
                q: generator.permutation(corpus.ids)[:size].tolist()
                for q, size in zip(query_ids, sizes, strict=True)
            }
        )

    return {
        "corpus": corpus,
        "queries": Queries(query_ids, query_ids),
        "qrels": Qrels(grades),
        "dense": ranked(),
        "bm25": ranked(),
        "query_vectors": unit(generator, queries),
        "passage_vectors": unit(generator, passages),
    }


def mined(given, *, seed=5, **settings):
    return mine(**given, config=MiningConfig(**settings), seed=seed)


def jaccard(a, b):
    x, y = (set(re.findall(r"\w+", text.lower())) for text in (a, b))
    return len(x & y) / len(x | y) if x | y else 0.0


def expected_of(given, pair, ceiling, config):
    """What the rules give for one pair, written down plainly: kept ids, reason of each dropped."""
    corpus, query_id = given["corpus"], pair.query_id
    text_of = dict(zip(corpus.ids, corpus.passages, strict=True))
    relevant = given["qrels"].relevant(query_id)
    strength = Counter()
    for ranking in (given["dense"], given["bm25"]):
        for rank, passage in enumerate(ranking.ids(query_id)[: config.depth], start=1):
            strength[passage] += 1 / (60 + rank)
    query = given["query_vectors"][given["queries"].ids.index(query_id)]
    kept, dropped = [], {}
    for passage in sorted(strength, key=lambda p: (-strength[p], p)):
        if len(kept) == config.negatives:
            break
        score = float(given["passage_vectors"][corpus.index_of[passage]] @ query)
        if passage in relevant:
            dropped[passage] = "known_positive"
        elif score > ceiling + 1e-6:
            dropped[passage] = "over_margin"
        elif duplicate(text_of, passage, relevant, config):
            dropped[passage] = "duplicate_of_positive"
        else:
            kept.append(passage)
    return kept, dropped


def duplicate(text_of, passage, relevant, config):
    texts = [text_of[p] for p in relevant]
    return any(jaccard(text_of[passage], text) >= config.duplicate_jaccard for text in texts)


def is_random(negative):
    return negative.dense_rank is None and negative.bm25_rank is None


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 24),
    st.integers(1, 4),
    st.builds(
        MiningConfig,
        depth=st.sampled_from([1, 3, 50]),
        negatives=st.integers(0, 6),
        margin=st.sampled_from([0.3, 0.95, 1.0]),
        floor_quantile=st.sampled_from([0.0, 0.25, 1.0]),
        duplicate_jaccard=st.sampled_from([0.5, 0.8, 1.0]),
    ),
)
def test_the_negatives_are_what_the_rules_say(seed, passages, queries, config):
    given = world(seed, passages=passages, queries=queries)
    found = mine(**given, config=config, seed=seed)
    corpus, qrels = given["corpus"], given["qrels"]
    text_of = dict(zip(corpus.ids, corpus.passages, strict=True))
    assert [(p.query_id, p.positive_id) for p in found.pairs.items] == [
        (q, p) for q in given["queries"].ids for p in sorted(qrels.relevant(q))
    ]
    counts = Counter()
    rows = iter(found.dropped)
    for pair in found.pairs.items:
        relevant = qrels.relevant(pair.query_id)
        ceiling = found.calibration.ceiling(pair.positive_score, margin=config.margin)
        kept, dropped = expected_of(given, pair, ceiling, config)
        ids = [n.passage_id for n in pair.negatives]
        assert ids[: len(kept)] == kept
        assert all(map(is_random, pair.negatives[len(kept) :]))
        assert not any(map(is_random, pair.negatives[: len(kept)]))
        for passage, reason in dropped.items():
            counts[reason] += 1
            if reason != "known_positive":
                row = next(rows)
                assert (row["query_id"], row["positive_id"]) == (pair.query_id, pair.positive_id)
                assert (row["passage_id"], row["reason"]) == (passage, reason)
        # Random ones too: distinct, never relevant, never refused before, never a duplicate.
        assert len(set(ids)) == len(ids) <= config.negatives
        assert not set(ids) & (relevant | dropped.keys())
        assert not any(duplicate(text_of, p, relevant, config) for p in ids)
        if len(ids) < config.negatives:
            left = set(corpus.ids) - set(ids) - relevant - dropped.keys()
            assert all(duplicate(text_of, p, relevant, config) for p in left)
    assert next(rows, None) is None
    assert dict(found.pairs.dropped) == {k: n for k, n in sorted(counts.items()) if n}


def test_scores_and_ranks_are_those_of_the_candidate():
    given = world(1, passages=12, queries=3)
    found = mined(given, negatives=4, margin=1.0, floor_quantile=1.0)
    corpus = given["corpus"]
    for pair in found.pairs.items:
        query = given["query_vectors"][given["queries"].ids.index(pair.query_id)]
        score_of = dict(zip(corpus.ids, given["passage_vectors"] @ query, strict=True))
        assert pair.positive_score == pytest.approx(score_of[pair.positive_id], abs=1e-6)
        for negative in pair.negatives:
            assert negative.score == pytest.approx(score_of[negative.passage_id], abs=1e-6)
            for rank, ranking in (
                (negative.dense_rank, given["dense"].ids(pair.query_id)),
                (negative.bm25_rank, given["bm25"].ids(pair.query_id)),
            ):
                at = ranking.index(negative.passage_id) + 1 if rank is not None else None
                assert rank == at
    for row in found.dropped:
        query = given["query_vectors"][given["queries"].ids.index(row["query_id"])]
        score = given["passage_vectors"][corpus.index_of[row["passage_id"]]] @ query
        assert row["score"] == pytest.approx(score, abs=1e-6)


def one_query(cosines, *, texts=None, dense=None, bm25=(), relevant=("p00",)):
    """A query along the x axis, and passages with the given cosines to it, first one relevant."""
    cosines = np.array(cosines, np.float32)
    texts = texts or [f"w{i}" for i in range(len(cosines))]
    corpus = corpus_of(texts)
    return {
        "corpus": corpus,
        "queries": Queries(("q",), ("q",)),
        "qrels": Qrels({"q": dict.fromkeys(relevant, 1)}),
        "dense": ranking_of({"q": corpus.ids if dense is None else dense}),
        "bm25": ranking_of({"q": bm25}),
        "query_vectors": np.array([[1, 0]], np.float32),
        "passage_vectors": np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1),
    }


def ids_of(found):
    return [[n.passage_id for n in pair.negatives] for pair in found.pairs.items]


def test_a_candidate_over_the_margin_is_dropped_with_its_reason():
    given = one_query([0.9, 0.95, 0.898, 0.6, 0.5, 0.4], dense=["p01", "p02", "p03", "p04", "p05"])
    found = mined(given, negatives=3)
    ceiling = found.calibration.ceiling(0.9, margin=0.95)
    assert 0.6 < ceiling < 0.898
    assert ids_of(found) == [["p03", "p04", "p05"]]
    assert [(r["passage_id"], r["score"], r["reason"]) for r in found.dropped] == [
        ("p01", 0.95, "over_margin"),
        ("p02", 0.898, "over_margin"),
    ]
    assert found.pairs.dropped == {"over_margin": 2}


def test_what_was_dropped_does_not_come_back_at_random():
    given = one_query([0.5, 0.9, 0.8, 0.7, 0.6, 0.1])
    for seed in range(20):
        found = mined(given, negatives=4, seed=seed)
        assert ids_of(found) == [["p05"]]
        assert found.pairs.dropped == {"known_positive": 1, "over_margin": 4}


def test_a_duplicate_of_any_positive_is_never_a_negative():
    texts = ["The sea is wide.", "a boat", "the SEA, is wide!", "a boat", "fox", "bread"]
    given = one_query([0.9, 0.8, 0.1, 0.1, 0.1, 0.1], texts=texts, relevant=("p00", "p01"))
    for dense in (None, ()):  # as candidates, and as random ones
        given["dense"] = ranking_of({"q": given["corpus"].ids if dense is None else dense})
        for seed in range(10):
            found = mined(given, negatives=4, seed=seed)
            assert [sorted(ids) for ids in ids_of(found)] == [["p04", "p05"]] * 2
    given["dense"] = ranking_of({"q": given["corpus"].ids})
    dropped = mined(given, negatives=4).dropped
    assert Counter(row["reason"] for row in dropped) == {"duplicate_of_positive": 4}


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


def test_a_pair_without_candidates_is_filled_at_random_and_counted():
    given = one_query([0.9] + [0.1] * 9, dense=(), bm25=())
    found = mined(given, negatives=4)
    (pair,) = found.pairs.items
    assert len(pair.negatives) == 4
    assert all(map(is_random, pair.negatives))
    assert all(n.score == pytest.approx(0.1) for n in pair.negatives)
    assert found.pairs.dropped == {}
    others = {tuple(ids_of(mined(given, negatives=4, seed=seed))[0]) for seed in range(5)}
    assert len(others) > 1


def test_where_every_passage_is_relevant_there_is_no_negative():
    everything = tuple(f"p{i:02}" for i in range(5))
    found = mined(one_query([0.9, 0.8, 0.7, 0.6, 0.5], relevant=everything))
    assert len(found.pairs) == 5
    assert ids_of(found) == [[]] * 5
    assert found.pairs.dropped == {"known_positive": 25}


def test_a_small_corpus_gives_what_it_has():
    assert ids_of(mined(one_query([0.9, 0.1]), negatives=4)) == [["p01"]]
    assert ids_of(mined(one_query([0.9, 0.1], texts=["fox", "fox"]), negatives=4)) == [[]]
    assert ids_of(mined(one_query([0.9, 0.1]), negatives=0)) == [[]]


def test_the_same_inputs_give_the_same_bytes():
    def content(seed):
        found = mined(world(3, passages=30, queries=6), seed=seed, negatives=5, depth=4)
        return json.dumps([asdict(found), found.dropped]).encode()

    assert content(5) == content(5)
    assert content(5) != content(6)


def test_the_ceiling_lies_on_the_scale_between_chance_and_the_positive():
    scale = Calibration(random_mean=0.6, positive_mean=0.8, positive_floor=0.7)
    assert scale.ceiling(0.9, margin=0.95) == pytest.approx(0.6 + 0.95 * (0.9 - 0.6))
    assert scale.ceiling(0.65, margin=0.95) == pytest.approx(0.6 + 0.95 * (0.7 - 0.6))
    assert scale.ceiling(0.9, margin=1.0) == pytest.approx(0.9)


@pytest.mark.parametrize("quantile", [0.0, 0.25, 1.0])
def test_the_scale_is_measured_on_the_positives_and_on_chance(quantile):
    generator = np.random.default_rng(2)
    queries, passages = unit(generator, 200), unit(generator, 50)
    positives = [(q, p) for q in range(150) for p in (q % 50, (q + 7) % 50)]
    known = np.array([queries[q] @ passages[p] for q, p in positives])

    def measured(seed):
        return calibrate(queries, passages, positives=positives, floor_quantile=quantile, seed=seed)

    found = measured(1)
    assert found.positive_mean == pytest.approx(known.mean(), abs=1e-6)
    assert found.positive_floor == pytest.approx(np.quantile(known, quantile), abs=1e-6)
    every = queries[:150] @ passages.T  # queries without a positive are not asked
    error = every.std() / np.sqrt(150 * 20)
    assert abs(found.random_mean - every.mean()) < 4 * error
    assert measured(1) == found
    assert measured(2).random_mean != found.random_mean


def test_many_positives_are_measured_in_blocks():
    queries = passages = np.eye(3, dtype=np.float32)
    positives = [(i % 3, i % 3) for i in range(20_000)]
    found = calibrate(queries, passages, positives=positives, floor_quantile=0.5, seed=1)
    assert (found.positive_mean, found.positive_floor) == (1.0, 1.0)
