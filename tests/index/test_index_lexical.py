import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import LexicalIndex, LexicalSpec

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
def test_a_corpus_without_words_is_searched_without_error(texts, tmp_path):
    index = build(texts)
    index.save(tmp_path)
    for each in (index, LexicalIndex.load(tmp_path)):
        ((positions, _),) = each.search(["word"], k=3)
        assert len(positions) == 0
        assert each.scores("word").shape == (len(texts),)


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


def test_the_description_names_what_a_figure_depends_on():
    assert LexicalSpec().describe() == (
        r"BM25 (Okapi) k1=1.5 b=0.75, words \w+ lower-cased, stemmer english, stop words english"
    )
    assert PLAIN.describe().endswith("stemmer none, stop words none")


@settings(deadline=None, max_examples=25)
@given(texts=corpora, query=text, spec=specs)
def test_what_is_loaded_answers_like_what_was_saved(tmp_path_factory, texts, query, spec):
    folder = tmp_path_factory.mktemp("lexical")
    index = build(texts, spec)
    index.save(folder)
    loaded = LexicalIndex.load(folder)
    assert (loaded.ids, loaded.spec, loaded.vocabulary) == (index.ids, spec, index.vocabulary)
    for name, dtype in (("indptr", np.int64), ("passages", np.int32), ("impacts", np.float32)):
        assert getattr(loaded, name).dtype == getattr(index, name).dtype == dtype
        np.testing.assert_array_equal(getattr(loaded, name), getattr(index, name))
    np.testing.assert_array_equal(loaded.scores(query), index.scores(query))


def test_the_same_corpus_gives_the_same_bytes(tmp_path):
    texts = ["one two three", "two three four", "five"]
    for name in ("first", "second"):
        build(texts, LexicalSpec()).save(tmp_path / name)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"b": 1.5}, ["b in [0, 1]", "1.5"]),
        ({"k1": -1.0}, ["k1 >= 0", "-1.0"]),
        ({"stop_words": "klingon"}, ["'klingon'", "none, english"]),
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
