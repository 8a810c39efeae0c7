"""Disks that are full or cannot be written: a child process meets them, as root would not."""

import json
import os
import resource
import shutil
import signal
import tempfile
from pathlib import Path

import faiss
import pytest
from tiny_index import FINGERPRINT, answers, build, corpus, encode
from typer.testing import CliRunner

from retrieval_ft.cli import app
from retrieval_ft.errors import DataError
from retrieval_ft.index import HybridIndex, writing
from retrieval_ft.pipeline import live_index

START = {f"p{i}": f"passage {i} of the index" for i in range(5)}
NOBODY = 65_534


@pytest.fixture
def folder():
    """An index that any user may read: pytest's own folders are for their owner alone."""
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    build(START).save(home / "index")
    yield home / "index"
    shutil.rmtree(home)


def in_child(work):
    """What a function gives in a child process that cannot harm this one; JSON values."""
    reading, writing_end = os.pipe()
    process = os.fork()
    if process == 0:
        faiss.omp_set_num_threads(1)  # the threads of the parent are not in the child
        try:
            found = work()
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
        os.write(writing_end, json.dumps(found).encode())
        os._exit(0)
    os.close(writing_end)
    with os.fdopen(reading, "rb") as pipe:
        found = json.loads(pipe.read())
    os.waitpid(process, 0)
    return found


def small_files(size):
    """Let no file grow beyond so many bytes, as a disk does that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def put(folder, passages):
    made = corpus(passages)
    with writing(folder) as writer:
        writer.upsert(made, encode(made.passages), encoder_fingerprint=FINGERPRINT)
        return len(writer.index)


@pytest.mark.parametrize("size", [0, 100, 500, 1_500, 3_000, 5_000])
def test_a_disk_that_is_full_leaves_the_index_as_it_was(folder, size):
    before = answers(HybridIndex.load(folder))
    big = {f"new{i}": "many words that fill a disk " * 20 for i in range(40)}

    def work():
        small_files(size)
        return put(folder, big)

    assert "File too large" in in_child(work)
    assert answers(HybridIndex.load(folder)) == before
    assert put(folder, big) == 45  # once there is room again
    assert {p.name[0] for p in (folder / "segments").iterdir()} == {"0"}


@pytest.mark.parametrize("size", [0, 300, 2_000])
def test_vectors_do_not_end_early_without_a_word(folder, size):
    def work():
        small_files(size)
        build({f"p{i}": f"passage {i}" for i in range(500)}).save(folder.parent / "other")
        return "saved"

    other = folder.parent / "other"
    assert "File too large" in in_child(work)
    assert not list(other.rglob("*.faiss"))
    build(START).save(other)
    assert len(HybridIndex.load(other)) == 5


def test_the_command_line_says_which_file_had_no_room(folder):
    def work():
        small_files(0)
        found = CliRunner().invoke(app, ["index", "delete", str(folder), "p1"])
        return [found.exit_code, found.stderr]

    code, said = in_child(work)
    assert code == 3
    assert "File too large" in said
    assert "what was there before is whole" in said
    assert len(HybridIndex.load(folder)) == 5


def test_an_index_that_may_not_be_written_is_read(folder):
    assert live_index  # nobody may be unable to import it
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def work():
        if os.getuid() == 0:
            os.setuid(NOBODY)
        assert not os.access(folder, os.W_OK)
        before = answers(HybridIndex.load(folder))
        found = CliRunner().invoke(app, ["index", "delete", str(folder), "p1"])
        assert answers(HybridIndex.load(folder)) == before
        return [len(before[2]), found.exit_code, found.stderr]

    passages, code, said = in_child(work)
    assert (passages, code) == (5, 3)
    assert f"error: {folder}" in said
    assert "denied" in said


def test_a_folder_that_is_no_index_gets_no_lock(tmp_path):
    with pytest.raises(DataError, match="no index here"), writing(tmp_path / "nowhere"):
        pass
    assert list(tmp_path.iterdir()) == []
