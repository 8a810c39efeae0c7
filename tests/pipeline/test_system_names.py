"""Which systems `evaluate` measures, what each is compared with, and which names it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.errors import ConfigError
from retrieval_ft.pipeline.systems import (
    Asked,
    Remote,
    named,
    pairs,
    plan,
    plan_of_runs,
    remotes,
)

RUNS = {"colbert": Path("c.trec")}
FULL = Asked(models={"mini": "m"}, endpoints={"far": Remote("http://h/v1", "e")}, runs=RUNS)


def against(asked):
    return {one.name: one.against for one in plan(asked)}


def test_every_system_is_compared_with_the_primary_of_its_kind():
    assert against(FULL) == {
        "bm25": None,
        "dense": None,
        "hybrid": "dense",
        "hybrid_rrf": "hybrid",
        "mini_dense": "dense",
        "mini_hybrid": "hybrid",
        "mini_hybrid_rrf": "hybrid_rrf",
        "far_dense": "dense",
        "far_hybrid": "hybrid",
        "far_hybrid_rrf": "hybrid_rrf",
        "colbert": "hybrid",
    }


def test_the_primary_hybrid_is_tested_against_bm25_too():
    assert pairs(plan(Asked()), against=None) == (
        ("hybrid", "bm25"),
        ("hybrid", "dense"),
        ("hybrid_rrf", "hybrid"),
    )


def test_a_reranked_system_stands_behind_its_own_and_is_compared_with_it():
    found = against(replace(FULL, rerank=5))
    reranked = {name: other for name, other in found.items() if name.endswith("_rerank")}
    plain = ("bm25", "hybrid", "hybrid_rrf")
    plain += tuple(f"{m}_{kind}" for m in ("mini", "far") for kind in ("hybrid", "hybrid_rrf"))
    assert reranked == {f"{name}_rerank": name for name in plain}
    names = list(found)
    assert all(names.index(f"{name}_rerank") == names.index(name) + 1 for name in plain)


def test_without_a_primary_all_are_compared_with_bm25():
    found = against(replace(FULL, model="none"))
    assert "dense" not in found and found.pop("bm25") is None
    assert set(found.values()) == {"bm25"}
    assert pairs(plan(replace(FULL, model="none")), against=None)[0] == ("mini_dense", "bm25")


def test_run_files_alone_are_compared_with_the_first():
    runs = {name: Path(name) for name in ("b", "a", "c")}
    assert pairs(plan_of_runs(Asked(runs=runs)), against=None) == (("a", "b"), ("c", "b"))
    like_ours = {name: Path(name) for name in ("dense", "hybrid", "bm25")}
    found = pairs(plan_of_runs(Asked(runs=like_ours)), against=None)
    assert found == (("hybrid", "dense"), ("bm25", "dense"))
    found = pairs(plan(Asked(model="none", runs={"hybrid": Path("x")})), against=None)
    assert found == (("hybrid", "bm25"),)
    other = Asked(runs=runs, against="c")
    assert pairs(plan_of_runs(other), against="c") == (("b", "c"), ("a", "c"))


def test_all_are_compared_with_the_one_that_was_named():
    found = plan(replace(FULL, rerank=3, against="mini_hybrid"))
    tested = pairs(found, against="mini_hybrid")
    assert {other for _, other in tested} == {"mini_hybrid"}
    assert len(tested) == len(found) - 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(runs={"dense": Path("x")}), "two systems would be called 'dense'"),
        (Asked(models={"a": "m"}, runs={"a_hybrid": Path("x")}), "'a_hybrid'"),
        (Asked(models={"a": "m"}, endpoints={"a": Remote("http://h", "e")}), "'a_dense'"),
        (Asked(rerank=5, runs={"bm25_rerank": Path("x")}), "'bm25_rerank'"),
        (Asked(runs={"qrels": Path("x")}), "cannot be called 'qrels'"),
        (Asked(against="colbert"), "allowed: bm25, dense, hybrid, hybrid_rrf"),
    ],
)
def test_names_that_clash_or_that_are_none_are_refused(asked, said):
    with pytest.raises(ConfigError, match=said):
        plan(asked)


@pytest.mark.parametrize("word", ["", "a", "=b", "a=", "A=b", "-a=b", "a b=c", "é=b", "a/b=c"])
def test_what_is_no_name_and_value_is_refused(word):
    with pytest.raises(ConfigError, match="--with"):
        named([word], "--with")


def test_a_value_may_hold_anything_and_a_name_stands_once():
    assert named(["a=b=c#d", "b-1_x= "], "--run") == {"a": "b=c#d", "b-1_x": " "}
    with pytest.raises(ConfigError, match="'a' is given twice"):
        named(["a=b", "a=c"], "--run")


@given(st.text(max_size=50))
def test_whatever_is_taken_as_a_name_can_name_a_file_and_a_run(text):
    try:
        (name,) = named([f"{text}=x"], "--run")
    except ConfigError:
        return
    assert name.isascii() and name == name.lower() and name.split() == [name]
    assert Path(name).name == name and not name.startswith((".", "-"))


def test_an_endpoint_is_an_address_and_a_model():
    found = remotes(["x=http://127.0.0.1:8080/v1#BAAI/bge-m3"], "--endpoint")["x"]
    assert (found.url, found.model) == ("http://127.0.0.1:8080/v1", "BAAI/bge-m3")
    assert str(remotes(["x=https://me:pw@h/v1?k=1#m"], "--endpoint")["x"]) == "https://h/v1#m"


@pytest.mark.parametrize("value", ["http://h/v1", "h/v1#m", "http://h/v1#", "#m"])
def test_what_is_no_endpoint_is_refused_with_the_form(value):
    with pytest.raises(ConfigError, match="NAME=URL#MODEL, such as"):
        remotes([f"x={value}"], "--endpoint")
