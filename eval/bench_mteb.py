"""Our models inside mteb 2: are its figures those of our own evaluator?

    python eval/bench_mteb.py [--quick] [--json] [--set cwe|FOLDER] [--model NAME|FOLDER ...]

A data set of this machine (BEIR layout) becomes a retrieval task of mteb, without a hub. Each model
runs on it three ways: our encoder under mteb's encoder protocol (mteb searches), our hybrid index under
its search protocol (mteb scores), and the folder as mteb itself loads it (SentenceTransformer, fp32,
which is compared with our encoder in fp32). Figures stand beside ours, with the largest difference;
mteb rounds to five digits, so up to 5e-6 of it is that.

`--model` takes a name or a folder, as often as wanted: the base, then `runs/NAME/model`, say. Default is
the base model alone. The fusion is chosen on dev. `--quick` cuts the set to 50 passages.
mteb comes with `make peers`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from common import MISSING, MODEL, PEERS, environment, record, show
from recipe_sides import cut
from suite_file import SetSpec, folder_of, why_missing

DEPTH = 100
NAMES = {
    "recall@10": "recall_at_10",
    "ndcg@10": "ndcg_at_10",
    "mrr@10": "mrr_at_10",
    "map": f"map_at_{DEPTH}",
}
QUICK_PASSAGES = 50
LIMIT = 1e-5


def by_mteb(model: Any, dataset: Any) -> dict[str, float]:
    """Figures of a model as mteb finds them."""
    import mteb
    from mteb_models import task_of

    result = mteb.evaluate(
        model,
        task_of(dataset, depth=DEPTH),
        cache=None,
        co2_tracker=False,
        show_progress_bar=False,
        encode_kwargs={"batch_size": 32, "show_progress_bar": False},
    )
    (scores,) = result.task_results[0].scores["test"]
    return {ours: scores[theirs] for ours, theirs in NAMES.items()}


def by_us(ranking: Any, dataset: Any) -> dict[str, float]:
    """Our evaluator's figures of a ranking."""
    from retrieval_ft.evaluation import evaluate

    return evaluate(ranking, dataset.qrels["test"], metrics=tuple(NAMES)).means()


def measure(given: str, folder: Path, dataset: Any) -> dict[str, Any]:
    """The three ways of one model, ours beside mteb's."""
    from mteb_models import EncoderModel, HybridModel
    from sentence_transformers import SentenceTransformer

    from retrieval_ft.config import Config, DataConfig, ModelConfig
    from retrieval_ft.models import resolve
    from retrieval_ft.pipeline.ranking import rank_systems
    from retrieval_ft.pipeline.workbench import Workbench, dense_index, dense_ranking, encoder_of

    path = resolve(given).path
    config = Config(
        name="mteb",
        data=DataConfig(path=folder, format="beir"),
        model=ModelConfig(base=given),
    )
    bench = Workbench(config, dataset)
    encoder, name = bench.base, Path(given).name
    found = rank_systems(bench, encoder)
    single = encoder_of(path, ModelConfig(base=given, precision="fp32"))
    queries, index = dataset.queries_of("test"), dense_index(single, dataset.corpus)
    plain = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    plain.max_seq_length = single.max_length
    hybrid = HybridModel(encoder, found.fusion, config, name)
    return {
        "encoder": {
            "precision": encoder.precision.name,
            "ours": by_us(found.dense, dataset),
            "mteb": by_mteb(EncoderModel(encoder, name), dataset),
        },
        "hybrid": {
            "fusion": found.fusion.describe(),
            "ours": by_us(found.hybrid, dataset),
            "mteb": by_mteb(hybrid, dataset),
        },
        "folder": {
            "precision": "fp32",
            "ours": by_us(dense_ranking(single, index, queries, k=DEPTH), dataset),
            "mteb": by_mteb(plain, dataset),
        },
    }


def figures_of(models: dict[str, Any]) -> dict[str, float]:
    """Both sides' figures as a flat map, and the largest difference of each way and of all."""
    figures: dict[str, float] = {}
    gaps: dict[str, float] = {}
    for model, ways in models.items():
        for way, found in ways.items():
            stem = f"{model}_{way}"
            for metric in NAMES:
                ours, theirs = found["ours"][metric], found["mteb"][metric]
                figures |= {f"{stem}_{metric}_ours": ours, f"{stem}_{metric}_mteb": theirs}
                gaps[stem] = max(gaps.get(stem, 0.0), abs(ours - theirs))
    return {
        "largest_difference": max(gaps.values()),
        **{f"{stem}_largest_difference": gap for stem, gap in gaps.items()},
        **figures,
    }


def main() -> int:
    """Measure, print, and record a full run under eval/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="50 passages, under a minute")
    parser.add_argument("--json", action="store_true", help="print the whole JSON document")
    parser.add_argument("--set", default="cwe", help="built-in set, or a folder in BEIR layout")
    parser.add_argument("--model", nargs="+", default=[MODEL], help="names or folders")
    options = parser.parse_args()
    sys.path.append(str(PEERS))
    if importlib.util.find_spec("mteb") is None:
        print(f"mteb {MISSING}", file=sys.stderr)
        return 5
    spec = SetSpec(set=options.set)
    if missing := why_missing(spec):
        print(f"error: --set: {missing}", file=sys.stderr)
        return 2
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when mteb loads what asks the hub
    import mteb

    from retrieval_ft.dataset import beir

    dataset = beir.read(folder_of(spec))
    if options.quick:
        dataset = cut(dataset, QUICK_PASSAGES)
    models = {given: measure(given, folder_of(spec), dataset) for given in options.model}
    figures = figures_of(models)
    words = ["python eval/bench_mteb.py --set", options.set, "--model", *options.model]
    document = {
        "schema_version": 1,
        "command": " ".join(words),
        "environment": environment(),
        "peers": {"mteb": mteb.__version__},
        "equal": figures["largest_difference"] < LIMIT,
        "models": models,
        "figures": figures,
    }
    if not options.quick:
        record("mteb", document)
    show(document, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
