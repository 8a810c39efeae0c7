import io
import logging

import pypdf
import pytest
import reader_words
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.pdfgen import canvas

from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.pdf import join_lines, parse
from retrieval_ft.dataset.readers.reading import Fault

LINKS = Links("a.pdf", frozenset())


def made(path, pages, title=""):
    out = io.BytesIO()
    page = canvas.Canvas(out)
    page.setTitle(title)
    for lines in pages:
        for i, line in enumerate(lines):
            page.drawString(72, 720 - 14 * i, line)
        page.showPage()
    page.save()
    path.write_bytes(out.getvalue())
    return path


def locked(path, password):
    writer = pypdf.PdfWriter(made(path, [["secret text"]]))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    writer.write(path)
    return path


def test_pages_and_the_title_of_the_metadata_are_read(tmp_path):
    path = made(tmp_path / "a.pdf", [["one page", "of text"], ["another"]], title="Pumps")
    parsed = parse(path, LINKS)
    assert parsed.title == "Pumps"
    assert reader_words.outline(parsed) == [((), "one page\nof text\n\nanother")]
    assert parsed.metadata == {"pages": 2}


@settings(deadline=None, max_examples=30)
@given(
    pages=st.lists(
        st.lists(st.text("abcdefgh -", min_size=1).filter(str.strip), max_size=4), min_size=1
    )
)
def test_every_letter_of_a_page_is_found(pages, tmp_path_factory):
    path = made(tmp_path_factory.mktemp("pdf") / "a.pdf", pages)
    written = "".join("".join(line) for lines in pages for line in lines)
    if not written.strip():
        with pytest.raises(Fault, match="no text"):
            parse(path, LINKS)
        return
    read = parse(path, LINKS).sections[0].text
    for letter in "abcdefgh":
        assert read.count(letter) == written.count(letter)


def test_the_title_that_a_writer_fills_in_by_itself_is_none(tmp_path):
    assert parse(made(tmp_path / "a.pdf", [["x"]], title="untitled"), LINKS).title == ""


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("the infor-\nmation is", "the information is"),
        ("the infor-\n  mation is", "the information is"),
        ("a well-\nknown word, so well-known", "a well-known word, so well-known"),
        ("known as a well, a well-\nknown word", "known as a well, a well-known word"),
        ("re-\nset it; the reset of a re set", "reset it; the reset of a re set"),
        ("pages 3-\n4 and A-\nB and X-\nray", "pages 3-\n4 and A-\nB and X-\nray"),
        ("a soft\u00ad\nhyphen", "a softhyphen"),
        ("a list:\n- one\n- two", "a list:\n- one\n- two"),
        ("a dash -\nalone", "a dash -\nalone"),
        ("grö-\nßer", "größer"),
    ],
)
def test_a_word_that_a_line_end_cut_is_put_together(text, joined):
    assert join_lines(text) == joined


@settings(deadline=None)
@given(st.text(alphabet="ab-\n A\u00ad", max_size=40))
def test_joining_lines_loses_no_letter(text):
    letters = [c for c in text if c.isalpha()]
    assert [c for c in join_lines(text) if c.isalpha()] == letters


def test_a_scan_has_no_text(tmp_path):
    with pytest.raises(Fault, match="no text: none on its 2 pages: a scan"):
        parse(made(tmp_path / "a.pdf", [[], []]), LINKS)


def test_an_encrypted_file_is_told_and_one_with_the_empty_password_read(tmp_path):
    with pytest.raises(Fault, match="encrypted: a password is needed to open it"):
        parse(locked(tmp_path / "a.pdf", "secret"), LINKS)
    assert parse(locked(tmp_path / "b.pdf", ""), LINKS).sections[0].text == "secret text"


@pytest.mark.parametrize("change", ["cut", "no pdf", "no pages", "empty stream"])
def test_a_damaged_file_is_a_fault_and_says_nothing_on_stderr(tmp_path, change, capfd):
    path = made(tmp_path / "a.pdf", [["one"]])
    data = path.read_bytes()
    data = {
        "cut": data[: len(data) // 3],
        "no pdf": b"%PDF-1.4\n" + b"garbage " * 50,
        "no pages": data.replace(b"/Kids", b"/Kidz"),
        "empty stream": data.replace(b"/FlateDecode", b"/XlateDecode"),
    }[change]
    path.write_bytes(data)
    with pytest.raises(Fault, match=r"damaged: no PDF that can be read: .+"):
        parse(path, LINKS)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("pypdf").level == logging.NOTSET
