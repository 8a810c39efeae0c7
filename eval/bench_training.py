"""Training speed against the peers: the same texts in the same batches, one run on one machine.

    python eval/bench_training.py [--quick] [--json] [--sets cwe hpo] [--model bge-small]

bge-small-en-v1.5; 64 queries a step, each with one positive and one BM25 negative, 128 tokens at most.
Our trainer is what the main job builds; the peers are sentence-transformers' Trainer with
CachedMultipleNegativesRankingLoss and FlagEmbedding's (`make peers`; without it that one is reported
as missing). Every side has a process of its own, the sides take turns, and seconds are those between
the ends of two steps, after some steps to warm up: texts to tokens, passes, optimizer. Ours turns the
texts into tokens before the first step; those seconds are in `setup`. Learning rate, warm-up and
decay are the same for all. Modes:

  default  precision, dropout, weight decay and temperature as each ships
  bf16     bf16 autocast for all, no dropout, one weight decay, temperature .02: but for masks and
           for texts that stand twice in a batch the loss is one and the same

Final loss is InfoNCE of the trained weights on train pairs that no step has seen, in float32, by one
function for all: plain, as the peers' losses are, and with known positives masked, as ours is.
Roofline: the floor is 6 x weights + 12 x layers x width x length FLOPs a token, forward and backward,
for each distinct text of a batch, embeddings and padding left out; its share is of the best matrix
product measured here. With a GPU there is one more set, `long`: texts of 512 tokens, bge-base where
its weights are (`--long-model`). `--quick` is small, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from common import MISSING, MODEL, PEERS, child, data_folder, environment, record, show
from training_sides import FULL, LONG, QUICK, matmul_peak, run_side

LONG_MODEL = "BAAI/bge-base-en-v1.5"
Run = dict[str, Any]


def figures_of(runs: list[dict[str, Any]], peak: dict[str, Any]) -> dict[str, float]:
    """What the runs of one side, set and mode come to: medians over all timed steps and runs."""
    second = statistics.median(s for run in runs for s in run["seconds"])
    first, steps = runs[0], len(runs[0]["seconds"])
    return {
        "pairs_per_s": first["pairs"] / steps / second,
        "tokens_per_s": first["tokens"] / steps / second,
        "peak_gb": statistics.median(run["peak_gb"] for run in runs),
        "setup_s": statistics.median(run["setup"] for run in runs),
        "final_loss": statistics.median(run["final_loss"] for run in runs),
        "final_loss_masked": statistics.median(run["final_loss_masked"] for run in runs),
        "floor_gflops_per_s": first["floor_flops"] / steps / second / 1e9,
        "share_of_peak": first["floor_flops"]
        / steps
        / second
        / peak["bf16" if first["bf16"] else "fp32"],
    }


def take_turns(
    sets: dict[str, str], sides: list[str], options: argparse.Namespace
) -> tuple[dict[tuple[str, str, str], list[Run]], dict[str, str]]:
    """Run the sides in turn; return the runs by (set, mode, side) and why a peer failed, if it did."""
    size = QUICK if options.quick else FULL
    runs: dict[tuple[str, str, str], list[Run]] = {}
    failed: dict[str, str] = {}
    for mode, rounds in size.rounds.items():
        for _ in range(rounds):
            for name, model in sets.items():
                for side in sides:
                    what = f"{side} on {name}, {mode}"
                    if what in failed:
                        continue
                    words = ["--side", side, "--set", name, "--mode", mode, "--model", model]
                    words += ["--quick"] if options.quick else []
                    try:
                        found = child(__file__, *words)
                    except ChildProcessError as error:
                        if side == "ours":
                            raise
                        failed[what] = str(error)
                        continue
                    runs.setdefault((name, mode, side), []).append(found)
                    second = statistics.median(found["seconds"])
                    print(f"{what}: {second:.2f} s a step", file=sys.stderr)
    return runs, failed


def ratios(measured: dict[tuple[str, str, str], dict[str, float]]) -> dict[str, float]:
    """Ours over theirs: of each set and mode, then the worst of the sets."""
    found: dict[str, float] = {}
    worst: dict[str, list[float]] = {}
    curves = {mode for _, mode, _ in measured} - {"default"} or {"default"}
    for (name, mode, side), theirs in measured.items():
        if side == "ours":
            continue
        ours = measured[name, mode, "ours"]
        for figure, stem in (
            ("pairs_per_s", "pairs_per_s_ratio"),
            ("peak_gb", "peak_memory_ratio"),
            ("final_loss", "final_loss_ratio"),
            ("final_loss_masked", "final_loss_masked_ratio"),
        ):
            ratio = ours[figure] / theirs[figure]
            found[f"{stem}_{side}_{name}_{mode}"] = ratio
            if figure in ("pairs_per_s", "peak_gb"):
                if mode == "default":
                    worst.setdefault(f"{stem}_{side}", []).append(ratio)
            elif mode in curves:  # they agree where temperature and dropout do
                worst.setdefault(stem, []).append(ratio)
    pick = {stem: min if "pairs" in stem else max for stem in worst}
    return {**{stem: pick[stem](values) for stem, values in worst.items()}, **found}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything and flatten what was found."""
    from retrieval_ft.errors import DependencyError
    from retrieval_ft.models import resolve

    resolve(options.model)
    sets = dict.fromkeys(options.sets[:1] if options.quick else options.sets, options.model)
    for name in {*sets, "cwe"}:
        data_folder(name)
    quick = ["--quick"] if options.quick else []
    peak = child(__file__, "--side", "peak", *quick)
    said = {}
    if peak["device"] == "cuda":
        try:
            resolve(options.long_model)
            sets[LONG] = options.long_model
        except DependencyError as error:
            said[f"set {LONG}"] = f"missing: {error}"
    sides = ["ours", "st", *(["flag"] if PEERS.is_dir() else [])]
    runs, failed = take_turns(sets, sides, options)
    measured = {key: figures_of(found, peak) for key, found in runs.items()}
    figures = ratios(measured)
    for (name, mode, side), values in measured.items():
        figures |= {f"{figure}_{side}_{name}_{mode}": value for figure, value in values.items()}
    figures |= {f"matmul_gflops_per_s_{dtype}": peak[dtype] / 1e9 for dtype in ("bf16", "fp32")}
    versions = {
        "sentence-transformers": importlib.metadata.version("sentence-transformers"),
        "FlagEmbedding": "1.4.2" if "flag" in sides else MISSING,
    }
    seconds = {"_".join(key): [run["seconds"] for run in found] for key, found in runs.items()}
    return {
        "device": peak["device"],
        "peers": {**versions, **said, **{what: f"failed: {why}" for what, why in failed.items()}},
        "figures": figures,
        "seconds_of_steps": seconds,
    }


def main() -> None:
    """Measure, print, and record a full run under eval/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three steps on the first set")
    parser.add_argument("--json", action="store_true", help="print the whole JSON document")
    parser.add_argument("--sets", nargs="+", default=["cwe", "hpo"], help="sets of the package")
    parser.add_argument("--model", default=MODEL, help="a name or a folder")
    parser.add_argument("--long-model", default=LONG_MODEL, help="of the set of long texts")
    parser.add_argument("--name", default="training", help="of the file of results")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--set", help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        size = QUICK if options.quick else FULL
        one = {"model": options.model, "size": size}
        peak = options.side == "peak"
        found = (
            matmul_peak(size) if peak else run_side(options.side, options.set, options.mode, **one)
        )
        options.out.write_text(json.dumps(found), encoding="utf-8")
        return
    document = {
        "schema_version": 1,
        "command": f"python eval/bench_training.py --sets {' '.join(options.sets)}",
        "environment": environment(),
        **measure(options),
    }
    if not options.quick:
        record(options.name, document)
    show(document, as_json=options.json)


if __name__ == "__main__":
    main()
