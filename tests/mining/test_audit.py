import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy.stats import binomtest

from retrieval_ft.dataset import Corpus, Negative, Pair, Pairs, Queries
from retrieval_ft.mining.audit import audit, wilson
from retrieval_ft.mining.audit_report import audit_markdown, draw, table_text

RANDOM = np.array([0.1, 0.2, 0.2, 0.3], np.float32)


def some(count, *, seed=0, negatives=3, teacher=None):
    """`count` queries with one positive each and negatives from the other passages."""
    generator = np.random.default_rng(seed)
    items = []
    for i in range(count):
        others = [f"p{j}" for j in generator.permutation(count + negatives) if j != i]
        scores = np.sort(generator.uniform(0.2, 0.8, negatives))[::-1].tolist()
        found = zip(others, scores, strict=False)
        made = tuple(Negative(p, s, 1, None, teacher) for p, s in found)
        items.append(Pair(f"q{i}", f"p{i}", float(generator.uniform(0.5, 1)), made, teacher))
    return Pairs(tuple(items), {"over_margin": 3})


def run(pairs, *, scorer=None, sample=200, seed=0, queries=None, texts=None, views=None):
    ids = sorted(
        {p.positive_id for p in pairs.items}
        | {n.passage_id for p in pairs.items for n in p.negatives}
    )
    texts = texts or {p: f"passage {p}" for p in ids}
    names = tuple(dict.fromkeys(p.query_id for p in pairs.items))
    return audit(
        pairs,
        random_scores=RANDOM,
        queries=Queries(names, tuple((queries or {}).get(q, f"query {q}") for q in names)),
        corpus=Corpus(tuple(texts), tuple(texts.values()), ("",) * len(texts)),
        scorer=scorer,
        sample=sample,
        seed=seed,
        views=views,
    )


class Judge:
    """A positive (of the same number as its query) scores 0, the passages in `false` 5, others -5."""

    def __init__(self, false=()):
        self.false, self.asked = set(false), []

    def __call__(self, queries, passages):
        self.asked += list(zip(queries, passages, strict=True))
        return np.array(
            [self.score(q, p) for q, p in zip(queries, passages, strict=True)], np.float32
        )

    def score(self, query, passage):
        passage_id = passage.split()[1]
        if passage_id[1:] == query.split()[1][1:]:
            return 0.0
        return 5.0 if passage_id in self.false else -5.0


# --- the table ----------------------------------------------------------------------------------


def test_the_table_is_the_one_that_sentence_transformers_prints(model_folder, capsys):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    data = tiny.dataset()
    queries = data.queries_of("train")
    passages = dict(zip(data.corpus.ids, data.corpus.texts, strict=True))
    rows = [(q, passages[min(data.qrels["train"].relevant(q))]) for q in queries.ids[:9]]
    mined = mine_hard_negatives(
        Dataset.from_dict(
            {"query": [queries.text_of[q] for q, _ in rows], "answer": [p for _, p in rows]}
        ),
        SentenceTransformer(str(model_folder), device="cpu"),
        corpus=list(passages.values()),
        num_negatives=3,
        range_max=10,
        output_format="n-tuple",
        output_scores=True,
    )
    printed = capsys.readouterr().out
    items = []
    for i, row in enumerate(mined):
        positive, *scores = row["scores"]
        made = tuple(Negative(f"n{i}{j}", score, 1, None) for j, score in enumerate(scores))
        items.append(Pair(f"q{i}", f"p{i}", positive, made))
    table = table_text(run(Pairs(tuple(items))).table)
    assert len(items) == 9
    assert table.splitlines() == [
        line.rstrip()
        for line in printed.splitlines()[
            printed.splitlines().index("Metric       Positive       Negative     Difference") :
        ][:10]
    ]


