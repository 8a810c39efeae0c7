import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import ChunkingConfig
from retrieval_ft.dataset import Document, Section
from retrieval_ft.dataset.chunking import Chunker, collect, fast_offsets
from retrieval_ft.dataset.sentences import _plain_ends, sentence_spans
from retrieval_ft.errors import DataError, DependencyError


def by(pattern):
    """A tokenizer whose tokens are the matches of a pattern."""

    def offsets(texts):
        return [
            np.array([m.span() for m in re.finditer(pattern, text)], np.int64).reshape(-1, 2)
            for text in texts
        ]

    return offsets


words = by(r"\S+")
letters = by(r"\S")
spaced = by(r"\s*\S+")
"""As byte-level models cut: the white space before a word is part of its token."""


def grudging(texts):
    """A tokenizer whose counts do not add up: the first word of a text takes three tokens."""
    return [np.concatenate([o[:1], o[:1], o]) if len(o) else o for o in words(texts)]


TOKENIZERS = {"words": words, "letters": letters, "spaced": spaced, "grudging": grudging}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tiny.bert_folder(tmp_path_factory.mktemp("bert"))
    return AutoTokenizer.from_pretrained(folder)


def document(*sections, title="", id="d", **metadata):
    """Sections are texts, or (headings..., text)."""
    rows = [(s,) if isinstance(s, str) else s for s in sections]
    return Document(
        id=id,
        title=title,
        sections=tuple(Section(tuple(row[:-1]), row[-1]) for row in rows),
        where=f"{id}.md",
        metadata=metadata,
    )


def cut(*documents, offsets=words, tokens=16, overlap=0):
    chunker = Chunker(offsets, config=ChunkingConfig(tokens=tokens, overlap=overlap))
    return list(chunker.chunk(documents)), chunker.account


def sentences(count, size, *, word="word"):
    return " ".join(f"{word}{i} {'and ' * (size - 2)}end." for i in range(count))


def size(passage, offsets=words):
    return len(offsets([f"{passage.title} {passage.text}".strip()])[0])


def without_space(text):
    return "".join(text.split())


def fresh_texts(passages):
    """The texts of a document's passages without what repeats the one before."""
    end = 0
    for passage in passages:
        start, last = passage.metadata["span"]
        yield passage.text[max(end - start, 0) :]
        end = last


prose = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            ["Dr. A. ", "One two. ", "そう。です。", "\n\n", "\n- item", "x" * 50, "🙂 ", "3.14? "]
        ),
        st.integers(1, 30).map(lambda n: "many " * n + "words. "),
    ),
    max_size=8,
).map("".join)
heading = st.sampled_from(["A", "B", "Über uns", " \n", "long heading of several words", "T"])
documents = st.builds(
    lambda title, rows: Document("d", title, tuple(Section(tuple(h), t) for h, t in rows), "d.md"),
    st.sampled_from(["", "T", "t", "A  title\twith words " * 8]),
    st.lists(st.tuples(st.lists(heading, max_size=3), prose), max_size=6),
)


@settings(max_examples=150, deadline=None)
@given(documents, st.sampled_from(sorted(TOKENIZERS)), st.integers(16, 40), st.integers(0, 20))
def test_nothing_is_lost_and_nothing_is_over_the_budget(doc, name, tokens, overlap):
    offsets = TOKENIZERS[name]
    passages, account = cut(doc, offsets=offsets, tokens=tokens, overlap=overlap)
    assert account.documents == 1
    assert account.passages == len(passages)
    if not passages:
        assert account.empty_documents == 1
        assert not re.search(r"\w", doc.title + doc.text)
        return
    assert without_space("".join(fresh_texts(passages))) == without_space(doc.text)
    for passage in passages:
        start, end = passage.metadata["span"]
        assert passage.text == doc.text[start:end]
        assert size(passage, offsets) <= tokens
    ids = [p.id for p in passages]
    assert ids == (["d"] if len(ids) == 1 else [f"d#{n + 1}" for n in range(len(ids))])


@settings(max_examples=100, deadline=None)
@given(documents, st.sampled_from(["words", "letters"]), st.integers(0, 30))
def test_overlap_is_never_more_than_asked_for_and_new_text_always_follows(doc, name, overlap):
    offsets = TOKENIZERS[name]
    passages, _ = cut(doc, offsets=offsets, tokens=24, overlap=overlap)
    for before, after in pairwise(passages):
        (_, end), (start, last) = before.metadata["span"], after.metadata["span"]
        assert last > end
        assert start > before.metadata["span"][0]
        if start < end:
            assert len(offsets([doc.text[start:end]])[0]) <= overlap


@settings(max_examples=60, deadline=None)
@given(doc=documents)
def test_the_bert_tokenizer_of_a_model_keeps_the_budget(bert, doc):
    passages, _ = cut(doc, offsets=fast_offsets(bert), tokens=20, overlap=8)
    for passage in passages:
        assert len(bert.tokenize(f"{passage.title} {passage.text}".strip())) <= 20
    if passages:
        assert without_space("".join(fresh_texts(passages))) == without_space(doc.text)


