"""What the page says of the run: training, choices, data, costs, how to load, how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from retrieval_ft.evaluation.cells import stage_cells, trial_cells
from retrieval_ft.evaluation.html.blocks import (
    Block,
    Code,
    Heading,
    Paragraph,
    facts,
    percent,
    table,
)
from retrieval_ft.evaluation.html.charts_dev import fusion_chart, soup_chart, training_chart
from retrieval_ft.evaluation.report import ABSENT, Document, label, shown, words

Blocks = Iterator[Block]
Evidence = Mapping[str, Any]
_TIMES = ("encode_ms", "search_ms", "rerank_ms", "total_ms")
_POINTS = ("p50", "p95", "p99")
_SIZES = {
    "index_bytes": "index on disk",
    "vector_bytes": "of it vectors",
    "bm25_bytes": "of it BM25",
    "text_bytes": "of it texts",
    "peak_memory_bytes": "peak memory",
}
_ACCOUNTS = {"pairs": "Pairs", "mining": "Mining", "training": "The fit"}
_TOLD = ("splits", "soup_alpha", "soup_why", "general_dev_base")
"""Parts of the accounts that stand elsewhere: below leakage, and among the choices."""
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def training(document: Document, evidence: Evidence) -> Blocks:
    """Loss and dev, the search over recipes, and the accounts of mining and training."""
    found = evidence.get("training")
    if found and found.get("steps"):
        yield training_chart(found)
    if tuning := document.get("tuning"):
        trials = trial_cells(tuning)
        yield table("Search over recipes, on dev", trials.header, trials.rows)
    for key, title in _ACCOUNTS.items():
        account = document.get(key) or {}
        told = {name: value for name, value in account.items() if name not in _TOLD}
        if told:
            yield Heading(title)
            yield facts(told, wide=key == "pairs")


def choices(document: Document, evidence: Evidence) -> Blocks:
    """What dev chose: the weight of the fusion and the share of the soup."""
    chosen, found = document.get("choices") or {}, document.get("forgetting") or {}
    fusion, alphas = evidence.get("fusion"), found.get("alphas")
    if not (chosen or fusion or alphas):
        return
    if "verdict" in document:
        yield Paragraph(
            "Whatever was chosen among candidates was chosen on the dev split; the test split was looked at "
            "once, for the figures above."
        )
    if fusion:
        yield fusion_chart(fusion)
    if alphas:
        yield soup_chart(alphas, chosen=chosen.get("soup_alpha"))
    if why := found.get("why"):
        yield Paragraph(f"Why this share: {why}.")
    if chosen:
        yield facts(chosen)


def hygiene(document: Document, _: Evidence) -> Blocks:
    """What was found in the data, and done about it."""
    if rows := document.get("hygiene"):
        yield table(
            "Hygiene checks",
            ["check", "what was done", "touched", "of"],
            [
                [words(r["check"]), r["what was done"], f"{r['touched']:,}", f"{r['of']:,}"]
                for r in rows
            ],
            left=2,
        )
    if splits := (document.get("pairs") or {}).get("splits"):
        yield Heading("Leakage between the splits")
        yield Paragraph(str(splits))
    if dropped := (document.get("dataset") or {}).get("dropped"):
        yield Heading("Queries left out")
        yield facts(dropped)
    if shares := document.get("truncation"):
        rows = [[words(role), percent(share)] for role, share in shares.items()]
        yield table("Texts cut at the model's maximum length", ["texts", "share cut"], rows)


def efficiency(document: Document, _: Evidence) -> Blocks:
    """Latency, sizes, the time of the run, and what is advised."""
    found = document.get("efficiency")
    if found:
        yield from _latency(found)
    elif "verdict" in document:
        yield Paragraph("Latency, throughput and index size were not measured in this run.")
    if stages := document.get("stages"):
        cells = stage_cells(stages)
        yield table("Time of each stage of the run", cells.header, cells.rows)
    if advice := document.get("advice"):
        yield Heading("What is advised")
        yield table(
            "Options, in order",
            ["option", "why"],
            [[one["option"], one["text"]] for one in advice],
            left=2,
        )


def _latency(found: Mapping[str, Any]) -> Blocks:
    measured: Mapping[str, Mapping[str, Any]] = found.get("systems") or {}
    times = [key for key in _TIMES if any(one.get(key) for one in measured.values())]
    if measured:
        header = [f"{key.removesuffix('_ms')} {point}" for key in times for point in _POINTS]
        rows = [
            [
                label(name),
                *(_number((one.get(key) or {}).get(p)) for key in times for p in _POINTS),
                _number(one.get("queries_per_s")),
            ]
            for name, one in measured.items()
        ]
        yield table(
            "Latency of one query in milliseconds, and queries a second",
            ["system", *header, "queries / s"],
            rows,
            note="p50, p95, p99: so many percent of the queries took no longer. Times differ from machine "
            "to machine and from run to run.",
        )
    if check := found.get("latency_check"):
        yield Paragraph(_budget(check))
    sizes = {name: size(found[key]) for key, name in _SIZES.items() if found.get(key) is not None}
    if "passages_per_s" in found:
        sizes["passages encoded a second"] = _number(found["passages_per_s"])
    if sizes:
        yield facts(sizes)


def _budget(check: Mapping[str, Any]) -> str:
    """The growth of the p95, and whether it is allowed."""
    grown = f"The p95 of a query changed by {check['growth']:+.1%} from base to tuned"
    if check.get("budget") is None:
        return f"{grown}; no budget was set."
    word = "within" if check["passed"] else "over"
    return f"{grown}: {word} the latency budget of {check['budget']:.0%}."


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def size(count: float) -> str:
    """A number of bytes for people: `1.5 MiB`."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:,.1f} {_UNITS[unit]}" if unit else f"{count:,} bytes"


def loading(_: Document, evidence: Evidence) -> Blocks:
    """How each stack loads the model."""
    for at, one in enumerate(evidence.get("loading") or ()):
        yield Code(str(one["stack"]), str(one["code"]), folded=at > 0)


def repeat(document: Document, evidence: Evidence) -> Blocks:
    """Command, config, versions, hashes, and how far the figures can be had again."""
    if command := document.get("command"):
        yield Code("Command", str(command))
    known = {
        "run": document.get("run"),
        "model": document.get("model"),
        "base model": document.get("base"),
        "models": document.get("models"),
        "schema version": document.get("schema_version"),
    }
    yield facts({name: shown(value) for name, value in known.items() if value is not None})
    if runs := document.get("runs"):
        header = ["system", "file", "sha256", "queries without a result"]
        rows = [
            [label(name), str(run["file"]), str(run.get("sha256", ABSENT)), f"{run['absent']:,}"]
            for name, run in runs.items()
        ]
        yield table("Run files", header, rows, left=3)
    if config := evidence.get("config"):
        yield Code("Configuration, as resolved", str(config), folded=True)
    if environment := evidence.get("environment"):
        yield Heading("Environment")
        yield facts(environment)
    if hashes := evidence.get("hashes"):
        rows = [[str(name), str(value)] for name, value in hashes.items()]
        yield table("sha256", ["file", "sha256"], rows, left=2)
    yield Paragraph(
        "The same command gives the same metrics to the last digit on one machine's CPU with the same "
        "versions and number of threads. It need not on a GPU, on a CPU of another kind, or with other "
        "versions; times always differ."
    )
