"""Which languages a corpus is in, and whether the base model can read it at all.

Language is guessed (py3langid) and only ever warned about: code and lists of names look like many
languages. Refused is a corpus that the base tokenizer cannot read, which is measured, not guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Any

import numpy as np

from retrieval_ft.dataset.hygiene.account import Check
from retrieval_ft.dataset.types import Corpus
from retrieval_ft.errors import DataError

SAMPLE = 2_000
UNSURE = "und"
"""ISO 639: undetermined. What the guess is under `_CONFIDENCE`: short texts, names, much code."""
_NO_LANGUAGE = "zxx"
# English, code and lists of Latin terms: no more than 1 in 100 passages of any of them is taken for
# another language at this confidence, and 4 in 100 where every guess counts.
_CONFIDENCE = 0.5
_CHARACTERS = 1_000
_WARN_SHARE = 0.1
_REFUSED_UNKNOWN = 0.3
_ENGLISH_ONLY = re.compile(r"(^|[-_])en([-_.]|$)")

UnknownShare = Callable[[Sequence[str]], float]
"""Texts -> share of their tokens that the base tokenizer does not know ([UNK]), in [0, 1]."""


@dataclass(frozen=True)
class Languages:
    """The languages of a sample of passages."""

    mix: Mapping[str, float]
    """Share of the sample by ISO 639 code, largest first; `und` is unsure, `zxx` is no language."""
    check: Check
    warnings: tuple[str, ...] = ()


def language_mix(
    corpus: Corpus,
    *,
    seed: int,
    base: str,
    unknown_share: UnknownShare | None = None,
    name: str = "corpus",
) -> Languages:
    """Guess the languages of up to 2,000 passages, drawn with the seed.

    Args:
        corpus: the passages.
        seed: of the sample.
        base: name of the base model: one with `en` as a part (bge-small-en-v1.5) is English-only.
        unknown_share: measures what the base tokenizer does not know.
        name: of the dataset, for messages.

    Raises:
        DataError: over 30% of the sample's tokens are unknown to the base tokenizer.
    """
    ids, texts = _sample(corpus, seed)
    guesses = _guesses(texts)
    counts = Counter(code for code, _ in guesses)
    mix = {
        code: count / len(guesses)
        for code, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }
    if unknown_share is not None:
        _refuse_unknown(unknown_share(texts), mix, base=base, name=name)
    rows = tuple(
        {"passage_id": passage_id, "language": code, "confidence": round(confidence, 4)}
        for passage_id, (code, confidence) in zip(ids, guesses, strict=True)
        if code not in ("en", UNSURE, _NO_LANGUAGE)
    )
    check = Check("languages", len(rows), len(guesses), f"left; the sample is: {_named(mix)}", rows)
    return Languages(mix, check, _warnings(len(rows), len(guesses), mix, base=base, name=name))


def is_english_only(base: str) -> bool:
    """Whether a model says by its name that it knows English alone, as bge-base-en-v1.5 does."""
    return _ENGLISH_ONLY.search(PurePath(base).name.lower()) is not None


def _sample(corpus: Corpus, seed: int) -> tuple[list[str], list[str]]:
    count = min(SAMPLE, len(corpus))
    drawn = np.sort(np.random.default_rng(seed).choice(len(corpus), size=count, replace=False))
    texts = [f"{corpus.titles[row]} {corpus.texts[row]}".strip()[:_CHARACTERS] for row in drawn]
    return [corpus.ids[row] for row in drawn], texts


def _guesses(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Language code and probability of each text."""
    return [(str(code), float(share)) for code, share in map(_identifier().classify, texts)]


@cache
def _identifier() -> Any:
    """The guesser: its model takes most of a second to load."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(
        MODEL_FILE, norm_probs=True, min_confidence=_CONFIDENCE
    )


def _refuse_unknown(unknown: float, mix: Mapping[str, float], *, base: str, name: str) -> None:
    if unknown > _REFUSED_UNKNOWN:
        raise DataError(
            f"{name}: {unknown:.0%} of the tokens of a sample of passages are unknown to the tokenizer "
            f"of {base}, and at most {_REFUSED_UNKNOWN:.0%} are allowed; the sample looks like: "
            f"{_named(mix)}; choose a base model that knows the language, such as "
            "--set model.base=BAAI/bge-m3"
        )


def _warnings(
    other: int, sample: int, mix: Mapping[str, float], *, base: str, name: str
) -> tuple[str, ...]:
    if other <= _WARN_SHARE * sample or not is_english_only(base):
        return ()
    return (
        f"{name}: {other / sample:.0%} of a sample of passages is not English ({_named(mix)}), and {base} "
        "knows English only; a multilingual base model (model.base) will do better on them",
    )


def _named(mix: Mapping[str, float]) -> str:
    """The five largest shares, in words."""
    names = {UNSURE: "unsure", _NO_LANGUAGE: "no language"}
    return ", ".join(
        f"{names.get(code, code)} {share:.0%}" for code, share in list(mix.items())[:5]
    )
