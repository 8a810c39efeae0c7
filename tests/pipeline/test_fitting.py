from dataclasses import replace

import numpy as np
import pytest

from retrieval_ft.config import TrainingConfig
from retrieval_ft.dataset import Corpus, Dataset, Negative, Pair, Pairs, Qrels, Queries
from retrieval_ft.errors import ConfigError
from retrieval_ft.pipeline.fitting import in_batch_only, known_positives, training_job


def dataset(qrels, views, **texts):
    corpus = Corpus(("a", "b", "c"), ("one", "two", "three"), ("", "", ""))
    queries = Queries(qrels.query_ids, tuple(texts.get(q, q) for q in qrels.query_ids))
    return Dataset("some", corpus, queries, {"train": qrels}, views)


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
    pairs = Pairs((Pair("q1", "a", 0.9), Pair("q1", "b", 0.8), Pair("q2", "a", 0.7)))
    found = known_positives(dataset(qrels, {}), pairs)
    assert found.grades == {"q1": {"a": 2, "b": 1}, "q2": {"a": 1, "c": 1}}
    assert qrels.grades["q1"]["b"] == 0


def test_queries_of_the_same_words_share_their_positives():
    qrels = Qrels({"q1": {"a": 2}, "q2": {"b": 1, "c": 0}, "q3": {"c": 1}})
    given = dataset(qrels, {}, q1="What  is it", q2="what is it", q3="another")
    found = known_positives(given, Pairs(()))
    assert found.grades == {"q1": {"a": 2, "b": 1}, "q2": {"a": 1, "b": 1, "c": 0}, "q3": {"c": 1}}


@pytest.fixture
def pairs(bench):
    """Every train pair with two negatives that a cross-encoder scored."""
    qrels, ids = bench.dataset.qrels["train"], bench.dataset.corpus.ids
    found = []
    for query_id in qrels.query_ids:
        for positive in sorted(qrels.relevant(query_id)):
            others = [p for p in ids if p not in qrels.relevant(query_id)][:2]
            negatives = tuple(Negative(p, 0.1, None, r, -1.0) for r, p in enumerate(others, 1))
            found.append(Pair(query_id, positive, 0.5, negatives, positive_teacher=2.0))
    return Pairs(tuple(found))


def job(bench, pairs, **settings):
    return training_job(bench, pairs, bench.base, training=TrainingConfig(**settings))


def test_bm25_teaches_with_its_own_scores_of_every_passage_in_the_batch(bench, pairs):
    first = pairs.items[0]
    view = {first.query_id: {first.positive_id: "a view of it with other words"}}
    bench.dataset = replace(bench.dataset, views=view)
    found = job(bench, pairs, loss="listwise", teacher="bm25", batch_size=10)
    for batch in found.plan.batches:
        scores = found.collator(batch)["teacher"].numpy()
        columns = {}
        for example in batch:
            seen = example.query_id if example.query_id in view else ""
            columns.setdefault((seen, example.positive_id))
            columns.update(dict.fromkeys(("", p) for p in example.negative_ids))
        for row, example in zip(scores, batch, strict=True):
            text = bench.dataset.queries.text_of[example.query_id]
            whole = bench.lexical.scores(text)
            expected = [
                bench.lexical.score_texts([text], [view[q][p]])[0]
                if q
                else whole[bench.dataset.corpus.index_of[p]]
                for q, p in columns
            ]
            np.testing.assert_allclose(row, expected, rtol=1e-6)


def test_a_loss_without_a_teacher_says_what_to_set(bench, pairs):
    items = (
        replace(
            pair,
            positive_teacher=None,
            negatives=tuple(replace(n, teacher=None) for n in pair.negatives),
        )
        for pair in pairs.items
    )
    with pytest.raises(ConfigError, match=r"set mining\.cross_encoder") as caught:
        job(bench, Pairs(tuple(items)), loss="listwise")
    assert caught.value.exit_code == 2
    assert job(bench, pairs, loss="listwise").collator.teacher is not None


def test_only_the_query_side_is_encoded_where_passages_are_frozen(bench, pairs):
    found = job(bench, pairs, freeze_docs=True, batch_size=10)
    batch = found.collator(found.plan.batches[0])
    rows = sum(len(part["input_ids"]) for part in batch["micro_batches"])
    assert rows == len(found.plan.batches[0])
    positives = [e.positive_id for e in found.plan.batches[0]]
    texts = dict(zip(bench.dataset.corpus.ids, bench.dataset.corpus.passages, strict=True))
    vectors = bench.base.encode([texts[p] for p in positives], role="passage")
    np.testing.assert_allclose(batch["frozen"][batch["target"]], vectors, atol=1e-6)


@pytest.mark.parametrize("sizes", [(0,), (16, 16), (4_096,)])
def test_a_dimension_that_the_model_lacks_is_named(bench, pairs, sizes):
    with pytest.raises(ConfigError, match=r"training\.matryoshka: .* from 1 to") as caught:
        job(bench, pairs, matryoshka=sizes)
    assert caught.value.exit_code == 2


def test_batches_of_one_source_and_of_one_topic(bench, pairs):
    queries = bench.dataset.queries
    sources = [{"source": "ab"[len(text) % 2]} for text in queries.texts]
    bench.dataset = replace(
        bench.dataset, queries=Queries(queries.ids, queries.texts, tuple(sources))
    )
    found = job(bench, pairs, batches="source", batch_size=4)
    for batch in found.plan.batches:
        kinds = {bench.dataset.queries.metadata_of(e.query_id)["source"] for e in batch}
        assert len(kinds) == 1
    topics = job(bench, pairs, batches="topic", batch_size=2)
    assert sum(len(batch) for batch in topics.plan.batches) == len(pairs) * topics.recipe.epochs
    mixed = job(bench, pairs, batch_size=2)

    def spread(found):
        """Mean cosine of the positives that meet in a batch."""
        corpus = bench.dataset.corpus
        vectors = bench.base.encode(corpus.passages, role="passage")
        met = [
            vectors[corpus.index_of[a.positive_id]] @ vectors[corpus.index_of[b.positive_id]]
            for batch in found.plan.batches
            for a in batch
            for b in batch
            if a.positive_id < b.positive_id
        ]
        return np.mean(met)

    assert spread(topics) > spread(mixed)
