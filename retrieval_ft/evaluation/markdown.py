"""`report.md`: a results document for the people who decide, verdict first.

Whatever a document holds as text (names, reasons, paths) is escaped, so that no name can break a
table or smuggle in markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_ft.console import markdown as escape
from retrieval_ft.evaluation.metrics import DEFINITIONS
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
}


def _fence(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}\n{text}\n{marks}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """A table from escaped cells; the first `left` columns are aligned left, the others right."""
    rule = [":---" if i < left else "---:" for i in range(len(header))]
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]


def _value(value: Any) -> str:
    """A setting or a count, of whatever type, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(key)} {_value(one)}" for key, one in value.items()) or "none"
    return escape(value)


def _bullets(facts: Mapping[str, Any]) -> list[str]:
    return [f"- {escape(str(name).replace('_', ' '))}: {_value(v)}" for name, v in facts.items()]


def _measured(document: Document) -> list[str]:
    facts: dict[str, Any] = {}
    if dataset := document.get("dataset"):
        counts = [
            f"{dataset[key]:,} {name}" for key, name in _DATASET_COUNTS.items() if key in dataset
        ]
        facts["dataset"] = ", ".join([str(dataset.get("name", ABSENT)), *counts])
    if "base" in document:
        facts["base model"] = document["base"]
    facts["run"] = document["run"]
    if shares := document.get("truncation"):
        facts["texts cut at the maximum length"] = ", ".join(
            f"{role} {share:.1%}" for role, share in shares.items()
        )
    return ["## What was measured", "", *_bullets(facts)]


def _systems(document: Document) -> list[str]:
    rows = [[escape(cell) for cell in row] for row in systems_rows(document, _COLUMNS)]
    return [
        "## Systems",
        "",
        "Test split, every query ranked against the whole corpus.",
        "",
        *_table([escape(cell) for cell in systems_header(_COLUMNS)], rows, left=1),
    ]


def _differences(document: Document) -> list[str]:
    rows = []
    for found in document["differences"]:
        counts = "/".join(str(found.get(key, ABSENT)) for key in ("wins", "ties", "losses"))
        rows.append(
            [
                escape(label(found["system"])),
                escape(label(found["against"])),
                escape(found["metric"]),
                signed(found["delta"]),
                escape(interval(found["ci"])),
                p_value(found.get("p")),
                p_value(found.get("p_holm")),
                counts,
            ]
        )
    if not rows:
        return []
    header = ["system", "against", "metric", "Δ", "95% CI", "p", "p (Holm)", "win/tie/loss"]
    return [
        "## Differences",
        "",
        "Δ is the mean difference per query. 95% CI: paired bootstrap, percentile. p: paired "
        "sign-flip test, two-sided; p (Holm): adjusted for all rows of this table.",
        "",
        *_table(header, rows, left=3),
    ]


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
    return [
        "## Where: slices of the test queries, R@10",
        "",
        "Δ is tuned hybrid minus base hybrid, with its 95% interval; a star marks a finding: 30 queries "
        "at least, and p under .05 after Holm over all slices.",
        "",
        *_table([*header, "Δ hybrid [95% CI]"], rows, left=1),
    ]


def _slice_gain(found: Document) -> str:
    """What tuning changed on a slice."""
    rows = [r for r in found["differences"] if r["system"] == "tuned_hybrid"]
    if not rows:
        return ""
    row = rows[0]
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
    return _table(header, rows, left=1)


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
        *_table(header, rows, left=1),
    ]


def _tuning(document: Document) -> list[str]:
    found = document.get("tuning")
    if not found:
        return []
    rows = [
        [
            f"{trial['number']}",
            f"{trial['learning_rate']:.3g}",
            f"{trial['epochs']}",
            "failed" if trial["failed"] else figure(trial["recall"]),
            ABSENT if trial["failed"] else figure(trial["ndcg"]),
            f"{trial['steps']:,}",
            "chosen" if trial["number"] == found["chosen"]["number"] else "",
        ]
        for trial in found["trials"]
    ]
    header = ["trial", "learning rate", "epochs", "dev R@10", "dev nDCG@10", "steps", ""]
    return ["## Search over recipes", "", *_table(header, rows, left=1)]


def _hygiene(document: Document) -> list[str]:
    rows = [
        [
            escape(row["check"]),
            f"{row['touched']:,}",
            f"{row['of']:,}",
            escape(row["what was done"]),
        ]
        for row in document.get("hygiene") or ()
    ]
    if not rows:
        return []
    table = _table(["check", "touched", "of", "what was done"], rows, left=1)
    return ["## Hygiene", "", *table]


def _warnings(document: Document) -> list[str]:
    return [f"- {escape(sentence)}" for sentence in document.get("warnings") or ()]


def _choices(document: Document) -> list[str]:
    choices = document.get("choices")
    if not choices:
        return []
    return [
        "## Choices",
        "",
        "Whatever was chosen among candidates was chosen on the dev split; the test split was "
        "looked at once, for the tables above.",
        "",
        *_bullets(choices),
    ]


def _account(document: Document, key: str, title: str) -> list[str]:
    facts = document.get(key)
    return [f"## {title}", "", *_bullets(facts)] if facts else []


def _stages(document: Document) -> list[str]:
    stages = document["stages"]
    if not stages:
        return []
    rows = [
        [escape(stage["name"]), f"{stage['seconds']:.1f}", "yes" if stage["cached"] else "no"]
        for stage in stages
    ]
    rows.append(["all", f"{sum(stage['seconds'] for stage in stages):.1f}", ""])
    return ["## Stages", "", *_table(["stage", "seconds", "cached"], rows, left=1)]


def _definitions(document: Document) -> list[str]:
    kinds = {metric.partition("@")[0] for means in document["systems"].values() for metric in means}
    names = {"recall": "R@k, recall@k", "ndcg": "nDCG@k", "mrr": "MRR@k", "precision": "P@k"}
    names |= {"capped_recall": "capped R@k", "success": "S@k", "hole": "hole@k"}
    lines = [f"- {names.get(k, k.upper())}: {DEFINITIONS[k]}." for k in DEFINITIONS if k in kinds]
    if not lines:
        return []
    return [
        "## Metrics",
        "",
        "Means over all judged queries; a query without results counts 0. A passage is relevant "
        "where its grade is above 0.",
        "",
        *lines,
    ]


def _command(document: Document) -> list[str]:
    command = document.get("command")
    return ["## Made by", "", _fence(str(command))] if command else []


def report_markdown(document: Document) -> str:
    """Render a results document as GitHub-flavoured Markdown, the verdict in its first line."""
    sections = [
        [f"# Verdict: {escape(document['verdict'])}"],
        [f"Reason: {escape(document['reason'])}"] if document.get("reason") else [],
        _warnings(document),
        _measured(document),
        _systems(document),
        _differences(document),
        _slices(document),
        _forgot(document),
        _tuning(document),
        _choices(document),
        _hygiene(document),
        _account(document, "pairs", "Pairs"),
        _account(document, "mining", "Mining"),
        _account(document, "training", "Training"),
        _stages(document),
        _definitions(document),
        _command(document),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"
