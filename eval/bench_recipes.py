"""Our default recipe against the documented ones of its peers: same base, pairs, steps and lengths.

    python eval/bench_recipes.py [--quick] [--json] [--sets cwe hpo pycode-small]
        [--seeds 13 14] [--work FOLDER]
    python eval/bench_recipes.py --ablation [--sets cwe] ...

bge-small-en-v1.5; 20 steps of 64 queries, 128 tokens at most. Each recipe is whole, miner and trainer:

  ours     the main job as it ships; its tuned candidate is scored, promoted or not
  st       sentence-transformers: mine_hard_negatives (relative_margin .05, top, 5), triplets, the
           cached loss at its scale of 20, learning rate 2e-5, warm-up 10%, no duplicates in a batch
  flag     FlagEmbedding: hn_mine (ranks 2 to 200, 15), temperature .02, learning rate 1e-5, warm-up
           10%, gradient checkpointing; groups of 4 (its example has 8 at a batch of 2: `--group`)
  st-lr    (with --arms) the same as st and flag at our learning rate: how much of a difference that
  flag-lr  makes

The peers train in bf16 where this hardware multiplies it (both documentations set fp16, which a CPU
lacks). All see the train labels as the main job cleaned them, and the base's query prompt. Scores are
those of our evaluator on test: CLS and normalised for all, the fusion chosen on dev for each.

A set is a name of the package or a folder in BEIR layout; `hpo:6000` cuts it to so many passages. Each
run leaves its figures below the work folder and is not done again; where the package has changed,
take another folder. Noise is the 95% half-width of a
difference, paired over the test queries after the mean over seeds. `--ablation` runs ours alone with
one part of the recipe switched at a time. `--quick` is small, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import MISSING, PEERS, ROOT, child, environment, link_home, record, show
from recipe_sides import (
    FULL,
    KINDS,
    METRICS,
    QUICK,
    Size,
    digest,
    label,
    run_arm,
    set_folder,
)

Run = dict[str, Any]
SEEDS = (13, 14)
SETS = ("cwe", "hpo", "pycode-small")
ARMS = ("ours", "st", "flag", "st-lr", "flag-lr")
CROSS_ENCODER = "mining.cross_encoder=ms-marco-MiniLM-L-12-v2-int8"
ABLATION: dict[str, list[str]] = {
    "default": [],
    "self-score mask": ["training.self_score_margin=0.1"],
    "no margin": ["mining.filter=none"],
    "no duplicate filter": ["mining.duplicate_jaccard=1.0"],
    "no mined negatives": ["training.negatives_per_query=0"],
    "denoised": [CROSS_ENCODER],
    "no soup": ["training.soup_alphas=[1.0]"],
    "no floor of forgetting": ["evaluation.general=[]"],
    "prompt dropout": ["training.prompt_dropout=0.1"],
    "bidirectional": ["training.bidirectional=true"],
    "listwise, cross-encoder": [CROSS_ENCODER, "training.loss=listwise"],
    "listwise, BM25": ["training.loss=listwise", "training.teacher=bm25"],
}
LEFT_OUT = {
    "mask of known positives": "always on: a passage labelled relevant is never a negative",
    "each text encoded once": "the gradient is the same without it (a test shows that); it saves time",
    "lexical-aware": "not in the package",
}
TINY = ["training.evaluations=1", "training.soup_alphas=[1.0]", "evaluation.general=[]"]
"""Changes of `--quick`, besides its size."""


def one_run(arm: str, spec: str, seed: int, *, name: str, options: argparse.Namespace) -> Run:
    """Do a run, or take its figures from the work folder."""
    size = options.size
    changes = [*ABLATION.get(name, []), *(TINY if options.quick else [])] if arm == "ours" else []
    slug = f"{label(spec)}-{name.replace(',', '').replace(' ', '-')}-{seed}"
    key = {"set": spec, "arm": arm, "seed": seed, "size": asdict(size), "changes": changes}
    key["data"] = digest(set_folder(spec, options.work))
    file = options.work / "figures" / f"{slug}.json"
    if file.is_file() and (found := json.loads(file.read_text(encoding="utf-8")))["key"] == key:
        return found
    started = time.monotonic()
    words = ["--one", json.dumps({**key, "name": slug}), "--work", str(options.work)]
    home = link_home(options.work / "home")
    found = {"key": key, "name": name, **child(__file__, *words, seed=seed, home=home)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found), encoding="utf-8")
    print(f"{slug}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return found


def mean_of(run: Run, kind: str, metric: str) -> float:
    """Mean of a metric over the test queries of a run."""
    return statistics.mean(run["values"][kind][metric])


def difference(ones: list[Run], others: list[Run], kind: str, metric: str) -> tuple[float, float]:
    """Mean of ones less others, and its 95% half-width, paired over queries after the mean of seeds."""
    sides = [np.mean([r["values"][kind][metric] for r in runs], axis=0) for runs in (ones, others)]
    gaps = sides[0] - sides[1]
    return float(gaps.mean()), float(1.96 * gaps.std(ddof=1) / math.sqrt(len(gaps)))


def table(runs: list[Run], reference: str) -> list[dict[str, Any]]:
    """A row for each set and name: means, values by seed, and how far the reference is ahead."""
    rows = []
    for spec in dict.fromkeys(run["key"]["set"] for run in runs):
        here = [run for run in runs if run["key"]["set"] == spec]
        ours = [run for run in here if run["name"] == reference]
        for name in dict.fromkeys(run["name"] for run in here):
            same = [run for run in here if run["name"] == name]
            row: dict[str, Any] = {"set": label(spec), "name": name, "seeds": len(same)}
            row["queries"] = len(same[0]["values"]["dense"]["recall@10"])
            for kind in KINDS:
                for metric in METRICS:
                    by_seed = [round(mean_of(run, kind, metric), 4) for run in same]
                    found = {"mean": round(statistics.mean(by_seed), 4), "by_seed": by_seed}
                    if name != reference:
                        lead, noise = difference(ours, same, kind, metric)
                        found |= {f"{reference}_minus": round(lead, 4), "noise": round(noise, 4)}
                    row[f"{kind}_{metric}"] = found
            rows.append(row)
    return rows


def figures_of(rows: list[dict[str, Any]], reference: str) -> dict[str, float]:
    """The table as flat figures, with the least lead over all sets and how often ours is behind."""
    figures: dict[str, float] = {}
    leads: dict[str, list[float]] = {kind: [] for kind in KINDS}
    behind = 0
    for row in rows:
        stem = f"{row['set']}_{row['name'].replace(',', '').replace(' ', '_')}"
        for kind in KINDS:
            cells = {metric: row[f"{kind}_{metric}"] for metric in METRICS}
            for metric, cell in cells.items():
                figures[f"{stem}_{kind}_{metric}"] = cell["mean"]
                if row["name"] == reference:
                    continue
                lead = cell[f"{reference}_minus"]
                figures[f"{reference}_minus_{stem}_{kind}_{metric}"] = lead
                figures[f"{reference}_minus_{stem}_{kind}_{metric}_noise"] = cell["noise"]
                behind += lead < -cell["noise"]
            if row["name"] != reference:
                both = statistics.mean(cell[f"{reference}_minus"] for cell in cells.values())
                leads[kind].append(both)
    least = {f"least_lead_{kind}": min(found) for kind, found in leads.items() if found}
    return {**least, "behind_beyond_noise": float(behind), **figures}


def print_table(rows: list[dict[str, Any]], reference: str) -> None:
    """Means, and beside them how far the reference is ahead, with the noise of that."""
    columns = [f"{kind}_{metric}" for kind in KINDS for metric in METRICS]
    print(f"{'set':14} {'name':24} " + " ".join(f"{column:25}" for column in columns))
    for row in rows:
        cells = []
        for column in columns:
            cell = row[column]
            lead = ""
            if row["name"] != reference:
                lead = f" ({cell[f'{reference}_minus']:+.4f} ± {cell['noise']:.4f})"
            cells.append(f"{cell['mean']:.4f}{lead:19}")
        print(f"{row['set']:14} {row['name']:24} {' '.join(cells)}")


def base_rows(runs: list[Run]) -> dict[str, Any]:
    """What BM25 and the base alone score on each set, from a run of ours."""
    return {
        label(run["key"]["set"]): run["facts"]["base"] for run in runs if "base" in run["facts"]
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Do every run that is not done, and make the tables."""
    if options.ablation:
        reference, plan = "default", [("ours", name) for name in options.arms]
    else:
        reference, plan = "ours", [(arm, arm) for arm in options.arms]
        plan = [(arm, name) for arm, name in plan if PEERS.is_dir() or "flag" not in arm]
    runs = [
        one_run(arm, spec, seed, name=name, options=options)
        for seed in options.seeds
        for spec in options.sets
        for arm, name in plan
    ]
    rows = table(runs, reference)
    found = {
        "size": asdict(options.size),
        "base": base_rows(runs),
        "table": rows,
        "facts": [{**run["key"], "fusion": run["fusion"], **run["facts"]} for run in runs],
        "figures": figures_of(rows, reference),
    }
    if options.ablation:
        return {"arms": ABLATION, "left_out": LEFT_OUT, **found}
    versions = {
        "sentence-transformers": importlib.metadata.version("sentence-transformers"),
        "FlagEmbedding": "1.4.2, hn_mine of 1.2.11" if PEERS.is_dir() else MISSING,
    }
    return {"peers": versions, **found}


