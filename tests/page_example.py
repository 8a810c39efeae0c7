"""A results document and its evidence with everything that the page can show, made from a small case.

`NASTY` stands in every place that comes from the user's data: it must come out as text.
"""

import numpy as np

from retrieval_ft.dataset.types import Corpus, Qrels, Queries, Ranking
from retrieval_ft.evaluation import difference_rows, evaluate
from retrieval_ft.evaluation.evidence import examples, query_deltas, recall_curves, separation

NASTY = "<script>alert(1)</script>\"><img src=x onerror=alert(1)> $x$ &amp; {{ 7 }} 'é"
SYSTEMS = ("bm25", "base_dense", "base_hybrid", "tuned_dense", "tuned_hybrid")
PAIRS = (("tuned_dense", "base_dense"), ("tuned_hybrid", "base_hybrid"))
_SKILL = {
    "bm25": 2.0,
    "base_dense": 1.5,
    "base_hybrid": 2.2,
    "tuned_dense": 3.2,
    "tuned_hybrid": 3.5,
}


def measured(*, queries=80, passages=150, text="plain", extra=(), seed=5):
    """Corpus, queries, judgements, rankings and values; a skilled system ranks relevant ones higher."""
    rng = np.random.default_rng(seed)
    ids = [f"p{i} {text}" for i in range(passages)]
    names = [f"q{i:04} {text}" for i in range(queries)]
    corpus = Corpus(
        tuple(ids), tuple(f"words of {p} " * 30 for p in ids), tuple(f"title {p}" for p in ids)
    )
    asked = Queries(tuple(names), tuple(f"what is {q}?" for q in names))
    relevant = rng.integers(0, passages, size=(queries, 2))
    qrels = Qrels(
        {
            q: {ids[a]: 1, ids[b]: 2 if a != b else 1, ids[(a + 7) % passages]: 0}
            for q, (a, b) in zip(names, relevant.tolist(), strict=True)
        }
    )
    rankings = {}
    for name in (*SYSTEMS, *extra):
        scores = rng.normal(size=(queries, passages))
        scores[np.arange(queries)[:, None], relevant] += _SKILL.get(name, 1.0)
        hits = {}
        for q, row in zip(names, scores, strict=True):
            best = np.argsort(-row)[:100]
            hits[q] = (tuple(ids[i] for i in best), row[best].astype(np.float32))
        rankings[name] = Ranking(hits)
    per_query = {name: evaluate(ranking, qrels) for name, ranking in rankings.items()}
    return corpus, asked, qrels, rankings, per_query


def example(*, queries=80, text="plain", extra=()):
    """The two arguments of `report_html`, whole."""
    corpus, asked, qrels, rankings, per_query = measured(queries=queries, text=text, extra=extra)
    pairs = (*PAIRS, *((name, "bm25") for name in extra))
    evidence = {
        "curves": recall_curves(rankings, qrels, seed=1, resamples=100),
        "deltas": query_deltas(per_query, pairs, metric="recall@10")
        + query_deltas(per_query, PAIRS, metric="ndcg@10"),
        "examples": examples(
            rankings,
            per_query,
            corpus=corpus,
            queries=asked,
            qrels=qrels,
            system="tuned_hybrid",
            against="base_hybrid",
            metric="recall@10",
        ),
        "separation": _separation(rankings, qrels),
        "fusion": [_fusion("base", 0.4), _fusion(f"tuned {text}", 0.7)],
        "training": {
            "steps": [2, 4, 6, 8],
            "loss": [3.0, None, 1.5, 1.0],
            "dev": [{"step": 4, "recall@10": 0.5}, {"step": 8, "recall@10": 0.6}],
        },
        "loading": [{"stack": f"stack {text}", "code": f"load({text!r})"}] * 2,
        "config": f"seed: 13\nname: {text}\n",
        "environment": {"python": "3.11", "cpus": 2, "packages": {f"torch {text}": "2"}},
        "hashes": {f"weights {text}": "0" * 64},
    }
    return _document(qrels, per_query, pairs, text), evidence


