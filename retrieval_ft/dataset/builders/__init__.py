"""Builders: real datasets made on this machine from pinned packages; their text is not committed.

`debian` alone is not pinned: it is made of the release that apt is set up for.

`build("cwe", folder)` leaves a dataset folder in BEIR layout with a `source.json` that says where
it came from, under which licence, by which rule, and how many of what.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.dataset import beir
from retrieval_ft.dataset.builders import cwe, debian, hpo
from retrieval_ft.dataset.builders.pycode import CodeRecipe
from retrieval_ft.dataset.builders.pycode_wheels import ALL, SMALL
from retrieval_ft.dataset.builders.recipe import Recipe, counts
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.packages import fetch_package

SOURCE = "source.json"
BUILT = Path("data")
"""Where built sets stand, each in a folder of its name."""
AnyRecipe = Recipe | CodeRecipe | debian.DebianRecipe
BUILDERS: dict[str, AnyRecipe] = {
    "cwe": cwe.RECIPE,
    "hpo": hpo.RECIPE,
    "pycode": ALL,
    "pycode-small": SMALL,
    "debian": debian.RECIPE,
}

__all__ = ["BUILDERS", "BUILT", "SOURCE", "build"]


def build(name: str, folder: Path) -> dict[str, Any]:
    """Build a dataset into `folder` and return the facts of its `source.json`.

    Does nothing where the folder already holds what this source and rule give, byte by byte.

    Raises:
        ConfigError: no builder of that name.
        DataError: `folder` holds something that no builder made.
        DependencyError: the source package cannot be had.
    """
    if name not in BUILDERS:
        near = difflib.get_close_matches(name, BUILDERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no builder named {name!r}.{hint} Known builders: {', '.join(BUILDERS)}")
    recipe = BUILDERS[name]
    identity = _identity(name, recipe)
    if (facts := _built(folder, identity)) is not None:
        return facts
    archives = _fetch(recipe)
    source = recipe.load(archives)
    dataset = recipe.arrange(name, source)
    with artifacts.atomic_folder(folder) as fresh:
        beir.write(dataset, fresh)
        artifacts.write_text(fresh / "NOTICE.txt", recipe.notice(archives))
        facts = {
            **identity,
            "source_sha256": " ".join(map(artifacts.sha256_file, archives)),
            "data_version": source.version,
            "licence": recipe.licence,
            "attribution": recipe.attribution,
            "rule": recipe.rule,
            "counts": counts(dataset, source),
            "files": _hashes(fresh),
        }
        artifacts.write_json(fresh / SOURCE, facts)
    return facts


def _fetch(recipe: AnyRecipe) -> tuple[Path, ...]:
    if isinstance(recipe, debian.DebianRecipe):
        return recipe.fetch()
    return tuple(fetch_package(package) for package in recipe.packages)


def _identity(name: str, recipe: AnyRecipe) -> dict[str, Any]:
    """What a built folder must say of itself; where nothing is pinned, whatever was built stays."""
    pinned = " ".join(package.sha256 for package in recipe.packages)
    return {
        "schema_version": 1,
        "name": name,
        "source": recipe.origin,
        **({"source_sha256": pinned} if pinned else {}),
        "rule_version": recipe.rule_version,
    }


def _hashes(folder: Path) -> dict[str, str]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != SOURCE]
    return {p.relative_to(folder).as_posix(): artifacts.sha256_file(p) for p in files}


def _built(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Facts of a folder that is already what the identity asks for, else None."""
    if not folder.exists():
        return None
    if not (folder / SOURCE).is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            return None
        raise DataError(
            f"{folder}: is there already and was not made by a builder (no {SOURCE}); move it "
            "away, or build into another folder"
        )
    facts: dict[str, Any] = artifacts.read_json(folder / SOURCE)
    same = {key: facts.get(key) for key in identity} == identity
    return facts if same and facts.get("files") == _hashes(folder) else None
