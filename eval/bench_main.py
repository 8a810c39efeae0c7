"""The main job from nothing on real data: what tuning buys, and what it costs in time.

    python eval/bench_main.py [--quick] [--json] [--set cwe|hpo] [--corpus-only]

Packages, base weights and data are fetched first and not timed. The job then runs in an empty folder
with an empty embedding cache, and once more in the same folder (nothing to do). `--quick` trains a
few steps only, to see that all of it works; its figures say nothing about quality. `--corpus-only` hides
the train and dev labels: pairs are made from the corpus, labels are used to test.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from common import data_folder, environment, link_home, record, run_job, show

QUICK = ["training.epochs=1", "training.batch_size=512", "training.negatives_per_query=0"]
QUICK += ["training.max_length=16", "training.evaluations=1", "training.soup_alphas=[1.0]"]
QUICK += ["model.max_length=32", "evaluation.general=[]"]


def measure(name: str, *, quick: bool, corpus_only: bool) -> dict[str, Any]:
    """Run the job twice in a fresh folder and flatten what it found."""
    data_folder(name)
    config = "quickstart" if name == "cwe" else name
    with tempfile.TemporaryDirectory() as folder:
        fresh = link_home(Path(folder) / "home")
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
        record(f"main_{options.set}{'_corpus' if options.corpus_only else ''}", document)
    show(document, as_json=options.json)


if __name__ == "__main__":
    main()
