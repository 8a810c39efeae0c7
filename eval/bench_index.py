"""The index: BM25 beside rank_bm25 and bm25s, hybrid search beside LangChain and txtai, and growth.

    python eval/bench_index.py [--quick] [--json] [--only bm25 hybrid growth]

Texts are the passages of hpo, pycode-small and cwe, then new ones put together from their sentences;
vectors are made up, 384 wide, around random topics (a million real encodings are a day of work here);
queries are those of the sets. Every side has a process of its own, and sides take turns.

  bm25     100,000 passages, 1,000 queries, the first 100; medians of five rounds. `qps`: one query at
           a time on one thread, `batch_qps`: all in one call on all cores, both warm and with the
           query's tokenizer. `cold_s`: from the start of a process that loads the saved index to the
           1,000th answer.
           rank_bm25 answers 50 of them, from our terms; `same_ranking` is 1 where the scores that it
           gives to our 100 are its own best 100 in order, to 1e-5.
  hybrid   100,000 passages, 10 fused of 100 and 100, one query at a time on one thread. Recall is
           against brute force on both sides and RRF; LangChain fuses the same, from our terms. txtai
           is as it ships, with a BM25 and a fusion of its own: there recall says how far the two
           differ, and `recall10_own` what its approximate dense search loses of its own best ten.
           `filter_recall`: of what brute force finds under a filter that 1% of the passages pass.
  growth   ours at 10k, 100k, 300k and 1m passages: build from given vectors, memory, disk, a fresh
           process that loads (every file checked) and searches, recall against brute force.

A ratio above 1 is in our favour. The peers come with `make peers`; one that is not installed is
reported as missing. `--quick` is small, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import index_sides as sides
from common import MISSING, PEERS, child, data_folder, environment, record, show
from index_data import FULL, QUICK, SETS, Size, prepare, recall

PACKAGES = {
    "bm25s_numpy": ("bm25s",),
    "bm25s_numba": ("bm25s", "numba"),
    "langchain": ("langchain-classic", "langchain-community"),
    "txtai": ("txtai",),
}
PARTS = ("bm25", "hybrid", "growth")
Found = dict[str, Any]


def versions() -> dict[str, str]:
    """What is installed of each peer, or that it is missing."""
    places = {"path": [str(PEERS), *sys.path]}
    known = {d.name: d.version for d in importlib.metadata.distributions(**places)}
    found = {"rank_bm25": importlib.metadata.version("rank-bm25")}
    for peer, packages in PACKAGES.items():
        there = all(package in known for package in packages)
        found[peer] = ", ".join(f"{p} {known[p]}" for p in packages) if there else MISSING
    return found


class Sides:
    """Runs sides as processes; a peer that fails is left out from then on, and named."""

    def __init__(self, quick: bool) -> None:
        self.size = QUICK if quick else FULL
        self.peers = versions()
        self._options = ["--quick"] if quick else []

    def run(self, part: str, side: str, folder: Path, **more: int) -> Found | None:
        """What a side found; None where it is missing or has failed."""
        if self.peers.get(side, "").startswith((MISSING, "failed")):
            return None
        words = [f"--{name}={value}" for name, value in more.items()]
        words += ["--part", part, "--side", side, "--folder", str(folder), *self._options]
        began = time.time()
        try:
            found = child(__file__, *words, f"--started={began}")
        except ChildProcessError as error:
            if side not in self.peers:
                raise
            self.peers[side] = f"failed: {error}"
            return None
        print(f"{part} {side}: {time.time() - began:.1f} s", file=sys.stderr)
        return found

    def prepared(self, folder: Path, passages: int) -> Found:
        """Make the data of a size."""
        size = self.size
        queries = size.queries if passages == size.passages else 2 * size.hybrid_queries
        return self.run("data", "data", folder, passages=passages, queries=queries) or {}


def bm25(runner: Sides, folder: Path) -> dict[str, float]:
    """Every engine in turn, round after round."""
    figures: dict[str, float] = {}
    found: dict[str, list[Found]] = {}
    for side, peer in (("ours", "ours"), ("bm25s", "bm25s_numpy")):
        if not runner.peers.get(peer, "").startswith(MISSING):
            built = runner.run("bm25-build", side, folder)
            figures |= {f"bm25_{name}_{side}": value for name, value in (built or {}).items()}
    for _ in range(runner.size.rounds):
        for side in sides.BM25:
            result = runner.run("bm25", side, folder)
            if result is not None:
                found.setdefault(side, []).append(result)
    middle = {
        side: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for side, rows in found.items()
    }
    ours, oracle = middle["ours"], found["rank_bm25"]
    ratios = {
        "bm25_qps_ratio_rank_bm25": ours["qps"] / middle["rank_bm25"]["qps"],
        "bm25_same_ranking": float(min(row["same"] for row in oracle) == 1),
        "bm25_largest_difference": max(row["largest_difference"] for row in oracle),
    }
    for side in ("bm25s_numpy", "bm25s_numba"):
        if side in middle:
            theirs = middle[side]
            ratios |= {
                f"bm25_cold_ratio_{side}": theirs["cold_s"] / ours["cold_s"],
                f"bm25_qps_ratio_{side}": ours["qps"] / theirs["qps"],
                f"bm25_batch_qps_ratio_{side}": ours["batch_qps"] / theirs["batch_qps"],
            }
    for side, values in middle.items():
        figures |= {f"bm25_{name}_{side}": value for name, value in values.items()}
    return ratios | figures


def hybrid(runner: Sides, folder: Path) -> dict[str, float]:
    """Each library on the same passages, vectors and queries."""
    figures: dict[str, float] = {}
    wanted: list[dict[str, float]] = []
    for side in sides.HYBRID:
        found = runner.run("hybrid", side, folder)
        if found is None:
            continue
        if side == "ours":
            wanted = found.pop("exact")
            figures["filter_recall"] = found.pop("filter_recall")
        figures[f"hybrid_recall10_{side}"] = recall(found.pop("rankings"), wanted)
        figures |= {f"hybrid_{name}_{side}": value for name, value in found.items()}
    for side in list(sides.HYBRID)[1:]:
        for name in ("build_s", "p50_ms", "p95_ms"):
            if f"hybrid_{name}_{side}" in figures:
                ratio = figures[f"hybrid_{name}_{side}"] / figures[f"hybrid_{name}_ours"]
                figures[f"hybrid_{name}_ratio_{side}"] = ratio
    return figures


def growth(runner: Sides, root: Path) -> dict[str, float]:
    """Ours, size after size."""
    figures: dict[str, float] = {}
    for passages in runner.size.growth:
        thousands = passages // 1_000
        label = f"{thousands}k" if thousands < 1_000 else f"{thousands // 1_000}m"
        with tempfile.TemporaryDirectory(dir=root) as name:
            folder = Path(name)
            runner.prepared(folder, passages)
            for part in ("grow-build", "grow-search"):
                found = runner.run(part, "ours", folder) or {}
                figures |= {f"{figure}_{label}": value for figure, value in found.items()}
    return figures


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run what was asked for and flatten what was found."""
    for name in SETS:
        data_folder(name)
    runner, figures = Sides(options.quick), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if {"bm25", "hybrid"} & set(options.only):
            figures |= runner.prepared(folder, runner.size.passages)
        if "bm25" in options.only:
            figures |= bm25(runner, folder)
        if "hybrid" in options.only:
            figures |= hybrid(runner, folder)
        if "growth" in options.only:
            figures |= growth(runner, folder)
    return {"peers": runner.peers, "figures": figures}


