"""The command line: thin commands over the pipeline; heavy imports live inside them.

Results go to stdout (`--json`: one document), progress to stderr. Exit codes: 0 ok, 1 internal,
2 usage or config, 3 data, 4 gate not passed, 5 missing dependency or model, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from retrieval_ft.cli_common import (
    Json,
    Name,
    Overrides,
    Target,
    Where,
    as_yaml,
    guarded,
    led,
    show,
)
from retrieval_ft.cli_evaluate import command as _command
from retrieval_ft.cli_evaluate import evaluate, show_systems
from retrieval_ft.cli_evidence import advise, compare, seeds
from retrieval_ft.cli_index import index_app
from retrieval_ft.console import note, stdout
from retrieval_ft.errors import GateNotPassed

app = typer.Typer(
    name="retrieval-ft",
    help="From a folder of documents to a better retriever, with proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Base models and where they come from.", no_args_is_help=True)
data_app = typer.Typer(help="Data sets built on this machine.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(data_app, name="data")
app.add_typer(index_app, name="index")
app.command()(evaluate)
app.command()(compare)
app.command()(seeds)
app.command()(advise)


@app.command()
@guarded
@led
def train(
    target: Target = None,
    overrides: Overrides = None,
    name: Name = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last training checkpoint.")
    ] = False,
    tune: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Search learning rate and epochs on dev by N trainings before the one that counts.",
        ),
    ] = 0,
    freeze_docs: Annotated[
        bool,
        typer.Option(
            "--freeze-docs",
            help="Train the query side only (training.freeze_docs): no corpus is encoded anew.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Mine, fine-tune, index, measure, and promote the tuned model if it is better."""
    from retrieval_ft.pipeline.target import resolve_config

    if freeze_docs:
        overrides = [*(overrides or []), "training.freeze_docs=true"]
    config = resolve_config(target, overrides or [], name=name)
    if dry_run:
        from retrieval_ft.pipeline.dry_run import describe, plan_words

        plan = describe(config)
        show(plan, as_json, plan_words)
        if tune:
            note(f"--tune {tune}: {tune} trainings more, which the estimate leaves out")
        return
    _check_packages(config.training.report_to, tune)
    from retrieval_ft.pipeline.main import run_all

    document = run_all(config, resume=resume, command=_command(), tune=tune)
    show(document, as_json, _report)
    if document["verdict"] != "promote":
        raise GateNotPassed(
            f"{document['verdict']}: {document['reason']} The base stays in {document['run']}/model"
        )


@app.command()
@guarded
@led
def mine(
    target: Target = None, overrides: Overrides = None, name: Name = None, as_json: Json = False
) -> None:
    """Prepare a dataset and mine hard negatives into runs/NAME/mined."""
    from retrieval_ft.pipeline.main import run_mining
    from retrieval_ft.pipeline.target import resolve_config

    document = run_mining(resolve_config(target, overrides or [], name=name))
    show(document, as_json, as_yaml)


@app.command()
@guarded
def search(
    text: Annotated[
        str | None, typer.Argument(help="The query; without one, queries are read line by line.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages.")] = 10,
    index_folder: Annotated[
        Path | None,
        typer.Option("--index", help="An index folder; default: that of the newest run."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Embedder; default: the one the index was built with.")
    ] = None,
    mode: Annotated[str, typer.Option(help="hybrid, dense or bm25.")] = "hybrid",
    where: Where = None,
    tenant: Annotated[
        str | None, typer.Option(help="Whose passages, of an index with index.tenant_key.")
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="Hits of each side that are fused; default max(100, 4k)."),
    ] = None,
    rerank: Annotated[
        int, typer.Option(min=0, metavar="N", help="Let a cross-encoder order the first N.")
    ] = 0,
    cross_encoder: Annotated[
        str, typer.Option(help="Model for --rerank.")
    ] = "ms-marco-MiniLM-L-12-v2-int8",
    engine: Annotated[
        str, typer.Option(help="Of BM25: impacts, or rank_bm25 to check (slow).")
    ] = "impacts",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the terms that match, and where.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search a hybrid index, once or query by query."""
    from retrieval_ft.index.filters import parse_words
    from retrieval_ft.pipeline.searching import Asking, Searcher, hits_table

    asking = Asking(
        k=k,
        mode=mode,  # type: ignore[arg-type]  # Asking checks it
        where=parse_words(where) if where else None,
        depth=depth,
        rerank=rerank,
        explain=explain,
        engine=engine,  # type: ignore[arg-type]
    )
    searcher = Searcher(
        index_folder, model=model, asking=asking, tenant=tenant, cross_encoder=cross_encoder
    )
    for query in [text] if text is not None else _lines():
        show(searcher.document(query), as_json, lambda found: stdout().print(hits_table(found)))


@models_app.command("list")
@guarded
def models_list(as_json: Json = False) -> None:
    """List the models that can be had by name."""
    from retrieval_ft.models import list_models

    rows = [asdict(row) for row in list_models()]
    show({"schema_version": 1, "models": rows}, as_json, _models)


@models_app.command("fetch")
@guarded
def models_fetch(name: str, as_json: Json = False) -> None:
    """Fetch a model, check it, and print its folder."""
    from retrieval_ft.models import fetch

    found = fetch(name)
    document = {"schema_version": 1, **asdict(found), "path": str(found.path)}
    show(document, as_json, lambda _: stdout().print(str(found.path), markup=False))


@data_app.command("build")
@guarded
def data_build(
    name: Annotated[str, typer.Argument(help="cwe, hpo, pycode, pycode-small or debian.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default: data/NAME.")] = None,
    as_json: Json = False,
) -> None:
    """Build a data set from its pinned packages."""
    from retrieval_ft.dataset.builders import BUILT, build

    folder = out or BUILT / name
    facts = build(name, folder)
    show({"schema_version": 1, "folder": str(folder), **facts}, as_json, as_yaml)


def main() -> None:
    """Run the command line and leave with the exit code of what happened."""
    app()


def run_command(name: str) -> None:
    """Run one command with this process' arguments, for `python -m retrieval_ft.NAME`."""
    sys.argv.insert(1, name)
    app(prog_name="retrieval-ft")


def _check_packages(report_to: Sequence[str], tune: int) -> None:
    """Tell what is not installed before the work starts, not after the mining."""
    if tune:
        from retrieval_ft.pipeline.tune import check_optuna

        check_optuna()
    if report_to:
        from retrieval_ft.training.trackers import trackers

        trackers(report_to, folder=Path())


def _lines() -> Iterator[str]:
    """Queries from stdin, one a line, asked for where somebody sits there."""
    asking = sys.stdin.isatty()
    while True:
        if asking:
            sys.stderr.write("query> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _report(document: dict[str, Any]) -> None:
    from retrieval_ft.evaluation import verdict_line

    show_systems(document)
    stdout().print(f"\n{verdict_line(document)}", markup=False)
    stdout().print(f"run directory: {document['run']} (report.html, model/, index/)", markup=False)


def _models(document: dict[str, Any]) -> None:
    for row in document["models"]:
        state = "here" if row["on_disk"] else "not fetched"
        stdout().print(
            f"{row['name']:45} {row['kind']:13} {row['bytes'] / 1e6:6.0f} MB  {state:11}  "
            f"{row['origin']}",
            markup=False,
        )
