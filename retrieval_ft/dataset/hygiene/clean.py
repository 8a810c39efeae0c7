"""The one call of the pipeline: a dataset in, a clean one out, with a table and files of what fell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval_ft.config import HygieneConfig
from retrieval_ft.dataset.hygiene.account import Check
from retrieval_ft.dataset.hygiene.collapse import collapse, listed
from retrieval_ft.dataset.hygiene.duplicates import clusters
from retrieval_ft.dataset.hygiene.labels import contradictions, settle
from retrieval_ft.dataset.hygiene.language import UnknownShare, language_mix
from retrieval_ft.dataset.hygiene.short import drop_short
from retrieval_ft.dataset.types import Dataset
from retrieval_ft.errors import DataError


@dataclass(frozen=True)
class Hygiene:
    """A clean dataset, and what was done to make it so."""

    dataset: Dataset
    checks: tuple[Check, ...]
    languages: Mapping[str, float]
    """Share of a sample of passages by ISO 639 code, largest first; `und` is unsure."""
    warnings: tuple[str, ...] = ()

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each check: check, touched, of, what was done."""
        return [check.line() for check in self.checks]

    @property
    def files(self) -> dict[str, tuple[Mapping[str, Any], ...]]:
        """Rows of JSON values by the name of the check that touched something."""
        return {check.name: check.rows for check in self.checks if check.rows}


def clean(
    dataset: Dataset,
    *,
    config: HygieneConfig,
    base: str,
    seed: int,
    unknown_share: UnknownShare | None = None,
    minimum: int = 2,
) -> Hygiene:
    """Clean a dataset whose documents are cut into passages.

    Languages are looked at first, then short passages go, equal and nearly equal ones become one
    (with `config.duplicates` as `report` they are listed only), and contradictory labels are
    settled. Boilerplate is for documents, before they are cut: see `BoilerplateCounter`.

    Args:
        dataset: passages cut from documents carry `document` in their metadata.
        config: what to clean.
        base: name of the base model.
        seed: of the sample whose languages are guessed.
        unknown_share: texts -> share of their tokens that the base tokenizer does not know.
        minimum: passages that must be left.

    Raises:
        DataError: the base tokenizer does not know the language, or fewer passages are left.
    """
    languages = language_mix(
        dataset.corpus, seed=seed, base=base, unknown_share=unknown_share, name=dataset.name
    )
    labelled = {
        passage_id
        for judged in dataset.qrels.values()
        for row in judged.grades.values()
        for passage_id in row
    }
    dataset, short = drop_short(
        dataset, min_words=config.min_words, labelled=labelled, minimum=minimum
    )
    found = clusters(dataset.corpus, jaccard=config.near_duplicate_jaccard, labelled=labelled)
    if config.duplicates == "collapse":
        dataset, checks = collapse(dataset, found)
        dataset, settled = settle(dataset)
        checks.append(settled)
    else:
        checks = listed(dataset.corpus, found)
        dataset, settled = settle(dataset)
        checks += [settled, contradictions(dataset, found)]
    if len(dataset.corpus) < minimum:
        raise DataError(
            f"{dataset.name}: all passages are duplicates of one ({dataset.corpus.ids[0]}), and "
            "retrieval needs at least two passages; see whether the source was read as it should be"
        )
    return Hygiene(dataset, (short, *checks, languages.check), languages.mix, languages.warnings)
