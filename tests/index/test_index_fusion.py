import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.dataset import Ranking
from retrieval_ft.errors import ConfigError
from retrieval_ft.index.fusion import FusionSpec, convex, dbsf, depth_for, fuse, rrf


def hits(scores):
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return tuple(i for i, _ in ranked), np.array([s for _, s in ranked], np.float32)


def as_dict(fused):
    return dict(zip(fused[0], fused[1].tolist(), strict=True))


def is_sorted(fused):
    pairs = [(-score, name) for name, score in zip(fused[0], fused[1].tolist(), strict=True)]
    return pairs == sorted(pairs)


sides = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "é", "数", "z"]),
    st.integers(-20, 20).map(lambda n: n / 4),  # coarse, so that ties are common
).map(hits)
weights = st.floats(0, 1)


def test_rrf_by_the_formula():
    fused = rrf([hits({"a": 9, "b": 5}), hits({"b": 0.9, "c": 0.8})], weights=[1, 3])
    expected = {"a": 1 / 61, "b": 1 / 62 + 3 / 61, "c": 3 / 62}
    assert fused[0] == ("b", "c", "a")
    assert as_dict(fused) == pytest.approx(expected)


def test_rrf_takes_another_k():
    fused = rrf([hits({"a": 1}), hits({"a": 1})], weights=[0.5, 0.5], k=2)
    assert as_dict(fused) == pytest.approx({"a": 1 / 3})


def test_convex_by_the_formula():
    fused = convex(
        hits({"a": 10, "b": 4, "c": 2}), hits({"c": 0.9, "d": 0.5, "a": 0.7}), dense_weight=0.7
    )
    expected = {
        "a": 0.3 * 1 + 0.7 * (0.7 - 0.5) / (0.9 - 0.5),
        "b": 0.3 * (4 - 2) / (10 - 2),
        "c": 0.3 * 0 + 0.7 * 1,
        "d": 0.7 * 0,
    }
    assert fused[0] == ("c", "a", "b", "d")
    assert as_dict(fused) == pytest.approx(expected)


def test_convex_scales_equal_scores_to_one():
    fused = convex(hits({"a": 3, "b": 3}), hits({"c": 0.4}), dense_weight=0.25)
    assert as_dict(fused) == pytest.approx({"a": 0.75, "b": 0.75, "c": 0.25})


def test_dbsf_by_the_formula():
    fused = dbsf(
        hits({"a": 10, "b": 4, "c": 1}), hits({"c": 0.9, "d": 0.5, "a": 0.7}), dense_weight=0.7
    )
    # Means 5 and .7; population variances (25 + 1 + 16) / 3 and (.04 + .04 + 0) / 3.
    lexical_std, dense_std = 14**0.5, (0.08 / 3) ** 0.5
    expected = {
        "a": 0.3 * (10 - 5 + 3 * lexical_std) / (6 * lexical_std) + 0.7 * 0.5,
        "b": 0.3 * (4 - 5 + 3 * lexical_std) / (6 * lexical_std),
        "c": 0.3 * (1 - 5 + 3 * lexical_std) / (6 * lexical_std)
        + 0.7 * (0.2 + 3 * dense_std) / (6 * dense_std),
        "d": 0.7 * (-0.2 + 3 * dense_std) / (6 * dense_std),
    }
    assert as_dict(fused) == pytest.approx(expected)
    assert fused[0] == ("c", "a", "d", "b")


def test_dbsf_clips_what_lies_beyond_three_deviations():
    # One of n + 1 that differs lies sqrt(n) deviations from the mean, the others 1 / sqrt(n).
    outlier = hits({"top": 100, **{f"p{i:02d}": 1 for i in range(16)}})
    fused = as_dict(dbsf(outlier, hits({}), dense_weight=0.0))
    assert fused.pop("top") == 1
    assert fused == pytest.approx({f"p{i:02d}": 0.5 - 1 / 6 / 4 for i in range(16)})


def test_dbsf_scales_equal_scores_to_a_half():
    fused = dbsf(hits({"a": 3, "b": 3}), hits({"c": 0.4}), dense_weight=0.25)
    assert as_dict(fused) == pytest.approx({"a": 0.375, "b": 0.375, "c": 0.125})


@given(sides, sides, weights, st.sampled_from([0.5, 2.0, 8.0]), st.integers(-4, 4))
def test_dbsf_does_not_see_the_scale_of_a_side(lexical, dense, weight, factor, shift):
    moved = hits(dict(zip(dense[0], (factor * dense[1] + shift).tolist(), strict=True)))
    one, two = (as_dict(dbsf(lexical, side, dense_weight=weight)) for side in (dense, moved))
    assert one == pytest.approx(two, abs=1e-6)


def test_ties_are_in_id_order():
    crossed = [hits({"b": 2, "a": 1}), hits({"a": 2, "b": 1})]
    assert rrf(crossed, weights=[1, 1])[0] == ("a", "b")
    assert convex(*crossed, dense_weight=0.5)[0] == ("a", "b")
    assert rrf(crossed, weights=[1, 1], limit=1)[0] == ("a",)


@given(sides, sides, weights)
def test_rrf_equals_a_plain_loop(lexical, dense, weight):
    expected = {}
    for (ids, _), w in ((lexical, 1 - weight), (dense, weight)):
        for rank, name in enumerate(ids, start=1):
            expected[name] = expected.get(name, 0) + w / (60 + rank)
    fused = rrf([lexical, dense], weights=[1 - weight, weight])
    assert as_dict(fused) == pytest.approx(expected, rel=1e-6)
    assert is_sorted(fused)
    assert fused[1].dtype == np.float32


