import json
import operator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrieval_ft.errors import ConfigError
from retrieval_ft.index.fields import Fields
from retrieval_ft.index.filters import EVERYTHING, both, parse, parse_words

COMPARE = {
    "$eq": operator.eq,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
KEYS = ["year", "tag", "a.b", "é"]

texts = st.sampled_from(["", "1", "a", "é", "数", "\U0001f600"])
numbers = st.integers(-2, 2) | st.sampled_from([0.5, 1.0, 2**53, 2**53 + 1])
scalars = st.one_of(texts, numbers, st.booleans())
rows = st.dictionaries(
    st.sampled_from(["year", "tag", "é"]), scalars | st.none() | st.lists(scalars, max_size=3)
) | st.fixed_dictionaries({"a": st.fixed_dictionaries({"b": scalars | st.lists(scalars)})})
comparisons = st.one_of(
    scalars,
    st.dictionaries(
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), texts | numbers, min_size=1, max_size=2
    ),
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), scalars, min_size=1),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(scalars, max_size=3), min_size=1),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)
expressions = st.recursive(
    st.dictionaries(st.sampled_from(KEYS), comparisons, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
        st.fixed_dictionaries({"$not": inner, "tag": comparisons}),
    ),
    max_leaves=5,
)


def alike(one, other):
    """Whether two values are of a kind: a boolean is no number."""
    return all(isinstance(one, k) == isinstance(other, k) for k in (bool, str))


def values_of(row, key):
    value = row.get("a", {}).get("b") if key == "a.b" else row.get(key)
    return [v for v in (value if isinstance(value, list) else [value]) if v is not None]


def compares(values, name, wanted):
    if name == "$exists":
        return bool(values) == wanted
    if name in ("$in", "$nin"):
        return any(compares(values, "$eq", w) for w in wanted) == (name == "$in")
    if name == "$ne":
        return not compares(values, "$eq", wanted)
    return any(alike(v, wanted) and COMPARE[name](v, wanted) for v in values)


def fulfils(row, expression):
    """The filter's meaning for one passage, by plain recursion over its metadata."""
    for key, value in expression.items():
        if key == "$not":
            holds = not fulfils(row, value)
        elif key in ("$and", "$or"):
            holds = (all if key == "$and" else any)(fulfils(row, part) for part in value)
        else:
            tests = value if isinstance(value, dict) else {"$eq": value}
            holds = all(compares(values_of(row, key), *test) for test in tests.items())
        if not holds:
            return False
    return True


def allowed(expression, metadata):
    mask = parse(expression).allowed(Fields.build(metadata, len(metadata)))
    assert mask.dtype == np.bool_
    return mask.tolist()


@given(expressions, st.lists(rows, max_size=6))
@example({"year": {"$ne": 1}}, [{"year": 1}, {"year": "1"}, {"year": True}, {"year": [1, 2]}, {}])
@example({"year": {"$nin": []}}, [{"year": 1}, {}])
@example({"year": {"$in": []}}, [{"year": 1}, {}])
@example({"$not": {"year": {"$gt": 1}}}, [{"year": 2}, {"year": "b"}, {}])
def test_a_filter_allows_what_a_scan_finds(expression, metadata):
    assert allowed(expression, metadata) == [fulfils(row, expression) for row in metadata]


def test_every_operator_by_hand():
    metadata = [
        {"source": "manual", "year": 2019},
        {"source": "blog", "year": 2022, "tag": ["x", "y"]},
        {"source": "manual", "year": 2024, "draft": True},
        {},
    ]
    expected = {
        '{"source": "manual"}': [0, 2],
        '{"source": {"$eq": "manual"}}': [0, 2],
        '{"source": {"$ne": "manual"}}': [1, 3],
        '{"year": {"$gte": 2020, "$lt": 2024}}': [1],
        '{"year": {"$gt": 2019}}': [1, 2],
        '{"year": {"$lte": 2022}}': [0, 1],
        '{"tag": "y"}': [1],
        '{"tag": {"$in": ["z", "x"]}}': [1],
        '{"source": {"$nin": ["manual", "wiki"]}}': [1, 3],
        '{"draft": {"$exists": true}}': [2],
        '{"draft": {"$exists": false}}': [0, 1, 3],
        '{"draft": true}': [2],
        '{"$not": {"source": "manual"}}': [1, 3],
        '{"$or": [{"tag": "x"}, {"year": 2024}]}': [1, 2],
        '{"$and": [{"source": "manual"}, {"year": {"$gt": 2020}}]}': [2],
        '{"source": "manual", "year": 2019}': [0],
        '{"year": "2019"}': [],
        "{}": [0, 1, 2, 3],
    }
    found = {
        text: np.flatnonzero(allowed(json.loads(text), metadata)).tolist() for text in expected
    }
    assert found == expected


@given(expressions, expressions, st.lists(rows, max_size=5))
def test_both_allows_what_each_allows(first, second, metadata):
    fields = Fields.build(metadata, len(metadata))
    one, two = parse(first), parse(second)
    joined = both(one, two)
    assert joined.allowed(fields).tolist() == (one.allowed(fields) & two.allowed(fields)).tolist()
    assert joined == both(two, one) == both(joined, one)
    assert both(one, EVERYTHING) == one


@given(expressions)
def test_words_read_back_as_the_same_filter(expression):
    read = parse(expression)
    assert parse(json.loads(read.words())) == read
    assert hash(parse(json.loads(read.words()))) == hash(read)


