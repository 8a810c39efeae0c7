import gzip
import os
import socket
import zipfile

import docx
import pytest
from reportlab.pdfgen import canvas

from retrieval_ft.dataset import Link, Section
from retrieval_ft.dataset.readers import detect_format


def put(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def pdf(path, text):
    page = canvas.Canvas(str(path))
    page.drawString(72, 700, text)
    page.save()


def test_a_folder_gives_documents_of_every_kind_sorted_by_their_path(tmp_path, read):
    root = put(
        tmp_path / "docs",
        {
            "b.md": "# B\n\nsee [a](sub/a)\n",
            "sub/a.html": "<title>A</title><h1>A</h1>one",
            "sub/deep/c.txt": "  plain\r\ntext\n",
            "Z.RST": "Z\n=\n\nzed",
            "tool.py": "def f():\n    pass\n",
            "main.go": "package main",
        },
    )
    pdf(root / "p.pdf", "printed")
    document = docx.Document()
    document.add_paragraph("word")
    document.save(root / "w.docx")
    found, account = read(root)
    assert list(found) == sorted(found)
    assert {name: (d.title, d.text) for name, d in found.items()} == {
        "Z.RST": ("Z", "zed"),
        "b.md": ("B", "see a"),
        "main.go": ("main.go", "package main"),
        "p.pdf": ("", "printed"),
        "sub/a.html": ("A", "one"),
        "sub/deep/c.txt": ("", "  plain\ntext"),
        "tool.py": ("tool.py", "def f():\n    pass"),
        "w.docx": ("", "word"),
    }
    assert found["b.md"].sections == (Section((), "see a", (Link("a", "sub/a.html"),)),)
    assert found["b.md"].where == str(root / "b.md")
    assert account.summary() == {
        "documents": 8,
        "read": {"code": 2, "docx": 1, "html": 1, "markdown": 1, "pdf": 1, "rst": 1, "text": 1},
        "skipped": {},
    }


def test_what_is_left_out_is_counted_with_its_reason(tmp_path, read, skipped):
    root = put(
        tmp_path,
        {
            "good.md": "text",
            ".git/config.md": "x",
            ".hidden.md": "x",
            "a.zip": "x",
            "a.tar.gz": "x",
            "a.7z": "x",
            "picture.png": "x",
            "rows.jsonl": "{}",
            "README": "x",
            "latin.txt": "caf\u00e9".encode("latin-1"),
            "binary.txt": b"ab\0cd",
            "binary.md": b"\xff\xfa\0\0\x80",
            "none.md": "",
            "blank.md": " \n\t\n",
            "menu.html": "<title>t</title><nav>menu</nav>",
            "broken.pdf": "%PDF-1.4 nothing",
            "broken.docx": "PK nothing",
            "deep.html": "<div>" * 6000,
        },
    )
    found, account = read(root)
    assert list(found) == ["good.md"]
    assert skipped(account) == {
        ".git/": "hidden",
        ".hidden.md": "hidden",
        "README": "no suffix",
        "a.7z": "archive",
        "a.tar.gz": "archive",
        "a.zip": "archive",
        "binary.md": "binary",
        "binary.txt": "binary",
        "blank.md": "empty",
        "broken.docx": "damaged",
        "broken.pdf": "damaged",
        "deep.html": "too deep",
        "latin.txt": "not UTF-8",
        "menu.html": "no text",
        "none.md": "empty",
        "picture.png": "suffix .png",
        "rows.jsonl": "suffix .jsonl",
    }
    assert account.summary()["skipped"]["archive"] == 3
    rows = {row["path"]: row for row in account.rows()}
    assert rows["latin.txt"] == {
        "path": "latin.txt",
        "reason": "not UTF-8",
        "detail": "byte 0xe9 at offset 3 (line 1); convert the file to UTF-8",
    }
    assert rows["a.zip"]["detail"] == "unpack it into the folder to read what it holds"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, read, encoding):
    mark = "" if encoding in ("utf-8-sig", "utf-16") else "\ufeff"
    put(tmp_path, {"a.md": f"{mark}---\ntitle: Grüße\n---\n世界\r\nx".encode(encoding)})
    found, _ = read(tmp_path)
    assert (found["a.md"].title, found["a.md"].text) == ("Grüße", "世界 x")


def test_wide_text_that_ends_amid_a_character_is_left_out(tmp_path, read, skipped):
    put(tmp_path, {"a.txt": "ab".encode("utf-16") + b"\x00", "b.txt": "b"})
    assert skipped(read(tmp_path)[1]) == {"a.txt": "not UTF-8"}


