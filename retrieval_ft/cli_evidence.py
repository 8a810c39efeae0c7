"""`retrieval-ft compare`, `seeds` and `advise`: what measured runs come to, for a CI job and for a team."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from retrieval_ft.cli_common import Json, guarded, show
from retrieval_ft.console import stdout
from retrieval_ft.errors import GateNotPassed


@guarded
def compare(
    now: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
    before: Annotated[
        Path, typer.Argument(help="An earlier one, over the same corpus and test queries.")
    ],
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="A loss up to this passes (.01 is one point).")
    ] = 0.01,
    systems: Annotated[
        list[str] | None, typer.Option("--system", help="Compare this one; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether retrieval became worse since an earlier run; exit 4 where it did."""
    from retrieval_ft.evaluation import check_regression, read_measured

    runs = read_measured(now), read_measured(before)
    found = check_regression(*runs, tolerance=tolerance, systems=systems)
    show(found.document(), as_json, lambda _: stdout().print(found.line(), markup=False))
    if found.outcome != "passed":
        raise GateNotPassed(found.line())


@guarded
def seeds(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories that differ by seed, two at least.")
    ],
    as_json: Json = False,
) -> None:
    """Summarise runs of one experiment over its seeds: is the gain the method's, or the draw's?"""
    from retrieval_ft.evaluation import read_measured, seeds_text, summarise_runs

    found = summarise_runs([read_measured(run) for run in runs])
    show(found, as_json, lambda document: sys.stdout.write(seeds_text(document)))


@guarded
def advise(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run directory, a folder of `evaluate --out`, or a file with what `evaluate --json` "
            "printed."
        ),
    ],
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="YAML with sections facts, prices and limits, to correct what is assumed."
        ),
    ] = None,
    serves: Annotated[
        Literal["bm25", "dense", "hybrid"] | None, typer.Option(help="What you serve today.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what to do first: chunking, hybrid, reranking, tuning, labels, or nothing; and what it costs."""
    from retrieval_ft.artifacts import read_json
    from retrieval_ft.evaluation import advice_text, advise, assemble, facts_of, read_inputs

    names = ("report.json", "metrics.json")  # of a run, and of what `evaluate --out` wrote
    inside = [run / name for name in names if (run / name).is_file()]
    file = inside[0] if inside else run / names[0] if run.is_dir() else run
    edited = read_inputs(inputs) if inputs else {}
    if serves:
        edited["facts"] = {**edited.get("facts", {}), "serves": serves}
    now = edited.get("facts", {}).get("serves", "dense")
    measured = facts_of(read_json(file), source=str(file), serves=now)
    found = advise(*assemble(measured, edited, source=str(inputs or file)))
    show(found.document(), as_json, lambda _: stdout().print(advice_text(found), markup=False))