def test_what_means_the_same_has_the_same_words():
    same = [
        {"a": 1, "b": {"$gt": 1, "$lt": 5}},
        {"b": {"$lt": 5, "$gt": 1}, "a": {"$eq": 1}},
        {"$and": [{"b": {"$lt": 5}}, {"a": 1}, {"$and": [{"b": {"$gt": 1}}, {}]}]},
    ]
    assert len({parse(expression).words() for expression in same}) == 1
    assert parse({"a": {"$in": [2, 1, 2]}}) == parse({"a": {"$in": [1, 2]}})
    assert parse({"source": {"$eq": "数"}}).words() == '{"source": "数"}'


def test_true_and_1_are_two_filters():
    assert parse({"a": True}) != parse({"a": 1})


DEEP = {"a": 1}
for _ in range(3000):
    DEEP = {"$not": DEEP}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ([], ["filter:", "[]", "object"]),
        ("source=manual", ["filter:", '"source=manual"', "object"]),
        ({"$xor": []}, ["filter.$xor", "unknown operator", "$and, $or, $not"]),
        ({"$eq": 1}, ["filter.$eq", "unknown operator", "keys of the metadata"]),
        ({"$and": []}, ["filter.$and", "[]", "list of one or more"]),
        ({"$or": {"a": 1}}, ["filter.$or", "list of one or more"]),
        ({"$or": [{"a": 1}, 3]}, ["filter.$or[1]", "found 3", "object"]),
        ({"$not": [{"a": 1}]}, ["filter.$not", "object"]),
        ({"year": {"$geq": 1}}, ["filter.year", '"$geq"', "$gte"]),
        ({"a": {"b": 1}}, ["filter.a", '"b"', "a.name", "dot"]),
        ({"a": {1: 1}}, ["filter.a", "unknown comparison 1"]),
        ({"a": {}}, ["filter.a", "{}", "$exists"]),
        ({"a": None}, ["filter.a", "null", '{"$exists": false}']),
        ({"a": [1, 2]}, ["filter.a", "[1, 2]", "$in"]),
        ({"a": {"$in": "x"}}, ["filter.a.$in", '"x"', "list of values"]),
        ({"a": {"$in": [1, None]}}, ["filter.a.$in[1]", "null"]),
        ({"a": {"$gt": True}}, ["filter.a.$gt", "true", "number or a string"]),
        ({"a": {"$exists": 1}}, ["filter.a.$exists", "1", "true or false"]),
        ({"a": float("nan")}, ["filter.a", "nan", "finite"]),
        ({"a": {"$lt": float("inf")}}, ["filter.a.$lt", "inf", "finite"]),
        ({"a": 10**400}, ["filter.a", "bits", "string"]),
        ({"a": object()}, ["filter.a", "a value of type object"]),
        ({"a": "\ud800"}, ["filter.a", r"\ud800", "Unicode"]),
        ({"\ud800": 1}, ["filter", r"\ud800", "Unicode"]),
        ({"a": ["\ud800"]}, ["filter.a", r"\ud800"]),
        ({3: 1}, ["filter", "found 3 as a key", "string"]),
        (DEEP, ["filter.$not.$not", "nested deeper than 100"]),
    ],
)
def test_what_is_no_filter_is_refused_where_it_stands(expression, said):
    with pytest.raises(ConfigError) as caught:
        parse(expression)
    message = str(caught.value)
    assert all(words in message for words in said), message
    assert len(message) < 400
    message.encode()
    assert caught.value.exit_code == 2


def test_the_caller_names_the_expression():
    with pytest.raises(ConfigError, match=r"^visible\.a: "):
        parse({"a": None}, where="visible")


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("source=manual", {"source": "manual"}),
        (" source = user manual ", {"source": "user manual"}),
        ("year=2020", {"year": 2020}),
        ('year="2020"', {"year": "2020"}),
        ("draft=false", {"draft": False}),
        ("code=007", {"code": "007"}),
        ("name=NaN", {"name": "NaN"}),
        ("name=", {"name": ""}),
        ("url=http://x/?a=b", {"url": "http://x/?a=b"}),
        ("date=2024-01-02", {"date": "2024-01-02"}),
        ('year={"$gte": 2020}', {"year": {"$gte": 2020}}),
        (' {"$or": [{"a": 1}, {"b": "="}]}', {"$or": [{"a": 1}, {"b": "="}]}),
        ("a.b=é数", {"a.b": "é数"}),
    ],
)
def test_words_of_a_command_line(text, expression):
    assert parse_words([text]) == parse(expression)


def test_several_words_are_joined_by_and():
    assert parse_words(["a=1", '{"b": 2}']) == parse({"a": 1, "b": 2})
    assert parse_words([]) == EVERYTHING


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("manual", ["'manual'", "key=value"]),
        ("", ["''", "key=value"]),
        ("=x", ["'=x'", "key=value"]),
        ("year>=2020", ["'year>=2020'", "$gte"]),
        ("year!=2020", ["'year!=2020'", "key=value"]),
        ("year==2020", ["'year==2020'", "key=value"]),
        ('{"a": 1', ["not valid JSON"]),
        ('a={"$gt": 1', ["not valid JSON"]),
        ('{"a": NaN}', ["not valid JSON", "NaN"]),
        ("a=1e999", ["inf", "finite"]),
        ("a=null", ["null", "$exists"]),
        ('a=["x"]', ["$in"]),
        ('{"a": {"$gt": 1}, "a": {"$lt": 5}}', ["'a' stands twice"]),
        ('{"$not":' * 5000, ["not valid JSON"]),
        ("a=\udcff", [r"\udcff", "Unicode"]),
    ],
)
def test_words_that_are_no_filter_are_refused(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_words([text])
    assert all(words in str(caught.value) for words in said), str(caught.value)
    str(caught.value).encode()
    assert caught.value.exit_code == 2
