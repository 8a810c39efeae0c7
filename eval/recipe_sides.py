"""One run of `bench_recipes.py`: the set, the three recipes, and the score of what they trained."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peers
from common import MODEL, PEERS, data_folder, run_job

METRICS = ("recall@10", "ndcg@10")
KINDS = ("dense", "hybrid")
SET_SEED = 13


@dataclass(frozen=True)
class Size:
    """The budget of a run, the same for every recipe."""

    steps: int
    batch_size: int
    max_length: int
    group: int
    """FlagEmbedding's train_group_size: passages that stand beside a query."""
    mining_length: int = 512
    """Tokens of a text when the peers mine: both ship with the model's own maximum."""


FULL = Size(20, 64, 128, 4)
QUICK = Size(2, 16, 32, 2, mining_length=32)
TRIPLETS = {"num_negatives": 5, "relative_margin": 0.05, "sampling_strategy": "top"}
"""sentence-transformers: what the documentation of `mine_hard_negatives` advises, the rest default."""
RANGE, NEGATIVES = [2, 200], 15
"""FlagEmbedding: the window and the number of its documentation's call of `hn_mine`."""
RATES = {"st": 2e-5, "flag": 1e-5}
"""Learning rates of the two documentations."""
WARMUP_SHARE = 0.1
"""Of both."""


def label(spec: str) -> str:
    """How figures call a set: `hpo`, or `hpo-6000` where it was cut."""
    name, _, limit = spec.partition(":")
    return f"{Path(name).name}-{limit}" if limit else Path(name).name


def set_folder(spec: str, work: Path) -> Path:
    """The folder of a set: a folder or a name of the package, cut to `:N` passages if that is said."""
    name, _, limit = spec.partition(":")
    folder = Path(name).resolve() if (Path(name) / "corpus.jsonl").is_file() else data_folder(name)
    if not limit:
        return folder
    from retrieval_ft import artifacts
    from retrieval_ft.dataset import beir

    out = work / "sets" / label(spec)
    if not out.exists():
        with artifacts.atomic_folder(out) as fresh:
            beir.write(cut(beir.read(folder), int(limit)), fresh)
    return out


def digest(folder: Path) -> str:
    """sha256 over the files of a set."""
    from retrieval_ft import artifacts
    from retrieval_ft.config import DataConfig
    from retrieval_ft.pipeline.source import source_digest

    return artifacts.sha256_json(source_digest(DataConfig(path=folder, format="beir")))


def cut(dataset: Any, limit: int) -> Any:
    """At most so many passages: what queries need, splits in turn, then others at random.

    A query that lost a relevant passage is left out.
    """
    from retrieval_ft.dataset import Dataset, Qrels

    generator = np.random.default_rng(SET_SEED)
    orders = [
        [(qrels, qrels.query_ids[i]) for i in generator.permutation(len(qrels)).tolist()]
        for qrels in dataset.qrels.values()
    ]
    kept: set[str] = set()
    for turn in itertools.zip_longest(*orders):
        for qrels, query_id in filter(None, turn):
            more = kept | qrels.relevant(query_id)
            kept = more if len(more) <= limit else kept
    others = (p for p in dataset.corpus.ids if p not in kept)
    kept |= set(generator.permutation(list(others))[: limit - len(kept)].tolist())
    found = {}
    for split, qrels in dataset.qrels.items():
        whole = (q for q in qrels.query_ids if qrels.relevant(q) <= kept)
        found[split] = Qrels(
            {q: {p: grade for p, grade in qrels.grades[q].items() if p in kept} for q in whole}
        )
    queries = dataset.queries.select(q for qrels in found.values() for q in qrels.query_ids)
    return Dataset(dataset.name, dataset.corpus.select(kept), queries, found)


