import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft import artifacts
from retrieval_ft.errors import DataError


class Stop(Exception):
    pass


def leftovers(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_a_file_appears_only_when_its_block_ends(tmp_path):
    target = tmp_path / "sub" / "x.txt"
    with artifacts.atomic_open(target, "w") as file:
        file.write("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert leftovers(target.parent) == []


def test_an_error_while_writing_a_file_leaves_the_old_content(tmp_path):
    target = tmp_path / "x.txt"
    artifacts.write_text(target, "old")
    with pytest.raises(Stop), artifacts.atomic_open(target, "w") as file:
        file.write("ne")
        raise Stop
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_an_error_while_writing_a_folder_leaves_the_old_one(tmp_path):
    target = tmp_path / "model"
    with artifacts.atomic_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(Stop), artifacts.atomic_folder(target) as folder:
        (folder / "a").write_text("new")
        raise Stop
    assert (target / "a").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    target = tmp_path / "model"
    for name in ("a", "b"):
        with artifacts.atomic_folder(target) as folder:
            (folder / name).write_text(name)
    assert [p.name for p in target.iterdir()] == ["b"]
    assert leftovers(tmp_path) == []


def test_a_failure_between_the_two_moves_brings_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("old")
    moves = []
    real = os.replace

    def second_move_fails(source, destination):
        moves.append(source)
        if len(moves) == 2:
            raise Stop
        real(source, destination)

    monkeypatch.setattr(artifacts.os, "replace", second_move_fails)
    with pytest.raises(Stop), artifacts.atomic_folder(target) as folder:
        (folder / "a").write_text("new")
    assert (target / "a").read_text() == "old"
    assert leftovers(tmp_path) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values)
def test_json_comes_back_as_it_was(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "x.json"
    artifacts.write_json(path, value)
    assert artifacts.read_json(path) == value


@given(values=st.dictionaries(st.text(), st.integers()))
def test_the_hash_of_a_mapping_does_not_depend_on_its_order(values):
    backwards = dict(reversed(values.items()))
    assert artifacts.sha256_json(values) == artifacts.sha256_json(backwards)


def test_reading_json_says_what_is_wrong_with_the_file(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json: no such file"):
        artifacts.read_json(tmp_path / "nothing.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"half\.json: not valid JSON"):
        artifacts.read_json(tmp_path / "half.json")


def test_an_array_of_objects_is_refused_because_it_would_be_pickled(tmp_path):
    with pytest.raises(ValueError, match="pickled"):
        artifacts.write_arrays(tmp_path / "x", {"x": np.array([{}], dtype=object)})
    assert not (tmp_path / "x").exists()


def test_arrays_are_written_as_safetensors_reads_them_and_mapped_as_they_were(tmp_path):
    arrays = {
        "bytes": np.arange(7, dtype=np.uint8),
        "none": np.zeros((0, 3), np.float32),
        "wide": np.array([[1, -2], [3, 4]], np.int64),
        "yes": np.array([True, False]),
        "ünïcode": np.array([1.5, np.inf], np.float64),
        "narrow": np.array([1, 65_535], np.uint16),
    }
    artifacts.write_arrays(tmp_path / "a.safetensors", arrays)
    for read in (safetensors.numpy.load_file, artifacts.map_arrays):
        found = read(tmp_path / "a.safetensors")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found[name], array)
    (tmp_path / "a.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0no json!")
    with pytest.raises(DataError, match="damaged"):
        artifacts.map_arrays(tmp_path / "a.safetensors")


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "index"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / "deep" / "b.txt").write_text("ü")
    artifacts.seal(folder, {"kind": "index"})
    return folder


def test_a_sealed_folder_is_verified_and_gives_its_facts(sealed):
    manifest = artifacts.verify(sealed, what="index")
    assert manifest["kind"] == "index"
    assert set(manifest["files"]) == {"a.bin", "deep/b.txt"}
    assert manifest["files"]["a.bin"]["bytes"] == 256


def test_one_flipped_bit_is_found_and_the_file_is_named(sealed):
    data = bytearray((sealed / "a.bin").read_bytes())
    data[100] ^= 1
    (sealed / "a.bin").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.bin: damaged .*build the index again") as caught:
        artifacts.verify(sealed, what="index")
    assert caught.value.exit_code == 3


def test_a_missing_file_or_manifest_is_named(sealed):
    (sealed / "deep" / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt: missing from index"):
        artifacts.verify(sealed, what="index")
    (sealed / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="not the manifest of index"):
        artifacts.verify(sealed, what="index")
    (sealed / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        artifacts.verify(sealed, what="index")


HOLDER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from retrieval_ft import artifacts
    with artifacts.exclusive(Path(sys.argv[1]), what="run", remedy="wait"):
        print("held", flush=True)
        sys.stdin.read()
""")


def test_a_folder_held_by_another_process_is_refused_and_free_when_that_one_dies(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(
                DataError, match=rf"run is in use .*pid {holder.pid} on .* for \d+ s\); wait"
            ) as caught,
            artifacts.exclusive(tmp_path, what="run", remedy="wait"),
        ):
            pass
        assert caught.value.exit_code == 3
    finally:
        holder.kill()
        holder.communicate()
    with artifacts.exclusive(tmp_path, what="run", remedy="wait"):
        pass