@given(st.lists(st.lists(st.floats(-1, 1), max_size=4), max_size=5))
@settings(max_examples=50, deadline=None)
def test_each_row_is_its_formula_over_all_pairs(scores):
    items = tuple(
        Pair(
            f"q{i}",
            "p",
            0.5 + i / 100,
            tuple(Negative(f"n{j}", x, 1, None) for j, x in enumerate(row)),
        )
        for i, row in enumerate(scores)
    )
    rows = {row.metric: row for row in run(Pairs(items)).table}
    positives = [p.positive_score for p in items]
    negatives = [n.score for p in items for n in p.negatives]
    assert (rows["Count"].positive, rows["Count"].negative) == (len(positives), len(negatives))
    assert rows["Count"].difference is None
    differences = [p.positive_score - n.score for p in items for n in p.negatives]
    if negatives:
        assert rows["Mean"].difference == pytest.approx(np.mean(differences))
        assert rows["25%"].negative == pytest.approx(np.percentile(negatives, 25))
        assert (rows["Min"].negative, rows["Max"].negative) == (min(negatives), max(negatives))
    else:
        assert rows["Mean"].negative is rows["Max"].difference is None
    if len(positives) > 1:
        assert rows["Std"].positive == pytest.approx(np.sqrt(np.var(positives, ddof=1)))
    else:
        assert rows["Std"].positive is None


# --- the histogram ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 30])
def test_every_score_stands_in_one_bin(count):
    pairs = some(count)
    found = run(pairs).histogram
    assert sum(found.positive) == count
    assert sum(found.negative) == 3 * count
    assert sum(found.random) == len(RANDOM)
    assert len(found.edges) == len(found.positive) + 1
    for p in pairs.items[:1]:
        bin_ = np.searchsorted(found.edges, p.positive_score, side="right") - 1
        assert found.positive[min(bin_, len(found.positive) - 1)] >= 1


def test_the_drawing_has_the_same_bytes_twice(tmp_path):
    found = run(some(30)).histogram
    draw(found, tmp_path / "a.svg")
    draw(found, tmp_path / "b.svg")
    first = (tmp_path / "a.svg").read_bytes()
    assert first == (tmp_path / "b.svg").read_bytes()
    assert first.startswith(b"<?xml")
    draw(run(some(0)).histogram, tmp_path / "empty.svg")


# --- the rate of false negatives ----------------------------------------------------------------


@given(st.integers(0, 300), st.data())
def test_the_interval_is_wilsons(total, data):
    found = data.draw(st.integers(0, total))
    if total == 0:
        assert wilson(0, 0) == (0, 1)
        return
    wanted = binomtest(found, total).proportion_ci(0.95, method="wilson")
    assert wilson(found, total) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    low, high = wilson(found, total)
    assert 0 <= low <= found / total <= high <= 1


def test_a_negative_over_its_positive_and_the_median_counts_as_false():
    pairs = some(40, negatives=1)
    false = {pairs.items[i].negatives[0].passage_id for i in range(0, 40, 4)}
    truth = sum(p.negatives[0].passage_id in false for p in pairs.items)
    found = run(pairs, scorer=Judge(false)).false_negatives
    assert (found.sampled, found.found) == (40, truth)
    assert found.rate == truth / 40
    assert (found.low, found.high) == wilson(truth, 40)


def test_a_positive_that_the_cross_encoder_rejects_makes_no_false_negative():
    pairs = some(9, negatives=1)

    class Rejects(Judge):
        def score(self, query, passage):
            if query == "query q0":
                return -9.0 if passage == "passage p0" else -8.0
            return super().score(query, passage)

    assert run(pairs, scorer=Rejects()).false_negatives.found == 0


def test_one_negative_of_each_sampled_pair_is_scored():
    scorer = Judge()
    found = run(some(50), scorer=scorer, sample=12).false_negatives
    assert found.sampled == 12
    assert len(scorer.asked) == len(set(scorer.asked)) == 24
    assert set(Counter(query for query, _ in scorer.asked).values()) == {2}


def test_a_view_is_scored_and_shown_in_place_of_the_passage():
    class Sees(Judge):
        def score(self, query, passage):
            return 1.0 if passage == "the rest" else -1.0

    pairs = some(1, negatives=1)
    done = run(pairs, scorer=Sees(), views={"q0": {"p0": "the rest"}})
    assert (done.examples[0].positive, done.examples[0].positive_teacher) == ("the rest", 1.0)


@pytest.mark.parametrize(
    ("scorer", "sample", "count"), [(None, 9, 5), (Judge(), 0, 5), (Judge(), 9, 0)]
)
def test_what_was_not_measured_is_said_with_the_remedy(scorer, sample, count):
    done = run(some(count), scorer=scorer, sample=sample)
    assert done.false_negatives is None
    text = audit_markdown(done)
    assert "False negatives: not measured." in text
    assert "`mining.cross_encoder`" in text


