"""`report.md`: a results document for the people who decide, verdict first where there is one.

Whatever a document holds as text (names, reasons, paths) is escaped, so that no name can break a
table or smuggle in markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrieval_ft.console import markdown as escape
from retrieval_ft.evaluation.cells import METRICS_NOTE, difference_cells, metric_definitions
from retrieval_ft.evaluation.markdown_blocks import bullets, escaped, table
from retrieval_ft.evaluation.markdown_run import (
    account,
    advice,
    choices,
    command,
    dimensions,
    efficiency,
    hygiene,
    stages,
    tuning,
)
from retrieval_ft.evaluation.report import (
    ABSENT,
    COLUMNS,
    Document,
    figure,
    interval,
    label,
    p_value,
    signed,
    systems_header,
    systems_rows,
)

_COLUMNS: Mapping[str, str] = {**COLUMNS, "precision@10": "P@10", "map": "MAP"}

_DATASET_COUNTS: Mapping[str, str] = {
    "passages": "passages",
    "train_queries": "train queries",
    "train_pairs": "train pairs",
    "dev_queries": "dev queries",
    "test_queries": "test queries",
    "queries": "test queries",
}


def _measured(document: Document) -> list[str]:
    facts: dict[str, Any] = {}
    if dataset := document.get("dataset"):
        counts = [
            f"{dataset[key]:,} {name}" for key, name in _DATASET_COUNTS.items() if key in dataset
        ]
        facts["dataset"] = ", ".join([str(dataset.get("name", ABSENT)), *counts])
    if "base" in document:
        facts["base model"] = document["base"]
    facts |= {key: document[key] for key in ("model", "models", "run") if key in document}
    for name, run in document.get("runs", {}).items():
        lacks = f", {run['absent']:,} queries without a result" if run["absent"] else ""
        facts[f"{name} (run file)"] = f"{run['file']}{lacks}"
    if document.get("dataset", {}).get("dropped"):
        facts["left out"] = document["dataset"]["dropped"]
    if shares := document.get("truncation"):
        facts["texts cut at the maximum length"] = ", ".join(
            f"{role} {share:.1%}" for role, share in shares.items()
        )
    return ["## What was measured", "", *bullets(facts)]


def _systems(document: Document) -> list[str]:
    rows = [[escape(cell) for cell in row] for row in systems_rows(document, _COLUMNS)]
    header = [escape(cell) for cell in systems_header(document, _COLUMNS)]
    how = "Test split, every query ranked against the whole corpus."
    if "references" in document:
        how = (
            "Each system beside the one named in the last column; a run file is taken as it stands."
        )
    return ["## Systems", "", how, "", *table(header, rows, left=1)]


def _differences(document: Document) -> list[str]:
    if not document["differences"]:
        return []
    found = difference_cells(document["differences"])
    return ["## Differences", "", found.note, "", *escaped(found, left=3)]


def _slices(document: Document) -> list[str]:
    slices = document.get("slices")
    if not slices:
        return []
    systems = [name for name in document["systems"] if name in slices[0]["systems"]]
    rows = [
        [escape(f"{found['name']}: {found['value']}"), f"{found['queries']:,}"]
        + [f"{found['systems'][name]['recall@10']:.4f}" for name in systems]
        + [_slice_gain(found)]
        for found in slices
    ]
    header = ["test queries", "n", *(escape(label(name)) for name in systems)]
    shown = _slice_difference(slices[0])
    which = f"{label(shown['system'])} minus {label(shown['against'])}" if shown else "the gain"
    return [
        "## Where: slices of the test queries, R@10",
        "",
        f"Δ is {escape(which)}, with its 95% interval; a star marks a finding: 30 queries "
        "at least, and p under .05 after Holm over all slices.",
        "",
        *table([*header, "Δ hybrid [95% CI]"], rows, left=1),
    ]


def _slice_difference(found: Document) -> Mapping[str, Any] | None:
    """The difference that is shown of a slice: of the tuned hybrid where there is one, else the first."""
    rows = found["differences"]
    return next((r for r in rows if r["system"] == "tuned_hybrid"), rows[0] if rows else None)


def _slice_gain(found: Document) -> str:
    """That difference in a cell."""
    row = _slice_difference(found)
    if row is None:
        return ""
    star = " \\*" if row["finding"] else ""
    return f"{signed(row['delta'])} {interval(row['ci'])}{star}"


def _forgot(document: Document) -> list[str]:
    """The target beside sets of other domains, and what each share of tuned weights does to both."""
    found = document.get("forgetting")
    if found is None:
        return []
    if found["sets"]:
        how = [
            "Dense retrieval with the tuned weights against the base: on the target, and on samples "
            "of other domains (test queries against a pool of passages, so higher than on the whole "
            "set). Δ, 95% CI and p as above, not adjusted.",
            "",
            *_both_axes(document),
        ]
        for one in found["sets"]:
            how += ["", f"{escape(one['name'])}: {escape(one['remark'])}."] if one["remark"] else []
    else:
        how = [
            "Not measured: there was no set of another domain. `retrieval-ft data build hpo` (or "
            "`cwe`) builds one that every later run uses; `evaluation.general` names others."
        ]
    return ["## What it forgot", "", *how, "", *_alphas(document)]


def _both_axes(document: Document) -> list[str]:
    """A table of target and general sets, base against tuned."""
    data = document["dataset"]
    target = {
        "name": f"{data['name']} (target)",
        "test_queries": data["test_queries"],
        "passages": data["passages"],
        "systems": {kind: document["systems"][f"{kind}_dense"] for kind in ("base", "tuned")},
        "differences": [
            row
            for row in document["differences"]
            if (row["system"], row["against"]) == ("tuned_dense", "base_dense")
        ],
    }
    rows = [
        [
            escape(one["name"]),
            f"{one['test_queries']:,}",
            f"{one['passages']:,}",
            escape(_COLUMNS.get(row["metric"], row["metric"])),
            figure(one["systems"]["base"][row["metric"]]),
            figure(one["systems"]["tuned"][row["metric"]]),
            signed(row["delta"]),
            escape(interval(row["ci"])),
            p_value(row["p"]),
        ]
        for one in (target, *document["forgetting"]["sets"])
        for row in one["differences"]
    ]
    header = ["set", "queries", "passages", "metric", "base", "tuned", "Δ", "95% CI", "p"]
    return table(header, rows, left=1)


def _alphas(document: Document) -> list[str]:
    """Dev recall of each share of tuned weights that was tried, with the base as share 0."""
    found = document["forgetting"]
    chosen = document["choices"]["soup_alpha"]
    rows = [
        [
            f"{row['alpha']:g}" + (" (base)" if row["alpha"] == 0 else ""),
            figure(row["target"]),
            figure(row["general"]),
            "chosen" if row["alpha"] == chosen else "",
        ]
        for row in found["alphas"]
    ]
    header = ["share of tuned weights", "target dev R@10", "general dev R@10", ""]
    why = f" {escape(found['why'])}." if found.get("why") else ""
    return [
        f"The share of tuned weights (alpha) was chosen on dev.{why}",
        "",
        *table(header, rows, left=1),
    ]


def _warnings(document: Document) -> list[str]:
    return [f"- {escape(sentence)}" for sentence in document.get("warnings") or ()]


def _definitions(document: Document) -> list[str]:
    lines = [f"- {name}: {text}" for name, text in metric_definitions(document).items()]
    return ["## Metrics", "", METRICS_NOTE, "", *lines] if lines else []


def _title(document: Document) -> str:
    if "verdict" in document:
        return f"# Verdict: {escape(document['verdict'])}"
    name = document.get("dataset", {}).get("name", ABSENT)
    return f"# {len(document['systems'])} systems on {escape(name)}"


def report_markdown(document: Document) -> str:
    """Render a results document as GitHub-flavoured Markdown, the verdict in its first line."""
    sections = [
        [_title(document)],
        [f"Reason: {escape(document['reason'])}"] if document.get("reason") else [],
        _warnings(document),
        _measured(document),
        _systems(document),
        _differences(document),
        _slices(document),
        _forgot(document),
        dimensions(document),
        tuning(document),
        choices(document),
        efficiency(document),
        advice(document),
        hygiene(document),
        account(document, "pairs", "Pairs"),
        account(document, "mining", "Mining"),
        account(document, "training", "Training"),
        stages(document),
        _definitions(document),
        command(document),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"
