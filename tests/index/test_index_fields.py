import operator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from retrieval_ft.errors import DataError
from retrieval_ft.index.fields import Fields

COMPARE = {
    "$eq": operator.eq,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
KEYS = ["a", "b", "a.b", "", "é", "数", "\U0001f600", "\uffff"]

# U+FFFF sorts before U+1F600 by code point, behind it by UTF-16 units.
texts = st.sampled_from(["", "1", "a", "ab", "é", "数", "\uffff", "\U0001f600", "2024-01-02"])
integers = st.integers(-3, 3) | st.sampled_from(
    [s * (2**bits + d) for bits in (53, 63, 64, 99) for d in (-1, 0, 1) for s in (1, -1)]
)
floats = st.sampled_from([-0.0, 0.0, 0.5, 1.0, 2.0**53, 2.0**64, 1e308, -1e308, 5e-324])
scalars = st.one_of(texts, integers, floats, st.booleans())
values = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=4,
)
rows = st.dictionaries(st.sampled_from(KEYS), values, max_size=3)


def kind(value):
    return bool if isinstance(value, bool) else str if isinstance(value, str) else float


def flat(mapping, prefix=""):
    """What a passage has: (key, value), by plain recursion."""
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
            continue
        for element in value if isinstance(value, list) else [value]:
            if element is not None and not isinstance(element, dict | list):
                yield prefix + key, element


def brute(metadata, key, comparison, wanted):
    return {
        row
        for row, mapping in enumerate(metadata)
        if any(
            found == key and kind(value) is kind(wanted) and COMPARE[comparison](value, wanted)
            for found, value in flat(mapping)
        )
    }


@given(st.lists(rows, max_size=6), st.sampled_from(KEYS), st.sampled_from(list(COMPARE)), scalars)
@example([{"a": 2**53}, {"a": 2**53 + 1}, {"a": 2.0**53}], "a", "$eq", 2**53 + 1)
@example([{"a": True}, {"a": 1}, {"a": "1"}, {"a": 1.0}], "a", "$eq", 1)
@example([{"a": {"b": 1}}, {"a.b": 1}, {"a": [1, {"b": 1}]}], "a.b", "$gte", 1)
@example([{"a": ["x", "y", "x"]}, {"a": []}, {"a": None}], "a", "$gte", "x")
def test_lookups_equal_a_scan(metadata, key, comparison, wanted):
    fields = Fields.build(metadata, len(metadata))
    found = fields.where(key, comparison, wanted)
    assert found.dtype == np.int32
    assert set(found.tolist()) == brute(metadata, key, comparison, wanted)
    if comparison == "$eq":
        assert found.tolist() == sorted(set(found.tolist()))


@given(st.lists(rows, max_size=6), st.sampled_from(KEYS))
def test_having_a_key_equals_a_scan(metadata, key):
    expected = {i for i, row in enumerate(metadata) if key in dict(flat(row))}
    assert set(Fields.build(metadata, len(metadata)).having(key).tolist()) == expected


@given(st.lists(rows, max_size=6), scalars)
def test_a_file_of_plain_arrays_holds_everything(tmp_path_factory, metadata, wanted):
    fields = Fields.build(metadata, len(metadata))
    path = tmp_path_factory.mktemp("fields") / "arrays.safetensors"
    save_file(fields.arrays(), path)
    again = Fields.of_arrays(load_file(path), count=len(metadata))
    assert again.count == len(metadata)
    for key in KEYS:
        assert again.having(key).tolist() == fields.having(key).tolist()
        for comparison in COMPARE:
            expected = fields.where(key, comparison, wanted).tolist()
            assert again.where(key, comparison, wanted).tolist() == expected


@given(st.lists(rows, max_size=4))
def test_the_order_of_keys_changes_no_byte(metadata):
    turned = [dict(reversed(row.items())) for row in metadata]
    one, two = (Fields.build(m, len(m)).arrays() for m in (metadata, turned))
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in two.items()}


@pytest.mark.parametrize(("metadata", "count"), [([], 0), ([], 3), ([{}, {}], 2), ([{"a": []}], 1)])
def test_no_metadata_has_nothing(metadata, count):
    fields = Fields.build(metadata, count)
    assert fields.count == count
    assert fields.having("a").size == 0
    assert fields.where("a", "$lte", 1).size == fields.where("a", "$gte", "").size == 0


def test_a_key_of_every_kind_at_once():
    fields = Fields.build([{"a": "x"}, {"a": 1}, {"a": False}, {"b": 1}, {"a": ["x", 1]}], 5)
    assert fields.where("a", "$eq", "x").tolist() == [0, 4]
    assert fields.where("a", "$eq", 1).tolist() == [1, 4]
    assert fields.where("a", "$eq", False).tolist() == [2]
    assert sorted(set(fields.having("a").tolist())) == [0, 1, 2, 4]


def test_iso_dates_stand_in_the_order_of_time():
    dates = ["2024-01-31", "2023-12-31", "2024-01-02", "2024-01-01T10:00"]
    fields = Fields.build([{"date": date} for date in dates], 4)
    assert fields.where("date", "$gte", "2024-01-01").tolist() == [3, 2, 0]


def test_metadata_nested_deeper_than_python_recurses():
    deep = 1
    for _ in range(5000):
        deep = {"a": deep}
    fields = Fields.build([deep], 1)
    assert fields.where(".".join("a" * 5000), "$eq", 1).tolist() == [0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"a": {"b": object()}}, ["passage 1", "'a.b'", "object", "allowed are strings"]),
        ({"a": b"x"}, ["passage 1", "'a'", "bytes"]),
        ({"a": [1, float("nan")]}, ["passage 1", "'a'", "nan", "finite"]),
        ({"a": float("-inf")}, ["passage 1", "'a'", "inf", "finite"]),
        ({"a": 2**100}, ["passage 1", "'a'", "101 bits", "100", "string"]),
        ({"a": -(10**400)}, ["passage 1", "'a'", "bits", "string"]),
        ({1: "x"}, ["key", "string", "found 1"]),
        ({"a": "\ud800"}, [r"\ud800", "Unicode"]),
        ({"\ud800": 1}, [r"\ud800", "Unicode"]),
    ],
)
def test_what_no_index_can_hold_is_refused_by_name(row, said):
    with pytest.raises(DataError) as caught:
        Fields.build([{"a": 1}, row], 2)
    assert all(words in str(caught.value) for words in said), str(caught.value)
    assert caught.value.exit_code == 3


def test_metadata_of_too_few_passages_is_refused():
    with pytest.raises(DataError, match=r"1 metadata objects for 2 passages"):
        Fields.build([{}], 2)
