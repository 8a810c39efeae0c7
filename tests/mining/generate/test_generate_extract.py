import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import ChunkingConfig, PairsConfig
from retrieval_ft.dataset import Corpus, Document, Link, Section
from retrieval_ft.dataset.chunking import Chunker, collect
from retrieval_ft.mining.generate import GeneratedPair, extract
from retrieval_ft.mining.generate.extract import MAX_PASSAGES, MIN_VIEW_WORDS
from retrieval_ft.mining.generate.words import count_words

BOATS = "Boats sail on the wide lake at dawn. Crews count every rope twice before noon."
KITES = "Kites fly over the old harbour in spring. Children hold the strings with both hands."
RIVERS = "Rivers close the low road in a wet year. Drivers wait at the gate for days."


def rows(*passages):
    """A corpus of plain (id, title, text) rows."""
    ids, titles, texts = zip(*passages, strict=True)
    return Corpus(ids, texts, titles)


def chunked(*documents, tokens=40):
    """The passages that the chunker makes of documents; a word is a token."""

    def offsets(texts):
        spans = ([match.span() for match in re.finditer(r"\w+|[^\w\s]", text)] for text in texts)
        return [np.array(list(found), np.int64).reshape(-1, 2) for found in spans]

    return collect(Chunker(offsets, config=ChunkingConfig(tokens=tokens)).chunk(documents))


def document(name, title, *sections):
    found = tuple(Section(headings, text) for headings, text in sections)
    return Document(f"{name}.md", title, found, where=f"{name}.md")


def of(corpus, *kinds, links=(), seed=1, **config):
    config = {"per_passage": 9, "max_pairs": 1000, **config}
    return extract(corpus, PairsConfig(kinds=kinds, **config), seed=seed, links=links)


def queries(extraction):
    return {(pair.query, pair.passage_id) for pair in extraction.pairs}


def test_a_title_finds_its_text_without_the_title():
    made = of(rows(("a", "Morning sailing", BOATS), ("b", "", KITES)), "title")
    assert made.pairs == (GeneratedPair("Morning sailing", "a", "title", BOATS),)


@pytest.mark.parametrize("repeat", ["Morning Sailing\n", "morning sailing. ", "Morning sailing:"])
def test_a_text_that_begins_with_its_title_loses_that_line(repeat):
    made = of(rows(("a", "Morning sailing", repeat + BOATS)), "title")
    assert made.pairs[0].view == BOATS


def test_a_title_that_begins_the_first_sentence_stays_in_it():
    text = "Morning sailing is slow. " + BOATS
    assert of(rows(("a", "Morning sailing", text)), "title").pairs[0].view == text


def test_titles_that_are_no_queries_are_counted_by_reason():
    made = of(
        rows(
            ("a", "docs/boats.md", BOATS),
            ("b", "Sailing", KITES),
            ("c", "Release notes", RIVERS),
            ("d", "Wet years", "Too short to learn from."),
        ),
        "title",
    )
    assert made.pairs == ()
    assert made.account == {
        "title": {"no_words": 1, "path": 1, "too_short": 1, "view_too_short": 1}
    }


def test_titles_and_headings_of_documents_go_to_the_first_passage_under_them():
    text = f"{BOATS} {KITES} {RIVERS}"
    corpus = chunked(
        document("a", "Harbour handbook", ((), text), (("Sailing", "Wet years"), text)), tokens=26
    )
    first = next(i for i, m in enumerate(corpus.metadata) if m["headings"])
    assert first > 1  # the section before has more than one passage
    assert len(corpus) > first + 1
    assert queries(of(corpus, "title", "heading")) == {
        ("Harbour handbook", corpus.ids[0]),
        ("Wet years", corpus.ids[first]),
    }


@pytest.mark.parametrize(
    ("headings", "query"),
    [
        (("Sailing", "Overview"), "Sailing Overview"),
        (("Sailing", "Notes", "Overview"), "Sailing Notes Overview"),
        (("Sailing", "3.2 Wet years"), "Wet years"),
        (("Overview",), "Harbour handbook Overview"),
        (("Sailing",), "Harbour handbook Sailing"),
    ],
)
def test_a_heading_that_says_little_comes_with_the_one_above(headings, query):
    made = of(chunked(document("a", "Harbour handbook", (headings, BOATS))), "heading")
    assert [(pair.query, pair.view) for pair in made.pairs] == [(query, BOATS)]


