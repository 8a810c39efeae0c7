from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.dataset import Negative, Pair, Pairs
from retrieval_ft.training.plan import plan_batches

# How many pairs each query has; negatives are 0 to 5 a pair.
COUNTS = st.lists(st.integers(1, 4), max_size=25)


def pairs_of(counts, negatives=3):
    return Pairs(
        tuple(
            Pair(
                f"q{q}",
                f"q{q}p{i}",
                0.5,
                tuple(Negative(f"n{n}", 0, 1, 1) for n in range(negatives)),
            )
            for q, count in enumerate(counts)
            for i in range(count)
        )
    )


def plan(pairs, *, epochs=1, batch_size=4, negatives_per_query=1, seed=0):
    return plan_batches(
        pairs,
        epochs=epochs,
        batch_size=batch_size,
        negatives_per_query=negatives_per_query,
        seed=seed,
    )


@given(COUNTS, st.integers(1, 9), st.integers(0, 3))
def test_every_pair_stands_once_in_an_epoch(counts, batch_size, seed):
    pairs = pairs_of(counts)
    for epochs in (1, 3):
        found = plan(pairs, epochs=epochs, batch_size=batch_size, seed=seed)
        seen = Counter((e.query_id, e.positive_id) for batch in found.batches for e in batch)
        assert seen == {(p.query_id, p.positive_id): epochs for p in pairs.items}
        assert found.steps == len(found.batches)


@given(COUNTS, st.integers(1, 9), st.integers(0, 3))
def test_no_query_meets_itself_in_a_batch(counts, batch_size, seed):
    for batch in plan(pairs_of(counts), batch_size=batch_size, seed=seed).batches:
        assert 1 <= len(batch) <= batch_size
        assert len({example.query_id for example in batch}) == len(batch)


@given(st.integers(1, 60), st.integers(1, 9))
def test_batches_are_even_where_each_query_has_one_pair(count, batch_size):
    sizes = [len(batch) for batch in plan(pairs_of([1] * count), batch_size=batch_size).batches]
    assert len(sizes) == -(-count // batch_size)
    assert max(sizes) - min(sizes) <= 1


@given(COUNTS, st.integers(2, 9))
def test_only_leftovers_make_more_batches(counts, batch_size):
    found = plan(pairs_of(counts), batch_size=batch_size)
    least = max(-(-sum(counts) // batch_size), max(counts, default=0))
    assert found.steps <= least + max(counts, default=0)


@given(COUNTS, st.integers(0, 5))
def test_the_seed_decides_alone(counts, seed):
    assert plan(pairs_of(counts), epochs=2, seed=seed) == plan(
        pairs_of(counts), epochs=2, seed=seed
    )


def test_seeds_and_epochs_differ():
    pairs = pairs_of([1] * 30)
    assert plan(pairs, seed=1) != plan(pairs, seed=2)
    both = plan(pairs, epochs=2).batches
    assert both[: len(both) // 2] != both[len(both) // 2 :]


@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 7))
def test_negatives_take_turns_over_the_epochs(has, count, epochs):
    found = plan(pairs_of([1], negatives=has), epochs=epochs, negatives_per_query=count)
    used = [batch[0].negative_ids for batch in found.batches]
    every = [f"n{n}" for n in range(has)]
    for epoch, ids in enumerate(used):
        assert len(ids) == len(set(ids)) == min(has, count)
        if has:
            assert list(ids) == [every[(epoch * count + i) % has] for i in range(len(ids))]
    if 0 < count <= has and has % count == 0 and epochs >= has // count:
        assert {n for ids in used for n in ids} == set(every)


def test_no_pair_makes_no_batch():
    assert plan(Pairs(())).steps == 0


@given(COUNTS, st.integers(1, 9), st.integers(1, 12))
def test_max_steps_keeps_the_first_batches(counts, batch_size, max_steps):
    pairs = pairs_of(counts)
    given = {"epochs": 2, "batch_size": batch_size, "negatives_per_query": 1, "seed": 3}
    whole = plan_batches(pairs, **given)
    found = plan_batches(pairs, **given, max_steps=max_steps)
    assert found.batches == whole.batches[:max_steps]


@given(COUNTS, st.integers(1, 9), st.integers(0, 3), st.data())
def test_only_pairs_of_one_group_meet(counts, batch_size, seed, data):
    pairs = pairs_of(counts)
    groups = [data.draw(st.sampled_from("abc")) for _ in pairs.items]
    given = {"epochs": 2, "batch_size": batch_size, "negatives_per_query": 1, "seed": seed}
    found = plan_batches(pairs, **given, groups=groups)
    size = Counter(groups)
    group_of = {
        (p.query_id, p.positive_id): group if size[group] >= batch_size else ""
        for p, group in zip(pairs.items, groups, strict=True)
    }
    for batch in found.batches:
        assert len({group_of[e.query_id, e.positive_id] for e in batch}) == 1
        assert len({e.query_id for e in batch}) == len(batch) <= batch_size
    seen = Counter((e.query_id, e.positive_id) for batch in found.batches for e in batch)
    assert seen == dict.fromkeys(group_of, 2)


def test_the_prompt_is_dropped_on_its_share_of_examples():
    pairs = pairs_of([1] * 400)
    given = {"epochs": 5, "batch_size": 16, "negatives_per_query": 1, "seed": 1}
    without = plan_batches(pairs, **given)
    assert not any(e.bare for batch in without.batches for e in batch)
    found = plan_batches(pairs, **given, prompt_dropout=0.2)
    drops = [e.bare for batch in found.batches for e in batch]
    assert abs(sum(drops) - 400) < 4 * (2_000 * 0.2 * 0.8) ** 0.5
    by_query = Counter(e.query_id for batch in found.batches for e in batch if e.bare)
    assert len(by_query) > 200  # not the same queries each time
