"""The tables of eval/README.md and data/README.md, made of the recorded suites alone: no drift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- suites: made by `bench_suites.py --table` -->", "<!-- end of suites -->"
REFERENCE = {
    "bm25": "hybrid",
    "dense": "hybrid",
    "hybrid_rrf": "hybrid",
    "rank_bm25": "bm25",
    "bm25s": "bm25",
    "langchain": "hybrid",
    "llamaindex": "hybrid",
}
"""Which system of ours a system is set against in the table."""
MINUS = "\N{MINUS SIGN}"


def table_of(document: dict[str, Any]) -> str:
    """One suite as a Markdown table, with the command that made it."""
    peers = ", ".join(f"{name} {version}" for name, version in document["peers"].items())
    lines = [
        f"`{document['command']}`, model `{document['suite']['model']}`; peers: {peers or 'none'}.",
        "",
        "| set | system | recall@10 | nDCG@10 | ours minus it, recall@10 (95%) | p, Holm |",
        "|---|---|---|---|---|---|",
    ]
    for label, found in document["sets"].items():
        size = f"{label} ({found['passages']:,} passages, {found['test_queries']:,} queries)"
        for system in document["suite"]["systems"]:
            cells = _cells(system, found)
            lines.append(f"| {size} | {system} | {' | '.join(cells)} |")
            size = ""
    return "\n".join(lines)


def _cells(system: str, found: dict[str, Any]) -> tuple[str, str, str, str]:
    if system not in found["systems"]:
        return "missing", "missing", "", ""
    values = found["systems"][system]
    means = number(values["recall@10"]), number(values["ndcg@10"])
    wanted = (REFERENCE.get(system), system, "recall@10")
    for row in found["differences"]:
        if (row["system"], row["against"], row["metric"]) == wanted:
            low, high = map(signed, row["ci"])
            lead = f"{row['system']} {signed(row['delta'])} [{low}, {high}]"
            p = row["p_holm"]
            return *means, lead, "<.001" if p < 0.001 else number(p)
    return *means, "", ""


def number(value: float) -> str:
    """Three digits, without the zero in front."""
    text = f"{value:.3f}"
    return text.removeprefix("0") if value < 1 else text


def signed(value: float) -> str:
    """The same with its sign."""
    shown = round(value, 3)
    sign = "+" if shown > 0 else MINUS if shown < 0 else ""
    return sign + number(abs(value))


def recorded(results: Path) -> str:
    """The tables of all recorded suites, by name; what stands between the markers."""
    files = sorted(results.glob("suite_*.json"))
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    parts = [f"**{document['suite']['name']}** {table_of(document)}" for document in documents]
    return "\n\n".join(parts) or "Nothing is recorded yet."


def cards(results: Path) -> str:
    """What the recorded suites tell of each set itself; of two that hold a set, the later name."""
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for file in sorted(results.glob("suite_*.json")):
        document = json.loads(file.read_text(encoding="utf-8"))
        found |= {label: (one, document["command"]) for label, one in document["sets"].items()}
    lines = [
        "| set | BM25, R@10 / nDCG@10 | base, R@10 / nDCG@10 | unlabelled near-duplicates | command |",
        "|---|---|---|---|---|",
    ]
    for label, (one, command) in sorted(found.items()):
        systems, near = one["systems"], one["near_duplicates"]
        cells = [
            f"{number(systems[name]['recall@10'])} / {number(systems[name]['ndcg@10'])}"
            if name in systems
            else ""
            for name in ("bm25", "dense")
        ]
        share = f"{near['share_of_test_queries']:.0%} of test queries"
        cells.append(f"{share} ({near['unlabelled_passages']:,} passages)")
        lines.append(f"| `{label}` | {' | '.join(cells)} | `{command}` |")
    return "\n".join(lines)


def between(text: str) -> str:
    """What stands between the markers of a README."""
    return text.partition(BEGIN)[2].partition(END)[0].strip("\n")


def write(readme: Path, tables: str) -> None:
    """Put tables between the markers of a README, and leave the rest."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{readme}: lacks the markers {BEGIN} and {END}")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")
