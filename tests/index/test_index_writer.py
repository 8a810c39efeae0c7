"""Changes to an index: after any of them it answers as one that was built anew."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_index import FINGERPRINT, TEXTS, answers, build, corpus, encode, search, spec_of, unit

from retrieval_ft.dataset import Corpus
from retrieval_ft.errors import DataError
from retrieval_ft.index import AnnSpec, DenseSpec, HybridIndex, parse, store, writing

START = {"a": TEXTS[0], "b": TEXTS[1], "c": (TEXTS[2], {"year": 2020})}
NAMES = list("abcdefg")
passage = st.tuples(
    st.sampled_from(TEXTS), st.fixed_dictionaries({"year": st.integers(2019, 2022)})
)
batch = st.dictionaries(st.sampled_from(NAMES), passage, min_size=1, max_size=4)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), batch),
        st.tuples(st.just("delete"), st.lists(st.sampled_from(NAMES), max_size=4)),
        st.tuples(st.just("update"), st.dictionaries(st.sampled_from(NAMES), st.integers(1, 5))),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=9,
)


@pytest.fixture
def folder(tmp_path):
    build(START).save(tmp_path / "index")
    return tmp_path / "index"


def put(writer, passages, *, how="upsert"):
    made = corpus(passages)
    change = getattr(writer, how)
    return change(made, encode(made.passages), encoder_fingerprint=FINGERPRINT)


def do(writer, operation, given, state):
    """Do one operation to the index and to a dictionary of what it should hold."""
    if operation == "upsert":
        assert put(writer, given) == len(given.keys() & state.keys())
        state.update(given)
    elif operation == "delete":
        there = set(given) & state.keys()
        assert writer.delete(given, missing="ignore") == len(there)
        for name in there:
            del state[name]
    elif operation == "update":
        changes = {name: {"extra": value, "year": None} for name, value in given.items()}
        changes = {name: change for name, change in changes.items() if name in state}
        assert writer.update_metadata(changes) == len(changes)
        for name, change in changes.items():
            state[name] = (state[name][0], {"extra": change["extra"]})
    elif operation == "compact":
        writer.compact()


@settings(deadline=None, max_examples=60)
@given(operations, st.sampled_from(["float32", "int8"]))
def test_after_any_changes_the_index_answers_as_one_built_anew(tmp_path_factory, script, precision):
    folder = tmp_path_factory.mktemp("live") / "index"
    dense = DenseSpec(precision=precision)
    state = {name: (TEXTS[i], {"year": 2019 + i}) for i, name in enumerate(NAMES[:5])}
    build(state, dense=dense).save(folder)
    remaining = list(script)
    while True:
        with writing(folder) as writer:
            while remaining:
                operation, given = remaining.pop(0)
                if operation == "reopen":
                    break
                do(writer, operation, given, state)
                assert len(writer.index) == len(state)
        if not remaining:
            break
    for live in (writer.index, HybridIndex.load(folder)):
        same_as_rebuilt(live, state, exact=precision == "float32")
    kept = {path.name for path in (folder / "segments").iterdir()}
    assert {part.segment.name for part in live.lives} <= kept
    assert len(list((folder / "generations").iterdir())) <= 2


def same_as_rebuilt(live, state, *, exact):
    """int8 keeps the scale of its first segment, so only the BM25 side is the same to the bit."""
    anew = build(state)
    modes = ["bm25", "dense", "hybrid"] if exact else ["bm25"]
    queries = [*TEXTS, "cat overflow", "rocket", ""]
    for mode in modes:
        for where in (None, parse({"year": {"$gte": 2020}}), parse({"extra": {"$exists": True}})):
            found = search(live, queries, k=20, mode=mode, where=where)
            expected = search(anew, queries, k=20, mode=mode, where=where)
            strip = [[(h.id, h.score, h.text, dict(h.metadata)) for h in row] for row in found]
            assert strip == [
                [(h.id, h.score, h.text, dict(h.metadata)) for h in row] for row in expected
            ]
    for name, (text, metadata) in state.items():
        shown = live.passage(name)
        assert (shown.text, dict(shown.metadata)) == (text, metadata)


def test_a_change_is_seen_by_the_next_search_and_not_by_a_reader_that_was_there(folder):
    reader = HybridIndex.load(folder)
    before = answers(reader)
    with writing(folder) as writer:
        put(writer, {"new": "a unicorn appears"}, how="add")
        assert search(writer.index, ["unicorn"], mode="bm25")[0][0].id == "new"
        assert search(HybridIndex.load(folder), ["unicorn"], mode="bm25")[0][0].id == "new"
        writer.delete(["a", "b"])
        writer.compact()
    assert answers(reader) == before  # its files are gone, what it mapped is not
    assert reader.passage("a").text == TEXTS[0]
    after = HybridIndex.load(folder)
    assert after.passage("a") is None
    assert len(after) == 2
    assert (reader.generation, after.generation) == (1, 4)


def test_what_is_deleted_is_in_no_file_after_compact(folder):
    secret, label = "Zyxwvut the passphrase", "Qponmlk"
    with writing(folder) as writer:
        put(writer, {"gone": (secret, {"label": label})})
        put(writer, {"stays": "an ordinary text"})
        vector = encode([secret]).tobytes()
        assert vector in whole(folder)
        writer.delete(["gone"])
        assert b"Zyxwvut" in whole(folder)  # only hidden so far
        writer.compact()
    left = whole(folder).lower()
    for trace in (b"zyxwvut", b"passphras", label.lower().encode(), b"gone"):
        assert trace not in left
    assert vector not in whole(folder)
    assert HybridIndex.load(folder).passage("stays").text == "an ordinary text"


def whole(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_replacing_a_passage_takes_the_older_text_out_at_compact(folder):
    with writing(folder) as writer:
        assert put(writer, {"a": "another text"}) == 1
        writer.compact()
    assert b"warm roof" not in whole(folder)
    assert HybridIndex.load(folder).passage("a").text == "another text"


def test_many_small_changes_do_not_leave_many_segments(folder):
    with writing(folder) as writer:
        for i in range(60):
            put(writer, {f"p{i}": f"passage number {i} of many"}, how="add")
            assert len(writer.index.lives) <= 8
    index = HybridIndex.load(folder)
    assert len(index) == 63
    assert search(index, ["number 41"], mode="bm25", k=1)[0][0].id == "p41"


def test_everything_can_be_deleted_and_added_again(folder):
    with writing(folder) as writer:
        assert writer.delete(["a", "b", "c"]) == 3
        assert search(writer.index, ["cat"]) == [[]]
        writer.compact()
        assert search(HybridIndex.load(folder), ["cat", "dog"], mode="bm25") == [[], []]
        put(writer, START, how="add")
    assert answers(HybridIndex.load(folder)) == answers(build(START))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (("new", "a"), ("'a' is in the index already", "1 of 2", "upsert")),
        (("x", "x"), ("2 passages under 1 ids", "unique")),
        (("",), ('"_id" must be a string that is not empty',)),
        (("  ",), ('"_id" must be a string that is not empty',)),
        ((7,), ('"_id" must be a string',)),
        (("x" * 2_000,), ("an id of 2000 bytes", "at most 1024")),
        (("tab\there",), ("no tab or line break",)),
        (("half \ud800",), ('"_id" must be a string',)),
    ],
)
def test_faulty_ids_are_refused_and_nothing_changes(folder, ids, words):
    made = Corpus(ids=ids, texts=("text",) * len(ids), titles=("",) * len(ids))
    with writing(folder) as writer:
        with pytest.raises(DataError) as caught:
            writer.add(made, unit(len(ids), 3), encoder_fingerprint=FINGERPRINT)
        assert writer.index.generation == 1
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 3
    assert answers(HybridIndex.load(folder)) == answers(build(START))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda v: v[:1], "2 passages with 1 vectors"),
        (lambda v: v * np.nan, "the vector of passage 'x' holds NaN"),
        (lambda v: v * 0, "the vector of passage 'x' has length 0"),
        (lambda v: v[:, :4] / np.linalg.norm(v[:, :4], axis=1, keepdims=True), "4 dimensions"),
    ],
)
def test_faulty_vectors_are_refused_by_name(folder, fault, words):
    made = corpus({"x": "one", "y": "two"})
    with writing(folder) as writer, pytest.raises(DataError, match=words):
        writer.add(made, fault(unit(2, 1)), encoder_fingerprint=FINGERPRINT)


def test_vectors_of_another_model_are_refused(folder):
    made = corpus({"x": "one"})
    with writing(folder) as writer:
        for change in (writer.add, writer.upsert):
            with pytest.raises(DataError, match="passages were encoded by model cdcdcdcdcdcd"):
                change(made, unit(1, 1), encoder_fingerprint="cd" * 32)


def test_ids_that_are_not_there_are_named(folder):
    with writing(folder) as writer:
        with pytest.raises(DataError, match=r"'zz' is not in the index \(1 of 2 are not\)"):
            writer.delete(["a", "zz"])
        with pytest.raises(DataError, match="'zz' is not in the index"):
            writer.update_metadata({"zz": {"year": 1}})
        with pytest.raises(DataError, match="JSON"):
            writer.update_metadata({"a": {"year": float("nan")}})
        assert writer.delete(["a", "zz", "a"], missing="ignore") == 1
    assert len(HybridIndex.load(folder)) == 2


def test_strange_texts_come_back_as_they_went_in(folder):
    strange = {
        "big": "word " * 2_000_000,  # 10 MB
        "control": "bell \a null \0 escape \x1b[31m end",
        "rtl": "שלום עולם \u202e reversed",
        "emoji": "👩‍👩‍👧‍👦 family 🚀",
        "lines": "a\u2028b\nc\r\nd",
        "क्या हाल": "हिन्दी में लिखा",
    }
    with writing(folder) as writer:
        put(writer, strange, how="add")
        writer.compact()
    index = HybridIndex.load(folder)
    for name, text in strange.items():
        assert index.passage(name).text == text
    for query, name in (("family", "emoji"), ("עולם", "rtl"), ("bell", "control"), ("word", "big")):
        assert name in [hit.id for hit in search(index, [query], mode="bm25")[0]]


def test_a_new_model_takes_the_place_of_the_old_one_while_that_answers(folder):
    reader = HybridIndex.load(folder)
    spec = spec_of(encoder_fingerprint="cd" * 32, dimension=9)
    seen = []

    def other(texts):
        seen.extend(texts)
        assert HybridIndex.load(folder).spec.encoder_fingerprint == FINGERPRINT
        return encode(texts, dimension=9)

    with writing(folder) as writer:
        writer.delete(["b"])
        writer.rebuild(spec, other)
    assert sorted(seen) == sorted([TEXTS[0], TEXTS[2]])
    index = HybridIndex.load(folder)
    assert (index.spec.encoder_fingerprint, index.spec.dimension, len(index)) == ("cd" * 32, 9, 2)
    with pytest.raises(DataError, match="the index was built with cdcdcdcdcdcd"):
        index.search(["cat"], unit(1, 1), encoder_fingerprint=FINGERPRINT, k=3)
    found = index.search(["cat"], encode([TEXTS[0]], 9), encoder_fingerprint="cd" * 32, k=1)
    assert found[0][0].id == "a"
    assert len(reader) == 3
    assert search(reader, ["dog"])


def test_saving_the_same_again_changes_nothing(folder):
    before = whole(folder)
    build(START).save(folder)
    assert whole(folder) == before
    build({"z": "other"}).save(folder)
    assert HybridIndex.load(folder).generation == 2
    assert len(HybridIndex.load(folder)) == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds files that are no index"):
        build(START).save(tmp_path)
    with pytest.raises(DataError, match="no index here"), writing(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


HOLD = """
import sys, time
from pathlib import Path
from retrieval_ft.index import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_writer_is_told_who_the_first_one_is(folder, holder):
    with pytest.raises(DataError) as caught, writing(folder):
        pass
    assert f"in use by another process (pid {holder.pid} on " in str(caught.value)
    assert "--wait" in str(caught.value)
    assert len(HybridIndex.load(folder)) == 3  # readers are not held up
    with pytest.raises(DataError, match="in use"):
        build(START).save(folder)