def test_a_generic_heading_alone_is_no_query():
    made = of(chunked(document("a", "", (("Overview",), BOATS))), "heading")
    assert made.account == {"heading": {"no_words": 1}}


def test_joined_sections_are_found_by_the_heading_of_the_first():
    corpus = chunked(
        document("a", "Handbook", (("Wet years",), "Rivers rise fast."), (("Dry years",), BOATS)),
        tokens=100,
    )
    assert corpus.titles == ("Handbook > Wet years / Dry years",)
    assert queries(of(corpus, "title", "heading")) == {("Wet years", "a.md")}


def test_the_first_sentence_finds_title_and_rest():
    first, rest = BOATS.split(". ")
    made = of(rows(("a", "Sail", BOATS + " " + KITES)), "first_sentence")
    view = f"Sail {rest} {KITES}"
    assert made.pairs == (GeneratedPair(first + ".", "a", "first_sentence", view),)


def test_a_crop_is_no_first_sentence_and_is_gone_from_the_view():
    passages = [(f"p{i}", "Lake", f"{BOATS} {KITES} Wave {i} is seen far away.") for i in range(30)]
    made = of(rows(*passages), "crop")
    assert queries(made) == {(f"Wave {i} is seen far away.", f"p{i}") for i in range(30)}
    assert {pair.view for pair in made.pairs} == {f"Lake {BOATS} {KITES}"}


def test_a_sentence_of_two_passages_is_no_query():
    text = "Crews count every rope twice before noon. "
    made = of(rows(("a", "", text + KITES), ("b", "", text + RIVERS)), "first_sentence")
    assert made.account == {"first_sentence": {"repeated": 2}}


@pytest.mark.parametrize("count", [MAX_PASSAGES, MAX_PASSAGES + 1])
def test_a_title_of_few_passages_goes_to_each_and_of_more_to_none(count):
    passages = [(f"p{i}", "wet  YEARS" if i else "Wet years", RIVERS) for i in range(count)]
    made = of(rows(*passages), "title", per_passage=1)
    if count > MAX_PASSAGES:
        assert made.account == {"title": {"ambiguous": count}}
    else:
        assert {pair.passage_id for pair in made.pairs} == {f"p{i}" for i in range(count)}


def test_a_shared_query_is_taken_with_all_its_passages_or_not_at_all():
    one, two = ("a", "Wet years", RIVERS + " " + BOATS), ("b", "Wet years", RIVERS + " " + KITES)
    for seed in range(20):
        made = of(rows(one, two), "title", "crop", "first_sentence", per_passage=1, seed=seed)
        titles = [pair for pair in made.pairs if pair.kind == "title"]
        assert len(titles) in (0, 2)
    many = [(f"t{i}", f"Lake {i // 2} at dawn", f"Wave {i}. {BOATS}") for i in range(40)]
    made = of(rows(*many), "title", max_pairs=11)
    assert len(made.pairs) == 10
    assert made.account["title"]["over_max_pairs"] > 0


LINKED = chunked(
    document(
        "a",
        "Harbour handbook",
        ((), f"See the rules for wet years and here. {BOATS}"),
        (("Wet years",), f"{RIVERS} More on wet years below."),
    ),
    document("b", "Kite flying rules", ((), KITES)),
)


def link(text, target, *, source="a.md"):
    return [(source, [Link(text, target)])]


@pytest.mark.parametrize(
    ("given_link", "found"),
    [
        (link("rules for kites", "b.md"), ("rules for kites", "b.md", None)),
        # words of the title: the title is taken out, or finding it would teach nothing
        (link("flying kite", "b.md"), ("flying kite", "b.md", KITES)),
        (
            link("rules for floods", "a.md#wet-years", source="b.md"),
            ("rules for floods", "a.md#2", None),
        ),
        (link("rules for floods", "#wet-years"), ("rules for floods", "a.md#2", None)),
    ],
)
def test_the_words_of_a_link_find_what_it_leads_to(given_link, found):
    made = of(LINKED, "link", links=given_link)
    assert [(pair.query, pair.passage_id, pair.view) for pair in made.pairs] == [found]


@pytest.mark.parametrize(
    ("given_link", "reason"),
    [
        (link("here", "b.md"), "generic"),
        (link("read more here", "b.md"), "generic"),
        (link("https://example.org/b", "b.md"), "generic"),
        (link("kite", "b.md"), "generic"),
        (link("rules for kites", "https://example.org/b"), "external"),
        (link("rules for kites", "c.md"), "unknown_target"),
        (link("rules for kites", "b.md#none-such"), "unknown_target"),
        (link("wet years", "a.md#wet-years"), "own_passage"),
    ],
)
def test_links_that_give_no_pair_are_counted_by_reason(given_link, reason):
    made = of(LINKED, "link", links=given_link)
    assert made.pairs == ()
    assert made.account == {"link": {reason: 1}}


