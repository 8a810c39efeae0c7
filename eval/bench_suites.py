"""Named suites: our systems beside the peers' on whole data sets, no training.

    python eval/bench_suites.py [--suite NAME|FILE] [--quick] [--json] [--work FOLDER]
    python eval/bench_suites.py --table

A suite is a YAML file (`eval/suites/NAME.yaml`, or any file): a model, its sets (built-in names, or
folders in BEIR layout) and its systems. Every system ranks the test queries 100 deep and is scored by
our evaluator; differences are paired over the queries, with Holm's correction over a set. A peer that
is not installed (`make peers`) is reported as missing.

What is measured stays below the work folder, set by set and system by system, keyed by data, model,
code and versions: stop and start at any time. A built-in set has to be built before
(`retrieval-ft data build NAME`); nothing is fetched here. `--quick` cuts `quick` to 200 passages, and
its figures say nothing. A full run is recorded as eval/results/suite_NAME.json; `--table` writes
what is recorded into eval/README.md and data/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import suite_systems
import suite_table
from common import MISSING, RESULTS, ROOT, environment, record, show
from recipe_sides import cut, digest
from suite_file import SetSpec, Suite, folder_of, read_suite

METRICS = ("recall@10", "ndcg@10")
SEED, RESAMPLES = 13, 10_000
QUICK_PASSAGES = 200
_CODE = ("dataset", "encoder", "index", "evaluation", "ranks.py")
_CODE += ("pipeline/ranking.py", "pipeline/workbench.py")


@dataclass(frozen=True)
class Work:
    """Where figures stay, and what all of them depend on."""

    folder: Path
    key: dict[str, Any]

    def kept(self, name: str, more: dict[str, Any], make: Any) -> Any:
        """The document of that name, if it depends on the same; else it is made and kept."""
        from retrieval_ft import artifacts

        key, file = {**self.key, **more}, self.folder / f"{name}.json"
        if file.is_file() and (found := artifacts.read_json(file))["key"] == key:
            return found["found"]
        made = make()
        artifacts.write_json(file, {"key": key, "found": made})
        return json.loads(json.dumps(made))


def code_digest() -> str:
    """sha256 over the code that figures come from."""
    from retrieval_ft import artifacts

    room = ROOT / "retrieval_ft"
    files = [room / name for name in _CODE if name.endswith(".py")]
    files += [f for name in _CODE if not name.endswith(".py") for f in (room / name).rglob("*.py")]
    files += [Path(suite_systems.__file__), Path(__file__).with_name("ensemble.py")]
    return artifacts.sha256_json({f.name + str(f.parent): artifacts.sha256_file(f) for f in files})


def measure_set(spec: SetSpec, suite: Suite, *, work: Work, versions: dict[str, str]) -> Any:
    """Everything of one set: facts, systems, differences."""
    from retrieval_ft.dataset import beir

    folder = folder_of(spec)
    dataset = beir.read(folder)
    if spec.passages is not None:
        dataset = cut(dataset, spec.passages)
    if "test" not in dataset.qrels:
        raise SystemExit(f"{folder}: no judged queries in qrels/test.tsv to measure on")
    sides = suite_systems.Sides(dataset, folder, model=suite.model)
    data = {"data": digest(folder), "passages": spec.passages, "model": sides.bench.base_digest}
    facts = work.kept(f"{spec.label}/facts", data, lambda: _facts(dataset))
    measured = {}
    for system in suite.systems:
        if versions.get(system) == MISSING:
            continue
        print(f"{spec.label}: {system}", file=sys.stderr)
        measured[system] = work.kept(
            f"{spec.label}/{system}",
            {**data, "peer": versions.get(system)},
            lambda system=system: suite_systems.measure(sides, system, metrics=METRICS),
        )
    return {**facts, **compared(measured)}


def _facts(dataset: Any) -> dict[str, Any]:
    return {
        "passages": len(dataset.corpus),
        "test_queries": len(dataset.qrels["test"]),
        "dev_queries": len(dataset.qrels["dev"]) if "dev" in dataset.qrels else 0,
        "near_duplicates": suite_systems.near_duplicates(dataset),
    }


def compared(measured: dict[str, Any]) -> dict[str, Any]:
    """Means of each system, and the paired tests between them."""
    import numpy as np

    from retrieval_ft.evaluation import PerQuery, difference_rows

    per_query = {
        name: PerQuery(
            tuple(found["query_ids"]), {m: np.array(found["values"][m]) for m in METRICS}
        )
        for name, found in measured.items()
    }
    pairs = [(ours, other) for ours, other in suite_systems.PAIRS if {ours, other} <= set(measured)]
    rows = difference_rows(per_query, pairs, metrics=METRICS, seed=SEED, resamples=RESAMPLES)
    systems = {
        name: {
            **per_query[name].means(),
            "set_up": found["set_up"],
            "seconds": round(found["seconds"], 1),
        }
        for name, found in measured.items()
    }
    return {"systems": systems, "differences": rows}


def figures_of(sets: dict[str, Any]) -> dict[str, float]:
    """The flat map of names to numbers."""
    figures: dict[str, float] = {}
    for label, found in sets.items():
        for system, values in found["systems"].items():
            figures |= {f"{label}_{system}_{metric}": values[metric] for metric in METRICS}
        for row in found["differences"]:
            stem = f"{label}_{row['system']}_minus_{row['against']}_{row['metric']}"
            low, high = row["ci"]
            figures |= {stem: row["delta"], f"{stem}_low": low, f"{stem}_high": high}
            figures[f"{stem}_p_holm"] = row["p_holm"]
        share = found["near_duplicates"]["share_of_test_queries"]
        figures[f"{label}_test_queries_with_near_duplicates_unlabelled"] = share
    return figures


def measure(suite: Suite, folder: Path, command: str) -> dict[str, Any]:
    """Do what is not done of a suite, and make its document."""
    from retrieval_ft.config import LexicalConfig

    key = {"schema": 1, "code": code_digest(), "lexical": LexicalConfig().model_dump(mode="json")}
    work, versions = Work(folder, key), suite_systems.peers_here(suite.systems)
    sets = {
        spec.label: measure_set(spec, suite, work=work, versions=versions) for spec in suite.sets
    }
    return {
        "schema_version": 1,
        "command": command,
        "environment": environment(),
        "suite": suite.model_dump(mode="json"),
        "peers": versions,
        "resampling": {"seed": SEED, "resamples": RESAMPLES},
        "sets": sets,
        "figures": figures_of(sets),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and record, or write the table; return the exit code."""
    from retrieval_ft.errors import RetrievalFTError

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="quick", help="name in eval/suites/, or a YAML file")
    parser.add_argument("--quick", action="store_true", help="200 passages, under a minute")
    parser.add_argument("--json", action="store_true", help="print the whole JSON document")
    parser.add_argument("--work", type=Path, help="where figures stay from run to run")
    parser.add_argument("--table", action="store_true", help="write the READMEs and stop")
    options = parser.parse_args(arguments)
    if options.table:
        suite_table.write(ROOT / "eval/README.md", suite_table.recorded(RESULTS))
        suite_table.write(ROOT / "data/README.md", suite_table.cards(RESULTS))
        return 0
    try:
        suite = read_suite("quick" if options.quick else options.suite)
        if options.quick:
            suite = suite.model_copy(update={"sets": [suite.sets[0].of(QUICK_PASSAGES)]})
        name = f"suite_{suite.name}{'_quick' if options.quick else ''}"
        folder = (options.work or ROOT / "runs" / f"bench_{name}").resolve()
        document = measure(suite, folder, f"python eval/bench_suites.py --suite {options.suite}")
    except RetrievalFTError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not options.quick:
        record(name, document)
    if options.json:
        show(document, as_json=True)
    else:
        print(suite_table.table_of(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
