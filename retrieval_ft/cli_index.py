"""`retrieval-ft index`: build an index, change it while it is in use, and look after it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from retrieval_ft.cli_common import (
    Json,
    Overrides,
    Target,
    Wait,
    Where,
    as_yaml,
    guarded,
    led,
    show,
)

Index = Annotated[Path, typer.Argument(help="An index folder.", show_default=False)]
Source = Annotated[
    Path,
    typer.Argument(
        help="What to add: a config, a dataset folder, documents or rows.", show_default=False
    ),
]
Model = Annotated[
    str | None, typer.Option(help="Embedder; default: the one the index was built with.")
]


class _BuildByDefault(TyperGroup):
    """`index TARGET` builds, as `index build TARGET` does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `build` before what is no command of the group."""
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = ["build", *args]
        return super().parse_args(ctx, args)


index_app = typer.Typer(
    cls=_BuildByDefault,
    help="Build a hybrid index, change it and look after it. `index TARGET` builds.",
)


@index_app.command("build")
@guarded
@led
def build(
    target: Target = None,
    overrides: Overrides = None,
    model: Annotated[
        str | None, typer.Option(help="Embedder; default: the run's promoted one, or the base.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the index goes; default: that of the run, or TARGET/index for a dataset folder."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the hybrid index of a run, of a dataset folder or of documents."""
    from retrieval_ft.pipeline.standalone import build_index
    from retrieval_ft.pipeline.target import resolve_config

    config = resolve_config(target, overrides or [])
    show(build_index(config, target, model=model, out=out), as_json, as_yaml)


def _putting(*, replacing: bool) -> Callable[..., None]:
    """The command `add`, or `upsert`."""

    @guarded
    def put(
        index: Index,
        source: Source,
        overrides: Overrides = None,
        model: Model = None,
        wait: Wait = 0.0,
        as_json: Json = False,
    ) -> None:
        from retrieval_ft.pipeline.live_index import add_passages
        from retrieval_ft.pipeline.target import resolve_config

        config = resolve_config(source, overrides or [])
        found = add_passages(index, config, replacing=replacing, model=model, wait=wait)
        show(found, as_json, as_yaml)

    return put


index_app.command("add", help="Add passages with new ids.")(_putting(replacing=False))
index_app.command("upsert", help="Add passages, in the place of those of the same ids.")(
    _putting(replacing=True)
)


@index_app.command("delete")
@guarded
def delete(
    index: Index,
    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids; `-` reads them from stdin, one a line.")
    ] = None,
    where: Where = None,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="Pass over ids that are not there.")
    ] = False,
    wait: Wait = 0.0,
    as_json: Json = False,
) -> None:
    """Delete passages by id, and all that pass a filter; `compact` takes them out of the files."""
    from retrieval_ft.errors import ConfigError
    from retrieval_ft.index.filters import parse_words
    from retrieval_ft.pipeline.live_index import delete_passages

    named = [line.rstrip("\n") for line in sys.stdin] if ids == ["-"] else ids or []
    if not named and not where:
        raise ConfigError("nothing to delete: name ids, `-` for stdin, or --where FILTER")
    condition = parse_words(where) if where else None
    found = delete_passages(index, named, where=condition, ignore_missing=ignore_missing, wait=wait)
    show(found, as_json, as_yaml)


@index_app.command("update-metadata")
@guarded
def update_metadata(
    index: Index,
    file: Annotated[
        Path,
        typer.Argument(help='JSON lines: {"_id": ..., "metadata": {"key": value, "gone": null}}.'),
    ],
    wait: Wait = 0.0,
    as_json: Json = False,
) -> None:
    """Change metadata; texts and vectors stay as they are."""
    from retrieval_ft.pipeline import live_index

    show(live_index.update_metadata(index, file, wait=wait), as_json, as_yaml)


@index_app.command("compact")
@guarded
def compact(index: Index, wait: Wait = 0.0, as_json: Json = False) -> None:
    """Merge all segments; what was deleted is in no file afterwards."""
    from retrieval_ft.pipeline.live_index import compact_index

    show(compact_index(index, wait=wait), as_json, as_yaml)


@index_app.command("rebuild")
@guarded
def rebuild(
    index: Index,
    model: Annotated[str, typer.Option(help="The new embedder: a name or a folder.")],
    wait: Wait = 0.0,
    as_json: Json = False,
) -> None:
    """Encode every passage with another model, then switch; the old vectors serve until then."""
    from retrieval_ft.pipeline.live_index import rebuild_index

    show(rebuild_index(index, model=model, wait=wait), as_json, as_yaml)


@index_app.command("verify")
@guarded
def verify(index: Index, as_json: Json = False) -> None:
    """Read every file and compare it with the manifest."""
    from retrieval_ft.pipeline.live_index import verify_index

    show(verify_index(index), as_json, as_yaml)


@index_app.command("info")
@guarded
def info(index: Index, as_json: Json = False) -> None:
    """Say what an index is and holds."""
    from retrieval_ft.pipeline.live_index import index_info

    show(index_info(index), as_json, as_yaml)


@index_app.command("gc")
@guarded
def gc(index: Index, wait: Wait = 0.0, as_json: Json = False) -> None:
    """Remove what the current state does not need: the state before it, leftovers of a crash."""
    from retrieval_ft.pipeline.live_index import collect_garbage

    show(collect_garbage(index, wait=wait), as_json, as_yaml)