def test_the_words_that_most_links_use_are_taken():
    links = [
        *link("flying in wind", "b.md"),
        *link("rules for kites", "b.md") * 2,
        *link("paper kites", "b.md"),
    ]
    made = of(LINKED, "link", links=links)
    assert queries(made) == {("rules for kites", "b.md")}
    assert made.account["link"] == {"other_words": 2, "taken": 1}


def library(count):
    """Documents of five passages with titles, headings and sentences of their own."""
    return [
        document(
            f"d{n:03d}",
            f"Harbour number {n}",
            ((), f"Boat {n} sails at dawn with the tide. Crew {n} counts each rope before noon."),
            *(
                (
                    (f"Rule {k} of pier {n}",),
                    f"Gate {n} of yard {k} opens in the morning. "
                    f"A guard of gate {n} and yard {k} notes who comes.",
                )
                for k in range(4)
            ),
        )
        for n in range(count)
    ]


KINDS = ("title", "heading", "first_sentence", "crop")


def test_passages_give_no_more_than_asked_and_every_kind_has_its_turn():
    corpus = chunked(*library(40), tokens=34)
    made = of(corpus, *KINDS, per_passage=1)
    assert len(made.pairs) == len(corpus) == 200
    assert set(Counter(pair.passage_id for pair in made.pairs).values()) == {1}
    kinds = Counter(pair.kind for pair in made.pairs)
    assert min(kinds[kind] for kind in KINDS) > 5
    assert {kind: kinds[kind] for kind in KINDS} == {k: made.account[k]["taken"] for k in KINDS}
    # Whatever might have been a pair is in the account: 3 or more kinds a passage.
    assert sum(n for outcomes in made.account.values() for n in outcomes.values()) == 40 * 5 * 3


def test_documents_take_turns_until_there_are_enough_pairs():
    made = of(chunked(*library(20), tokens=34), *KINDS, per_passage=1, max_pairs=30)
    assert len(made.pairs) == 30
    assert made.passages == 100
    assert made.passages_over_max_pairs == 70
    by_document = Counter(pair.passage_id.split("#")[0] for pair in made.pairs)
    assert len(by_document) == 20
    assert set(by_document.values()) == {1, 2}


def test_pairs_hang_neither_on_the_order_of_the_corpus_nor_on_other_documents():
    documents = library(12)
    small, same = chunked(*documents, tokens=34), chunked(*documents[::-1], tokens=34)
    assert of(small, *KINDS, per_passage=2) == of(same, *KINDS, per_passage=2)
    bigger = chunked(*documents, *library(13)[12:], tokens=34)
    before = of(small, *KINDS, per_passage=2).pairs
    after = of(bigger, *KINDS, per_passage=2).pairs
    assert [pair for pair in after if not pair.passage_id.startswith("d012")] == list(before)
    assert (
        of(small, *KINDS, per_passage=1, seed=2).pairs
        != of(small, *KINDS, per_passage=1, seed=3).pairs
    )


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "Wet years", "Lake", "a/b.md", "é 你好 dawn"]),
            st.lists(
                st.sampled_from(
                    ["", "Yes.", *BOATS.split(". "), *KITES.split(". "), "\u00a0.\n- x"]
                )
            ).map(". ".join),
        ),
        max_size=8,
    ),
    st.integers(0, 3),
)
def test_any_corpus_gives_pairs_that_keep_the_rules(passages, seed):
    ids = tuple(f"p{i}" for i in range(len(passages)))
    corpus = Corpus(ids, tuple(x for _, x in passages), tuple(t for t, _ in passages))
    made = of(corpus, *KINDS, per_passage=2, seed=seed)
    assert made == of(corpus, *KINDS, per_passage=2, seed=seed)
    assert len({(pair.query, pair.passage_id) for pair in made.pairs}) == len(made.pairs)
    taken = sum(outcomes.get("taken", 0) for outcomes in made.account.values())
    assert taken == len(made.pairs)
    for pair in made.pairs:
        assert pair.view is not None
        assert count_words(pair.view) >= MIN_VIEW_WORDS
        assert pair.query == " ".join(pair.query.split())
