import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.index.strings import Ids, Joined, Strings, Terms

strings = st.lists(st.text(max_size=6).filter(lambda s: s.isprintable()), max_size=12)
distinct = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), unique=True)


def mapped(ids):
    """As from a disk: without the list that the ids were made from."""
    return Ids(ids.table, ids.order)


@given(strings)
def test_a_table_gives_back_what_it_was_made_of(values):
    table = Strings.of(values)
    assert table.tolist() == values == [table[i] for i in range(len(table))]
    some = np.arange(0, len(values), 2)
    assert table.take(some) == values[::2]


@given(distinct, st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
def test_ids_are_found_by_name_and_ranked_as_python_sorts_them(names, other):
    for ids in (Ids.of(names), mapped(Ids.of(names))):
        assert [ids.find(name) for name in names] == list(range(len(names)))
        assert ids.find(other) == (names.index(other) if other in names else None)
        assert [sorted(names)[rank] for rank in ids.ranks] == names
        assert ids.tolist() == tuple(names)
        assert ids.take(np.arange(len(names))[::-1]) == names[::-1]


@given(distinct, distinct)
def test_terms_have_the_number_of_their_place(names, others):
    ordered = sorted(names)
    for terms in (Terms.of(ordered), Terms(Strings.of(ordered))):
        expected = [ordered.index(other) if other in ordered else None for other in others]
        assert [terms.get(other) for other in others] == expected
        assert terms.numbers(others).tolist() == [-1 if n is None else n for n in expected]


def test_few_terms_of_a_large_table_are_found_without_listing_it():
    ordered = sorted(f"word{i}" for i in range(5_000))
    terms = Terms(Strings.of(ordered))
    assert terms.numbers(["word7", "none", "word4999"]).tolist() == [
        ordered.index("word7"), -1, ordered.index("word4999")
    ]  # fmt: skip
    assert len(terms._known) == 2


@given(st.lists(distinct, max_size=4), st.randoms(use_true_random=False))
def test_joined_ids_are_those_of_the_parts_one_behind_the_other(parts, random):
    whole = [name for part in parts for name in part]
    joined = Joined([Ids.of(part) for part in parts])
    assert (len(joined), joined.tolist()) == (len(whole), tuple(whole))
    positions = list(range(len(whole)))
    random.shuffle(positions)
    assert joined.take(np.array(positions, np.int64)) == [whole[i] for i in positions]
