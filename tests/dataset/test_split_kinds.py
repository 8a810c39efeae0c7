"""Splits by document and by time: nothing lost, nothing leaked, both kinds of test query."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries
from retrieval_ft.dataset.splits import (
    carve,
    check_leaks,
    complete,
    near_duplicates_of_train,
    normalize,
    seen_or_unseen,
)

SHARES = {"dev_fraction": 0.1, "test_fraction": 0.2, "seed": 1}


def corpus_of(documents):
    """One passage for each item, cut from the document that it names (None: a whole one)."""
    ids = tuple(f"p{i}" for i in range(len(documents)))
    return Corpus(
        ids,
        tuple(f"passage {i}" for i in ids),
        ("",) * len(ids),
        tuple({} if d is None else {"document": d} for d in documents),
    )


def made(documents, relevant, *, texts=None, metadata=()):
    """A dataset whose query i is relevant to the passages `relevant[i]`, all of it train."""
    ids = tuple(f"q{i}" for i in range(len(relevant)))
    rows = {q: {f"p{p}": 1 for p in passages} for q, passages in zip(ids, relevant, strict=True)}
    queries = Queries(ids, tuple(texts or (f"query {i}" for i in ids)), metadata)
    return Dataset("made", corpus_of(documents), queries, {"train": Qrels(rows)})


def groups_by_graph(corpus, clusters):
    """Oracle: the connected component of each passage, by document and by near-duplicate cluster."""
    names = {name: i for i, name in enumerate(corpus.ids)}
    edges = []
    for kind, of in (("d", corpus.document_of), ("c", lambda p: clusters.get(p, p))):
        for passage_id in corpus.ids:
            node = names.setdefault((kind, of(passage_id)), len(names))
            edges.append((names[passage_id], node))
    rows, columns = zip(*edges, strict=True)
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(names),) * 2)
    _, label = connected_components(graph, directed=False)
    return {passage_id: label[names[passage_id]] for passage_id in corpus.ids}


def groups_touched(dataset, groups, split):
    qrels = dataset.qrels[split]
    return {q: {groups[p] for p in qrels.relevant(q)} for q in qrels.query_ids}


@st.composite
def corpora_with_queries(draw):
    """Sizes are drawn and the rest is random: drawing each item would be slow."""
    passages, documents, queries, texts, most, copies = (
        draw(st.integers(low, high))
        for low, high in ((2, 60), (1, 30), (12, 60), (8, 80), (1, 4), (0, 6))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    of = [None if rng.random() < 0.2 else f"d{rng.integers(documents)}" for _ in range(passages)]
    relevant = [
        {*rng.integers(passages, size=rng.integers(1, most + 1)).tolist()} for _ in range(queries)
    ]
    names = [f"{rng.choice(['Text ', 'text'])} {rng.integers(texts)}" for _ in range(queries)]
    pairs = np.sort(rng.integers(passages, size=(copies, 2)))
    clusters = {f"p{high}": f"p{low}" for low, high in pairs.tolist()}
    return made(of, relevant, texts=names), {
        p: c for p, c in clusters.items() if clusters.get(c, c) == c
    }


@given(
    corpora_with_queries(),
    st.sampled_from(["document", "query", "auto"]),
    st.sampled_from([(0.1, 0.2), (0.3, 0.3), (0.2, 0.4)]),
    st.integers(0, 5),
)
def test_a_carved_split_loses_nothing_and_leaks_nothing(made_up, split_by, shares, seed):
    data, clusters = made_up
    texts = {normalize(text) for text in data.queries.texts}
    dev, test = (round(share * len(texts)) for share in shares)
    assume(dev and test and dev + test < len(texts))
    carving = carve(
        data,
        dev_fraction=shares[0],
        test_fraction=shares[1],
        seed=seed,
        split_by=split_by,
        clusters=clusters,
    )
    found = carving.dataset

    # every query is in one split, with the grades that it had
    assert {q: row for qrels in found.qrels.values() for q, row in qrels.grades.items()} == dict(
        data.qrels["train"].grades
    )
    assert sum(map(len, found.qrels.values())) == len(data.queries)
    assert carving.counts == {split: len(found.qrels[split]) for split in ("test", "dev")}
    # no text is in two of them
    check_leaks(found)
    # the shares are met, counted in texts
    for split, quota in (("dev", dev), ("test", test)):
        assert len({normalize(data.queries.text_of[q]) for q in found.qrels[split].grades}) == quota
    # an unseen query shares no document or near-duplicate with an earlier split; a seen one does
    groups = groups_by_graph(data.corpus, clusters)
    for split, earlier in (("dev", ["train"]), ("test", ["train", "dev"])):
        known = set().union(
            *(set().union(*groups_touched(found, groups, e).values()) for e in earlier)
        )
        assert carving.kinds[split] == {
            q: "seen" if own & known else "unseen"
            for q, own in groups_touched(found, groups, split).items()
        }


@given(corpora_with_queries(), st.integers(0, 99))
def test_the_order_of_files_does_not_matter(made_up, seed):
    data, clusters = made_up
    rng = random.Random(seed)

    def shuffled(items):
        return rng.sample(list(items), len(items))

    rows = data.qrels["train"].grades
    turned = replace(
        data,
        corpus=Corpus(
            *zip(
                *shuffled(
                    list(
                        zip(
                            data.corpus.ids,
                            data.corpus.texts,
                            data.corpus.titles,
                            data.corpus.metadata,
                            strict=True,
                        )
                    )
                ),
                strict=True,
            )
        ),
        queries=data.queries.select(shuffled(data.queries.ids)),
        qrels={"train": Qrels({q: dict(shuffled(rows[q].items())) for q in shuffled(rows)})},
    )
    kwargs = {"dev_fraction": 0.2, "test_fraction": 0.3, "seed": 3, "split_by": "document"}
    one = carve(data, clusters=clusters, **kwargs)
    other = carve(turned, clusters=dict(shuffled(clusters.items())), **kwargs)
    assert one.dataset.qrels == other.dataset.qrels
    assert (one.kinds, one.why) == (other.kinds, other.why)


def unseen_count(carving, split="test"):
    return sum(kind == "unseen" for kind in carving.kinds[split].values())


def test_half_of_dev_and_of_test_is_about_documents_that_train_never_touched():
    documents = [f"d{i // 4}" for i in range(320)]  # 80 documents of 4 passages
    data = made(documents, [{i % 320} for i in range(400)])  # 5 queries each
    carving = carve(data, **SHARES)
    assert carving.rule == "document"
    assert carving.counts == {"test": 80, "dev": 40}
    assert 40 <= unseen_count(carving) <= 44  # whole documents of 5
    assert 20 <= unseen_count(carving, "dev") <= 24
    assert carving.why == (
        f"dev and test carved by document: {unseen_count(carving)} of 80 test queries are about "
        f"documents that train and dev do not touch, {80 - unseen_count(carving)} about documents "
        "that they do."
    )
    train = {data.corpus.document_of(p) for q in carving.dataset.qrels["train"].query_ids
             for p in carving.dataset.qrels["train"].relevant(q)}  # fmt: skip
    for split in ("dev", "test"):
        for query_id, kind in carving.kinds[split].items():
            (passage,) = carving.dataset.qrels[split].relevant(query_id)
            assert (data.corpus.document_of(passage) in train) == (kind == "seen")


def test_queries_of_several_documents_still_leave_unseen_ones():
    """One chain of documents, each bound to the next by a query: a single component."""
    data = made([f"d{i}" for i in range(301)], [{i, i + 1} for i in range(300)])
    carving = carve(data, **SHARES)
    assert carving.rule == "document"
    assert carving.counts == {"test": 60, "dev": 30}
    assert unseen_count(carving) >= 15


def test_near_duplicates_bind_documents_together():
    data = made([f"d{i}" for i in range(40)], [{i} for i in range(40)])
    apart = carve(data, **SHARES)
    assert unseen_count(apart) == 8
    pairs = {f"p{2 * i + 1}": f"p{2 * i}" for i in range(20)}  # each odd one copies an even one
    bound = carve(data, clusters=pairs, **SHARES)
    train = bound.dataset.qrels["train"].query_ids
    for query_id, kind in bound.kinds["test"].items():
        twin = f"q{int(query_id[1:]) ^ 1}"  # the query of the copy
        assert (kind == "seen") == (twin in train or twin in bound.kinds["dev"])
    assert {*bound.kinds["test"].values()} == {"seen", "unseen"}


def test_one_query_a_document_leaves_none_seen_and_that_is_said():
    carving = carve(made([None] * 100, [{i} for i in range(100)]), **SHARES)
    assert carving.rule == "document"
    assert unseen_count(carving) == 20
    assert "(100 of 100 documents have one query only)" in carving.why


@pytest.mark.parametrize("clusters", [None, {f"p{i}": "p0" for i in range(1, 50)}])
def test_where_no_document_can_be_held_out_queries_are_split_and_that_is_said(clusters):
    documents = ["one"] * 50 if clusters is None else [None] * 50
    data = made(documents, [{i} for i in range(50)])
    carving = carve(data, clusters=clusters, **SHARES)
    assert carving.rule == "query"
    assert carving.why == (
        "dev and test carved by query text, as documents cannot be held out (all queries are about "
        "one document, near-duplicates counted as one): 0 of 10 test queries are about documents "
        "that train and dev do not touch, 10 about documents that they do."
    )
    asked = carve(data, clusters=clusters, split_by="query", **SHARES)
    assert asked.dataset == carving.dataset
    insisted = carve(data, clusters=clusters, split_by="document", **SHARES)
    assert (insisted.rule, unseen_count(insisted)) == ("document", 0)
    assert insisted.counts == {"test": 10, "dev": 5}


def test_a_reason_is_given_for_a_test_split_of_one_query_too():
    carving = carve(made(["one"] * 6, [{i} for i in range(6)]), **{**SHARES, "dev_fraction": 0.2})
    assert (carving.rule, carving.counts) == ("query", {"test": 1, "dev": 1})
    assert "cannot be held out (all queries are about one document" in carving.why


def test_documents_too_large_to_hold_out_are_said():
    data = made(["a", "b", "c"], [{i % 3} for i in range(90)])
    carving = carve(data, **SHARES)
    assert (carving.rule, unseen_count(carving)) == ("query", 0)
    assert "takes 29 others out of train (median)" in carving.why


def test_a_dev_split_that_is_there_counts_as_touched():
    data = made([f"d{i // 2}" for i in range(100)], [{i} for i in range(100)])
    rows = dict(data.qrels["train"].grades)
    dev = {f"q{i}": rows.pop(f"q{i}") for i in range(0, 50, 2)}  # half of the first 25 documents
    data = replace(data, qrels={"train": Qrels(rows), "dev": Qrels(dev)})
    carving = carve(data, split_by="document", **SHARES)
    assert carving.dataset.qrels["dev"] == Qrels(dev)
    assert carving.counts == {"test": 15}
    assert unseen_count(carving) >= 7
    for query_id, kind in carving.kinds["test"].items():
        assert not (kind == "unseen" and int(query_id[1:]) < 50)


def test_splits_of_the_dataset_are_kept_and_told_apart():
    rows = {"q0": {"p0": 1}, "q1": {"p1": 1}, "q2": {"p2": 1, "p3": 0}, "q3": {"p4": 1, "p1": 1}}
    data = made(["a", "a", "b", "a", "c"], [{0}] * 4)
    splits = {"train": ["q0"], "dev": ["q1"], "test": ["q2", "q3"]}
    qrels = {split: Qrels({q: rows[q] for q in ids}) for split, ids in splits.items()}
    data = replace(data, qrels=qrels)
    carving = carve(data, **SHARES)
    assert (carving.dataset, carving.rule, carving.counts) == (data, "given", {})
    assert carving.why.startswith("dev and test are those of the dataset: 1 of 2 test queries are")
    assert carving.kinds == {"dev": {"q1": "seen"}, "test": {"q2": "unseen", "q3": "seen"}}
    assert seen_or_unseen(data, {"p2": "p0"}) == {"q2": "seen", "q3": "seen"}
    assert seen_or_unseen(data, split="train") == {"q0": "unseen"}
    assert seen_or_unseen(replace(data, qrels={"train": qrels["train"]})) == {}


def test_near_duplicates_of_train_positives_are_listed_and_no_error():
    data = made([None] * 6, [{0}, {1}, {2}, {3}, {0, 4}])
    rows = data.qrels["train"].grades
    qrels = {
        "train": Qrels({"q0": rows["q0"], "q1": {"p1": 1, "p5": 0}}),
        "test": Qrels({q: rows[q] for q in ("q2", "q3", "q4")}),
    }
    data = replace(data, qrels=qrels)
    check_leaks(data)
    assert near_duplicates_of_train(data, {}) == ()  # the same passage is no duplicate of itself
    assert near_duplicates_of_train(data, {"p2": "p0"}) == ("q2",)
    assert near_duplicates_of_train(data, {"p3": "p5"}) == ()  # p5 is no positive
    assert near_duplicates_of_train(data, {"p4": "p1", "p3": "p1"}) == ("q3", "q4")
    assert near_duplicates_of_train(data, {"p2": "p0"}, split="dev") == ()


def test_complete_gives_the_dataset_and_the_counts_of_carve():
    data = made([None] * 40, [{i} for i in range(40)])
    carving = carve(data, **SHARES)
    assert complete(data, **SHARES) == (carving.dataset, carving.counts)