def test_links_are_followed_once_and_never_out_of_the_folder(tmp_path, read, skipped):
    outside = put(tmp_path / "outside", {"secret.md": "secret"})
    root = put(
        tmp_path / "docs", {"a.md": "a", "sub/b.md": "b", ".store/c.md": "c", ".store/d/e.md": "e"}
    )
    (root / "sub" / "loop").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "sub-again").symlink_to("sub")
    (root / "a-again.md").symlink_to("a.md")
    (root / "c.md").symlink_to(".store/c.md")
    (root / "kept").symlink_to(".store/d")
    (root / "gone.md").symlink_to("nowhere.md")
    (root / "out").symlink_to(outside)
    (root / "out.md").symlink_to("../outside/secret.md")
    found, account = read(root)
    assert list(found) == ["a.md", "c.md", "kept/e.md", "sub/b.md"]
    assert skipped(account) == {
        ".store/": "hidden",
        "a-again.md": "link",
        "gone.md": "broken link",
        "out": "link out of the folder",
        "out.md": "link out of the folder",
        "self": "broken link",
        "sub-again/": "link",
        "sub/loop/": "link",
    }
    details = {item.path: item.detail for item in account.skipped}
    assert details["out.md"].startswith(
        "points at ../outside/secret.md; give that place as data.path"
    )
    assert details["self"] == "Too many levels of symbolic links"


def test_a_folder_that_is_a_link_itself_is_read(tmp_path, read):
    put(tmp_path / "docs", {"sub/a.md": "a"})
    (tmp_path / "link").symlink_to("docs")
    assert list(read(tmp_path / "link")[0]) == ["sub/a.md"]


def test_a_pipe_is_never_opened(tmp_path, read, told, skipped):
    put(tmp_path, {"a.md": "a"})
    os.mkfifo(tmp_path / "pipe.md")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.md"))
        (tmp_path / "linked.md").symlink_to("pipe.md")
        found, account = read(tmp_path)
    assert list(found) == ["a.md"]
    assert set(skipped(account).items()) == {
        (name, "no plain file") for name in ("pipe.md", "s.md", "linked.md")
    }
    message, code = told(tmp_path / "pipe.md")
    assert f"{tmp_path / 'pipe.md'}: cannot be read: no plain file (a pipe" in message
    assert code == 3


def test_names_that_no_other_machine_could_hold_are_left_out(tmp_path, read, skipped):
    put(tmp_path, {"ok \u00e9.md": "x", "a\tb.md": "x", "a\nb.md": "x"})
    with open(os.fsencode(tmp_path) + b"/caf\xe9.md", "w") as file:  # noqa: PTH123 - bytes
        file.write("x")
    found, account = read(tmp_path)
    assert list(found) == ["ok \u00e9.md"]
    assert skipped(account) == dict.fromkeys(("a\tb.md", "a\nb.md", "caf\\xe9.md"), "odd name")


def test_deep_folders_are_read(tmp_path, read):
    deep = "/".join(["d"] * 400)
    put(tmp_path, {f"{deep}/a.md": "x"})
    assert list(read(tmp_path)[0]) == [f"{deep}/a.md"]


def test_a_folder_deeper_than_the_system_can_name_is_left_out(tmp_path, read):
    put(tmp_path, {"a.md": "x"})
    name, folder = "d" * 200, os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    found, account = read(tmp_path)
    assert list(found) == ["a.md"]
    assert [(i.reason, i.detail) for i in account.skipped] == [("unreadable", "File name too long")]


@pytest.mark.parametrize(
    ("name", "megabytes", "detail"),
    [
        ("big.txt", 257, "257 MiB; text is read up to 256 MiB: split it"),
        ("big.md", 17, "17 MiB; markdown is read up to 16 MiB: split it"),
        ("big.pdf", 300, "300 MiB; pdf is read up to 256 MiB: split it"),
    ],
)
def test_a_huge_file_is_not_read(tmp_path, read, name, megabytes, detail):
    put(tmp_path, {"a.md": "x"})
    with (tmp_path / name).open("wb") as file:
        file.truncate(megabytes << 20)  # sparse: takes no room
    _, account = read(tmp_path)
    assert [(item.path, item.reason, item.detail) for item in account.skipped] == [
        (name, "too large", detail)
    ]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.md", ["a.md"]),
        ("**/*.md", ["a.md", "s/b.md", "s/t/c.md"]),
        ("s*/**/*.md", ["s/b.md", "s/t/c.md"]),
        ("?/*", ["s/b.md", "s/b.txt"]),
        ("**", ["a.md", "s/b.md", "s/b.txt", "s/t/c.md"]),
        ("**/t/**", ["s/t/c.md"]),
        ("[as]*/?.txt", ["s/b.txt"]),
    ],
)
def test_a_glob_names_documents_below_its_fixed_part(tmp_path, read, pattern, names):
    put(tmp_path, dict.fromkeys(("a.md", "s/b.md", "s/b.txt", "s/t/c.md", "s/.x/d.md"), "x"))
    found, account = read(tmp_path / pattern)
    assert sorted(found) == names
    assert {item.path for item in account.skipped} <= {"s/.x/"}


