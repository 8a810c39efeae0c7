"""One side of `bench_training.py`: the texts, the plan of batches, the three trainers, what is counted."""

from __future__ import annotations

import itertools
import json
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peers
from common import ROOT

LONG = "long"
TEMPERATURE, WARMUP_SHARE, WEIGHT_DECAY, SEED, GB = 0.02, 0.1, 0.01, 13, 1e9


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    batch_size: int
    max_length: int
    warm: int
    timed: int
    held_out: int
    """Batches that the final loss is taken on."""
    rounds: dict[str, int]
    """How often each side runs, by mode."""
    matrix: int
    """Rows of the matrices whose product is timed."""

    @property
    def steps(self) -> int:
        """Optimizer steps of a side."""
        return self.warm + self.timed


FULL = Size(64, 128, 2, 6, 4, {"default": 1, "bf16": 1}, 2_048)
QUICK = Size(16, 64, 1, 2, 2, {"default": 1}, 1_024)


@dataclass(frozen=True)
class Work:
    """What all sides train on."""

    bench: Any
    pairs: Any
    batches: tuple[Any, ...]
    """Planned, those of the steps first, then those held out."""

    def texts(self, example: Any) -> tuple[str, str, str]:
        """Query, positive and negative of a row."""
        dataset = self.bench.dataset
        place, passages = dataset.corpus.index_of, dataset.corpus.passages
        positive, negative = example.positive_id, example.negative_ids[0]
        return (
            dataset.queries.text_of[example.query_id],
            passages[place[positive]],
            passages[place[negative]],
        )


