import hashlib
import http.server
import lzma
import threading

import pytest

from retrieval_ft.dataset import beir, builders
from retrieval_ft.dataset.builders import debian
from retrieval_ft.dataset.builders.debian import family, read, release_uri, sha256_of, stanzas
from retrieval_ft.errors import DependencyError

PACKAGES = """\
Package: zoo-data
Source: zoo (1.2-3)
Description: animals of a zoo, data files
Description-md5: m2

Package: zoo
Version: 1.2-3
Description: keeper of many kinds of animals
Description-md5: m1
Depends: libzoo1,
 libzoo-data

Package: libold
Source: pond
Description: transitional package for libpond
Description-md5: m3

Package: libpond
Source: pond
Description: looks after every fish there is
Description-md5: m4

Package: gcc-11
Description: compiler of the C language
Description-md5: m5

Package: gcc-12
Description: compiler of the c language!
Description-md5: m6

Package: brief
Description: says it in few words
Description-md5: m7

Package: parrot
Description: repeats what it was told
Description-md5: m8

Package: twain
Description: two words
Description-md5: m9
"""
LONG = "It has {} and feeds them at nine o'clock every day of the year."
TRANSLATIONS = f"""\
Package: zoo
Description-md5: m1
Description-en: keeper of many kinds of animals
 {LONG.format("lions")}
 .
 Second   paragraph.

Package: zoo-data
Description-md5: m2
Description-en: animals of a zoo, data files
 {LONG.format("files")}

Package: libold
Description-md5: m3
Description-en: transitional package for libpond
 This is a transitional package that one can remove without any harm at all.

Package: libpond
Description-md5: m4
Description-en: looks after every fish there is
 {LONG.format("carps")}

Package: gcc-11
Description-md5: m5
Description-en: compiler of the C language
 {LONG.format("parsers")}

Package: gcc-12
Description-md5: m6
Description-en: compiler of the c language!
 {LONG.format("Parsers")}

Package: brief
Description-md5: m7
Description-en: says it in few words
 Nine words are one too few for a passage.

Package: parrot
Description-md5: m8
Description-en: repeats what it was told
 This program REPEATS what -- it was told, and it never grows tired of that.

Package: twain
Description-md5: m9
Description-en: two words
 {LONG.format("twins")}
"""


def source():
    return read(PACKAGES.splitlines(True), TRANSLATIONS.splitlines(True), version="x")


def test_a_source_package_has_its_first_binary_that_is_not_transitional():
    corpus = source().corpus
    assert corpus.ids == ("gcc-11", "libpond", "parrot", "twain", "zoo")
    assert corpus.titles == ("",) * 5
    assert corpus.texts[corpus.index_of["zoo"]] == f"{LONG.format('lions')} Second paragraph."


def test_equal_descriptions_are_one_passage_that_all_their_queries_find():
    rows = [(j.text, j.passage_id, j.group) for j in source().judgements]
    assert rows == [
        ("compiler of the C language", "gcc-11", "gcc"),
        ("compiler of the c language!", "gcc-11", "gcc"),
        ("looks after every fish there is", "libpond", "pond"),
        ("keeper of many kinds of animals", "zoo", "zoo"),
    ]
    dataset = debian.RECIPE.arrange("debian", source())
    assert len(dataset.queries) == 3


def test_what_is_left_out_is_counted_by_reason():
    found = source()
    assert found.left_out == {
        "transitional and dummy packages": 1,
        "further binaries of a source package": 1,
        "descriptions under 10 words": 1,
        "copies of a passage, their queries given to the first one": 1,
        "queries that stand in the passage": 1,
        "queries under 3 words": 1,
        "descriptions of a template that hold a name alone": 0,
    }
    queries = ("queries that stand in the passage", "queries under 3 words")
    of_packages = sum(n for reason, n in found.left_out.items() if reason not in queries)
    assert len(found.corpus) + of_packages == len(list(stanzas(PACKAGES.splitlines(True))))


