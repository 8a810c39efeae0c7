import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.index.fusion import rrf
from retrieval_ft.mining.generate.ranks import RRF_K, Side, hybrid_ranks

VIEW = ""  # sorts before every other id, so that a tie goes to the view


def search(scores, depth):
    """What an index returns: scores above 0 only, best first, ties by row."""
    hits = sorted((-score, row) for row, score in enumerate(scores) if score > 0)[:depth]
    rows = np.array([row for _, row in hits], np.int64)
    return rows, -np.array([score for score, _ in hits], np.float32)


def hits_with_view(scores, passage, view, depth):
    """The first hits of one side if the view stood in the place of its passage."""
    held = [(f"{r:02d}", s) for r, s in enumerate(scores) if r != passage] + [(VIEW, view)]
    held = sorted(((-s, i) for i, s in held if s > 0))[:depth]
    return tuple(i for _, i in held), -np.array([s for s, _ in held], np.float32)


def sides(dense, bm25, views, depth):
    return [
        Side.of([search(row, depth + 1) for row in scores], np.array(view, np.float32), depth=depth)
        for scores, view in zip((dense, bm25), views, strict=True)
    ]


few = st.integers(0, 6)  # few values, so that ties abound; 0 is no hit


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(1, 14), st.integers(1, 4))
def test_ranks_are_those_of_a_hybrid_search_with_the_view_in_place(data, passages, depth, block):
    table = st.lists(few, min_size=passages, max_size=passages)
    dense, bm25 = (data.draw(st.lists(table, min_size=block, max_size=block)) for _ in range(2))
    views = [data.draw(st.lists(few, min_size=block, max_size=block)) for _ in range(2)]
    # A cosine has no threshold at 0; every dense score is a hit.
    dense = [[score + 1 for score in row] for row in dense]
    views[0] = [score + 1 for score in views[0]]
    own = np.array(
        data.draw(st.lists(st.integers(0, passages - 1), min_size=block, max_size=block))
    )
    ranks = hybrid_ranks(*sides(dense, bm25, views, depth), passages=own)
    for i in range(block):
        lists = [
            hits_with_view(scores[i], own[i], view[i], depth)
            for scores, view in zip((dense, bm25), views, strict=True)
        ]
        ids, _ = rrf(lists, weights=(0.5, 0.5), k=RRF_K)
        assert ranks[i] == (ids.index(VIEW) + 1 if VIEW in ids else np.inf)


def test_a_view_that_neither_side_finds_has_no_rank():
    dense, bm25 = sides([[9, 8, 7, 6]], [[9, 8, 7, 6]], [[1], [0]], depth=2)
    assert hybrid_ranks(dense, bm25, passages=np.array([3])).tolist() == [np.inf]


def test_a_passage_does_not_stand_in_the_way_of_its_own_view():
    dense, bm25 = sides([[9, 1, 1]], [[9, 1, 1]], [[2], [2]], depth=3)
    assert hybrid_ranks(dense, bm25, passages=np.array([0])).tolist() == [1]
    assert hybrid_ranks(dense, bm25, passages=np.array([1])).tolist() == [2]


def test_no_queries_give_no_ranks():
    nothing = Side.of([], np.zeros(0, np.float32), depth=5)
    assert hybrid_ranks(nothing, nothing, passages=np.zeros(0, np.int64)).tolist() == []
