"""Kill a writer at each of its steps and look at what is left: run by test_index_crashes.py.

Every opening of a file for writing, rename, removal and new folder below the index is a step; a
child made by fork does one change and is killed (SIGKILL) at step n, for every n that there is.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from tiny_index import FINGERPRINT, answers, build, corpus, encode, spec_of

from retrieval_ft.index import HybridIndex, store, writing

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
START = {f"p{i}": f"passage {i} about cats and overflow" for i in range(4)}
MORE = {"new": ("a new text", {"year": 2021}), "p1": "p1 says something else"}


def put(writer, how, passages):
    made = corpus(passages)
    change = getattr(writer, how)
    change(made, encode(made.passages), encoder_fingerprint=FINGERPRINT)


CHANGES = {
    "add": lambda w: put(w, "add", {"x": "one more", "y": ("and more", {"year": 1})}),
    "upsert": lambda w: put(w, "upsert", MORE),
    "delete": lambda w: w.delete(["p0", "p2"]),
    "update": lambda w: w.update_metadata({"p0": {"year": 7}}),
    "compact": lambda w: w.compact(),
    "rebuild": lambda w: w.rebuild(spec_of(encoder_path="other"), encode),
    "merge": lambda w: put(w, "add", {"ninth": "the segment that is one too many"}),
    "save": None,
    "first": None,
}


def prepare(folder, change):
    """The index before a change; with deletions and several segments, so that there is work."""
    if change == "first":
        folder.mkdir()
        return
    build(START).save(folder)
    if change == "save":
        return
    with writing(folder) as writer:
        put(writer, "add", {"old": "to be cleared", "kept": "kept"})
        writer.delete(["old"])
        for i in range(6 if change == "merge" else 0):
            put(writer, "add", {f"s{i}": f"small segment {i}"})


def apply(folder, change):
    if change in ("save", "first"):
        build({"z": "another index"}).save(folder)
        return
    with writing(folder) as writer:
        CHANGES[change](writer)


def child(folder, change, step, pipe):
    """Do the change; die at the step, or acknowledge the end."""
    left = step

    def hook(event, arguments):
        nonlocal left
        if event not in STEPS or str(folder) not in str(arguments[0]):
            return
        if event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    apply(folder, change)
    os.write(pipe, b"done")
    os._exit(0)


def state(folder):
    """All that the index there says; None where there is none."""
    return answers(HybridIndex.load(folder)) if store.exists(folder) else None


def crash(folder, change, step):
    """Whether the change ended before the step came."""
    reading, writing_end = os.pipe()
    process = os.fork()
    if process == 0:
        child(folder, change, step, writing_end)
    os.close(writing_end)
    acknowledged = os.read(reading, 4) == b"done"
    os.close(reading)
    _, status = os.waitpid(process, 0)
    assert acknowledged or os.WTERMSIG(status) == signal.SIGKILL, (change, step, status)
    return acknowledged


def main(root):
    counts = {}
    for change in CHANGES:
        before, after = root / f"{change}-before", root / f"{change}-after"
        prepare(before, change)
        shutil.copytree(before, after)
        apply(after, change)
        old, new = state(before), state(after)
        step, ended, states = 0, False, set()
        while not ended:
            step += 1
            folder = root / f"{change}-{step}"
            shutil.copytree(before, folder)
            ended = crash(folder, change, step)
            found = state(folder)
            assert found in (old, new), (change, step)
            assert found == new or not ended, (change, step)
            states.add("new" if found == new else "old")
            if found is None:
                build(START).save(folder)
            with writing(folder) as writer:  # what the crash left is cleared away, and work goes on
                put(writer, "upsert", {"later": "written after the crash"})
                writer.compact()
                kept = store.garbage(folder, keep=[store.current(folder)])
                assert not kept, (change, step, kept)
                assert writer.index.passage("later").text == "written after the crash"
            shutil.rmtree(folder)
        counts[change] = {"steps": step - 1, "states": sorted(states)}
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