def test_a_glob_below_a_folder_gives_ids_below_that_folder(tmp_path, read):
    put(tmp_path, {"docs/s/a.md": "x"})
    assert list(read(tmp_path / "docs" / "s*" / "*.md")[0]) == ["s/a.md"]


def test_a_relative_glob_is_taken_from_the_working_folder(tmp_path, read, monkeypatch):
    put(tmp_path, {"a.md": "x", "docs/b.md": "x"})
    monkeypatch.chdir(tmp_path)
    assert [d.where for d in read("*.md")[0].values()] == ["a.md"]
    assert [d.where for d in read("docs/*.md")[0].values()] == ["docs/b.md"]


def test_a_folder_whose_name_looks_like_a_glob_is_that_folder(tmp_path, read):
    put(tmp_path, {"[a]/x.md": "x"})
    assert list(read(tmp_path / "[a]")[0]) == ["x.md"]


def test_one_document_is_read_by_its_path(tmp_path, read):
    put(tmp_path, {"docs/a.md": "# A\nx", "docs/b.md": "x"})
    (tmp_path / "link.md").symlink_to("docs/a.md")
    assert {name: d.title for name, d in read(tmp_path / "docs" / "a.md")[0].items()} == {
        "a.md": "A"
    }
    assert list(read(tmp_path / "link.md")[0]) == ["link.md"]


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ({"x/y": ""}, "gone", "gone: no such file or folder; data.path is a folder or a glob"),
        ({"docs/.keep": ""}, "docs", "docs: no document in it can be read. Found: 1 hidden; the"),
        ({"docs/a.md": "x"}, "docs/*.rst", "docs/*.rst: no file matches. Read are .docx, .htm"),
        (
            {"a.png": "x", "b.png": "x", "c.zip": "x"},
            "",
            "no document in it can be read. Found: 2 suffix .png, 1 archive; the first: a.png: "
            "suffix .png (no kind of document that is read). Read are .docx, .htm, .html, "
            ".markdown, .md, .pdf, .rst, .txt and source code",
        ),
        (
            {"a.jsonl": "{}", "b.csv": "x"},
            "",
            "(rows are read by themselves: give the file as data",
        ),
        ({"a.md": b"\xe9"}, "a.md", "a.md: cannot be read: not UTF-8 (byte 0xe9 at offset 0"),
        ({"a.bin": "x"}, "a.bin", "a.bin: cannot be read: suffix .bin (no kind of document"),
        ({"a.zip": "x"}, "a.zip", "a.zip: cannot be read: archive (unpack it into the folder"),
    ],
)
def test_nothing_to_read_is_an_error_that_says_what_was_found(tmp_path, told, files, path, message):
    put(tmp_path, files)
    said, code = told(tmp_path / path)
    assert message in said
    assert code == 3


def test_an_empty_folder_is_an_error(tmp_path, told):
    said, code = told(tmp_path)
    assert f"{tmp_path}: holds no files. Read are .docx" in said
    assert code == 3


def test_the_same_folder_gives_the_same_documents_in_the_same_order(tmp_path, read):
    first = put(tmp_path / "1", {f"{i}/{j}.md": f"{i} {j}" for i in range(5) for j in range(5)})
    second = put(
        tmp_path / "2", {f"{i}/{j}.md": f"{i} {j}" for i in range(4, -1, -1) for j in range(5)}
    )
    documents = [[(d.id, d.sections) for d in read(root)[0].values()] for root in (first, second)]
    assert documents[0] == documents[1]


def test_text_that_utf_8_cannot_hold_is_replaced(tmp_path, read):
    put(tmp_path, {"a.md": '---\ntitle: "a \\ud800 b"\n---\nx'})
    found, _ = read(tmp_path)
    assert found["a.md"].title == "a \ufffd b"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("beir", "beir"),
        ("docs", "files"),
        ("saved", "dataset"),
        ("splits", "dataset"),
        ("docs/a.md", "files"),
        ("docs/*.md", "files"),
        ("docs/**/*.JSONL", "jsonl"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.jsonl.gz", "jsonl"),
        ("a.csv", "csv"),
        ("a.tsv", "csv"),
        ("a.csv.gz", "csv"),
        ("a.parquet", "parquet"),
        ("a.sqlite3", "sqlite"),
        ("a.DB", "sqlite"),
        ("a.zip", "files"),
    ],
)
def test_the_look_of_a_path_says_its_format(tmp_path, path, expected):
    put(tmp_path, {"beir/corpus.jsonl": "", "docs/a.md": "", "saved/state.json": "{}"})
    put(tmp_path, {"splits/dataset_dict.json": "{}", "a.csv.gz": gzip.compress(b"")})
    for name in ("jsonl", "ndjson", "jsonl.gz", "csv", "tsv", "parquet", "sqlite3", "DB"):
        put(tmp_path, {f"a.{name}": ""})
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    assert detect_format(tmp_path / path) == expected
