from collections import Counter
from fractions import Fraction
from itertools import combinations_with_replacement, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.mining.candidates import IdOrder, Judged, Walks, union


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 40),
)
def test_the_union_is_ordered_by_the_sum_of_reciprocal_ranks_then_by_id(
    seed, passages, sources, low, width
):
    generator = np.random.default_rng(seed)
    ids = [f"p{i:02}" for i in generator.permutation(passages)]
    rankings = []
    for _ in range(sources):
        rows = np.stack([generator.permutation(passages) for _ in range(3)])
        rows[generator.random(rows.shape) < 0.2] = -1  # a hole keeps its rank
        rankings.append(rows)
    found = union(rankings, low=low, high=low + width, order=IdOrder.of(ids))
    for query, row in enumerate(found.tolist()):
        strength = Counter()
        for ranking in rankings:
            for rank, passage in enumerate(ranking[query].tolist(), start=1):
                if passage >= 0 and low < rank <= low + width:
                    strength[passage] += Fraction(1, 60 + rank)
        expected = sorted(strength, key=lambda p: (-strength[p], ids[p]))
        assert row == expected + [-1] * (len(row) - len(expected))


def test_neighbouring_sums_of_ranks_up_to_a_hundred_stand_as_their_fractions_do():
    """A query each: passage 0 has the smaller id, and a sum that is equal or the next below."""
    sums = {
        (a, b): Fraction(1, 60 + a) + Fraction(1, 60 + b)
        for a, b in combinations_with_replacement(range(1, 101), 2)
    }
    rows, expected = ([], []), []
    for strong, weak in pairwise(sorted(sums, key=lambda pair: (-sums[pair], pair))):
        places = [weak, weak[::-1]]
        place = next((p for p in places if p[0] != strong[0] and p[1] != strong[1]), None)
        if place is None:  # one ranking cannot hold both at one rank
            continue
        for side in range(2):
            row = np.full(100, -1)
            row[[place[side] - 1, strong[side] - 1]] = [0, 1]
            rows[side].append(row)
        expected.append([0, 1] if sums[weak] == sums[strong] else [1, 0])
    found = union([np.stack(side) for side in rows], low=0, high=100, order=IdOrder.of(["a", "b"]))
    assert len(expected) > 4_000 and [0, 1] in expected
    assert found[:, :2].tolist() == expected


def test_no_candidates_give_an_empty_union():
    order = IdOrder.of(["a", "b"])
    assert union([np.zeros((2, 0), int)], low=0, high=5, order=order).shape == (2, 0)
    assert union([np.zeros((2, 3), int)], low=3, high=5, order=order).shape == (2, 0)
    assert union([np.full((1, 2), -1)], low=0, high=5, order=order).tolist() == [[-1, -1]]


@given(st.integers(0, 1_000), st.integers(1, 60))
def test_a_walk_meets_every_passage_once(seed, passages):
    pool = np.arange(passages) * 3
    walks = Walks.of(pool, queries=4, seed=seed)
    whole = walks.passages(np.arange(4), first=0, last=passages + 10)
    assert np.sort(whole, axis=1).tolist() == [pool.tolist()] * 4
    cut = passages // 2
    parts = [walks.passages(np.arange(4), first=a, last=b) for a, b in ((0, cut), (cut, passages))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_walks_are_seeded_and_uniform():
    walks = Walks.of(np.arange(10), queries=20_000, seed=1)
    drawn = walks.passages(np.arange(20_000), first=0, last=2)
    again = Walks.of(np.arange(10), queries=20_000, seed=1)
    np.testing.assert_array_equal(again.passages(np.arange(20_000), first=0, last=2), drawn)
    for place in range(2):
        counts = np.bincount(drawn[:, place], minlength=10)
        assert abs(counts - 2_000).max() < 5 * np.sqrt(2_000 * 0.9)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=12))
def test_judged_passages_are_found_by_query(pairs):
    judged = Judged.of(np.array(pairs, np.int64).reshape(-1, 2), shape=(4, 6))
    everyone = np.arange(4)
    held = judged.holds(everyone, np.tile(np.arange(-1, 6), (4, 1)))
    for query, passage in product(range(4), range(-1, 6)):
        assert held[query, passage + 1] == ((query, passage) in pairs)
    asked = np.array([2, 0, 2])
    rows, owners = judged.of_each(asked)
    expected = [
        (n, p) for n, q in enumerate(asked) for p in sorted({p for i, p in pairs if i == q})
    ]
    assert list(zip(owners.tolist(), rows.tolist(), strict=True)) == expected


@pytest.mark.parametrize("ids", [[], ["a"], ["b", "a", "ä", "Z"]])
def test_ids_are_ordered_as_strings(ids):
    order = IdOrder.of(ids)
    assert [ids[row] for row in order.rows[:-1]] == sorted(ids)
    assert order.places[order.rows].tolist() == list(range(len(ids) + 1))
    assert (order.rows[-1], order.places[-1]) == (-1, len(ids))
