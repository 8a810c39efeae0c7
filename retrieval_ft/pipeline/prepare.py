"""Stage 1: read the dataset, check it, complete its splits, and keep what the run works on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from retrieval_ft import artifacts
from retrieval_ft.config import Config, DataConfig
from retrieval_ft.dataset import SPLITS, Dataset, beir, splits
from retrieval_ft.dataset.builders import build
from retrieval_ft.pipeline.run import Run, StageRecord

FOLDER = "dataset"
_ACCOUNT = "account.json"
_BUILT = Path("data")


def source_folder(config: DataConfig) -> Path:
    """The dataset folder that a config names; a built-in set is built first if need be."""
    if config.builder is None:
        return Path(config.path or "")
    folder = _BUILT / config.builder
    build(config.builder, folder)
    return folder


def read_checked(config: Config) -> tuple[Dataset, dict[str, Any]]:
    """Read, check and complete the dataset of a config.

    Returns:
        The dataset with train, dev and test, and the account of what was dropped and carved.

    Raises:
        DataError: a fault in a file, a query without a relevant passage, a leak, no train pairs.
    """
    dataset = beir.read(source_folder(config.data))
    dataset, dropped = splits.check_judged(dataset, drop=config.data.unjudged_queries == "drop")
    splits.check_leaks(dataset)
    dataset, carved = splits.complete(
        dataset,
        dev_fraction=config.data.dev_fraction,
        test_fraction=config.data.test_fraction,
        seed=config.seed,
    )
    return dataset, {"dropped": dropped, "carved": carved, **counts(dataset)}


def counts(dataset: Dataset) -> dict[str, Any]:
    """Sizes of a dataset, for reports."""
    sizes = {f"{split}_queries": len(qrels) for split, qrels in dataset.qrels.items()}
    return {
        "name": dataset.name,
        "passages": len(dataset.corpus),
        "train_pairs": dataset.qrels["train"].pair_count,
        **sizes,
    }


def prepare(run: Run) -> tuple[Dataset, StageRecord]:
    """Write the checked dataset into the run directory and return it as it stands there."""
    config = run.config
    source = source_folder(config.data)
    folder = run.folder / FOLDER

    def work(_: str) -> dict[str, Any]:
        dataset, account = read_checked(config)
        with artifacts.atomic_folder(folder) as fresh:
            beir.write(dataset, fresh)
            artifacts.write_json(fresh / _ACCOUNT, account)
        return account

    names = ("corpus.jsonl", "queries.jsonl", *(f"qrels/{split}.tsv" for split in SPLITS))
    record = run.stage(
        "prepare",
        inputs={
            "source": {
                name: artifacts.sha256_file(source / name)
                for name in names
                if (source / name).is_file()
            },
            "name": source.resolve().name,
            "data": config.data.model_dump(mode="json", exclude={"path", "builder"}),
            "seed": config.seed,
        },
        outputs=[FOLDER],
        work=work,
    )
    return read_prepared(run.folder), record


def read_prepared(run_folder: Path) -> Dataset:
    """The dataset of a run directory, under the name of its source."""
    folder = run_folder / FOLDER
    return replace(beir.read(folder), name=artifacts.read_json(folder / _ACCOUNT)["name"])