def _separation(rankings, qrels):
    sides = {}
    for side in ("base", "tuned"):
        ranking = rankings[f"{side}_dense"]
        kinds = ([], [])
        for q in qrels.query_ids:
            for p, score in zip(ranking.ids(q), ranking.scores(q).tolist(), strict=True):
                kinds[p not in qrels.relevant(q)].append(score)
        sides[side] = kinds
    return separation(sides)


def _fusion(side, chosen):
    weights = [i / 20 for i in range(21)]
    values = [1 - (w - chosen) ** 2 for w in weights]
    found = {"side": side, "metric": "recall@10 + ndcg@10 on dev", "weights": weights}
    return found | {
        "values": values,
        "rrf": 0.9,
        "chosen": {"kind": "convex", "dense_weight": chosen},
    }


def _document(qrels, per_query, pairs, text):
    rows = difference_rows(
        per_query, pairs, metrics=("recall@10", "ndcg@10"), seed=1, resamples=500
    )
    means = {name: found.means() for name, found in per_query.items()}
    kinds = {"base": means["base_dense"], "tuned": means["tuned_dense"]}
    tests = [{**row, "system": "tuned", "against": "base"} for row in rows[:2]]
    general = {"passages": 3000, "dev_queries": 300, "test_queries": 300}
    general |= {"name": f"other {text}", "remark": text, "systems": kinds, "differences": tests}
    milliseconds = {"p50": 1.0, "p95": 2.0, "p99": 3000.0}
    return {
        "schema_version": 1,
        "verdict": "promote",
        "reason": f"both intervals lie above zero {text}",
        "run": f"runs/{text}",
        "base": f"base {text}",
        "dataset": {
            "name": f"set {text}",
            "passages": 150,
            "train_pairs": 1500,
            "dev_queries": 20,
            "test_queries": len(qrels),
        },
        "warnings": [f"Few queries. {text}"],
        "systems": means,
        "differences": rows,
        "slices": [
            {
                "name": f"length {text}",
                "value": value,
                "queries": count,
                "systems": means,
                "differences": [{**rows[0], "finding": count > 30}, {**rows[2], "finding": False}],
            }
            for value, count in ((f"short {text}", 60), ("long", 20))
        ],
        "dimensions": [{"dimension": n, **kinds} for n in (384, 64)],
        "forgetting": {
            "sets": [general],
            "alphas": [
                {"alpha": 1.0, "target": 0.8, "general": 0.6},
                {"alpha": 0.6, "target": 0.79, "general": 0.69},
                {"alpha": 0.0, "target": 0.5, "general": 0.7},
            ],
            "why": f"because {text}",
        },
        "tuning": {
            "chosen": {"number": 1},
            "trials": [
                {"number": 0, "learning_rate": 1e-4, "epochs": 1, "recall": 0.0, "ndcg": 0.0}
                | {"steps": 3, "failed": True},
                {"number": 1, "learning_rate": 2e-4, "epochs": 2, "recall": 0.6, "ndcg": 0.5}
                | {"steps": 40, "failed": False},
            ],
        },
        "choices": {"soup_alpha": 0.6, "lexical": text, "base_fusion": {"method": "rrf"}},
        "hygiene": [{"check": "near_duplicates", "touched": 7, "of": 150, "what was done": text}],
        "pairs": {"tier": text, "splits": f"dev and test are apart {text}"},
        "mining": {"pairs": 1500, "dropped": {text: 3}},
        "training": {"steps": 48, "resumed": False},
        "truncation": {"passage": 0.125, "query": 0.0},
        "efficiency": {
            "systems": {"tuned_hybrid": {"encode_ms": milliseconds, "queries_per_s": 120.5}},
            "index_bytes": 3 * 1024 * 1024,
            "peak_memory_bytes": 512,
            "latency_check": {"growth": 0.03, "budget": 0.1, "passed": True},
        },
        "advice": [{"option": f"rerank {text}", "text": text}],
        "stages": [{"name": f"mine {text}", "seconds": 12.3, "cached": False}],
        "command": f"retrieval-ft train {text}",
    }
