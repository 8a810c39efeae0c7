import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import LexicalIndex, LexicalSpec, RankBm25
from retrieval_ft.index.lexical import LexicalPart
from retrieval_ft.index.postings import Postings
from retrieval_ft.index.strings import Ids

WORDS = [
    "cat",
    "cats",
    "the",
    "Running",
    "runs",
    "buffer",
    "überlauf",
    "ÉCOLE",
    "數據",
    "x_1",
    "ﬁle",
]
text = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
corpora = st.lists(text, min_size=1, max_size=12)
specs = st.builds(
    LexicalSpec,
    # rank_bm25 computes 0 / 0 for absent terms where k1 = 0, and in empty passages where b = 1.
    k1=st.sampled_from([0.1, 0.9, 1.5]),
    b=st.sampled_from([0.0, 0.4, 0.75, 0.99]),
    epsilon=st.sampled_from([0.0, 0.25]),
    stemmer=st.sampled_from([None, "english"]),
    stop_words=st.sampled_from(["none", "english"]),
)
PLAIN = LexicalSpec(stemmer=None, stop_words="none")


def build(texts, spec=PLAIN, ids=None):
    return LexicalIndex.build(ids or [f"p{i}" for i in range(len(texts))], texts, spec=spec)


def sorted_brute_force(scores, ids, k):
    positions = [i for i in range(len(ids)) if scores[i] > 0]
    return sorted(positions, key=lambda i: (-scores[i], ids[i]))[:k]


@settings(deadline=None)
@given(corpora, text, specs)
def test_scores_are_those_of_rank_bm25(texts, query, spec):
    tokens = spec.tokenize(texts)
    assume(any(tokens))  # rank_bm25 divides by zero otherwise
    oracle = BM25Okapi(tokens, k1=spec.k1, b=spec.b, epsilon=spec.epsilon)
    expected = oracle.get_scores(spec.tokenize([query])[0])
    found = build(texts, spec).scores(query)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_scores_are_those_of_rank_bm25_on_a_larger_corpus():
    rng = np.random.default_rng(7)
    words = np.array([f"w{i}" for i in range(400)])
    weights = 1 / np.arange(1, 401)
    draw = [
        " ".join(rng.choice(words, rng.integers(0, 40), p=weights / weights.sum()))
        for _ in range(600)
    ]
    oracle = BM25Okapi(PLAIN.tokenize(draw))
    index = build(draw)
    for query in draw[:20]:
        expected = oracle.get_scores(query.split())
        np.testing.assert_allclose(index.scores(query), expected, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("spec", [LexicalSpec(k1=0.0), LexicalSpec(b=1.0)])
def test_scores_are_finite_at_the_ends_of_the_range(spec):
    scores = build(["cat owl", "", "dog", "elk"], spec).scores("cat dog")
    assert np.isfinite(scores).all()
    assert np.flatnonzero(scores).tolist() == [0, 2]


@settings(deadline=None)
@given(corpora, text, specs)
def test_a_text_is_scored_as_the_passage_that_it_is(texts, query, spec):
    index = build(texts, spec)
    found = index.score_texts([query] * len(texts), texts)
    np.testing.assert_allclose(found, index.scores(query), rtol=1e-5, atol=1e-6)


def test_a_text_of_unknown_words_scores_nothing():
    index = build(["cat runs", "buffer", "the cat"])
    assert index.score_texts(["cat", "dog"], ["dog", "dog"]).tolist() == [0, 0]
    assert index.score_texts([], []).shape == (0,)


def test_a_term_that_stands_twice_in_the_query_counts_twice():
    index = build(["rare word", "other", "more", "things"])
    np.testing.assert_allclose(index.scores("rare rare"), 2 * index.scores("rare"))


def test_one_score_by_the_formula():
    index = build(["a b b", "c", "d e"])
    idf = np.log(3 - 1 + 0.5) - np.log(1 + 0.5)
    saturation = 2 * (1.5 + 1) / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / 2))
    np.testing.assert_allclose(index.scores("b"), [idf * saturation, 0, 0], rtol=1e-6)


@settings(deadline=None)
@given(corpora, text, st.integers(1, 15), st.randoms(use_true_random=False))
def test_search_is_the_whole_order_cut_at_k(texts, query, k, random):
    ids = [f"p{i}" for i in range(len(texts))]
    random.shuffle(ids)
    index = build(texts, ids=ids)
    ((positions, scores),) = index.search([query], k=k)
    all_scores = index.scores(query)
    assert positions.tolist() == sorted_brute_force(all_scores, ids, k)
    assert scores.tolist() == all_scores[positions].tolist()
    assert scores.dtype == np.float32