def load_work(name: str, model: str, size: Size, *, mode: str) -> Work:
    """The pairs of a set with BM25's best wrong passage as negative, and the plan of all batches."""
    from retrieval_ft.config import Config, DataConfig, ModelConfig, TrainingConfig
    from retrieval_ft.dataset import Negative, Pair, Pairs, beir
    from retrieval_ft.index import LexicalIndex, LexicalSpec
    from retrieval_ft.pipeline.workbench import Workbench
    from retrieval_ft.training.plan import plan_batches

    dataset = _long_set(size) if name == LONG else beir.read(ROOT / "data" / name)
    corpus, qrels, queries = dataset.corpus, dataset.qrels["train"], dataset.queries_of("train")
    lexical = LexicalIndex.build(corpus.ids, corpus.passages, spec=LexicalSpec())
    items = []
    for query_id, (rows, _) in zip(queries.ids, lexical.search(queries.texts, k=50), strict=True):
        known = qrels.relevant(query_id)
        found = (corpus.ids[row] for row in rows.tolist())
        wrong = next((p for p in found if p not in known), None)
        if wrong is not None:
            negatives = (Negative(wrong, 0.0, None, 1),)
            items += [Pair(query_id, positive, 0.0, negatives) for positive in sorted(known)]
    pairs = Pairs(tuple(items[: len(items) // size.batch_size * size.batch_size]))
    training = TrainingConfig(
        epochs=1,
        batch_size=size.batch_size,
        max_steps=size.steps,
        max_length=512 if name == LONG else size.max_length,
        evaluations=1,
    )
    config = Config(
        seed=SEED,
        data=DataConfig(path=ROOT / "data" / name),
        model=ModelConfig(base=model, precision="auto" if mode == "default" else mode),
        training=training,
    )
    plan = plan_batches(
        pairs, epochs=1, batch_size=size.batch_size, negatives_per_query=1, seed=SEED
    )
    batches = plan.batches[: size.steps + size.held_out]
    if len(batches) < size.steps + 1 or {len(batch) for batch in batches} != {size.batch_size}:
        raise SystemExit(f"{name}: too few train pairs for {size.steps} even batches")
    return Work(Workbench(config, dataset), pairs, batches)


def _long_set(size: Size) -> Any:
    """Pairs of random words of cwe, every text longer than any limit."""
    from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries, beir

    corpus = beir.read(ROOT / "data/cwe").corpus
    words = sorted({word for text in corpus.texts for word in text.split()})
    generator = np.random.default_rng(SEED)
    count = size.batch_size * (size.steps + size.held_out)
    texts = [" ".join(generator.choice(words, 600)) for _ in range(2 * count)]
    ids = tuple(f"p{i}" for i in range(count))
    asked = tuple(f"q{i}" for i in range(count))
    qrels = Qrels({q: {p: 1} for q, p in zip(asked, ids, strict=True)})
    passages = Corpus(ids, tuple(texts[:count]), ("",) * count)
    return Dataset(LONG, passages, Queries(asked, tuple(texts[count:])), {"train": qrels})


class Clock:
    """Notes the end of every step of whatever Trainer runs in this process, and its memory."""

    def __init__(self) -> None:
        from transformers import TrainerCallback
        from transformers.trainer import DEFAULT_CALLBACKS

        clock = self

        class Callback(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                clock.first = clock.first or time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.wait()
                clock.ends.append(time.perf_counter())
                clock.peak_gb = clock.peak()

        self.first, self.ends, self.peak_gb = 0.0, [], 0.0
        DEFAULT_CALLBACKS.append(Callback)

    @staticmethod
    def wait() -> None:
        """Let a GPU finish what it was given."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()

    @staticmethod
    def peak() -> float:
        """GB that the GPU, or else this process, held at most."""
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / GB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def train_ours(work: Work, size: Size) -> Any:
    """Train as the main job does, dev scores left out."""
    from retrieval_ft.pipeline.fitting import training_job
    from retrieval_ft.pipeline.workbench import encoder_of
    from retrieval_ft.training.fit import fit
    from retrieval_ft.training.loss import BatchLoss

    config = work.bench.config
    encoder = encoder_of(work.bench.base_path, config.model, cached=False)
    job = training_job(work.bench, work.pairs, encoder, training=config.training)
    if [_ids(batch) for batch in job.plan.batches] != [_ids(b) for b in work.batches[: size.steps]]:
        raise SystemExit("our job has laid out other batches than the peers are given")
    with tempfile.TemporaryDirectory() as folder:
        fit(
            encoder.model,
            job.plan,
            collator=job.collator,
            loss=BatchLoss.of(encoder, config.training, graph_tokens=job.facts["graph_tokens"]),
            dev=lambda: {"score": 0.0},
            config=config.training,
            learning_rate=job.recipe.learning_rate,
            folder=Path(folder) / "steps",
            seed=SEED,
            resume=False,
        )
    return encoder.model


def _ids(batch: Any) -> list[Any]:
    return [(row.query_id, row.positive_id, row.negative_ids) for row in batch]


def train_peer(side: str, work: Work, size: Size, *, mode: str) -> Any:
    """Train with a peer on the rows of the plan, in its order."""
    from retrieval_ft.training.recipe import resolve_recipe

    config, equal = work.bench.config, mode != "default"
    rate = resolve_recipe(config.training, pairs=len(work.pairs), hidden_size=_width(work))
    settings = peers.Settings(
        steps=size.steps,
        batch_size=size.batch_size,
        max_length=config.training.max_length,
        learning_rate=rate.learning_rate,
        warmup_steps=round(WARMUP_SHARE * size.steps),
        seed=SEED,
        bf16=mode == "bf16",
        in_order=True,
        temperature=TEMPERATURE if equal else None,
        dropout=0.0 if equal else None,
        weight_decay=WEIGHT_DECAY if equal else None,
    )
    path, prompt = work.bench.base_path, _query_prompt(work.bench.base_path)
    rows = [work.texts(row) for row in itertools.chain(*work.batches[: size.steps])]
    if side == "st":
        columns = dict(
            zip(("anchor", "positive", "negative"), zip(*rows, strict=True), strict=True)
        )
        return peers.train_sentence_transformers(path, columns, prompt=prompt, settings=settings)
    examples = [{"query": q, "pos": [p], "neg": [n]} for q, p, n in rows]
    return peers.train_flag_embedding(path, examples, prompt=prompt, group=2, settings=settings)


def _width(work: Work) -> int:
    return int(json.loads((work.bench.base_path / "config.json").read_text())["hidden_size"])


def _query_prompt(path: Path) -> str:
    from retrieval_ft.encoder.encoder import load_model, saved_prompts

    return saved_prompts(load_model(path, device="cpu"))["query"]


def held_out_loss(work: Work, model: Any, size: Size) -> dict[str, float]:
    """Mean InfoNCE of the held-out batches in float32, plain and with known positives masked."""
    import torch

    from retrieval_ft.encoder.encoder import Encoder
    from retrieval_ft.encoder.precision import Precision

    encoder = Encoder(
        model,
        precision=Precision("fp32", "the same for all"),
        max_length=work.bench.config.training.max_length,
    )
    qrels, found = work.bench.dataset.qrels["train"], {"final_loss": [], "final_loss_masked": []}
    for batch in work.batches[size.steps :]:
        texts = list(zip(*(work.texts(row) for row in batch), strict=True))
        queries = encoder.encode(texts[0], role="query")
        passages = encoder.encode(texts[1] + texts[2], role="passage")
        logits = torch.from_numpy(queries @ passages.T / TEMPERATURE)
        ids = [row.positive_id for row in batch] + [row.negative_ids[0] for row in batch]
        known = [[p in qrels.relevant(row.query_id) for p in ids] for row in batch]
        mask, target = torch.tensor(known), torch.arange(len(batch))
        mask[target, target] = False
        for name, scores in zip(found, (logits, logits.masked_fill(mask, -torch.inf)), strict=True):
            found[name].append(torch.nn.functional.cross_entropy(scores, target).item())
    return {name: statistics.mean(values) for name, values in found.items()}


def arithmetic(work: Work, model: Any, size: Size) -> dict[str, float]:
    """Tokens and pairs of the timed steps, and the fewest FLOPs that give their gradients."""
    from retrieval_ft.encoder.batching import tokenize
    from retrieval_ft.encoder.encoder import saved_prompts

    backbone, prompts = model[0].auto_model, saved_prompts(model)
    shape, length = backbone.config, work.bench.config.training.max_length
    weights = sum(p.numel() for p in backbone.encoder.parameters())
    per_length = 12 * shape.num_hidden_layers * shape.hidden_size
    tokens = flops = 0
    for batch in work.batches[size.warm : size.steps]:
        columns = list(zip(*(work.texts(row) for row in batch), strict=True))
        sides = {"query": columns[0], "passage": columns[1] + columns[2]}
        for role, texts in sides.items():
            lengths = tokenize(model, texts, prompt=prompts[role], max_length=length).lengths
            tokens += int(lengths.sum())
            distinct = dict(zip(texts, lengths.tolist(), strict=True))
            flops += sum(6 * weights * n + per_length * n * n for n in distinct.values())
    return {"tokens": tokens, "pairs": size.timed * size.batch_size, "floor_flops": flops}


def run_side(side: str, name: str, mode: str, *, model: str, size: Size) -> dict[str, Any]:
    """Train one side once, in this process."""
    started, clock = time.perf_counter(), Clock()
    work = load_work(name, model, size, mode=mode)
    trained = train_ours(work, size) if side == "ours" else train_peer(side, work, size, mode=mode)
    ends = clock.ends
    steps = [after - before for before, after in itertools.pairwise(ends)][-size.timed :]
    if len(ends) != size.steps:
        raise SystemExit(f"{side} made {len(ends)} steps, not {size.steps}")
    return {
        "seconds": steps,
        "setup": clock.first - started,
        "peak_gb": clock.peak_gb,
        "bf16": _is_bf16(work) if side == "ours" else mode == "bf16",
        **arithmetic(work, trained, size),
        **held_out_loss(work, trained, size),
    }


def _is_bf16(work: Work) -> bool:
    from retrieval_ft.encoder.precision import choose_device, choose_precision

    config = work.bench.config.model
    return choose_precision(config.precision, choose_device(config.device)).name == "bf16"


def matmul_peak(size: Size) -> dict[str, float]:
    """Best FLOP/s of a square matrix product here, in bf16 and in fp32."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = 4 * size.matrix if device == "cuda" else size.matrix
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        one, other = (torch.randn(rows, rows, device=device, dtype=dtype) for _ in range(2))
        times = []
        for _ in range(8):
            Clock.wait()
            started = time.perf_counter()
            one @ other
            Clock.wait()
            times.append(time.perf_counter() - started)
        found[name] = 2 * rows**3 / min(times)
    return {**found, "device": device}
