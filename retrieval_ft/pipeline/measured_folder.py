"""The folder that `evaluate --out` writes: figures, values per query, rankings, judgements, a report.

`compare` reads two of these as it reads two runs, so it also says what was measured on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval_ft import __version__, artifacts
from retrieval_ft.dataset import Corpus, Dataset, Qrels, Ranking
from retrieval_ft.errors import ConfigError
from retrieval_ft.evaluation import PerQuery, report_markdown, write_qrels, write_trec_run
from retrieval_ft.evaluation.per_query import write_per_query
from retrieval_ft.evaluation.regression import MEASUREMENT, METRICS_FILE, PER_QUERY_FILE
from retrieval_ft.pipeline.environment import environment


def check_out(folder: Path | None) -> None:
    """Refuse a place that holds anything but an earlier measurement, which would be replaced.

    Raises:
        ConfigError: there is a file, or a folder of something else.
    """
    if folder is None:
        return
    if folder.name in ("", ".."):
        raise ConfigError(f"--out {folder}: name a folder, which will hold nothing else")
    if not folder.exists():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    manifest = folder / artifacts.MANIFEST
    found = artifacts.read_json(manifest) if manifest.is_file() else None
    if not isinstance(found, dict) or found.get("kind") != MEASUREMENT:
        raise ConfigError(
            f"--out {folder}: is there already and is no folder that `evaluate --out` wrote; name "
            "another one, it would be replaced"
        )


def identity_of(dataset: Dataset | None, qrels: Qrels) -> dict[str, str]:
    """sha256 of what is measured on: `judgements`, and `corpus` and `query texts` where they are known."""
    grades = {q: dict(qrels.grades[q]) for q in qrels.query_ids if qrels.relevant(q)}
    identity = {"judgements": artifacts.sha256_json(grades)}
    if dataset is not None:
        texts = {q: dataset.queries.text_of[q] for q in grades}
        identity["corpus"] = _corpus_digest(dataset.corpus)
        identity["query texts"] = artifacts.sha256_json(texts)
    return identity


def write_measured(
    folder: Path,
    document: Mapping[str, Any],
    rankings: Mapping[str, Ranking],
    per_query: Mapping[str, PerQuery],
    qrels: Qrels,
    *,
    identity: Mapping[str, str],
    evidence: Mapping[str, Any],
) -> None:
    """Write all that was measured, whole or not at all, and seal it with a manifest.

    The same measurement gives the same files, but for times where they were asked for; the manifest and
    the page name the version of this package.
    """
    from retrieval_ft.evaluation.html import report_html

    whole = {**evidence, "environment": environment()}
    with artifacts.atomic_folder(folder) as fresh:
        artifacts.write_json(fresh / METRICS_FILE, document)
        write_per_query(fresh / PER_QUERY_FILE, per_query)
        write_qrels(fresh / "qrels.trec", qrels)
        for name, ranking in rankings.items():
            write_trec_run(fresh / f"{name}.trec", ranking, tag=name)
        artifacts.write_text(fresh / "report.md", report_markdown(document))
        artifacts.write_text(fresh / "report.html", report_html(document, whole))
        facts = {"kind": MEASUREMENT, "schema_version": 1, "retrieval_ft": __version__}
        artifacts.seal(fresh, {**facts, "identity": dict(identity)})


def _corpus_digest(corpus: Corpus) -> str:
    """sha256 over ids and texts, sorted by id."""
    digest = hashlib.sha256()
    for passage_id in sorted(corpus.ids):
        row = corpus.index_of[passage_id]
        line = json.dumps([passage_id, corpus.titles[row], corpus.texts[row]])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