@given(sides, sides, weights)
def test_convex_lies_in_the_unit_interval_and_is_sorted(lexical, dense, weight):
    fused = convex(lexical, dense, dense_weight=weight)
    assert set(fused[0]) == {*lexical[0], *dense[0]}
    assert all(0 <= score <= 1 + 1e-6 for score in fused[1])
    assert is_sorted(fused)


@given(sides, sides, weights, st.integers(1, 9))
def test_a_limit_cuts_the_same_order(lexical, dense, weight, limit):
    whole, cut = (convex(lexical, dense, dense_weight=weight, limit=n) for n in (None, limit))
    assert cut[0] == whole[0][:limit]
    assert cut[1].tolist() == whole[1].tolist()[:limit]


@given(sides, weights)
def test_two_equal_sides_keep_their_order(side, weight):
    assert rrf([side, side], weights=[1 - weight, weight])[0] == side[0]


@pytest.mark.parametrize("method", ["rrf", "convex", "dbsf"])
def test_a_weight_of_one_puts_the_dense_side_first_in_its_own_order(method):
    lexical = Ranking({"q": hits({"x": 9, "y": 8, "a": 7})})
    dense = Ranking({"q": hits({"a": 0.9, "b": 0.8, "c": 0.7})})
    fused = fuse(lexical, dense, spec=FusionSpec(method, 1.0), k=2)
    assert fused.ids("q") == ("a", "b")


def test_queries_of_either_side_are_kept():
    lexical = Ranking({"both": hits({"a": 2}), "lexical": hits({"b": 1}), "none": hits({})})
    dense = Ranking({"dense": hits({"c": 0.5}), "both": hits({"a": 0.5})})
    fused = fuse(lexical, dense, spec=FusionSpec(), k=5)
    assert list(fused.hits) == ["both", "lexical", "none", "dense"]
    assert [fused.ids(q) for q in fused.hits] == [("a",), ("b",), (), ("c",)]


@pytest.mark.parametrize("method", ["rrf", "convex", "dbsf"])
def test_what_lies_beyond_the_depth_changes_nothing(method):
    deep = {f"p{i:03d}": float(300 - i) for i in range(200)}
    shallow = dict(list(deep.items())[: depth_for(3)])
    other = Ranking({"q": hits({"p150": 0.9, "p000": 0.5})})
    one, two = (
        fuse(Ranking({"q": hits(side)}), other, spec=FusionSpec(method), k=3)
        for side in (deep, shallow)
    )
    assert one.ids("q") == two.ids("q")
    assert one.scores("q").tolist() == two.scores("q").tolist()


def test_depth_is_four_times_k_and_at_least_a_hundred():
    assert [depth_for(k) for k in (1, 25, 26, 100)] == [100, 100, 104, 400]


@pytest.mark.parametrize("method", ["rrf", "convex", "dbsf"])
def test_a_given_depth_is_the_one_that_is_fused(method):
    lexical, dense = hits({"a": 3, "b": 2, "c": 1}), hits({"c": 0.9, "d": 0.6, "b": 0.1})
    cut = [Ranking({"q": hits(dict(list(as_dict(side).items())[:2]))}) for side in (lexical, dense)]
    whole = [Ranking({"q": side}) for side in (lexical, dense)]
    one = fuse(*whole, spec=FusionSpec(method, depth=2), k=2)
    two = fuse(*cut, spec=FusionSpec(method), k=2)
    assert one.ids("q") == two.ids("q")
    assert one.scores("q").tolist() == two.scores("q").tolist()


def test_a_spec_without_a_depth_takes_the_usual_one():
    assert [FusionSpec().depth_for(k) for k in (1, 25, 26, 100)] == [100, 100, 104, 400]
    assert [FusionSpec(depth=7).depth_for(k) for k in (1, 100)] == [7, 100]


def test_equal_weights_are_the_default_and_give_the_unweighted_order():
    sides = [hits({"a": 3, "b": 2, "c": 1}), hits({"c": 3, "d": 2, "a": 1})]
    fused = fuse(*(Ranking({"q": side}) for side in sides), spec=FusionSpec(), k=9)
    assert fused.ids("q") == rrf(sides, weights=[1, 1])[0]


def test_the_description_names_method_weight_and_depth():
    assert FusionSpec().describe() == "RRF k=60, dense_weight 0.5"
    assert FusionSpec("convex", 0.7).describe() == "convex (min-max per query), dense_weight 0.7"
    assert FusionSpec("dbsf", 0.3, depth=50).describe() == (
        "DBSF (mean +- 3 std per query), dense_weight 0.3, depth 50"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "borda"}, "'borda'; choose from rrf, convex, dbsf"),
        ({"dense_weight": 1.2}, "dense_weight must lie in .0, 1., found 1.2"),
        ({"dense_weight": float("nan")}, "found nan"),
        ({"depth": 0}, "depth must be at least 1, found 0"),
    ],
)
def test_a_spec_out_of_range_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        FusionSpec(**arguments)


def test_k_below_one_is_refused():
    with pytest.raises(ConfigError, match="k = 0"):
        fuse(Ranking({}), Ranking({}), spec=FusionSpec(), k=0)