def test_ties_at_the_last_place_go_to_the_smaller_id():
    ids = ["z", "b", "y", "a", "m", "q", "r"]
    index = build(["same text"] * 3 + ["same text", "no", "nor", "none"], ids=ids)
    # 4 of 7 passages hold both words: their idf is floored, still above 0.
    ((positions, _),) = index.search(["same"], k=2)
    assert [ids[i] for i in positions] == ["a", "b"]


@pytest.mark.parametrize("query", ["", "   ", "?!", "unknownword", "the of"])
def test_a_query_without_known_words_finds_nothing(query):
    index = build(["the cat of the house", "a dog"], LexicalSpec())
    ((positions, scores),) = index.search([query], k=5)
    assert len(positions) == len(scores) == 0
    assert not index.scores(query).any()


@pytest.mark.parametrize("texts", [[], [""], ["", "...", " "]])
def test_a_corpus_without_words_is_searched_without_error(texts):
    index = build(texts)
    ((positions, _),) = index.search(["word"], k=3)
    assert len(positions) == 0
    assert index.scores("word").shape == (len(texts),)


def test_no_queries_give_no_results():
    assert build(["a", "b"]).search([], k=3) == []


def test_k_above_the_corpus_gives_all_matches():
    ((positions, _),) = build(["cat dog", "cat owl", "fox", "elk", "hen"]).search(["cat"], k=99)
    assert positions.tolist() == [0, 1]


def test_terms_are_nfkc_casefolded_stopped_and_stemmed():
    spec = LexicalSpec()
    texts = ["The RUNNING ﬁles", "STRASSE straße", "x_1, 数据!", ""]
    assert spec.tokenize(texts) == [["run", "file"], ["strass", "strass"], ["x_1", "数据"], []]
    assert PLAIN.tokenize(["The RUNNING"]) == [["the", "running"]]


rows = st.lists(st.tuples(text, st.booleans()), max_size=6)


def in_parts(parts, spec, order):
    """An index of several segments with deletions, and one built from what lives in them."""
    ids = iter(order)
    made, live = [], []
    for part in parts:
        names = [next(ids) for _ in part]
        alive = np.array([kept for _, kept in part], bool)
        postings = Postings.build([t for t, _ in part], spec=spec)
        # As from a disk: without the table that was made while building.
        postings = Postings.of_arrays(postings.arrays())
        made.append(LexicalPart(Ids.of(names), postings, None if alive.all() else alive))
        live += [(i, t) for i, (t, kept) in zip(names, part, strict=True) if kept]
    whole = LexicalIndex.build([i for i, _ in live], [t for _, t in live], spec=spec)
    return LexicalIndex(made, spec), whole


@settings(deadline=None)
@given(
    st.lists(rows, min_size=1, max_size=4),
    st.lists(text, min_size=1, max_size=4),
    specs,
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_segments_with_deletions_answer_as_one_index_of_what_lives(parts, queries, spec, k, random):
    order = [f"p{i}" for i in range(24)]
    random.shuffle(order)
    index, whole = in_parts(parts, spec, order)
    assert (index.total, index.mean_length) == (whole.total, whole.mean_length)
    for asked in (queries, queries[:1]):
        found, expected = index.search(asked, k=k), whole.search(asked, k=k)
        for mine, theirs in zip(found, expected, strict=True):
            assert index.ids.take(mine[0]) == whole.ids.take(theirs[0])
            assert mine[1].tolist() == theirs[1].tolist()  # to the last bit
    scores = dict(zip(index.ids.tolist(), index.scores(queries[0]).tolist(), strict=True))
    expected = dict(zip(whole.ids.tolist(), whole.scores(queries[0]).tolist(), strict=True))
    assert {i: s for i, s in scores.items() if i in expected} == expected
    assert not any(score for i, score in scores.items() if i not in expected)
    np.testing.assert_array_equal(
        index.score_texts(queries, queries), whole.score_texts(queries, queries)
    )


@settings(deadline=None)
@given(st.lists(text, min_size=1, max_size=12), text, st.integers(1, 6), st.data())
def test_what_is_not_allowed_is_not_found(texts, query, k, data):
    ids = [f"p{i}" for i in range(len(texts))]
    index = build(texts)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))), bool)
    scores = index.scores(query)
    allowed = [i for i in range(len(ids)) if mask[i] and scores[i] > 0]
    expected = sorted(allowed, key=lambda i: (-scores[i], ids[i]))[:k]
    for queries in ([query], [query, query]):
        for positions, _ in index.search(queries, k=k, allowed=[mask]):
            assert positions.tolist() == expected


