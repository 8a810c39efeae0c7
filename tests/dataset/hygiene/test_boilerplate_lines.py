from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import HygieneConfig
from retrieval_ft.dataset import Document, Link, Section
from retrieval_ft.dataset.hygiene import BoilerplateCounter

FOOTER = "All rights reserved by us"


def document(name, *texts, links=()):
    sections = tuple(Section((f"part {i}",), text, tuple(links)) for i, text in enumerate(texts))
    return Document(name, "a title", sections, name)


def stripped(documents, share=0.3, **options):
    counter = BoilerplateCounter(HygieneConfig(boilerplate_share=share), **options)
    for each in documents:
        counter.add(each)
    out = [counter.strip(each) for each in documents]
    return out, {check.name: check for check in counter.checks()}


def test_a_line_that_many_documents_share_stays_in_the_first_only():
    documents = [document(f"d{i}", f"own line number {i}\n{FOOTER}\nend {i}") for i in range(10)]
    out, checks = stripped(documents)
    assert out[0] == documents[0]
    assert [each.text for each in out[1:]] == [
        f"own line number {i}\nend {i}" for i in range(1, 10)
    ]
    check = checks["boilerplate"]
    assert (check.touched, check.of) == (9, 10)
    assert check.done == "9 lines removed that stand in 5 documents or more"
    assert check.rows == ({"line": FOOTER, "documents": 10, "kept_in": "d0", "removed_from": 9},)
    assert checks["emptied_documents"].touched == 0


def test_case_and_space_do_not_part_lines():
    documents = [document(f"d{i}", f"text {i}\n{' ' * i}{FOOTER.upper()}\t") for i in range(5)]
    out, _ = stripped([document("first", FOOTER), *documents])
    assert [each.text for each in out[1:]] == [f"text {i}\n" for i in range(5)]


def test_fewer_than_five_documents_have_no_boilerplate():
    documents = [document(f"d{i}", f"text {i}\n{FOOTER}") for i in range(4)]
    assert stripped(documents, share=0.1)[0] == documents
    documents.append(document("d4", f"text 4\n{FOOTER}"))
    assert stripped(documents, share=0.1)[0][4].text == "text 4\n"


def test_the_share_of_the_documents_is_what_counts():
    with_footer = [document(f"d{i}", f"text {i}\n{FOOTER}") for i in range(30)]
    without = [document(f"e{i}", f"text {i}\nanother line {i}") for i in range(70)]
    assert stripped(with_footer + without, share=0.3)[0][29].text == "text 29\n"
    one_more = document("e70", "text 70\nanother line 70")
    assert stripped([*with_footer, *without, one_more], share=0.3)[0][29] == with_footer[29]


def test_short_lines_and_lines_of_code_stay():
    code = "def run(self, x):\n    else:\n    return x\n}\n---\n"
    documents = [document(f"d{i}", f"{code}value_{i} = {i}") for i in range(10)]
    out, checks = stripped(documents)
    assert out == documents
    assert checks["boilerplate"].rows == ()


def test_a_document_of_nothing_else_is_emptied_and_listed():
    documents = [document(f"d{i}", f"text {i}\n{FOOTER}") for i in range(6)]
    out, checks = stripped([*documents, document("bare", FOOTER + "\n", f"\n{FOOTER.lower()}\n")])
    assert out[-1].text.strip() == ""
    assert out[-1].sections[0].headings == ("part 0",)
    emptied = checks["emptied_documents"]
    assert (emptied.touched, emptied.of) == (1, 7)
    assert emptied.rows == ({"document": "bare", "lines_removed": 1},)
    assert checks["boilerplate"].touched == 6


def test_equal_documents_count_as_one():
    copies = [document(f"d{i}", f"the same text\n{FOOTER}") for i in range(20)]
    out, checks = stripped(copies)
    assert out == copies
    assert checks["boilerplate"].of == 20


def test_a_line_twice_in_one_document_counts_once():
    documents = [document(f"d{i}", f"text {i}") for i in range(10)]
    noisy = document("noisy", "\n".join([FOOTER] * 50))
    assert stripped([*documents, noisy])[0][-1] == noisy


def test_links_go_with_their_line():
    menu, own = Link("reserved by us", "rights.md"), Link("see the boat", "boat.md")
    documents = [
        document(f"d{i}", f"see the boat {i}\n{FOOTER}", links=(menu, own)) for i in range(6)
    ]
    out, _ = stripped(documents)
    assert out[0].sections[0].links == (menu, own)
    assert out[1].sections[0].links == (own,)


LINES = [f"the line number {i} here" for i in range(6)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(LINES), max_size=6), max_size=12), st.floats(0.1, 1))
def test_no_line_is_lost_to_the_corpus_and_none_is_added(rows, share):
    documents = [document(f"d{i}", "\n".join(row)) for i, row in enumerate(rows)]
    out, checks = stripped(documents, share=share)
    assert {line for each in out for line in each.text.splitlines()} == {x for r in rows for x in r}
    distinct = {tuple(row) for row in rows}
    for each, row in zip(out, rows, strict=True):
        gone = set(row) - set(each.text.splitlines())
        assert each.text.splitlines() == [line for line in row if line not in gone]
        assert all(sum(line in other for other in distinct) >= 5 for line in gone)
    emptied = [name for name, row in zip(range(len(rows)), rows, strict=True) if row]
    lost = [f"d{i}" for i in emptied if not out[i].text.strip()]
    assert [row["document"] for row in checks["emptied_documents"].rows] == lost


def test_memory_is_bounded_and_a_frequent_line_is_still_found():
    documents = [
        document(f"d{i}", "\n".join([FOOTER, *(f"own line {i} {n}" for n in range(20))]))
        for i in range(200)
    ]
    counter = BoilerplateCounter(HygieneConfig(), capacity=100)
    for each in documents:
        counter.add(each)
        assert len(counter._counts) <= 100
    out = [counter.strip(each) for each in documents]
    assert all(FOOTER not in each.text for each in out[1:])
    assert all(each.text.count("own line") == 20 for each in out)
