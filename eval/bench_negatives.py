"""Which negatives are worth mining: five ways, on labelled data, with the same steps for each.

    python eval/bench_negatives.py [--quick] [--json] [--seeds 13 14] [--work FOLDER]

Each run is the main job with other settings of `mining`, in a run directory of its own below the
work folder: what is done is not done again, so the benchmark may be stopped and started at any time.
The winner is told by dev; test stands beside it. `--quick` trains a few steps of one run a way, to
see that all of it works; its figures say nothing about quality.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from bench_main import QUICK
from common import ROOT, environment, record, run_job

WAYS: dict[str, list[str]] = {
    "in-batch only": ["training.negatives_per_query=0"],
    "top-k, no filter": ["mining.filter=none", "mining.duplicate_jaccard=1.0"],
    "95% fixed margin": ["mining.filter=relative"],
    "calibrated": [],
    "calibrated, denoised": ["mining.cross_encoder=ms-marco-MiniLM-L-12-v2-int8"],
}
BUDGET = {"cwe": 20, "hpo": 20}
"""Optimizer steps of a run, 64 queries each."""
SEEDS = (13, 14)
SAME = ["training.epochs=1", "training.batch_size=64", "training.evaluations=1"]
SAME += ["training.soup_alphas=[1.0]"]


def measure(name: str, way: str, seed: int, *, work: Path, quick: bool) -> dict[str, Any]:
    """Do one run, or take it from the work folder, and return its figures."""
    from retrieval_ft.packages import home

    config = "quickstart" if name == "cwe" else name
    run = f"{name}-{way.replace(' ', '-').replace('%', '').replace(',', '')}-{seed}"
    changes = [f"runs={work}", f"seed={seed}", *SAME, f"training.max_steps={BUDGET[name]}"]
    changes += [*WAYS[way], *(QUICK if quick else [])]
    arguments = [f"configs/{config}.yaml", "--name", run]
    for change in changes:
        arguments += ["--set", change]
    document, _ = run_job(arguments, home=home())
    log = [json.loads(line) for line in (work / run / "checkpoints/log.jsonl").open()]
    dev = [row for row in log if "eval_recall@10" in row][-1]
    systems = document["systems"]
    return {
        "set": name,
        "way": way,
        "seed": seed,
        "dev_dense_recall@10": dev["eval_recall@10"],
        "dev_dense_ndcg@10": dev["eval_ndcg@10"],
        **{
            f"test_{kind}_{metric}": systems[f"tuned_{kind}"][metric]
            for kind in ("dense", "hybrid")
            for metric in ("recall@10", "ndcg@10")
        },
        "base_hybrid_recall@10": systems["base_hybrid"]["recall@10"],
    }


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds, a row for each set and way."""
    found = []
    for name in dict.fromkeys(row["set"] for row in rows):
        for way in WAYS:
            same = [row for row in rows if (row["set"], row["way"]) == (name, way)]
            means = {
                key: round(statistics.mean(row[key] for row in same), 4)
                for key in same[0]
                if isinstance(same[0][key], float)
            }
            found.append({"set": name, "way": way, "seeds": len(same), **means})
    return found


def main() -> None:
    """Do every run, print the table, and record a full one under eval/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, one set and seed")
    parser.add_argument("--json", action="store_true", help="print the whole JSON document")
    parser.add_argument("--work", type=Path, help="where the runs go and stay")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of the runs")
    options = parser.parse_args()
    name = "bench_negatives_quick" if options.quick else "bench_negatives"
    work = (options.work or ROOT / "runs" / name).resolve()
    sets = ["cwe"] if options.quick else list(BUDGET)
    seeds = options.seeds[:1] if options.quick else options.seeds
    ways = [w for w in WAYS if not (options.quick and "denoised" in w)]
    rows = [
        measure(name, way, seed, work=work, quick=options.quick)
        for seed in seeds
        for name in sets
        for way in ways
    ]
    means = table(rows) if not options.quick else rows
    document = {
        "schema_version": 1,
        "command": f"python eval/bench_negatives.py --seeds {' '.join(map(str, seeds))}",
        "environment": environment(),
        "steps": BUDGET,
        "runs": rows,
        "table": means,
        "figures": {
            f"{row['set']}_{row['way']}_{key}": value
            for row in means
            for key, value in row.items()
            if isinstance(value, float)
        },
    }
    if not options.quick:
        record("negatives", document)
    if options.json:
        print(json.dumps(document, indent=2))
        return
    for row in means:
        figures = " ".join(f"{key} {v:.4f}" for key, v in row.items() if isinstance(v, float))
        print(f"{row['set']:4} {row['way']:22} {figures}")


if __name__ == "__main__":
    main()