def prepared(spec: str, work: Path) -> Any:
    """A workbench over the set as the main job cleans and splits it, for peers and for scores."""
    from retrieval_ft.config import Config, DataConfig, PairsConfig
    from retrieval_ft.pipeline.prepare import prepare
    from retrieval_ft.pipeline.run import open_run
    from retrieval_ft.pipeline.workbench import Workbench

    config = Config(
        name=f"{label(spec)}-data",
        runs=work / "runs",
        data=DataConfig(path=set_folder(spec, work)),
        pairs=PairsConfig(tier="labels"),
    )
    with open_run(config, resume=False) as run:
        return Workbench(config, prepare(run)[0])


def ours(
    bench: Any, folder: Path, *, seed: int, size: Size, changes: list[str]
) -> tuple[Path, dict[str, Any]]:
    """The main job with the budget; returns its tuned candidate, promoted or not, and facts."""
    from retrieval_ft.packages import home

    settings = [
        f"data.path={bench.config.data.path}",
        f"runs={folder.parent}",
        f"seed={seed}",
        "pairs.tier=labels",
        f"training.max_steps={size.steps}",
        f"training.batch_size={size.batch_size}",
        f"training.max_length={size.max_length}",
        # One general set of the two, whatever else stands on this machine.
        f"evaluation.general=[{'hpo' if bench.dataset.name.startswith('cwe') else 'cwe'}]",
        *changes,
    ]
    arguments = ["configs/own-data.yaml", "--name", folder.name]
    for setting in settings:
        arguments += ["--set", setting]
    document, seconds = run_job(arguments, home=home())
    wanted = ("bm25", "base_dense", "base_hybrid")
    facts = {
        "seconds": seconds,
        "stages": {stage["name"]: stage["seconds"] for stage in document["stages"]},
        "verdict": document["verdict"],
        "training": document["training"],
        "base": {name: {m: document["systems"][name][m] for m in METRICS} for name in wanted},
    }
    return folder / "checkpoints/tuned", facts


def sentence_transformers(
    bench: Any, settings: peers.Settings, *, size: Size, work: Path
) -> tuple[Any, dict[str, Any]]:
    """Its miner, then its Trainer with the cached loss, on (query, positive, negative)."""
    data = digest(bench.config.data.path)
    file = work / "mined" / f"{bench.dataset.name}-{size.mining_length}-{data[:12]}.json"
    if not file.is_file():  # the same for every seed
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_triplets(bench, size)), encoding="utf-8")
    mined = json.loads(file.read_text(encoding="utf-8"))
    trained = peers.train_sentence_transformers(
        bench.base_path, mined["columns"], prompt=_prompt(bench), settings=settings
    )
    return trained, mined["facts"]


def _triplets(bench: Any, size: Size) -> dict[str, Any]:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    started = time.monotonic()
    asked, relevant = _labelled(bench)
    pairs = [(asked[q], text) for q in asked for text in relevant[q]]
    columns = dict(zip(("anchor", "positive"), map(list, zip(*pairs, strict=True)), strict=True))
    model = SentenceTransformer(str(bench.base_path), local_files_only=True)
    model.max_seq_length = size.mining_length
    mined = mine_hard_negatives(
        Dataset.from_dict(columns),
        model,
        corpus=list(bench.dataset.corpus.passages),
        use_faiss=True,
        verbose=False,
        **TRIPLETS,
    )
    seconds = time.monotonic() - started
    facts = {"pairs": len(pairs), "triplets": len(mined), "seconds_mine": seconds}
    return {"columns": mined.to_dict(), "facts": facts}


