"""General sets: small samples of other domains, which show what tuning on the target made worse.

Each gives two samples of queries over one pool of passages. The dev sample serves choices (the
soup), the test sample the report; no query is in both.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_ft import artifacts
from retrieval_ft.config import Config, DataConfig
from retrieval_ft.console import note
from retrieval_ft.dataset import Corpus, Dataset, Qrels, beir
from retrieval_ft.dataset.builders import BUILDERS, BUILT, SOURCE, build
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation import PerQuery, difference_rows
from retrieval_ft.pipeline.pool import NDCG, RECALL, Pool
from retrieval_ft.pipeline.source import source_digest, source_folder

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder

QUERIES = 300
"""Queries of a sample at most. The standard error of its recall is then at most .5 / sqrt(300) = .03,
and that of a difference between two models, which mostly agree, about .01."""
POOL = 3_000
"""Passages of a set at most; far fewer would be too easy to tell apart to show a loss."""
CHARACTERS = 1_000_000
"""Of a pool at most, but for the relevant passages: the soup encodes it anew for each alpha, and so
many (250,000 tokens) take bge-small half a minute on 2 cores."""
_LONGEST = 2_500
"""Characters of a passage that count: about 512 tokens, where the models cut."""
_RELEVANT = POOL // 3
"""Relevant passages of a sample at most, so that a third of the pool at least is drawn at random."""
AUTO_SETS = 2
"""Sets that `auto` takes at most, by name: two show what was forgotten, and each costs half a minute on
2 cores for every share of tuned weights that is tried."""
_SAME = 0.1
"""Share of passages in common, of the smaller corpus, from which a set is no other domain."""


@dataclass(frozen=True)
class GeneralSet:
    """The samples of one set."""

    name: str
    dev: Pool
    test: Pool
    remark: str
    """How dev and test came to be where the set brings only one of them; else empty."""

    def facts(self) -> dict[str, Any]:
        """Sizes for a report, as JSON values."""
        return {
            "name": self.name,
            "passages": len(self.test.corpus),
            "dev_queries": len(self.dev.qrels),
            "test_queries": len(self.test.qrels),
            "remark": self.remark,
            "sha256": self.digest,
        }

    @property
    def digest(self) -> str:
        """sha256 of the test sample: passages, queries and judgements."""
        pool = self.test
        passages = list(zip(pool.corpus.ids, pool.corpus.passages, strict=True))
        grades = {q: dict(pool.qrels.grades[q]) for q in pool.qrels.query_ids}
        return artifacts.sha256_json([passages, pool.queries.text_of, grades])


def general_folders(config: Config) -> dict[str, Path]:
    """The folder of each general set by its name; a set named in the config is built if need be.

    Raises:
        ConfigError: no built-in set and no dataset folder of that name, two of one name, or the
            target set itself.
        DependencyError: the package that a set is built from cannot be had.
    """
    target = source_folder(config.data).resolve()
    named = config.evaluation.general
    if named == "auto":
        here = {name: BUILT / name for name in sorted(BUILDERS)}
        # As it stands: it is not brought up to date, since that may need the network.
        return {
            name: folder
            for name, folder in here.items()
            if (folder / SOURCE).is_file() and folder.resolve() != target
        }
    folders: dict[str, Path] = {}
    for place in named:
        folder = _named_folder(place)
        name = folder.resolve().name
        if name in folders:
            raise ConfigError(f"evaluation.general: two sets are called {name!r}; rename a folder")
        if folder.resolve() == target:
            raise ConfigError(_no_other_domain(place, "is the target set itself"))
        folders[name] = folder
    return folders


def general_digest(config: Config) -> dict[str, Mapping[str, str]]:
    """Identity of the general sets: sha256 of their files by name. Raises as `general_folders`."""
    return {
        name: source_digest(DataConfig(path=folder, format="beir"))
        for name, folder in general_folders(config).items()
    }


def general_sets(config: Config, target: Dataset) -> tuple[GeneralSet, ...]:
    """Read the general sets and draw their samples; the seed of the config decides which.

    A set of `auto` that shares its passages with the target, or with a set before it, is passed
    over, and so are those beyond `AUTO_SETS`; that is said.

    Raises:
        ConfigError: as `general_folders`, or a set that was named shares passages with the target.
        DataError: a faulty file, or fewer than two judged queries in dev and test.
    """
    auto = config.evaluation.general == "auto"
    known = {"the target set": target.corpus}
    sets: list[GeneralSet] = []
    folders = general_folders(config)
    for number, (name, folder) in enumerate(folders.items()):
        if auto and len(sets) == AUTO_SETS:
            rest = ", ".join(list(folders)[number:])
            note(f"general sets not used: {rest}; name them in evaluation.general to measure them")
            break
        dataset = beir.read(folder)
        if why := _known_already(dataset.corpus, known):
            if not auto:
                raise ConfigError(_no_other_domain(str(folder), why))
            note(f"general set {name}: not used, it {why}")
            continue
        if auto:
            known[name] = dataset.corpus
        sets.append(sample(name, dataset, seed=config.seed))
        if sets[-1].remark:
            note(f"general set {name}: {sets[-1].remark}")
    return tuple(sets)


def sample(name: str, dataset: Dataset, *, seed: int) -> GeneralSet:
    """Draw up to `QUERIES` queries for dev and for test, and a pool of passages.

    The pool holds what is relevant to either sample, and passages drawn at random until there are
    `POOL` passages or `CHARACTERS` in all.

    Raises:
        DataError: dev and test have fewer than two judged queries.
    """
    generator = np.random.default_rng(seed)
    dev, test, remark = _halves(name, dataset, generator)
    drawn = [_draw(rows, generator) for rows in (dev, test)]
    pool = {p for qrels in drawn for query_id in qrels.query_ids for p in qrels.relevant(query_id)}
    whole = dataset.corpus
    lengths = {
        p: min(len(text), _LONGEST) for p, text in zip(whole.ids, whole.passages, strict=True)
    }
    room = CHARACTERS - sum(lengths[passage_id] for passage_id in pool)
    for row in generator.permutation(len(whole)).tolist():
        if len(pool) >= POOL or room <= 0:
            break
        if whole.ids[row] not in pool:
            pool.add(whole.ids[row])
            room -= lengths[whole.ids[row]]
    corpus = whole.select(pool)
    pools = [Pool(corpus, dataset.queries.select(qrels.query_ids), qrels) for qrels in drawn]
    return GeneralSet(name, dev=pools[0], test=pools[1], remark=remark)


def measure_general(
    sets: Sequence[GeneralSet], base: Encoder, tuned: Encoder, *, seed: int, resamples: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, PerQuery]]]:
    """Measure both models on the test samples.

    Returns:
        For each set its facts with the means of `base` and `tuned` and their paired difference, as
        JSON values; and the values per query by set, then by system.
    """
    rows, values = [], {}
    for found in sets:
        per_query = {name: found.test.measure(e) for name, e in (("base", base), ("tuned", tuned))}
        values[found.name] = per_query
        rows.append(
            {
                **found.facts(),
                "systems": {name: measured.means() for name, measured in per_query.items()},
                "differences": difference_rows(
                    per_query,
                    (("tuned", "base"),),
                    metrics=(RECALL, NDCG),
                    seed=seed,
                    resamples=resamples,
                ),
            }
        )
    return rows, values


def _named_folder(place: str) -> Path:
    if place in BUILDERS:
        build(place, BUILT / place)
        return BUILT / place
    if not (Path(place) / "corpus.jsonl").is_file():
        near = difflib.get_close_matches(place, BUILDERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"evaluation.general: {place!r} is no built-in set ({', '.join(BUILDERS)}) and no "
            f"folder in BEIR layout (there is no {Path(place) / 'corpus.jsonl'}).{hint}"
        )
    return Path(place)


def _no_other_domain(place: str, why: str) -> str:
    return (
        f"evaluation.general: {place!r} {why}, so it cannot show what was forgotten; name a set of "
        "another domain, or leave it out"
    )


def _known_already(corpus: Corpus, known: Mapping[str, Corpus]) -> str:
    """What a corpus has in common with a known one, in words; empty where it is another domain."""
    for name, other in known.items():
        texts = set(other.passages)
        share = sum(text in texts for text in corpus.passages) / min(len(corpus), len(other))
        if share >= _SAME:
            return f"shares passages with {name} ({share:.0%} of the smaller of the two)"
    return ""


def _halves(
    name: str, dataset: Dataset, generator: np.random.Generator
) -> tuple[Qrels, Qrels, str]:
    """Judgements of dev and test; where the set brings one of them, half of that for each."""
    judged = {
        split: {q: row for q, row in dataset.qrels[split].grades.items() if max(row.values()) > 0}
        for split in ("dev", "test")
        if split in dataset.qrels
    }
    test, text_of = judged.get("test", {}), dataset.queries.text_of
    asked = {text_of[q] for q in test}
    dev = {q: row for q, row in judged.get("dev", {}).items() if text_of[q] not in asked}
    if dev and test:
        return Qrels(dev), Qrels(test), ""
    whole, brought = (test, "test") if test else (dev, "dev")
    if len(whole) < 2:
        raise DataError(
            f"general set {name}: {len(whole)} judged queries in qrels/dev.tsv and qrels/test.tsv; "
            "two at least are needed, one for choices and one for the report"
        )
    order = [sorted(whole)[i] for i in generator.permutation(len(whole)).tolist()]
    parts = order[: len(order) // 2], order[len(order) // 2 :]
    dev, test = ({query_id: whole[query_id] for query_id in part} for part in parts)
    return Qrels(dev), Qrels(test), f"brings {brought} only; half of its queries serve as dev"


def _draw(qrels: Qrels, generator: np.random.Generator) -> Qrels:
    """Queries in random order while their number and their relevant passages are within bounds."""
    chosen: dict[str, Mapping[str, int]] = {}
    relevant: set[str] = set()
    for row in generator.permutation(len(qrels)).tolist():
        query_id = qrels.query_ids[row]
        more = relevant | qrels.relevant(query_id)
        if chosen and (len(chosen) == QUERIES or len(more) > _RELEVANT):
            break
        chosen[query_id], relevant = qrels.grades[query_id], more
    return Qrels(chosen)
