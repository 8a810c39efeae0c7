import struct
import zipfile

import docx
import pytest
import reader_words
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset import Link
from retrieval_ft.dataset.readers.docx import parse
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.reading import Fault

LINKS = Links("guide/a.docx", frozenset({"guide/b.docx"}))
phrase = reader_words.phrases
steps = st.one_of(
    st.tuples(st.integers(0, 4), phrase),
    st.tuples(st.just("paragraph"), phrase),
    st.tuples(st.just("List Bullet"), phrase),
    st.tuples(st.just("table"), st.lists(phrase, min_size=2, max_size=2)),
)


def element(parent, tag, text=None, **attributes):
    child = OxmlElement(tag)
    for name, value in attributes.items():
        child.set(qn(name.replace("_", ":")), value)
    if text is not None:
        child.text = text
    parent.append(child)
    return child


@settings(deadline=None, max_examples=50)
@given(steps=st.lists(steps, min_size=1, max_size=8))
def test_every_word_of_a_document_is_found(steps, tmp_path_factory):
    document = docx.Document()
    written = []
    for kind, text in steps:
        if isinstance(kind, int):
            document.add_heading(text, kind)
        elif kind == "table":
            table = document.add_table(1, 2)
            table.cell(0, 0).text, table.cell(0, 1).text = text
        else:
            document.add_paragraph(text, None if kind == "paragraph" else kind)
        written.append(text if isinstance(text, str) else " ".join(text))
    path = tmp_path_factory.mktemp("docx") / "a.docx"
    document.save(path)
    assert not reader_words.lost(" ".join(written), parse(path, LINKS))


