"""Mining negatives against its peers: the same model and the same data, one run on one machine.

    python eval/bench_mining.py [--quick] [--json]

10,000 queries over 20,000 short passages, 5 negatives each, bge-small-en-v1.5. Passages: those of hpo
and cwe, filled up with sentences of cwe. Queries: those of both, filled up with names of hpo terms.
Every side runs in a process of its own, its model loaded and warm. Seconds are those of

  encode   the calls that turn texts into vectors, once. Ours takes bf16 where the CPU multiplies it,
           the peers fp32, each as it ships;
  post     everything else with the vectors at hand, the median of several times. Ours is hybrid, as
           by default, and builds and searches BM25; `dense` is ours with what the peers do: dense
           candidates, a fixed margin of 5%;
  warm     ours from the embedding cache on disk, everything counted but loading the model.

Peers: sentence-transformers' `mine_hard_negatives` (FAISS, margin of 5%, its own depth, n-tuples) and
FlagEmbedding's `hn_mine` (depth 50, no margin); `make peers` fetches the second, and without it that
one is reported as missing. Memory: the peak of a process that mines from synthetic vectors, 384 wide,
and from a synthetic BM25 ranking. `--quick` is small, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import MISSING, MODEL, PEERS, ROOT, child, data_folder, environment, record, show

NEGATIVES, DEPTH, SEED, WIDTH, GB = 5, 50, 13, 384, 1e9


@dataclass(frozen=True)
class Size:
    """How much is mined."""

    passages: int
    queries: int
    repeats: int
    synthetic: tuple[int, ...]
    """Passages of the memory runs."""
    synthetic_queries: int
    words: int = 10_000
    """Words of a passage at most."""


FULL = Size(20_000, 10_000, 5, (100_000, 300_000, 1_000_000), 10_000)
QUICK = Size(200, 100, 2, (20_000, 60_000), 500, words=20)


def data(size: Size) -> tuple[Any, Any, Any]:
    """Corpus, queries and qrels of the comparison."""
    from retrieval_ft.dataset import SPLITS, Corpus, Qrels, Queries, beir

    hpo, cwe = (beir.read(ROOT / "data" / name) for name in ("hpo", "cwe"))
    texts: dict[str, str] = {}
    grades, asked = {}, {}
    for found in (hpo, cwe):
        texts |= zip(found.corpus.ids, found.corpus.passages, strict=True)
        for split in SPLITS:
            grades |= found.qrels[split].grades
            asked |= {q: found.queries.text_of[q] for q in found.qrels[split].query_ids}
    for passage_id, title in zip(hpo.corpus.ids, hpo.corpus.titles, strict=True):
        asked[f"name of {passage_id}"] = title
        grades[f"name of {passage_id}"] = {passage_id: 1}
    for passage_id, text in zip(cwe.corpus.ids, cwe.corpus.texts, strict=True):
        sentences = re.split(r"(?<=[.!?])\s+", text)
        long = [sentence for sentence in sentences if len(sentence.split()) > 7]
        texts |= {f"{passage_id} sentence {n}": words for n, words in enumerate(long)}
    texts = {p: words for p, words in texts.items() if len(words.split()) <= size.words}
    asked = {q: words for q, words in asked.items() if grades[q].keys() <= texts.keys()}
    asked = dict(list(asked.items())[: size.queries])
    needed = dict.fromkeys(p for q in asked for p in grades[q])  # a small set keeps these
    kept = tuple({**needed, **texts})[: max(size.passages, len(needed))]
    return (
        Corpus(kept, tuple(texts[p] for p in kept), ("",) * len(kept)),
        Queries(tuple(asked), tuple(asked.values())),
        Qrels({q: grades[q] for q in asked}),
    )


class Remembered:
    """An encode call that is made once for the same texts, and timed apart."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call, self.known = call, {}
        self.first = self.all = 0.0

    def __call__(self, texts: Any, *args: Any, **options: Any) -> Any:
        """Encode, or give back what was encoded."""
        started = time.perf_counter()
        key = len(texts), texts[0], texts[-1]
        if key not in self.known:
            self.known[key] = self.call(texts, *args, **options)
            self.first += time.perf_counter() - started
        vectors = self.known[key].copy()
        self.all += time.perf_counter() - started
        return vectors


def timed(work: Callable[[], Any], calls: list[Remembered], repeats: int) -> dict[str, float]:
    """Seconds of encoding, and the median of all the rest, of some runs of `work`.

    As `timeit` does, the garbage collector rests: it would go through every library's objects.
    """
    rest = []
    for _ in range(repeats):
        gc.collect()
        gc.disable()
        before, started = sum(call.all for call in calls), time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        gc.enable()
        rest.append(seconds - (sum(call.all for call in calls) - before))
    return {"encode": sum(call.first for call in calls), "post": statistics.median(rest)}


