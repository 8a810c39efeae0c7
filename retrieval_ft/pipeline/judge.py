"""The cross-encoder's part in mining: it doubts negatives, and helps to audit the pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.config import Config
from retrieval_ft.dataset import Dataset, Pairs
from retrieval_ft.mining.audit import Audit, audit
from retrieval_ft.mining.audit_report import audit_markdown, draw
from retrieval_ft.mining.denoise import Denoised, denoise
from retrieval_ft.models import resolve
from retrieval_ft.pipeline.workbench import embedding_cache

if TYPE_CHECKING:
    from retrieval_ft.encoder.cross_encoder import CrossEncoder

_FIGURE = "scores.svg"


@dataclass(frozen=True)
class Judgement:
    """Pairs after the cross-encoder has seen them, where there is one, and their audit."""

    pairs: Pairs
    audit: Audit
    mined: Audit
    """Of the pairs as they were mined; the same object where nothing was denoised."""
    denoised: Denoised | None

    def facts(self) -> dict[str, Any]:
        """What a report says of it, as JSON values."""
        if self.denoised is None:
            return {}
        rates = {"mined": self.mined.false_negatives, "kept": self.audit.false_negatives}
        return {
            "false_negatives": {name: asdict(rate) for name, rate in rates.items() if rate},
            "denoise": {"floor": self.denoised.floor, **self.denoised.rungs},
            "relabelled": len(self.denoised.relabelled),
        }

    def write(self, folder: Path) -> None:
        """Write the audit, and what the cross-encoder dropped and relabelled, into a folder."""
        artifacts.write_json(folder / "audit.json", asdict(self.audit))
        draw(self.audit.histogram, folder / _FIGURE)
        artifacts.write_text(folder / "audit.md", audit_markdown(self.audit, figure=_FIGURE))
        if self.denoised:
            artifacts.write_jsonl(folder / "denoised.jsonl", self.denoised.dropped)
            artifacts.write_jsonl(folder / "relabelled.jsonl", self.denoised.relabelled)


def judge_path(config: Config) -> Path | None:
    """The folder of the cross-encoder that the config names."""
    name = config.mining.cross_encoder
    return None if name is None else resolve(name, kind="cross-encoder").path


def judge_digest(path: Path | None) -> Mapping[str, str] | None:
    """sha256 of the cross-encoder's files."""
    if path is None:
        return None
    files = (f for f in sorted(path.rglob("*")) if f.is_file() and f.name != artifacts.MANIFEST)
    return {file.relative_to(path).as_posix(): artifacts.sha256_file(file) for file in files}


def load_judge(path: Path | None, config: Config, *, cached: bool = True) -> CrossEncoder | None:
    """The cross-encoder, with its cache of scores unless it is to be timed."""
    if path is None:
        return None
    from retrieval_ft.encoder.cross_encoder import load_cross_encoder

    cache = embedding_cache() if cached else None
    return load_cross_encoder(path, device=config.model.device, cache_root=cache)


def judge(
    pairs: Pairs,
    *,
    dataset: Dataset,
    config: Config,
    judge: CrossEncoder | None,
    random_scores: npt.NDArray[np.float32],
) -> Judgement:
    """Denoise pairs that carry spare negatives, where there is a cross-encoder, and audit them.

    Args:
        pairs: as mined, hardest negatives first.
        dataset: their texts, views and judgements.
        config: of mining.
        judge: the cross-encoder.
        random_scores: float32 [n], cosines of queries and random passages.
    """
    settings, queries = config.mining, dataset.queries_of("train")
    given: dict[str, Any] = {"queries": queries, "corpus": dataset.corpus, "views": dataset.views}

    def audited(some: Pairs) -> Audit:
        return audit(
            some,
            random_scores=random_scores,
            scorer=judge.scores if judge else None,
            sample=settings.audit_sample,
            seed=config.seed,
            **given,
        )

    cut = (replace(p, negatives=p.negatives[: settings.negatives]) for p in pairs.items)
    mined = replace(pairs, items=tuple(cut))
    before = audited(mined)
    if judge is None:
        return Judgement(mined, before, before, None)
    found = denoise(
        pairs, qrels=dataset.qrels["train"], scorer=judge.scores, config=settings, **given
    )
    return Judgement(found.pairs, audited(found.pairs), before, found)