def test_a_clock_that_went_back_does_no_harm(folder, holder):
    owner = folder / ".owner.json"
    owner.write_text(json.dumps({**json.loads(owner.read_text()), "since": time.time() + 9_000}))
    with pytest.raises(DataError, match="for 0 s"), writing(folder):
        pass


def test_a_lock_of_a_dead_process_is_no_lock(folder, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (folder / ".owner.json").is_file()
    with writing(folder) as writer:
        put(writer, {"new": "text"})
    assert len(HybridIndex.load(folder)) == 4


def test_a_writer_can_wait_for_another(folder, holder):
    started = time.monotonic()
    subprocess.Popen(["sh", "-c", f"sleep 0.7; kill -9 {holder.pid}"])
    with writing(folder, wait=30) as writer:
        assert len(writer.index) == 3
    assert 0.5 < time.monotonic() - started < 25


CHURN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tiny_index import FINGERPRINT, corpus, encode
from retrieval_ft.index import writing
with writing(Path(sys.argv[1])) as writer:
    for turn in range(60):
        made = corpus({"turn": f"turn {turn}", "a": f"text of turn {turn}"})
        writer.upsert(made, encode(made.passages), encoder_fingerprint=FINGERPRINT)
        if turn % 5 == 0:
            writer.compact()
        print(turn, flush=True)
"""


def test_readers_see_whole_states_while_a_writer_goes_on(folder):
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", CHURN, str(folder), tests]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        seen = []
        while process.poll() is None:
            index = HybridIndex.load(folder)
            turn = int(index.passage("turn").text.split()[1])
            assert index.passage("a").text == f"text of turn {turn}"
            seen.append(turn)
    assert process.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


def test_segments_of_one_generation_are_named_by_what_is_in_them(folder):
    (entry,) = store.current(folder).manifest["segments"]
    assert entry["name"].startswith("000001-")
    other = folder.parent / "twin"
    build(START).save(other)
    assert store.current(other).manifest == store.current(folder).manifest


def test_what_is_added_to_an_approximate_index_is_searched_exactly_until_it_is_compacted(tmp_path):
    folder = tmp_path / "index"
    ann = AnnSpec(kind="ivf-sq8", min_recall=0.0)
    build({f"p{i}": f"passage {i}" for i in range(60)}, ann=ann).save(folder)
    with writing(folder) as writer:
        for i in range(12):
            put(writer, {f"n{i}": f"new {i}"}, how="add")
        kinds = [live.segment.approximate is not None for live in writer.index.lives]
        assert sum(kinds) == 1 and len(kinds) > 1
        (found,) = search(writer.index, ["new 7"], mode="dense", k=1)
        assert found[0].id == "n7" and found[0].score > 0.999
        writer.compact()
        (live,) = writer.index.lives
        assert live.segment.approximate.facts.count == 72
        assert len(search(writer.index, ["new 7"], mode="dense", k=72)[0]) > 0