def main() -> None:
    """Measure, print, and record a full run under eval/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two steps on 100 passages, one seed")
    parser.add_argument("--json", action="store_true", help="print the whole JSON document")
    parser.add_argument("--ablation", action="store_true", help="ours, one part switched at a time")
    parser.add_argument("--sets", nargs="+", help="names or folders; NAME:N cuts to N passages")
    parser.add_argument("--arms", nargs="+", help="recipes, or rows of the ablation, to run")
    parser.add_argument("--steps", type=int, help="optimizer steps of every recipe")
    parser.add_argument("--group", type=int, help="FlagEmbedding's train_group_size")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of the runs")
    parser.add_argument("--work", type=Path, help="where figures stay from run to run")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    name = "ablation" if options.ablation else "recipes"
    quick = "_quick" if options.quick else ""
    options.work = (options.work or ROOT / "runs" / f"bench_recipes{quick}").resolve()
    if options.one:
        one = options.one
        found = run_arm(
            one["arm"],
            one["set"],
            seed=one["seed"],
            size=Size(**one["size"]),
            work=options.work,
            changes=one["changes"],
            name=one["name"],
        )
        options.out.write_text(json.dumps(found), encoding="utf-8")
        return
    _fill_in(options, parser)
    words = ["python eval/bench_recipes.py", *(["--ablation"] if options.ablation else [])]
    words += ["--sets", *options.sets, "--seeds", *map(str, options.seeds)]
    words += ["--arms", *(f"'{arm}'" if " " in arm else arm for arm in options.arms)]
    words += ["--steps", str(options.size.steps), "--group", str(options.size.group)]
    document = {
        "schema_version": 1,
        "command": " ".join(words),
        "environment": environment(),
        **measure(options),
    }
    if not options.quick:
        record(name, document)
    if options.json:
        show(document, as_json=True)
        return
    print_table(document["table"], "default" if options.ablation else "ours")
    for name, version in document.get("peers", {}).items():
        print(f"{name:30} {version}")


def _fill_in(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """What was left open, by the kind of comparison."""
    rows = list(ABLATION) if options.ablation else list(ARMS)
    short = 2 if options.quick else len(rows)
    options.arms = options.arms or (rows[:short] if options.ablation else rows[:3])
    if unknown := set(options.arms) - set(rows):
        parser.error(f"--arms: {', '.join(sorted(unknown))}; choose from {', '.join(rows)}")
    if rows[0] not in options.arms:
        parser.error(f"--arms needs {rows[0]}: the others are compared with it")
    options.sets = options.sets or list(SETS[:1] if options.ablation else SETS)
    if options.quick:
        options.sets, options.seeds = ["cwe:100"], options.seeds[:1]
    given = {"steps": options.steps, "group": options.group}
    changed = {name: value for name, value in given.items() if value is not None}
    options.size = replace(QUICK if options.quick else FULL, **changed)


if __name__ == "__main__":
    main()
