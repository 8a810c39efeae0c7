"""Stage 1: read the source, clean it, check it, split it, and keep what the run works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.config import Config
from retrieval_ft.dataset import Corpus, Dataset, Qrels, beir, power, splits
from retrieval_ft.dataset.chunking import fast_offsets
from retrieval_ft.dataset.hygiene import clean, clusters
from retrieval_ft.dataset.outline import Offsets
from retrieval_ft.dataset.pii import scrub_corpus, scrub_queries, scrub_text
from retrieval_ft.mining.generate import choose_tier
from retrieval_ft.pipeline.run import Run, StageRecord
from retrieval_ft.pipeline.source import (
    Rows,
    Source,
    format_of,
    read_source,
    source_digest,
    source_folder,
    source_name,
)
from retrieval_ft.pipeline.workbench import base_tokenizer

FOLDER = "dataset"
LINKS = "links.jsonl"
_ACCOUNT = "account.json"
_HYGIENE = "hygiene"
NEAR_DUPLICATE = 0.8
"""Word 3-grams shared by passages that must not be parted by a split."""


@dataclass(frozen=True)
class Prepared:
    """A dataset that a run can work on, and the account of how it came to be."""

    dataset: Dataset
    account: Mapping[str, Any]
    """JSON values: sizes, tier, hygiene table, what was dropped and carved."""
    files: Mapping[str, Rows]
    """What each check touched, by the name of its file."""
    links: Rows


def read_checked(config: Config, *, minimum: int = 2) -> Prepared:
    """Read, clean, check and split the dataset of a config, which gives at least so many passages.

    The splits are complete where the labels are enough to train on; else `generate` completes them.

    Raises:
        DataError: a fault in a file, a query without a relevant passage, a leak, no train pairs.
    """
    source = read_source(config, offsets_of(config), minimum=minimum)
    source, files, pii = _scrubbed(source, config)
    unknown = _unknown_share(config) if source.facts["format"] != "beir" else None
    hygiene = clean(
        source.dataset,
        config=config.hygiene,
        base=config.model.base,
        seed=config.seed,
        unknown_share=unknown,
        minimum=minimum,
    )
    dataset, dropped = splits.check_judged(
        hygiene.dataset, drop=config.data.unjudged_queries == "drop"
    )
    splits.check_leaks(dataset)
    if config.data.label_use == "test_only":
        dataset = _test_only(dataset)
    labelled = dataset.qrels["train"].pair_count if "train" in dataset.qrels else 0
    has_endpoint = config.synthetic.base_url is not None
    tier = choose_tier(labelled, has_endpoint=has_endpoint, config=config.pairs)
    account: dict[str, Any] = {
        "format": source.facts["format"],
        "tier": {"name": tier.name, "reason": tier.reason},
        "source": dict(source.facts),
        "hygiene": [*(check.line() for check in source.checks), *pii, *hygiene.table],
        "languages": dict(hygiene.languages),
        "warnings": list(hygiene.warnings),
        "dropped": dropped,
        "carved": {},
    }
    if tier.name != "corpus":
        dataset, carving = carve(dataset, config)
        account |= carving
    files = {**files, **{c.name: c.rows for c in source.checks if c.rows}, **hygiene.files}
    return Prepared(dataset, account | counts(dataset), files, source.links)


def offsets_of(config: Config) -> Callable[[], Offsets]:
    """How the base model cuts texts, loaded when it is asked for."""
    return lambda: fast_offsets(base_tokenizer(config.model))


def read_corpus(config: Config) -> tuple[Corpus, list[dict[str, Any]]]:
    """The passages that a config points at, cleaned as a run would; labels are not looked at.

    Returns:
        The corpus, of one passage at least, and the lines of the hygiene table that touched any.
    """
    if format_of(config.data) == "beir":
        return beir.read_corpus(source_folder(config.data) / "corpus.jsonl", minimum=1), []
    unlabelled = config.model_copy(
        update={"data": config.data.model_copy(update={"labels": None, "queries": None})}
    )
    found = read_checked(unlabelled, minimum=1)
    return found.dataset.corpus, [line for line in found.account["hygiene"] if line["touched"]]


def carve(dataset: Dataset, config: Config) -> tuple[Dataset, dict[str, Any]]:
    """Complete the splits, and say how, and what the test set can tell."""
    near = clusters(dataset.corpus, jaccard=NEAR_DUPLICATE).representative_of
    carving = splits.carve(
        dataset,
        dev_fraction=config.data.dev_fraction,
        test_fraction=config.data.test_fraction,
        seed=config.seed,
        split_by=config.data.split_by,
        clusters=near,
    )
    found = carving.dataset
    return found, {
        "carved": dict(carving.counts),
        "splits": {
            "why": carving.why,
            "test_near_duplicates_of_train": len(splits.near_duplicates_of_train(found, near)),
            "unseen_test_queries": sorted(
                query_id for query_id, kind in carving.kinds["test"].items() if kind == "unseen"
            ),
        },
        "power": power.power_sentence(len(found.qrels["test"])),
        "power_warnings": power.warnings(found.qrels["train"].pair_count, len(found.qrels["test"])),
    }


def counts(dataset: Dataset) -> dict[str, Any]:
    """Sizes of a dataset, for reports."""
    sizes = {f"{split}_queries": len(qrels) for split, qrels in dataset.qrels.items()}
    return {
        "name": dataset.name,
        "passages": len(dataset.corpus),
        "train_pairs": dataset.qrels["train"].pair_count if "train" in dataset.qrels else 0,
        **sizes,
    }


def prepare(run: Run) -> tuple[Dataset, StageRecord]:
    """Write the checked dataset into the run directory and return it as it stands there."""
    config = run.config
    folder = run.folder / FOLDER

    def work(_: str) -> dict[str, Any]:
        prepared = read_checked(config)
        with artifacts.atomic_folder(folder) as fresh:
            beir.write(prepared.dataset, fresh)
            for name, rows in prepared.files.items():
                artifacts.write_jsonl(fresh / _HYGIENE / f"{name}.jsonl", rows)
            artifacts.write_jsonl(fresh / LINKS, prepared.links)
            artifacts.write_json(fresh / _ACCOUNT, prepared.account)
        return dict(prepared.account)

    sections = ("data", "clicks", "chunking", "hygiene", "pairs")
    settings = {name: getattr(config, name).model_dump(mode="json") for name in sections}
    for place in ("path", "builder", "labels", "queries"):  # what they hold counts, not where it is
        settings["data"].pop(place)
    record = run.stage(
        "prepare",
        inputs={
            "source": source_digest(config.data),
            "name": source_name(config.data),
            "settings": settings,
            "base": config.model.base if format_of(config.data) != "beir" else None,
            "endpoint": config.synthetic.base_url is not None,
            "seed": config.seed,
        },
        outputs=[FOLDER],
        work=work,
    )
    return read_prepared(run.folder), record


def read_prepared(run_folder: Path) -> Dataset:
    """The dataset of a run directory, under the name of its source."""
    folder = run_folder / FOLDER
    name = artifacts.read_json(folder / _ACCOUNT)["name"]
    return replace(beir.read(folder, labelled=False), name=name)


def _scrubbed(source: Source, config: Config) -> tuple[Source, dict[str, Rows], list[Any]]:
    """The source without personal data, as the config asks, before anything is made from it."""
    files: dict[str, Rows] = dict(source.files)
    if config.hygiene.pii == "off":
        return source, files, []
    dataset = source.dataset
    corpus, found = scrub_corpus(dataset.corpus)
    queries, asked = scrub_queries(dataset.queries)
    scrub = config.hygiene.pii == "scrub"
    if scrub:
        links = tuple({**link, "text": scrub_text(link["text"])} for link in source.links)
        clean = replace(dataset, corpus=corpus, queries=queries)
        source = replace(source, dataset=clean, links=links)
    done = "replaced by typed marks" if scrub else "listed only"
    checks = [
        {"check": f"pii_{what}", "touched": account.touched, "of": total, "what was done": done}
        for what, account, total in (
            ("passages", found, len(corpus)),
            ("queries", asked, len(queries)),
        )
    ]
    files["pii_passages"] = tuple(found.as_rows())
    files["pii_queries"] = tuple(asked.as_rows())
    return source, files, checks


def _unknown_share(config: Config) -> Callable[[Sequence[str]], float]:
    def share(texts: Sequence[str]) -> float:
        tokenizer = base_tokenizer(config.model)
        rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        total = sum(map(len, rows))
        return sum(row.count(tokenizer.unk_token_id) for row in rows) / total if total else 0.0

    return share


def _test_only(dataset: Dataset) -> Dataset:
    """The dataset as if only its test labels were known."""
    qrels: dict[Any, Qrels] = {s: q for s, q in dataset.qrels.items() if s == "test"}
    kept = {query_id for judged in qrels.values() for query_id in judged.grades}
    queries = dataset.queries.select(q for q in dataset.queries.ids if q in kept)
    return replace(dataset, queries=queries, qrels=qrels)