def test_styles_lists_and_tables_become_sections_of_text(tmp_path):
    document = docx.Document()
    document.core_properties.title = "draft 3"
    document.add_heading("Pumps", 0)
    document.add_paragraph("Two kinds.")
    document.add_heading("Small ones", 1)
    for text in ("prime it", "start it"):
        item = document.add_paragraph(text)
        element(element(item._p.get_or_add_pPr(), "w:numPr"), "w:numId", w_val="1")
    table = document.add_table(2, 2)
    for i, text in enumerate(("size", "price", "3", "4")):
        table.cell(i // 2, i % 2).text = text
    table.cell(1, 1).add_table(1, 1).cell(0, 0).text = "inner"
    document.add_paragraph("After the table.")
    own = document.styles.add_style("Own", 1)
    own.base_style = document.styles["Heading 2"]
    document.add_paragraph("Deep", "Own")
    document.save(tmp_path / "a.docx")
    parsed = parse(tmp_path / "a.docx", LINKS)
    assert parsed.title == "Pumps"
    assert reader_words.outline(parsed) == [
        ((), "Two kinds."),
        (
            ("Small ones",),
            "- prime it\n- start it\n\nsize | price\n3 | 4 inner\n\nAfter the table.",
        ),
        (("Small ones", "Deep"), ""),
    ]


def test_the_title_of_the_properties_stands_in_where_no_paragraph_has_that_style(tmp_path):
    document = docx.Document()
    document.core_properties.title = "Pumps"
    document.add_paragraph("x")
    document.save(tmp_path / "a.docx")
    assert parse(tmp_path / "a.docx", LINKS).title == "Pumps"


def test_text_that_word_keeps_apart_is_read_in_its_place(tmp_path):
    document = docx.Document()
    body = document.element.body
    content = element(element(body, "w:sdt"), "w:sdtContent")
    paragraph = element(content, "w:p")
    element(element(paragraph, "w:r"), "w:t", "control")
    paragraph = element(body, "w:p")
    element(element(element(paragraph, "w:ins"), "w:r"), "w:t", "inserted")
    element(element(element(paragraph, "w:moveFrom"), "w:r"), "w:t", "moved away")
    element(element(element(paragraph, "w:del"), "w:r"), "w:delText", "deleted")
    run = element(paragraph, "w:r")
    element(run, "w:tab")
    box = element(element(element(run, "w:pict"), "w:txbxContent"), "w:p")
    element(element(box, "w:r"), "w:t", "boxed")
    element(element(element(body, "w:p"), "w:r"), "w:t", "end")
    document.save(tmp_path / "a.docx")
    assert reader_words.outline(parse(tmp_path / "a.docx", LINKS)) == [
        ((), "control\n\ninserted\n\nboxed\n\nend")
    ]


def test_notes_are_read_behind_the_paragraph_that_refers_to_them(tmp_path):
    document = docx.Document()
    for text in ("one", "two"):
        document.add_paragraph(text)
    element(element(document.paragraphs[0]._p, "w:r"), "w:footnoteReference", w_id="2")
    document.save(tmp_path / "plain.docx")
    main = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    notes = (
        f'<w:footnotes xmlns:w="{main}"><w:footnote w:type="separator" w:id="0"><w:p/></w:footnote>'
        '<w:footnote w:id="2"><w:p><w:r><w:t>the note</w:t></w:r></w:p></w:footnote></w:footnotes>'
    )
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
    with (
        zipfile.ZipFile(tmp_path / "plain.docx") as old,
        zipfile.ZipFile(tmp_path / "a.docx", "w") as new,
    ):
        for name in old.namelist():
            data = old.read(name)
            if name == "word/_rels/document.xml.rels":
                link = f'<Relationship Id="rId99" Type="{kind}" Target="footnotes.xml"/>'
                data = data.replace(b"</Relationships>", f"{link}</Relationships>".encode())
            new.writestr(name, data)
        new.writestr("word/footnotes.xml", notes)
    assert reader_words.outline(parse(tmp_path / "a.docx", LINKS)) == [
        ((), "one\n\nthe note\n\ntwo")
    ]


def test_links_are_resolved(tmp_path):
    document = docx.Document()
    paragraph = document.add_paragraph("see ")
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink"
    place = document.part.relate_to("b.docx", kind, is_external=True)
    for text, attributes in (("there", {"r_id": place}), (" below", {"w_anchor": "part"})):
        element(element(element(paragraph._p, "w:hyperlink", **attributes), "w:r"), "w:t", text)
    document.save(tmp_path / "a.docx")
    section = parse(tmp_path / "a.docx", LINKS).sections[0]
    assert section.text == "see there below"
    assert section.links == (Link("there", "guide/b.docx"), Link("below", "guide/a.docx#part"))


def test_a_table_of_contents_is_not_text(tmp_path):
    document = docx.Document()
    document.styles.add_style("TOC 1", 1)
    document.add_paragraph("Pumps 3", "TOC 1")
    document.add_paragraph("text")
    document.save(tmp_path / "a.docx")
    assert reader_words.outline(parse(tmp_path / "a.docx", LINKS)) == [((), "text")]


@pytest.mark.parametrize(
    ("member", "bytes_in_it", "told"),
    [
        ("word/document.xml", 65 << 20, "unpacks to XML of 65 MiB; allowed are 64 MiB"),
        ("word/media/x.bmp", 513 << 20, "unpacks to 513 MiB; allowed are 512 MiB"),
    ],
)
def test_a_bomb_is_not_unpacked(tmp_path, member, bytes_in_it, told):
    path = tmp_path / "bomb.docx"
    with zipfile.ZipFile(path, "w") as bomb:
        bomb.writestr(member, b"x")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")  # the directory, which says what each member unpacks to
    data[at + 24 : at + 28] = struct.pack("<I", bytes_in_it)
    path.write_bytes(bytes(data))
    with pytest.raises(Fault, match=f"too large: {told}"):
        parse(path, LINKS)


def test_a_bomb_that_lies_about_its_size_is_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("[Content_Types].xml", b" " * (80 << 20))
    data = bytearray((tmp_path / "a.docx").read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 100)
    (tmp_path / "a.docx").write_bytes(bytes(data))
    with pytest.raises(Fault, match="damaged"):
        parse(tmp_path / "a.docx", LINKS)


def test_a_locked_or_old_document_is_told_as_such(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    with pytest.raises(Fault, match="encrypted: a password is needed to open it, or it is an old"):
        parse(tmp_path / "a.docx", LINKS)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_cut_document_is_damaged(tmp_path, keep):
    docx.Document().save(tmp_path / "whole.docx")
    data = (tmp_path / "whole.docx").read_bytes()
    (tmp_path / "a.docx").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(Fault, match=r"damaged: no \.docx that can be read"):
        parse(tmp_path / "a.docx", LINKS)