def test_a_model_that_cuts_and_pads_its_inputs_still_gives_all_tokens(bert):
    bert("red wall", max_length=2, truncation=True, padding="max_length")
    before = bert.backend_tokenizer.to_str()
    text = "the Boat rises over the red wall"
    (found,) = fast_offsets(bert)([text])
    assert [text[a:b] for a, b in found] == text.split()
    assert found.dtype == np.int64
    assert bert.backend_tokenizer.to_str() == before
    assert [o.shape for o in fast_offsets(bert)(["", "the"])] == [(0, 2), (1, 2)]


def test_a_tokenizer_without_offsets_is_refused():
    with pytest.raises(DependencyError, match=r"object is a tokenizer without a fast backend") as e:
        fast_offsets(object())
    assert e.value.exit_code == 5


@settings(max_examples=300, deadline=None)
@given(st.one_of(prose, st.text(alphabet="aA.!?\u00a0\u2028\u0085 \n\"'(«。", max_size=30)))
def test_sentences_cover_a_text_without_gaps(text):
    spans = sentence_spans(text)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)


@settings(deadline=None)
@given(prose)
def test_the_plain_splitter_covers_a_text_too(text):
    ends = _plain_ends(text)
    assert ends == sorted(set(ends))
    assert (ends[-1:] or [0]) == [len(text)]


def test_sentences_that_fit_are_never_cut():
    text = "Dr. Low met a fox. It ran! Why? " * 12
    passages, account = cut(document(text), overlap=6)
    assert account.cut_sentences == 0
    assert all(re.search(r"[.!?]$", p.text) and re.match(r"Dr|It|Why", p.text) for p in passages)


def test_overlap_repeats_whole_sentences():
    passages, _ = cut(document(sentences(9, 5)), overlap=7)
    starts = [p.text.split()[0] for p in passages]
    assert starts == ["word0", "word2", "word4", "word6"]
    assert [len(p.text.split()) for p in passages] == [15, 15, 15, 15]


def test_overlap_gives_way_where_no_new_sentence_would_fit():
    text = sentences(1, 6) + " " + sentences(2, 14, word="long")
    passages, _ = cut(document(text), overlap=16)
    assert [len(p.text.split()) for p in passages] == [6, 14, 14]


def test_a_sentence_over_the_budget_is_cut_between_words():
    text = "Short one. " + "long " * 40 + "end. Short two."
    passages, account = cut(document(text), overlap=4)
    assert account.cut_sentences == 1
    assert [p.text.split()[0] for p in passages] == ["Short", "long", "long", "long"]
    assert passages[-1].text.endswith("Short two.")


def test_a_long_text_without_sentences_is_cut_at_lines():
    text = "\n".join(f"row{i} = value number {i}" for i in range(20))
    passages, account = cut(document(text))
    assert account.cut_sentences == 1
    assert all(p.text.startswith("row") and re.search(r"number \d+$", p.text) for p in passages)


def test_one_giant_word_is_cut_at_tokens():
    passages, account = cut(document("x" * 1000), offsets=letters)
    assert "".join(p.text for p in passages) == "x" * 1000
    assert {len(p.text) for p in passages} <= {16, 1000 % 16}
    assert account.cut_sentences == 1
    (whole,), _ = cut(document("x" * 1000))
    assert whole.text == "x" * 1000


def test_sections_of_a_fair_size_stay_apart():
    doc = document(("A", "one two three four."), ("B", "five six seven eight."), title="T")
    passages, _ = cut(doc)
    assert [(p.title, p.text) for p in passages] == [
        ("T > A", "one two three four."),
        ("T > B", "five six seven eight."),
    ]


def test_small_sections_under_one_heading_are_joined_and_the_title_names_them():
    doc = document(("A", "one."), ("A", "B", "two."), ("A", "C", "three four."), ("D", "x " * 9))
    passages, _ = cut(doc)
    assert [(p.title, p.metadata["headings"], p.text) for p in passages] == [
        ("A > B / C", ["A"], "one.\n\ntwo.\n\nthree four."),
        ("D", ["D"], "x x x x x x x x x"),
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("A", "B", "one."), ("C", "two.")),  # its aunt
        (("A", "B", "one."), ("A", "C", "D", "two.")),  # its niece
        (("A", "one."), ("B", "two " * 14)),  # both do not fit
        (("A", "one two three four."), ("B", "five.")),  # the first is not small
    ],
)
def test_other_sections_are_not_joined(first, second):
    assert len(cut(document(first, second))[0]) == 2


def test_sections_in_a_row_under_the_same_headings_are_one():
    doc = document(("A", "one two three four."), ("A", "five six seven eight."), ("A", " \n"))
    (passage,), _ = cut(doc)
    assert passage.text == "one two three four.\n\nfive six seven eight."
    assert passage.title == "A"