def test_a_rate_after_denoising_is_said_to_be_one():
    text = audit_markdown(run(some(9, teacher=1.0), scorer=Judge()))
    assert "had been denoised" in text
    assert "had been denoised" not in audit_markdown(run(some(9), scorer=Judge()))


def test_the_rate_is_told_with_its_interval_and_its_rule():
    pairs = some(200, negatives=1)
    done = run(pairs, scorer=Judge({p.negatives[0].passage_id for p in pairs.items[:30]}))
    rate = done.false_negatives
    text = audit_markdown(done)
    assert f"{rate.rate:.1%} (95% interval {rate.low:.1%} to {rate.high:.1%})" in text
    assert f"{rate.found} of 200 sampled negatives" in text
    assert "above the positive it was mined for" in text


# --- the examples -------------------------------------------------------------------------------


def test_twenty_examples_are_of_three_kinds_and_twenty_queries():
    done = run(some(60), scorer=Judge())
    assert Counter(e.kind for e in done.examples) == {"suspicious": 7, "hardest": 7, "typical": 6}
    assert len({e.query_id for e in done.examples}) == 20


def test_fewer_queries_give_fewer_examples():
    assert len(run(some(5)).examples) == 5
    assert run(some(0)).examples == ()


def test_the_suspicious_are_those_that_beat_their_positive_most():
    pairs = some(60, negatives=1)
    false = {pairs.items[i].negatives[0].passage_id for i in (3, 4)}
    held = {p.query_id for p in pairs.items if p.negatives[0].passage_id in false}
    done = run(pairs, scorer=Judge(false))
    shown = [e.query_id for e in done.examples if e.kind == "suspicious"]
    assert held <= set(shown[: len(held)])
    without = [e for e in run(pairs).examples if e.kind == "suspicious"]
    most = sorted(p.positive_score - p.negatives[0].score for p in pairs.items)[:7]
    assert [e.positive_score - e.negative_score for e in without] == pytest.approx(most)


def test_the_hardest_have_the_highest_cosines():
    done = run(some(60, negatives=2))
    taken = {e.query_id for e in done.examples if e.kind == "suspicious"}
    best = sorted(
        (
            max(n.score for n in p.negatives)
            for p in some(60, negatives=2).items
            if p.query_id not in taken
        ),
        reverse=True,
    )
    assert [e.negative_score for e in done.examples if e.kind == "hardest"] == best[:7]


def test_the_same_seed_gives_the_same_audit_and_another_seed_other_examples():
    pairs = some(80)
    first, again, other = (
        json.dumps(asdict(run(pairs, scorer=Judge(), sample=40, seed=s))) for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


NASTY = st.text(
    st.sampled_from("ab \n\t*_`[]()<>#|~&;$!\\-+.1é漢"), min_size=1, max_size=40
) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@given(NASTY, NASTY)
@settings(max_examples=100, deadline=None)
def test_no_text_is_taken_for_markup(query, passage):
    done = run(
        some(1, negatives=1),
        queries={"q0": query},
        texts={f"p{i}": passage for i in range(2)},
    )
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(audit_markdown(done))
    words = [
        "".join(child.content for child in token.children)
        for token in tokens
        if token.type == "inline"
    ]
    kinds = {child.type for token in tokens if token.type == "inline" for child in token.children}
    assert f"query q0: {' '.join(query.split())}".strip() in words
    assert f"positive p0: {' '.join(passage.split())}".strip() in words
    assert kinds <= {"text", "text_special", "code_inline", "strong_open", "strong_close"}


def test_long_texts_are_cut():
    done = run(some(1, negatives=1), texts={f"p{i}": "字" * 1000 for i in range(2)})
    assert len(done.examples[0].positive) == 280
    assert done.examples[0].positive.endswith("…")


def test_the_figure_and_the_dropped_are_shown():
    text = audit_markdown(run(some(3)), figure="scores.svg")
    assert "](scores.svg)" in text
    assert "Dropped candidates: over\\_margin 3." in text
