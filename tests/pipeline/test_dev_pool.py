from dataclasses import replace

import pytest

from retrieval_ft import config as configs
from retrieval_ft.dataset import Corpus, Dataset, Negative, Pair, Pairs, Qrels, Queries, beir
from retrieval_ft.pipeline.train import dev_pool, in_batch_only, with_pairs
from retrieval_ft.pipeline.workbench import Workbench


@pytest.fixture
def bench(model_folder, dataset_folder):
    raw = {
        "data": {"path": str(dataset_folder)},
        "model": {"base": str(model_folder), "device": "cpu", "precision": "fp32"},
    }
    return Workbench(configs.from_mapping(raw, source="test"), beir.read(dataset_folder))


def test_a_small_corpus_is_taken_whole(bench):
    pool = dev_pool(bench, size=len(bench.dataset.corpus))
    assert pool.corpus is bench.dataset.corpus
    assert pool.queries.ids == bench.dataset.qrels["dev"].query_ids


def test_a_large_corpus_is_cut_to_size_around_the_relevant_and_the_hardest(bench):
    dev = bench.dataset.qrels["dev"]
    relevant = {passage for query in dev.query_ids for passage in dev.relevant(query)}
    pool = dev_pool(bench, size=20)
    assert len(pool.corpus) == 20
    assert relevant <= set(pool.corpus.ids)
    first = bench.lexical_ranking("dev", k=1)
    assert {p for query in dev.query_ids for p in first.ids(query)} <= set(pool.corpus.ids)
    assert dev_pool(bench, size=20).corpus == pool.corpus


def test_the_relevant_passages_stay_however_small_the_pool(bench):
    dev = bench.dataset.qrels["dev"]
    relevant = {passage for query in dev.query_ids for passage in dev.relevant(query)}
    assert set(dev_pool(bench, size=1).corpus.ids) == relevant


def test_a_passage_that_a_dev_query_was_taken_from_is_ranked_as_its_view(bench):
    dataset = bench.dataset
    query = dataset.qrels["dev"].query_ids[0]
    (passage,) = dataset.qrels["dev"].relevant(query)
    given = replace(dataset, views={query: {passage: "without the words of the query"}})
    bench = Workbench(bench.config, given)
    row = dataset.corpus.index_of[passage]
    for split, text in (("dev", "without the words of the query"), ("test", None)):
        seen = bench.corpus_of(split)
        assert seen.ids == dataset.corpus.ids
        changed = [
            i
            for i, (a, b) in enumerate(zip(seen.passages, dataset.corpus.passages, strict=True))
            if a != b
        ]
        assert changed == ([row] if text else [])
        assert seen.passages[row] == (text or dataset.corpus.passages[row])
    assert dev_pool(bench, size=40).corpus.passages[row] == "without the words of the query"
    (hit,) = bench.lexical_ranking("dev", k=50).hits[query][0][:1] or ("none",)
    assert hit != passage


def test_a_pair_that_is_trained_on_a_view_has_no_mined_negative():
    views = {"q1": {"a": "rest of a"}}
    given = dataset(Qrels({"q1": {"a": 1, "b": 1}, "q2": {"a": 1}}), views)
    negative = (Negative("c", 0.5, 1, None),)
    pairs = Pairs(
        tuple(Pair(q, p, 0.9, negative) for q, p in (("q1", "a"), ("q1", "b"), ("q2", "a")))
    )
    found, made = in_batch_only(pairs, given)
    assert [pair.negatives for pair in found.items] == [(), negative, negative]
    assert made == 1


def test_what_a_cross_encoder_made_positive_is_masked_as_one():
    qrels = Qrels({"q1": {"a": 2, "b": 0}, "q2": {"c": 1}})
    pairs = Pairs((Pair("q1", "a", 0.9), Pair("q1", "b", 0.8), Pair("q3", "c", 0.7)))
    found = with_pairs(qrels, pairs)
    assert found.grades == {"q1": {"a": 2, "b": 1}, "q2": {"c": 1}, "q3": {"c": 1}}
    assert qrels.grades["q1"]["b"] == 0


def dataset(qrels, views):
    corpus = Corpus(("a", "b", "c"), ("one", "two", "three"), ("", "", ""))
    queries = Queries(qrels.query_ids, qrels.query_ids)
    return Dataset("some", corpus, queries, {"train": qrels}, views)
