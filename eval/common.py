"""What the benchmarks share: where things are, how a side is run, how figures are kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PEERS = ROOT / ".venv/peers"
MODEL = "BAAI/bge-small-en-v1.5"
MISSING = "missing: run `make peers`"
_PACKAGES = ("torch", "sentence-transformers", "transformers")


def environment() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def data_folder(name: str) -> Path:
    """The folder of a data set that the package builds; it is built where need be."""
    command = [sys.executable, "-m", "retrieval_ft", "data", "build", name]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return ROOT / "data" / name


def link_home(folder: Path) -> Path:
    """An empty home for the package, with the models and packages of the real one in it."""
    from retrieval_ft.models import resolve
    from retrieval_ft.packages import home

    model = resolve(MODEL).path
    folder.mkdir(parents=True, exist_ok=True)
    for name, place in (("models", model.parent), ("packages", home() / "packages")):
        if not (folder / name).exists():
            (folder / name).symlink_to(place)
    return folder


def run_job(arguments: list[str], *, home: Path) -> tuple[dict[str, Any], float]:
    """Run the main job as a process of its own; return its document and its wall seconds."""
    command = [sys.executable, "-m", "retrieval_ft.train", "--json", *arguments]
    variables = {**os.environ, "RETRIEVAL_FT_HOME": str(home)}
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, check=False)
    seconds = time.monotonic() - started
    if done.returncode not in (0, 4):  # 4: the gate kept the base, which is a result
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout), seconds


def child(script: str, *options: str, seed: int = 0, home: Path | None = None) -> Any:
    """Run one side of a benchmark in a process of its own and return what it left in `--out`.

    Raises:
        ChildProcessError: it failed; the last line that it wrote to stderr says why.
    """
    variables = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONHASHSEED": str(seed)}
    if home is not None:
        variables["RETRIEVAL_FT_HOME"] = str(home)
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "found.json", Path(folder) / "stderr"
        command = [sys.executable, script, *options, "--out", str(out)]
        with log.open("w") as file:
            done = subprocess.run(
                command, cwd=ROOT, env=variables, stdout=file, stderr=file, check=False
            )
        if done.returncode:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            print("\n".join(lines[-15:]), file=sys.stderr)
            raise ChildProcessError(lines[-1][:200] if lines else f"exit {done.returncode}")
        return json.loads(out.read_text(encoding="utf-8"))


def record(name: str, document: dict[str, Any]) -> None:
    """Keep a full run under eval/results/."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


def show(document: dict[str, Any], *, as_json: bool) -> None:
    """Print the whole document, or its figures and what is said of the peers."""
    if as_json:
        print(json.dumps(document, indent=2))
        return
    for name, value in document["figures"].items():
        print(f"{name:60} {value:.4f}")
    for name, version in document.get("peers", {}).items():
        print(f"{name:60} {version}")