def test_weights_are_the_same_before_and_after_all_are_compiled():
    texts = [f"w{i % 7} w{i % 11} w{i % 3}" for i in range(60)]
    index, fresh = build(texts), build(texts)
    queries = ["w1 w2", "w3", "w5 w5 w10"]
    first = [fresh.search([query], k=60)[0] for query in queries]
    for _ in range(20):
        index.search(queries, k=60)
    assert index._weighed[0]._compiled is not None
    for query, (positions, scores) in zip(queries, first, strict=True):
        ((again, weights),) = index.search([query], k=60)
        assert (again.tolist(), weights.tolist()) == (positions.tolist(), scores.tolist())


def test_a_rare_word_is_found_as_in_the_whole_array_of_scores():
    texts = [f"common{i % 3} filler" for i in range(500)] + ["needle common0", "needle needle"]
    index = build(texts)
    for query in ("needle", "needle needle", "needle unknown"):
        ((positions, scores),) = index.search([query], k=5)
        every = index.scores(query)
        assert positions.tolist() == sorted_brute_force(every, index.ids.tolist(), 5)
        assert scores.tolist() == every[positions].tolist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"b": 1.5}, ["b in [0, 1]", "1.5"]),
        ({"k1": -1.0}, ["k1 >= 0", "-1.0"]),
        ({"stop_words": "klingon"}, ["'klingon'", "none, ", "english"]),
    ],
)
def test_a_spec_out_of_range_is_refused(arguments, words):
    with pytest.raises(ConfigError) as caught:
        LexicalSpec(**arguments)
    assert all(word in str(caught.value) for word in words)
    assert caught.value.exit_code == 2


def test_an_unknown_stemmer_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"'klingon'.*english") as caught:
        build(["a"], LexicalSpec(stemmer="klingon"))
    assert caught.value.exit_code == 2


def test_ids_and_texts_of_different_number_are_refused():
    with pytest.raises(DataError, match="2 texts under 1 ids"):
        LexicalIndex.build(["a"], ["x", "y"], spec=PLAIN)


def test_k_below_one_is_refused():
    with pytest.raises(ConfigError, match="k = 0"):
        build(["a"]).search(["a"], k=0)


@settings(deadline=None)
@given(
    st.lists(rows, min_size=1, max_size=3),
    st.lists(text, min_size=1, max_size=3),
    st.integers(1, 12),
)
def test_rank_bm25_itself_can_be_asked_for(parts, queries, k):
    index, whole = in_parts(parts, PLAIN, [f"p{i}" for i in range(18)])
    live = [t for part in parts for t, alive in part if alive]
    slow = RankBm25(index.parts, PLAIN, live)
    if any(PLAIN.tokenize(live)):
        oracle = BM25Okapi(PLAIN.tokenize(live))
        for query in queries:
            expected = oracle.get_scores(PLAIN.tokenize([query])[0]).astype(np.float32)
            alive = np.concatenate([[a for _, a in part] for part in parts]).astype(bool)
            assert slow.scores(query)[alive].tolist() == expected.tolist()
            assert not slow.scores(query)[~alive].any()
    for mine, theirs in zip(slow.search(queries, k=k), whole.search(queries, k=k), strict=True):
        np.testing.assert_allclose(mine[1], theirs[1], atol=1e-5)
        names = slow.ids.take(mine[0])
        assert names == [i for _, i in sorted(zip(-mine[1], names, strict=True))]


def test_rank_bm25_heeds_what_is_allowed():
    index = RankBm25.build(
        ["a", "b", "c", "d", "e"], ["cat", "cat", "dog", "elk", "owl"], spec=PLAIN
    )
    ((positions, _),) = index.search(["cat dog"], k=5, allowed=[np.array([0, 1, 1, 1, 1], bool)])
    assert positions.tolist() == [2, 1]
    assert RankBm25.build([], [], spec=PLAIN).search(["cat"], k=2)[0][0].tolist() == []
