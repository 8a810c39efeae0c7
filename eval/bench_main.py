"""The main job from nothing on real data: what tuning buys, and what it costs in time.

    python eval/bench_main.py [--quick] [--json] [--set cwe|hpo] [--corpus-only]

Packages, base weights and data are fetched first and not timed. The job then runs in an empty folder
with an empty embedding cache, and once more in the same folder (nothing to do). `--quick` trains a
few steps only, to see that all of it works; its figures say nothing about quality. `--corpus-only` hides
the train and dev labels: pairs are made from the corpus, labels are used to test.
"""

from __future__ import annotations

import argparse
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
QUICK = ["training.epochs=1", "training.batch_size=512", "training.negatives_per_query=0"]
QUICK += ["training.max_length=16", "training.evaluations=1", "training.soup_alphas=[1.0]"]
QUICK += ["model.max_length=32"]


def run_job(arguments: list[str], *, home: Path) -> tuple[dict[str, Any], float]:
    """Run the main job as a process of its own; return its document and its wall seconds."""
    command = [sys.executable, "-m", "retrieval_ft.train", "--json", *arguments]
    environment = {**os.environ, "RETRIEVAL_FT_HOME": str(home)}
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=False)
    seconds = time.monotonic() - started
    if done.returncode not in (0, 4):  # 4: the gate kept the base, which is a result
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout), seconds


def measure(name: str, *, quick: bool, corpus_only: bool) -> dict[str, Any]:
    """Run the job twice in a fresh folder and flatten what it found."""
    from retrieval_ft.models import resolve
    from retrieval_ft.packages import home

    model = resolve("BAAI/bge-small-en-v1.5").path
    subprocess.run(
        [sys.executable, "-m", "retrieval_ft", "data", "build", name],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    config = "quickstart" if name == "cwe" else name
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "home"
        fresh.mkdir()
        (fresh / "models").symlink_to(model.parent)
        (fresh / "packages").symlink_to(home() / "packages")
        arguments = [f"configs/{config}.yaml", "--set", f"runs={folder}/runs"]
        changes = QUICK if quick else []
        for change in [*changes, *(["data.label_use=test_only"] if corpus_only else [])]:
            arguments += ["--set", change]
        document, first = run_job(arguments, home=fresh)
        again, second = run_job(arguments, home=fresh)
    if document["systems"] != again["systems"]:
        raise SystemExit("the second run gave other figures")
    figures: dict[str, float] = {
        f"{system}_{metric}": value
        for system, values in document["systems"].items()
        for metric, value in values.items()
        if metric in ("recall@1", "recall@10", "ndcg@10")
    }
    for row in document["differences"]:
        stem = f"{row['system']}_minus_{row['against']}_{row['metric']}"
        figures |= {stem: row["delta"], f"{stem}_low": row["ci"][0], f"{stem}_high": row["ci"][1]}
    for stage in document["stages"]:
        figures[f"seconds_{stage['name']}"] = stage["seconds"]
    figures |= {"seconds_first_run": first, "seconds_second_run": second}
    figures["promoted"] = float(document["verdict"] == "promote")
    return {"verdict": document["verdict"], "choices": document["choices"], "figures": figures}


def environment() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure, print, and record a full run under eval/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, under a minute")
    parser.add_argument("--json", action="store_true", help="print the whole JSON document")
    parser.add_argument("--set", choices=("cwe", "hpo"), default="cwe", help="which data set")
    parser.add_argument("--corpus-only", action="store_true", help="hide train and dev labels")
    options = parser.parse_args()
    if options.quick and options.set != "cwe":
        parser.error("--quick goes with the small set: --set cwe")
    found = measure(options.set, quick=options.quick, corpus_only=options.corpus_only)
    words = ["python eval/bench_main.py --set", options.set]
    words += ["--corpus-only"] if options.corpus_only else []
    document = {
        "schema_version": 1,
        "command": " ".join(words),
        "environment": environment(),
        **found,
    }
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(document, indent=2) + "\n"
        name = f"main_{options.set}{'_corpus' if options.corpus_only else ''}.json"
        (RESULTS / name).write_text(text, encoding="utf-8")
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        for name, value in found["figures"].items():
            print(f"{name:50} {value:.4f}")


if __name__ == "__main__":
    main()
