"""`retrieval-ft evaluate`: embedders, BM25, hybrids, rerankers and run files, compared."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_ft.cli_common import Json, Overrides, Target, guarded, led, show
from retrieval_ft.console import stdout
from retrieval_ft.errors import ConfigError

if TYPE_CHECKING:
    from retrieval_ft.config import Config


@guarded
@led
def evaluate(
    target: Target = None,
    overrides: Overrides = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model to measure; default: the run's own, or the base. none: BM25 alone."
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=MODEL", help="Measure this one too; may be repeated."),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="NAME=FILE", help="A TREC run file of any tool; may be repeated."
        ),
    ] = None,
    endpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint",
            metavar="NAME=URL#MODEL",
            help="An OpenAI-compatible embeddings endpoint, which is sent all texts; may be repeated.",
        ),
    ] = None,
    key_variable: Annotated[
        str,
        typer.Option(
            "--api-key-variable", metavar="NAME", help="Environment variable with its key."
        ),
    ] = "OPENAI_API_KEY",
    rerank: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Let a cross-encoder order the first N of BM25 and of each hybrid, as systems of "
            "their own; default: evaluation.rerank.",
        ),
    ] = None,
    cross_encoder: Annotated[
        str | None, typer.Option(help="Model for --rerank; default: evaluation.cross_encoder.")
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TREC or BEIR judgements in place of the test split's; without a target, run files "
            "alone are scored.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="SYSTEM", help="Compare every other system with this one."),
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster", help="Resample queries about the same documents together, in every test."
        ),
    ] = False,
    time: Annotated[
        bool,
        typer.Option("--time", help="Time queries of the model: encoding, search, reranking."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for metrics, values per query, rankings and the report."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure and compare BM25, models, their hybrids, rerankers and run files on a test split."""
    from retrieval_ft.pipeline.measure import evaluate_systems
    from retrieval_ft.pipeline.systems import Asked, named, remotes

    config = _config(target, overrides or [], qrels)
    asked = Asked(
        model=model,
        models=named(models or [], "--with"),
        endpoints=remotes(endpoints or [], "--endpoint"),
        runs={name: Path(file) for name, file in named(runs or [], "--run").items()},
        rerank=config.evaluation.rerank if rerank is None else rerank,
        cross_encoder=cross_encoder or config.evaluation.cross_encoder,
        qrels=qrels,
        against=against,
        cluster=cluster or config.evaluation.cluster,
        out=out,
        time=time,
        key_variable=key_variable,
    )
    show(evaluate_systems(config, target, asked, command=command()), as_json, show_systems)
    if out and not as_json:
        stdout().print(
            f"\nwritten to {out} (report.html, report.md, metrics.json, *.trec)", markup=False
        )


def show_systems(document: dict[str, Any]) -> None:
    """Print the systems of a results document, for a terminal or for a pipe."""
    from retrieval_ft.evaluation import systems_table, systems_text

    if sys.stdout.isatty():
        stdout().print(systems_table(document))
    else:
        sys.stdout.write(systems_text(document))


def command() -> str:
    """The command that this process was started with, for a report."""
    return f"retrieval-ft {shlex.join(sys.argv[1:])}"


def _config(target: Path | None, overrides: list[str], qrels: Path | None) -> Config:
    from retrieval_ft.config import from_mapping
    from retrieval_ft.pipeline.target import resolve_config

    if target is not None or qrels is None:
        return resolve_config(target, overrides)
    if faulty := [word for word in overrides if not word.startswith(("seed=", "evaluation."))]:
        raise ConfigError(
            f"--set {faulty[0]}: without a target only seed and evaluation.* mean anything; name a "
            "dataset folder, a run or a config"
        )
    return from_mapping({"data": {"path": str(qrels)}}, overrides, source="--qrels")