@pytest.mark.parametrize(
    ("title", "headings", "expected"),
    [
        ("Handbook", ("Refunds", "Exceptions"), "Handbook > Refunds > Exceptions"),
        ("Handbook", ("Handbook", "Refunds"), "Handbook > Refunds"),
        ("The  handbook", (" The Handbook\n",), "The handbook"),
        ("", ("Refunds", ""), "Refunds"),
        ("Handbook", (), "Handbook"),
        ("", (), ""),
    ],
)
def test_the_title_is_the_path_of_headings(title, headings, expected):
    (passage,), _ = cut(document((*headings, "one two."), title=title))
    assert passage.title == expected
    assert passage.metadata["headings"] == [h for h in (" ".join(h.split()) for h in headings) if h]


def test_a_path_of_headings_over_half_of_the_budget_loses_its_outer_ones():
    path = tuple(f"h{i}" for i in range(3000))
    passages, account = cut(document((*path, sentences(4, 5))))
    assert {p.title for p in passages} == {"h2996 > h2997 > h2998 > h2999"}
    assert passages[0].metadata["headings"] == list(path)
    assert account.cut_titles == 1
    (passage,), account = cut(document("", title="word " * 100))
    assert passage.title == "word word word word word word word word"
    assert account.cut_titles == 1


def test_a_long_title_stays_whole_where_it_leaves_room_for_the_text():
    (passage,), account = cut(document("a few words", title="word " * 12))
    assert passage.title == " ".join(["word"] * 12)
    assert account.cut_titles == 0


def test_thousands_of_headings():
    doc = document(*((f"h{i}", f"the text under heading {i}.") for i in range(5000)))
    passages, _ = cut(doc)
    assert len(passages) == 5000
    assert passages[-1].metadata["headings"] == ["h4999"]


def test_documents_without_words_are_counted():
    empty = [
        document(id="a"),
        document("", " \n", id="b"),
        document("--- *** 🙂", id="c"),
        document("text", id="d"),
        document("", title="A title", id="e"),
    ]
    passages, account = cut(*empty)
    assert [(p.id, p.title, p.text) for p in passages] == [("d", "", "text"), ("e", "A title", "")]
    assert (account.documents, account.empty_documents, account.passages) == (5, 3, 2)
    assert passages[1].metadata["span"] == [0, 0]
    assert cut()[0] == []


def test_metadata_of_the_document_goes_along_but_never_over_our_own():
    doc = document("one two.", year=2020, span="theirs")
    (passage,), _ = cut(doc)
    assert passage.metadata == {"year": 2020, "document": "d", "headings": [], "span": [0, 8]}
    corpus = collect([passage])
    assert corpus.document_of("d") == "d"
    assert corpus.passages == ("one two.",)
    assert len(collect([])) == 0


@pytest.mark.parametrize("identifier", ["a\tb", "a\nb", "a\r", "\t", "", "a\udcffb"])
def test_ids_that_no_tsv_file_can_hold_are_replaced_and_stay_apart(identifier):
    others = [document("x", id=other) for other in ("a b", "a", "a  b")]
    passages, _ = cut(document("x", id=identifier), *others)
    fitted = passages[0]
    assert not re.search(r"[\t\r\n]", fitted.id)
    json.dumps(fitted.id, ensure_ascii=False).encode()
    assert len({p.id for p in passages}) == 4
    assert fitted.metadata["document"] == fitted.id
    assert cut(document("x", id=identifier))[0][0] == fitted


def test_two_passages_of_one_id_are_refused():
    long = document(sentences(6, 8), id="a")
    with pytest.raises(DataError, match=r"a#2\.md: gives a passage 'a#2'") as error:
        cut(long, document("x", id="a#2"))
    assert error.value.exit_code == 3


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(DataError, match=r"d\.md: not valid Unicode .*write the file as UTF-8"):
        cut(document("a \ud800 b"))


def test_the_account_has_the_distribution_of_tokens():
    docs = [document("w " * n, id=f"d{n}") for n in range(1, 12)]
    _, account = cut(*docs)
    assert account.as_dict() == {
        "documents": 11,
        "empty_documents": 0,
        "passages": 11,
        "cut_sentences": 0,
        "cut_titles": 0,
        "tokens": {"min": 1, "p5": 1, "median": 6, "p95": 11, "max": 11},
    }
    assert cut()[1].as_dict()["tokens"] == {}


def test_batches_do_not_change_the_passages(monkeypatch):
    docs = [document(("A", sentences(n, 6)), title="T", id=f"d{n}") for n in range(12)]
    whole, account = cut(*docs, overlap=6)
    monkeypatch.setattr("retrieval_ft.dataset.chunking._BATCH_CHARACTERS", 50)
    parts, parts_account = cut(*docs, overlap=6)
    assert parts == whole
    assert parts_account == account
    alone = [p for doc in docs for p in cut(replace(doc), overlap=6)[0]]
    assert alone == whole


def test_documents_are_read_as_they_are_needed(monkeypatch):
    monkeypatch.setattr("retrieval_ft.dataset.chunking._BATCH_DOCUMENTS", 2)
    taken = []

    def stream():
        for n in range(100):
            taken.append(n)
            yield document("one two.", id=f"d{n}")

    chunker = Chunker(words, config=ChunkingConfig(tokens=16, overlap=0))
    assert next(chunker.chunk(stream())).id == "d0"
    assert len(taken) == 2
