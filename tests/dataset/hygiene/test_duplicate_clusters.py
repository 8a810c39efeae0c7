import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset import Corpus
from retrieval_ft.dataset.hygiene import clusters, duplicates
from retrieval_ft.dataset.hygiene.duplicates import MIN_WORDS, banding

VOCABULARY = [a + b for a in ("ka", "lo", "mi", "ne", "ru") for b in ("p", "s", "t", "v", "x", "z")]
SENTENCE = " ".join(f"word{i}" for i in range(30))


def corpus_of(texts, titles=None):
    ids = tuple(f"p{i}" for i in range(len(texts)))
    return Corpus(ids, tuple(texts), tuple(titles or [""] * len(texts)))


def partition(found, ids):
    groups = {}
    for passage_id in ids:
        groups.setdefault(found.representative(passage_id), set()).add(passage_id)
    return {frozenset(group) for group in groups.values()}


def oracle_pairs(texts, jaccard):
    """Every pair that says the same, by comparing all with all."""
    words = [text.split() for text in texts]
    sets = [{tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in words]
    for i, j in itertools.combinations(range(len(texts)), 2):
        long = min(len(words[i]), len(words[j])) >= MIN_WORDS
        near = long and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= jaccard
        if near or texts[i] == texts[j]:
            yield i, j


def components(count, pairs):
    group = {i: {i} for i in range(count)}
    for i, j in pairs:
        if group[i] is not group[j]:
            group[i] |= group[j]
            for member in group[j]:
                group[member] = group[i]
    return {frozenset(f"p{i}" for i in members) for members in group.values()}


def edited(generator, words):
    """A copy with up to three words put in, taken out or changed."""
    words = list(words)
    for _ in range(generator.randrange(4)):
        place = generator.randrange(len(words))
        words[place : place + generator.randrange(2)] = generator.choices(
            VOCABULARY, k=generator.randrange(2)
        )
    return words


def family_texts(seed, families, copies, length):
    generator = random.Random(seed)
    texts = []
    for _ in range(families):
        base = generator.choices(VOCABULARY, k=length)
        texts += [" ".join(edited(generator, base)) for _ in range(copies)]
    generator.shuffle(texts)
    return texts


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    families=st.integers(0, 4),
    copies=st.integers(1, 5),
    length=st.integers(15, 80),
    jaccard=st.sampled_from([0.5, 0.8, 0.95, 1.0]),
)
def test_nothing_is_joined_that_comparing_all_with_all_would_not_join(
    seed, families, copies, length, jaccard
):
    texts = family_texts(seed, families, copies, length)
    corpus = corpus_of(texts)
    found = partition(clusters(corpus, jaccard=jaccard), corpus.ids)
    truth = components(len(texts), oracle_pairs(texts, jaccard))
    assert all(any(group <= whole for whole in truth) for group in found)


@pytest.mark.parametrize("jaccard", [0.5, 0.8, 0.95])
def test_the_pairs_that_comparing_all_with_all_finds_are_found(jaccard):
    texts = family_texts(7, families=60, copies=5, length=90)
    corpus = corpus_of(texts)
    found = clusters(corpus, jaccard=jaccard)
    truth = list(oracle_pairs(texts, jaccard))
    together = [found.representative(f"p{i}") == found.representative(f"p{j}") for i, j in truth]
    assert len(truth) > 50
    assert sum(together) >= 0.995 * len(truth)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.randoms(use_true_random=False))
def test_the_order_of_the_corpus_does_not_change_the_clusters(seed, order):
    corpus = corpus_of(family_texts(seed, families=4, copies=6, length=60))
    rows = list(range(len(corpus)))
    order.shuffle(rows)
    moved = Corpus(
        tuple(corpus.ids[i] for i in rows), tuple(corpus.texts[i] for i in rows), corpus.titles
    )
    one, other = (clusters(c, jaccard=0.8) for c in (corpus, moved))
    assert partition(one, corpus.ids) == partition(other, corpus.ids)


def test_a_wide_bucket_does_not_depend_on_the_order_either():
    words = SENTENCE.split()
    texts = [" ".join([*words, f"a{i}", f"b{i // 2}", f"c{i // 4}"]) for i in range(300)]
    corpus = corpus_of(texts)
    back = Corpus(corpus.ids[::-1], corpus.texts[::-1], corpus.titles)
    one, other = (clusters(c, jaccard=0.85) for c in (corpus, back))
    assert partition(one, corpus.ids) == partition(other, corpus.ids)