def run_side(options: argparse.Namespace) -> Any:
    """What one process does."""
    size: Size = QUICK if options.quick else FULL
    folder, side, count = options.folder, options.side, size.hybrid_queries
    match options.part:
        case "data":
            return prepare(folder, options.passages, options.queries)
        case "bm25-build":
            return sides.BM25_BUILDS[side](folder)
        case "bm25":
            return sides.BM25[side](folder, size, options.started)
        case "hybrid":
            return sides.HYBRID[side](folder, count)
        case "grow-build":
            return sides.grow_build(folder, count)
        case _:
            return sides.grow_search(folder, count)


def main() -> None:
    """Measure, print, and record a full run under eval/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small, under a minute")
    parser.add_argument("--json", action="store_true", help="print the whole JSON document")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="not recorded")
    for name, kind in (
        ("part", str), ("side", str), ("folder", Path), ("out", Path), ("started", float),
        ("passages", int), ("queries", int),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        options.out.write_text(json.dumps(run_side(options)), encoding="utf-8")
        return
    document = {
        "schema_version": 1,
        "command": "python eval/bench_index.py",
        "environment": environment(),
        **measure(options),
    }
    if not options.quick and set(options.only) == set(PARTS):
        record("index", document)
    show(document, as_json=options.json)


if __name__ == "__main__":
    main()
