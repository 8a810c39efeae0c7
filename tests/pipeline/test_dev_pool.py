from dataclasses import replace

from retrieval_ft.pipeline.train import dev_pool
from retrieval_ft.pipeline.workbench import Workbench


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
