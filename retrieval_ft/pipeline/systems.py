"""Which systems `evaluate` measures: how they are named, and what each is compared with.

All that can be wrong about the names is found here, before a model is loaded or a text is encoded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrieval_ft.errors import ConfigError
from retrieval_ft.pipeline.reranking import RERANK
from retrieval_ft.pipeline.searching import RERANKER

BM25, DENSE, HYBRID, RRF = "bm25", "dense", "hybrid", "hybrid_rrf"
NO_MODEL = "none"
KEY_VARIABLE = "OPENAI_API_KEY"
_KINDS = (DENSE, HYBRID, RRF)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_FILES = frozenset({"qrels"})
"""Names that would overwrite another file of `--out`."""


@dataclass(frozen=True)
class Remote:
    """An embedding model behind an OpenAI-compatible endpoint."""

    url: str
    """Such as http://127.0.0.1:8080/v1."""
    model: str

    def __str__(self) -> str:
        from retrieval_ft.endpoints import shown_url

        return f"{shown_url(self.url)}#{self.model}"


@dataclass(frozen=True)
class Asked:
    """What `evaluate` is asked for, beside the dataset and its config."""

    model: str | None = None
    """The primary model; None: the target's own; `none`: there is none."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Further models, by name."""
    endpoints: Mapping[str, Remote] = field(default_factory=dict)
    runs: Mapping[str, Path] = field(default_factory=dict)
    """Run files of any tool, by name."""
    rerank: int = 0
    """First hits that a cross-encoder reads, of BM25 and of each hybrid; 0: there is no reranking."""
    cross_encoder: str = RERANKER
    qrels: Path | None = None
    """Judgements in place of the test split's."""
    against: str | None = None
    """The system that all others are compared with."""
    cluster: bool = False
    """Whether tests resample groups of queries about the same documents."""
    out: Path | None = None
    time: bool = False
    """Whether the primary model's index is built in memory and timed."""
    key_variable: str = KEY_VARIABLE
    """Environment variable with the key of the endpoints."""


@dataclass(frozen=True)
class System:
    """A system by name, and the one it is compared with; None: others are compared with it."""

    name: str
    against: str | None = None


def named(words: Sequence[str], option: str) -> dict[str, str]:
    """What an option NAME=VALUE that may be repeated gives, in order.

    Raises:
        ConfigError: another form, a name that cannot name a file and a column, or one given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not (separator and name and value):
            raise ConfigError(f"{option} {word!r}: the form is NAME=VALUE")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{option} {word!r}: {name!r} cannot name a system; lower-case letters, digits, - and "
                "_ are allowed, 40 at most, beginning with a letter or a digit"
            )
        if name in found:
            raise ConfigError(f"{option} {word!r}: {name!r} is given twice; choose another name")
        found[name] = value
    return found


def remotes(words: Sequence[str], option: str) -> dict[str, Remote]:
    """What an option NAME=URL#MODEL gives, in order.

    Raises:
        ConfigError: as `named`, or there is no `#` between an http address and a model.
    """
    found = {}
    for name, value in named(words, option).items():
        url, _, model = value.partition("#")
        if not (url.startswith(("http://", "https://")) and model):
            raise ConfigError(
                f"{option} {name}={value}: the form is NAME=URL#MODEL, such as "
                "x=http://127.0.0.1:8080/v1#bge-m3"
            )
        found[name] = Remote(url, model)
    return found


def plan(asked: Asked) -> tuple[System, ...]:
    """Every system that will be measured over a corpus, in order, with what it is compared with.

    Raises:
        ConfigError: two systems would have one name, a name is reserved, or `--against` names none.
    """
    primary = asked.model != NO_MODEL
    if asked.time and not primary:
        raise ConfigError("--time: times a model's queries; leave --model none out")
    systems = [System(BM25)]
    if primary:
        systems += [System(DENSE), System(HYBRID, DENSE), System(RRF, HYBRID)]
    for name in (*asked.models, *asked.endpoints):
        systems += [System(f"{name}_{kind}", kind if primary else BM25) for kind in _KINDS]
    if asked.rerank:
        systems = [one for system in systems for one in _with_rerank(system)]
    reference = HYBRID if primary else BM25
    return _checked([*systems, *(System(name, reference) for name in asked.runs)], asked.against)


def plan_of_runs(asked: Asked) -> tuple[System, ...]:
    """Run files alone: the first is what the others are compared with. Raises as `plan`."""
    first, *others = asked.runs
    return _checked([System(first), *(System(name, first) for name in others)], asked.against)


def pairs(systems: Sequence[System], *, against: str | None) -> tuple[tuple[str, str], ...]:
    """The pairs `(system, against)` that are tested: the family of one Holm correction."""
    found = [(one.name, one.against) for one in systems if one.against]
    primary = {System(BM25), System(HYBRID, DENSE)} <= set(systems)
    if against is None and primary:
        found.insert(0, (HYBRID, BM25))
    return tuple(found)


def is_reranked(system: str) -> bool:
    """Whether the hits of a system are also put in the order of a cross-encoder."""
    return system.endswith((BM25, HYBRID, RRF))


def _with_rerank(system: System) -> list[System]:
    if not is_reranked(system.name):
        return [system]
    return [system, System(system.name + RERANK, system.name)]


def _checked(systems: Sequence[System], against: str | None) -> tuple[System, ...]:
    names = [system.name for system in systems]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(
            f"two systems would be called {twice[0]!r}; choose other names for --with, --endpoint and "
            f"--run (measured are: {', '.join(dict.fromkeys(names))})"
        )
    if reserved := _FILES & set(names):
        raise ConfigError(f"a system cannot be called {min(reserved)!r}; choose another name")
    if against is None:
        return tuple(systems)
    if against not in names:
        raise ConfigError(f"--against {against!r}: no such system; allowed: {', '.join(names)}")
    return tuple(System(n, None if n == against else against) for n in names)
