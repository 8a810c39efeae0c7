"""Which pairs training uses: the labels, pairs made from the corpus, or both; and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrieval_ft.config import PairsConfig
from retrieval_ft.errors import ConfigError

TierName = Literal["labels", "both", "corpus"]


@dataclass(frozen=True)
class Tier:
    """What training uses, as `pairs.tier` names it, and the reason as a sentence."""

    name: TierName
    reason: str


def choose_tier(train_pairs: int, *, has_endpoint: bool, config: PairsConfig) -> Tier:
    """Choose by how many labels there are, unless the configuration chose.

    Args:
        train_pairs: labelled (query, relevant passage) pairs of train that may be used.
        has_endpoint: whether a language model can be asked for queries.
        config: tier, `plentiful`, and the kinds of pairs that can be made.

    Raises:
        ConfigError: the tier asks for labels and there are none, or for pairs from the corpus and
            nothing is set that makes them.
    """
    makers = _makers(has_endpoint, config)
    labels = f"{train_pairs} labelled train pair{'' if train_pairs == 1 else 's'}"
    if config.tier != "auto":
        _check(config.tier, train_pairs, makers)
        used = {"labels": labels, "both": f"{labels} and {makers}", "corpus": makers}[config.tier]
        return Tier(config.tier, f"pairs.tier={config.tier} was asked for: training uses {used}.")
    if train_pairs >= config.plentiful:
        why = f"{labels} are plentiful (pairs.plentiful is {config.plentiful})"
        return Tier("labels", f"{why}: training uses these alone.")
    if not train_pairs:
        _check("corpus", 0, makers)
        return Tier("corpus", f"There are no labelled train pairs: training uses {makers}.")
    few = f"{labels} {'is' if train_pairs == 1 else 'are'} few (pairs.plentiful is {config.plentiful})"
    if not makers:
        nothing = "pairs.kinds is empty and synthetic.base_url is not set"
        return Tier(
            "labels", f"{few}, but nothing makes more ({nothing}): training uses these alone."
        )
    return Tier("both", f"{few}: training uses these and {makers}.")


def _makers(has_endpoint: bool, config: PairsConfig) -> str:
    """What makes pairs here, in words; empty if nothing does."""
    made = [f"pairs made from the corpus ({', '.join(config.kinds)})"] if config.kinds else []
    return " and ".join(made + ["queries written by the endpoint"] * has_endpoint)


def _check(tier: TierName, train_pairs: int, makers: str) -> None:
    if tier != "corpus" and not train_pairs:
        raise ConfigError(
            f"pairs.tier={tier}: there are no labelled train pairs; bring labels (data.labels, or "
            "qrels/train.tsv with data.label_use=all), or set pairs.tier=corpus"
        )
    if tier != "labels" and not makers:
        raise ConfigError(
            f"pairs.tier={tier}: nothing makes pairs from the corpus; name some in pairs.kinds (title, "
            "heading, first_sentence, crop, link), or set synthetic.base_url"
        )