@pytest.mark.parametrize("count", [0, 1])
def test_no_passage_or_one_has_no_duplicate(count):
    found = clusters(corpus_of([SENTENCE] * count), jaccard=0.9)
    assert found.duplicates == ()
    assert found.members == {}


def test_case_space_and_width_do_not_part_equal_passages():
    texts = ["The  Red\nFOX", "the red fox", "\uff54\uff48\uff45 red fox", "the red fox."]
    found = clusters(corpus_of(texts), jaccard=0.95)
    assert found.members == {"p0": ("p0", "p1", "p2")}
    assert all(d.equal and d.jaccard == 1 for d in found.duplicates)


def test_title_and_text_are_compared_as_they_are_searched():
    found = clusters(corpus_of(["red fox", "fox", "red fox"], ["the", "the red", "a"]), jaccard=0.9)
    assert found.members == {"p0": ("p0", "p1")}


def test_short_passages_have_only_equal_duplicates():
    words = [f"w{i}" for i in range(MIN_WORDS - 1)]
    short = [" ".join(words), " ".join([*words[:-1], "other"]), " ".join(words)]
    found = clusters(corpus_of(short), jaccard=0.5)
    assert found.members == {"p0": ("p0", "p2")}
    longer = [text + " end" for text in short]
    assert clusters(corpus_of(longer), jaccard=0.5).members == {"p0": ("p0", "p1", "p2")}


def test_the_threshold_itself_counts_and_the_similarity_is_said():
    # 3-grams of the two: 28 and 29, all of the first in the second.
    texts = [SENTENCE, SENTENCE + " more"]
    (found,) = clusters(corpus_of(texts), jaccard=28 / 29).duplicates
    assert (found.passage_id, found.representative, found.equal) == ("p1", "p0", False)
    assert found.jaccard == 28 / 29
    assert clusters(corpus_of(texts), jaccard=28 / 29 + 1e-9).duplicates == ()


def test_a_script_without_spaces_is_compared_by_characters():
    letters = [chr(0x4E00 + i) for i in range(60)]
    texts = ["".join(letters), "".join([*letters[:-1], "文"]), "".join(letters[::-1])]
    assert clusters(corpus_of(texts), jaccard=0.9).members == {"p0": ("p0", "p1")}


def test_a_labelled_passage_stands_for_its_cluster():
    corpus = corpus_of(["a b", "A B", "a  b", "c"])
    assert clusters(corpus, jaccard=0.9).members == {"p0": ("p0", "p1", "p2")}
    found = clusters(corpus, jaccard=0.9, labelled={"p1", "p2", "p3"})
    assert found.members == {"p1": ("p1", "p0", "p2")}
    assert [found.representative(p) for p in corpus.ids] == ["p1", "p1", "p1", "p3"]


@pytest.mark.parametrize("jaccard", [0.05, 0.3, 0.5, 0.8, 0.9, 0.95, 1.0])
def test_the_recall_of_the_banding_is_its_formula(jaccard):
    rows, recall = banding(jaccard)
    assert recall == pytest.approx(1 - (1 - jaccard**rows) ** (128 // rows))
    assert recall >= 0.998
    assert clusters(corpus_of([SENTENCE]), jaccard=jaccard).recall == recall


class Counted:
    """The real comparison, counted."""

    def __init__(self, compare):
        self.compare, self.calls = compare, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.compare(*arguments)


@pytest.mark.parametrize(
    ("make", "clusters_wanted"),
    [
        (lambda i: SENTENCE, 1),
        (lambda i: f"{SENTENCE} {SENTENCE[::-1]} n{i}", 1),
        (lambda i: f"m{i} {SENTENCE.replace('word9 ', f'k{i} ')} n{i}", 0),
    ],
    ids=["equal", "nearly equal", "alike but under the threshold"],
)
def test_thousands_of_like_passages_take_linear_work(make, clusters_wanted, monkeypatch):
    count = 2_000
    counted = Counted(duplicates._alike)
    monkeypatch.setattr(duplicates, "_alike", counted)
    found = clusters(corpus_of([make(i) for i in range(count)]), jaccard=0.95)
    assert len(found.members) == clusters_wanted
    bands = 128 // banding(0.95)[0]
    assert counted.calls <= count * duplicates._WINDOW * bands < count * count