def ours(size: Size) -> dict[str, float]:
    """Our side: cold, warm, and its parts."""
    from retrieval_ft.config import MiningConfig
    from retrieval_ft.encoder.encoder import Encoder, load_encoder
    from retrieval_ft.index import LexicalIndex, LexicalSpec
    from retrieval_ft.mining import exact_top_k, mine
    from retrieval_ft.models import resolve
    from retrieval_ft.pipeline.mine import lexical_rows

    corpus, queries, qrels = data(size)
    loaded = load_encoder(resolve(MODEL).path)
    loaded.encode(corpus.passages[:64], role="passage")
    hybrid = MiningConfig(negatives=NEGATIVES, depth=DEPTH)
    dense = MiningConfig(
        negatives=NEGATIVES, depth=DEPTH, sources=("dense",), filter="relative", margin=0.95
    )
    parts: dict[str, list[float]] = {}

    def part(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = work()
        parts.setdefault(name, []).append(time.perf_counter() - started)
        return found

    def work(config: MiningConfig, encode: Callable[..., Any], name: str) -> None:
        asked, passages = (
            encode(queries.texts, role="query"),
            encode(corpus.passages, role="passage"),
        )
        top = part("top_k", lambda: exact_top_k(asked, passages, ids=corpus.ids, k=2 * DEPTH)[0])
        rankings = {"dense": top}
        if "bm25" in config.sources:
            texts, spec = corpus.passages, LexicalSpec()
            index = part("bm25_build", lambda: LexicalIndex.build(corpus.ids, texts, spec=spec))
            rankings["bm25"] = part("bm25", lambda: lexical_rows(index, queries, k=2 * DEPTH))
        vectors = {"query_vectors": asked, "passage_vectors": passages}
        given = {"qrels": qrels, "rankings": rankings, "config": config, "seed": SEED, **vectors}
        part(name, lambda: mine(corpus, queries, **given))

    def encoder(cache: Path) -> Any:
        return Encoder(loaded.model, precision=loaded.precision, cache_root=cache)

    with tempfile.TemporaryDirectory() as folder:
        cold = Remembered(encoder(Path(folder)).encode)
        found = timed(lambda: work(hybrid, cold, "select"), [cold], size.repeats)
        found["post_dense"] = timed(
            lambda: work(dense, cold, "select_dense"), [cold], size.repeats
        )["post"]
        cached = [
            timed(lambda: work(hybrid, encoder(Path(folder)).encode, "select"), [], 1)["post"]
            for _ in range(size.repeats)
        ]
    found["warm"] = statistics.median(cached)
    return found | {f"part_{name}": statistics.median(times) for name, times in parts.items()}


def sentence_transformers(size: Size) -> dict[str, float]:
    """sentence-transformers' miner."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    from retrieval_ft.models import resolve

    corpus, queries, qrels = data(size)
    model = SentenceTransformer(str(resolve(MODEL).path))
    model.encode_document(list(corpus.passages[:64]))
    model.encode_document = Remembered(model.encode_document)
    model.encode_query = Remembered(model.encode_query)
    pairs = [(q, p) for q in queries.ids for p in sorted(qrels.relevant(q))]
    text_of = dict(zip(corpus.ids, corpus.passages, strict=True))
    rows = {"query": [queries.text_of[q] for q, _ in pairs]}
    rows["positive"] = [text_of[p] for _, p in pairs]
    dataset = Dataset.from_dict(rows)

    def work() -> None:
        mine_hard_negatives(
            dataset,
            model,
            corpus=list(corpus.passages),
            num_negatives=NEGATIVES,
            relative_margin=0.05,
            use_faiss=True,
            output_format="n-tuple",
            verbose=False,
        )

    return timed(work, [model.encode_document, model.encode_query], size.repeats)


def flag_embedding(size: Size) -> dict[str, float]:
    """FlagEmbedding's miner, from files to files as it works."""
    sys.path.insert(0, str(PEERS))
    from FlagEmbedding import FlagModel
    from hn_mine import find_knn_neg

    from retrieval_ft.encoder.encoder import load_model, saved_prompts
    from retrieval_ft.models import resolve

    corpus, queries, qrels = data(size)
    path = resolve(MODEL).path
    prompt = saved_prompts(load_model(path))["query"]
    model = FlagModel(str(path), query_instruction_for_retrieval=prompt)
    model.encode(list(corpus.passages[:64]))
    model.encode = Remembered(model.encode)  # encode_queries goes through it
    text_of = dict(zip(corpus.ids, corpus.passages, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        asked, pool, out = (Path(folder) / name for name in ("queries", "pool", "out"))
        with asked.open("w") as file:
            for query_id, text in zip(queries.ids, queries.texts, strict=True):
                positives = [text_of[p] for p in sorted(qrels.relevant(query_id))]
                file.write(json.dumps({"query": text, "pos": positives}) + "\n")
        pool.write_text("".join(json.dumps({"text": text}) + "\n" for text in corpus.passages))
        settings = ([0, DEPTH], NEGATIVES, False)
        return timed(
            lambda: find_knn_neg(model, str(asked), str(pool), str(out), *settings),
            [model.encode],
            size.repeats,
        )


def memory(passages: int, queries: int) -> dict[str, float]:
    """Mine from synthetic vectors and say what it took."""
    from retrieval_ft.config import MiningConfig
    from retrieval_ft.dataset import Corpus, Qrels, Queries
    from retrieval_ft.mining import exact_top_k, mine

    generator = np.random.default_rng(SEED)
    vectors = np.empty((passages, WIDTH), np.float32)
    for start in range(0, passages, 10_000):
        part = vectors[start : start + 10_000]
        generator.standard_normal(part.shape, np.float32, out=part)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    ids = tuple(f"p{i:07}" for i in range(passages))
    words = generator.integers(5_000, size=(passages, 4)).tolist()
    corpus = Corpus(ids, tuple(" ".join(f"w{w}" for w in row) for row in words), ("",) * passages)
    del words
    positives = generator.integers(passages, size=queries)
    noise = generator.standard_normal((queries, WIDTH), np.float32) * np.float32(WIDTH**-0.5)
    asked = vectors[positives] + noise
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    names = tuple(f"q{i}" for i in range(queries))
    bm25 = (generator.integers(passages, size=(queries, 1)) + np.arange(2 * DEPTH)) % passages
    started = time.perf_counter()
    dense, _ = exact_top_k(asked, vectors, ids=ids, k=2 * DEPTH)
    searched = time.perf_counter() - started
    mine(
        corpus,
        Queries(names, names),
        qrels=Qrels({q: {ids[p]: 1} for q, p in zip(names, positives.tolist(), strict=True)}),
        rankings={"dense": dense, "bm25": bm25},
        query_vectors=asked,
        passage_vectors=vectors,
        config=MiningConfig(negatives=NEGATIVES, depth=DEPTH),
        seed=SEED,
    )
    return {
        "seconds": time.perf_counter() - started,
        "seconds_top_k": searched,
        "embeddings_gb": (vectors.nbytes + asked.nbytes) / GB,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB,
    }


SIDES = {"ours": ours, "st": sentence_transformers, "flag": flag_embedding}


def measure(size: Size, *, quick: bool) -> dict[str, Any]:
    """Run every side and flatten what they found."""
    from retrieval_ft.models import resolve

    resolve(MODEL)
    for name in ("hpo", "cwe"):
        data_folder(name)
    options = ["--quick"] if quick else []
    sides = ["ours", "st", *(["flag"] if PEERS.is_dir() else [])]
    seconds = {side: child(__file__, "--side", side, *options) for side in sides}
    mined, figures = seconds["ours"], {}
    for peer in sides[1:]:
        whole = seconds[peer]["encode"] + seconds[peer]["post"]
        figures |= {
            f"post_encode_ratio_{peer}": mined["post"] / seconds[peer]["post"],
            f"post_encode_ratio_{peer}_dense": mined["post_dense"] / seconds[peer]["post"],
            f"encode_ratio_{peer}": mined["encode"] / seconds[peer]["encode"],
            f"cold_ratio_{peer}": (mined["encode"] + mined["post"]) / whole,
            f"warm_ratio_{peer}": mined["warm"] / whole,
        }
    figures |= {f"seconds_{s}_{name}": n for s in sides for name, n in seconds[s].items()}
    for passages in size.synthetic:
        found = child(__file__, "--side", "memory", "--passages", str(passages), *options)
        label = f"{passages // 1_000}k" if passages < 1_000_000 else f"{passages // 1_000_000}m"
        figures |= {f"{name}_{label}": value for name, value in found.items()}
        figures[f"peak_over_embeddings_gb_{label}"] = found["peak_gb"] - found["embeddings_gb"]
    return {
        "peers": {
            "sentence-transformers": importlib.metadata.version("sentence-transformers"),
            "FlagEmbedding": "1.4.2, hn_mine of 1.2.11" if "flag" in sides else MISSING,
        },
        "figures": figures,
    }


def main() -> None:
    """Measure, print, and record a full run under eval/results/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small, under a minute")
    parser.add_argument("--json", action="store_true", help="print the whole JSON document")
    parser.add_argument("--side", choices=(*SIDES, "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--passages", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    if options.side:
        one = options.side == "memory"
        found = (
            memory(options.passages, size.synthetic_queries) if one else SIDES[options.side](size)
        )
        options.out.write_text(json.dumps(found))
        return
    document = {
        "schema_version": 1,
        "command": "python eval/bench_mining.py",
        "environment": environment(),
        **measure(size, quick=options.quick),
    }
    if not options.quick:
        record("mining", document)
    show(document, as_json=options.json)


if __name__ == "__main__":
    main()