@pytest.mark.parametrize("copies", [debian.TEMPLATE - 1, debian.TEMPLATE])
def test_descriptions_that_differ_in_the_name_alone_tell_nothing(copies):
    names = [f"lib{'x' * n}-dev" for n in range(1, copies + 1)]
    packages = "\n".join(f"Package: {n}\nDescription-md5: {n}\n" for n in names)
    long = " Source of the {} crate, which was packaged for use with one builder of crates."
    texts = "\n".join(
        f"Description-md5: {n}\nDescription-en: does thing number {i}\n{long.format(n[:-4])}\n"
        for i, n in enumerate(names)
    )
    found = read(packages.splitlines(True), texts.splitlines(True), version="x")
    assert len(found.corpus) == (0 if copies == debian.TEMPLATE else copies)
    assert found.left_out["descriptions of a template that hold a name alone"] == (
        copies - len(found.corpus)
    )


def test_no_query_stands_in_its_passage_word_for_word():
    found = source()
    for row in found.judgements:
        text = found.corpus.texts[found.corpus.index_of[row.passage_id]]
        assert row.text.casefold() not in text.casefold()


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("gcc-12", "gcc"),
        ("python3.11", "python"),
        ("boost1.81", "boost"),
        ("7", "7"),
        ("vim", "vim"),
    ],
)
def test_a_family_is_the_name_without_version_numbers(name, of):
    assert family(name) == of


def test_hashes_are_those_of_the_sha256_part_alone():
    release = "Origin: Debian\nMD5Sum:\n aa 1 main/x\nSHA256:\n bb 1 main/x\n cc 2 main/y\nEnd: 1\n"
    assert sha256_of(release) == {"main/x": "bb", "main/y": "cc"}
    assert sha256_of("") == {}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror on this machine and an apt-get that names it; yields its folder."""
    folder = tmp_path / "mirror"
    lines = ["Origin: Debian", "Version: 99.1", "Codename: tiny", "Date: Sat, 01 Jan 2022 UTC"]
    lines.append("SHA256:")
    for name, text in zip(debian.INDEXES, (PACKAGES, TRANSLATIONS), strict=True):
        content = lzma.compress(text.encode())
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
    (folder / debian.RELEASE).write_text("\n".join(lines) + "\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=str(folder))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    apt(tmp_path, monkeypatch, f"http://127.0.0.1:{server.server_port}/\tDebian\ttiny\tmain")
    monkeypatch.setenv("RETRIEVAL_FT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder
    server.shutdown()
    server.server_close()


def apt(tmp_path, monkeypatch, *rows):
    """Put an apt-get on the path that knows these indexes and nothing else."""
    program = tmp_path / "bin/apt-get"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(rows) + "\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_a_build_reads_the_release_and_is_reused_without_network(mirror, tmp_path, monkeypatch):
    facts = builders.build("debian", tmp_path / "data")
    assert facts["data_version"] == "tiny 99.1 (Sat, 01 Jan 2022 UTC)"
    hashes = [hashlib.sha256((mirror / n).read_bytes()).hexdigest() for n in debian.INDEXES]
    assert facts["source_sha256"].split()[1:] == hashes
    assert facts["counts"]["passages"] == len(beir.read(tmp_path / "data").corpus) == 5
    monkeypatch.setenv("PATH", str(tmp_path))
    assert builders.build("debian", tmp_path / "data") == facts


def test_wrong_bytes_are_refused(mirror, tmp_path):
    (mirror / debian.INDEXES[1]).write_bytes(lzma.compress(b"something else"))
    with pytest.raises(DependencyError, match="wrong bytes came"):
        builders.build("debian", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_mirror_that_does_not_answer_is_exit_5(mirror, tmp_path, monkeypatch, capsys):
    (mirror / debian.RELEASE).unlink()
    with pytest.raises(DependencyError, match=r"InRelease: could not be read .*404"):
        builders.build("debian", tmp_path / "data")
    assert DependencyError.exit_code == 5


def test_without_apt_it_says_where_to_build(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="apt-get was not found"):
        release_uri()


def test_updates_and_other_systems_are_not_the_release(tmp_path, monkeypatch):
    rows = ["http://u/\tDebian\ttiny-updates\tmain", "http://o/\tUbuntu\tjammy\tmain"]
    apt(tmp_path, monkeypatch, *rows)
    with pytest.raises(DependencyError, match="found: Debian tiny-updates main, Ubuntu jammy main"):
        release_uri()
    apt(tmp_path, monkeypatch, *rows, "https://right/dists/tiny/\tDebian\ttiny\tmain")
    assert release_uri() == "https://right/dists/tiny/"
    apt(tmp_path, monkeypatch, "file:/media/cd/\tDebian\ttiny\tmain")
    with pytest.raises(DependencyError, match="only HTTP"):
        release_uri()