def flag_embedding(
    bench: Any, settings: peers.Settings, *, size: Size, work: Path
) -> tuple[Any, dict[str, Any]]:
    """Its miner, then its finetuner, on (query, positives, negatives)."""
    sys.path.insert(0, str(PEERS))
    from FlagEmbedding import FlagModel
    from hn_mine import find_knn_neg

    started = time.monotonic()
    asked, relevant = _labelled(bench)
    random.seed(settings.seed)
    model = FlagModel(
        str(bench.base_path),
        query_instruction_for_retrieval=_prompt(bench),
        query_max_length=size.mining_length,
        passage_max_length=size.mining_length,
    )
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "given.jsonl", Path(folder) / "mined.jsonl"
        rows = [{"query": asked[q], "pos": relevant[q]} for q in asked]
        given.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        pool = list(bench.dataset.corpus.passages)
        window = [RANGE[0], min(RANGE[1], len(pool))]
        find_knn_neg(model, str(given), pool, str(out), window, NEGATIVES, use_gpu=False)
        mined = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    del model
    seconds = time.monotonic() - started
    trained = peers.train_flag_embedding(
        bench.base_path,
        mined,
        prompt=_prompt(bench),
        group=size.group,
        settings=settings,
        gradient_checkpointing=True,
    )
    return trained, {"rows": len(mined), "seconds_mine": seconds}


def _labelled(bench: Any) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Text of each train query, and texts of its relevant passages."""
    dataset = bench.dataset
    place, passages, qrels = (
        dataset.corpus.index_of,
        dataset.corpus.passages,
        dataset.qrels["train"],
    )
    return (
        {q: dataset.queries.text_of[q] for q in qrels.query_ids},
        {q: [passages[place[p]] for p in sorted(qrels.relevant(q))] for q in qrels.query_ids},
    )


def _prompt(bench: Any) -> str:
    return bench.base.prompts["query"]


def score(bench: Any, folder: Path) -> dict[str, Any]:
    """Values of each test query, dense and hybrid, the fusion chosen on dev."""
    from retrieval_ft.evaluation import evaluate
    from retrieval_ft.pipeline.ranking import rank_systems
    from retrieval_ft.pipeline.workbench import encoder_of

    encoder = encoder_of(folder, bench.config.model, cached=False)
    if encoder.prompts != bench.base.prompts:
        raise SystemExit(f"{folder}: has other prompts than the base, {encoder.prompts}")
    found, qrels = rank_systems(bench, encoder), bench.dataset.qrels["test"]
    values = {}
    for kind in KINDS:
        measured = evaluate(getattr(found, kind), qrels, metrics=METRICS)
        values[kind] = {metric: measured.of(metric).tolist() for metric in METRICS}
    return {"fusion": found.fusion.describe(), "values": values}


def run_arm(
    arm: str, spec: str, *, seed: int, size: Size, work: Path, changes: list[str], name: str
) -> dict[str, Any]:
    """One recipe on one set with one seed, trained and scored in this process."""
    from retrieval_ft.encoder.precision import choose_device, choose_precision
    from retrieval_ft.export.model import export_model
    from retrieval_ft.training.recipe import resolve_recipe

    bench, (peer, _, same_rate) = prepared(spec, work), arm.partition("-")
    if arm == "ours":
        folder = work / "runs" / name
        tuned, facts = ours(bench, folder, seed=seed, size=size, changes=changes)
        found = {"facts": facts, **score(bench, tuned)}
        shutil.rmtree(folder)
        return found
    config, pairs = bench.config.training, bench.dataset.qrels["train"].pair_count
    own = resolve_recipe(config, pairs=pairs, hidden_size=bench.base.dimension).learning_rate
    settings = peers.Settings(
        steps=size.steps,
        batch_size=size.batch_size,
        max_length=size.max_length,
        learning_rate=own if same_rate else RATES[peer],
        warmup_steps=round(WARMUP_SHARE * size.steps),
        seed=seed,
        bf16=choose_precision("auto", choose_device("auto")).name == "bf16",
    )
    started = time.monotonic()
    recipe = sentence_transformers if peer == "st" else flag_embedding
    model, facts = recipe(bench, settings, size=size, work=work)
    facts |= {"seconds": time.monotonic() - started, "settings": asdict(settings)}
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, Path(folder) / "tuned", card=f"{MODEL} tuned by {peer}")
        return {"facts": facts, **score(bench, Path(folder) / "tuned")}
