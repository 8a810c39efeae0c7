import hashlib
import io
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from retrieval_ft import packages
from retrieval_ft.errors import DependencyError
from retrieval_ft.packages import PackageSource


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_FT_HOME", str(tmp_path / "home"))


def make_tgz(path, members):
    with tarfile.open(path, "w:gz") as tarball:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tarball.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_wheel(path, members):
    info = f"{path.name.split('-')[0]}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def npm_source(sha256):
    return PackageSource("npm", "tiny", "1.0.0", "tiny-1.0.0.tgz", sha256)


def pypi_source(sha256):
    return PackageSource("pypi", "tiny", "1.0", "tiny-1.0-py3-none-any.whl", sha256)


def fake_npm(tmp_path, monkeypatch, script):
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def downloads():
    folder = packages.home() / "packages"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_home_is_the_chosen_folder_else_the_cache_folder(monkeypatch):
    monkeypatch.setenv("RETRIEVAL_FT_HOME", "/x/y")
    assert packages.home() == Path("/x/y")
    monkeypatch.delenv("RETRIEVAL_FT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert packages.home() == Path("/x/retrieval_ft")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert packages.home() == Path.home() / ".cache" / "retrieval_ft"


def test_an_npm_package_is_packed_without_scripts_and_kept(tmp_path, monkeypatch):
    served = tmp_path / "served.tgz"
    sha256 = make_tgz(served, {"package/a": b"x"})
    log = tmp_path / "log"
    fake_npm(tmp_path, monkeypatch, f'echo "$@" >> {log}; cp {served} tiny-1.0.0.tgz')
    path = packages.fetch_package(npm_source(sha256))
    assert path.read_bytes() == served.read_bytes()
    assert packages.fetch_package(npm_source(sha256)) == path
    (call,) = log.read_text().splitlines()
    assert call.startswith("pack tiny@1.0.0 --ignore-scripts")


def test_a_damaged_archive_is_fetched_again(tmp_path, monkeypatch):
    served = tmp_path / "served.tgz"
    sha256 = make_tgz(served, {"package/a": b"x"})
    fake_npm(tmp_path, monkeypatch, f"cp {served} tiny-1.0.0.tgz")
    path = packages.fetch_package(npm_source(sha256))
    path.write_bytes(b"damaged")
    assert packages.fetch_package(npm_source(sha256)).read_bytes() == served.read_bytes()


def test_wrong_bytes_are_told_and_not_kept(tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, "echo other > tiny-1.0.0.tgz")
    found = hashlib.sha256(b"other\n").hexdigest()
    with pytest.raises(DependencyError, match=f"found {found}, expected {'0' * 64}") as caught:
        packages.fetch_package(npm_source("0" * 64))
    assert caught.value.exit_code == 5
    assert downloads() == []


def test_npm_that_is_not_there_is_told_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match=r"npm was not found on PATH.*install Node\.js"):
        packages.fetch_package(npm_source("0" * 64))


NO_NETWORK = """cat >&2 <<X
npm error code ENOTFOUND
npm error syscall getaddrinfo
npm error network request to the registry failed, reason: getaddrinfo ENOTFOUND
npm error A complete log of this run can be found in: /somewhere
X
exit 1"""


def test_npm_without_a_connection_gives_the_reason(tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, NO_NETWORK)
    with pytest.raises(DependencyError, match=r"npm said: .*reason: getaddrinfo ENOTFOUND") as got:
        packages.fetch_package(npm_source("0" * 64))
    assert "complete log" not in str(got.value)
    assert "Check the connection" in str(got.value)
    assert downloads() == []


def test_a_client_that_hangs_is_given_up(tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, "exec sleep 30")
    monkeypatch.setattr(packages, "_TIMEOUT_S", 0.2)
    with pytest.raises(DependencyError, match=r"no answer within 0\.2 s"):
        packages.fetch_package(npm_source("0" * 64))


def test_a_wheel_is_downloaded_by_pip(tmp_path, monkeypatch):
    pytest.importorskip("pip")
    served = tmp_path / "served" / "tiny-1.0-py3-none-any.whl"
    served.parent.mkdir()
    sha256 = make_wheel(served, {"tiny/data.txt": b"x"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(served.parent))
    path = packages.fetch_package(pypi_source(sha256))
    assert path.read_bytes() == served.read_bytes()


@pytest.mark.parametrize(
    "tags", ["py3-none-any", "cp311-abi3-macosx_11_0_arm64", "cp311-cp311-win32.win_amd64"]
)
def test_the_named_wheel_comes_whatever_this_machine_is(tmp_path, monkeypatch, tags):
    pytest.importorskip("pip")
    served = tmp_path / "served"
    served.mkdir()
    plain = make_wheel(served / "tiny-1.0-py3-none-any.whl", {"tiny/a": b"x"})
    here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    better = f"tiny-1.0-cp3{sys.version_info.minor}-none-{here}.whl"
    make_wheel(served / better, {"tiny/a": b"here"})
    sha256 = plain if "any" in tags else make_wheel(served / f"tiny-1.0-{tags}.whl", {"a": b"y"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(served))
    source = PackageSource("pypi", "tiny", "1.0", f"tiny-1.0-{tags}.whl", sha256)
    assert packages.fetch_package(source).name == source.filename


def test_pip_that_finds_nothing_gives_its_words(tmp_path, monkeypatch):
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DependencyError, match=r"pip said: ERROR: .*tiny==1\.0"):
        packages.fetch_package(pypi_source("0" * 64))


@pytest.mark.parametrize("name", ["x.tgz", "tiny-1.0-py3-none-any.whl"])
def test_a_member_is_read_as_bytes_and_an_absent_one_is_told(tmp_path, name):
    make = make_tgz if name.endswith("tgz") else make_wheel
    make(tmp_path / name, {"a/b": b"0123456789"})
    with packages.open_member(tmp_path / name, "a/b") as file:
        file.seek(3)
        assert file.read(4) == b"3456"
    with (
        pytest.raises(DependencyError, match="holds no member 'a/c'"),
        packages.open_member(tmp_path / name, "a/c"),
    ):
        pass


def test_a_copy_is_written_only_when_hash_and_length_are_right(tmp_path):
    data = b"0123456789"
    sha256 = hashlib.sha256(data).hexdigest()
    target = tmp_path / "x"
    packages.copy_checked(io.BytesIO(data + b"more"), target, sha256=sha256, length=10)
    assert target.read_bytes() == data
    for wrong in (b"0123456780", b"012"):
        target.unlink(missing_ok=True)
        with pytest.raises(DependencyError, match=f"x: wrong bytes .*expected {sha256}"):
            packages.copy_checked(io.BytesIO(wrong), target, sha256=sha256, length=10)
        assert not target.exists()
