"""The cache of answers: nothing is lost that was written whole, whatever happened after."""

import json
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.mining.synthetic.budget import Usage
from retrieval_ft.mining.synthetic.cache import FILE, Answer, AnswerCache

answers = st.builds(
    Answer,
    st.text(),
    st.builds(Usage, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9)),
    st.booleans(),
)


def some(number):
    return Answer(f"answer {number}\nof two lines", Usage(number, 2, 0))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1), answers, max_size=5))
def test_answers_come_back_as_they_were(tmp_path_factory, given_answers):
    folder = tmp_path_factory.mktemp("cache")
    with AnswerCache(folder) as cache:
        for key, answer in given_answers.items():
            cache.add(key, answer)
        assert {key: cache.get(key) for key in given_answers} == given_answers
    with AnswerCache(folder) as cache:
        assert {key: cache.get(key) for key in given_answers} == given_answers
        assert len(cache) == len(given_answers)
        assert cache.get("another key") is None


def test_a_cache_that_is_only_read_makes_no_folder(tmp_path):
    with AnswerCache(tmp_path / "none") as cache:
        assert cache.get("x") is None
    assert not (tmp_path / "none").exists()


def test_a_file_torn_at_any_byte_keeps_its_whole_lines_and_takes_new_ones(tmp_path, capsys):
    with AnswerCache(tmp_path) as cache:
        for number in range(2):
            cache.add(f"k{number}", some(number))
    whole = (tmp_path / FILE).read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        (tmp_path / FILE).write_bytes(whole[:cut])
        kept = sum(end - 1 <= cut for end in ends)  # a line is whole without its line break
        with AnswerCache(tmp_path) as cache:
            assert len(cache) == kept, cut
            cache.add("new", some(9))
        with AnswerCache(tmp_path) as cache:
            assert cache.get("new") == some(9), cut
            assert len(cache) == kept + 1, cut
    assert "1 damaged lines are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00",
        b"3",
        b"{}",
        b'{"key": "a", "text": "t", "cut": false, "usage": {"prompt_tokens": "many"}}',
        b'{"key": "a", "text": "t", "cut": false, "usage": {"tokens": 1}}',
        b'{"key": "a", "text": "t", "cut": false, "usage": null}',
    ],
)
def test_a_damaged_line_is_left_out_and_said(tmp_path, capsys, line):
    with AnswerCache(tmp_path) as cache:
        cache.add("good", some(1))
    path = tmp_path / FILE
    path.write_bytes(line + b"\n" + path.read_bytes() + b"\n\n")
    with AnswerCache(tmp_path) as cache:
        assert len(cache) == 1 and cache.get("good") == some(1)
    said = capsys.readouterr().err
    assert str(path) in said and "1 damaged lines are left out; they will be asked again" in said


def test_an_added_answer_survives_kill_9_at_once(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from retrieval_ft.mining.synthetic.cache import Answer, AnswerCache\n"
        "from retrieval_ft.mining.synthetic.budget import Usage\n"
        "AnswerCache(Path(sys.argv[1])).add('k', Answer('t', Usage(1, 2)))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert run.returncode == -signal.SIGKILL
    with AnswerCache(tmp_path) as cache:
        assert cache.get("k") == Answer("t", Usage(1, 2))


def test_a_hundred_thousand_answers_are_one_file_that_is_soon_read(tmp_path):
    row = {"text": "x" * 100, "usage": {"prompt_tokens": 1, "answer_tokens": 1}, "cut": False}
    with (tmp_path / FILE).open("w") as file:
        for number in range(100_000):
            file.write(json.dumps({"key": f"{number:064x}", **row}) + "\n")
    with AnswerCache(tmp_path) as cache:
        assert len(cache) == 100_000
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
