"""Which questions are put to the language model about which passages.

All is decided by the texts themselves (their sha256 and the seed), not by their place: when a corpus
grows, the passages that were asked about before are mostly chosen again and asked about in the same
words, and are found in the cache.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from retrieval_ft import artifacts, endpoints
from retrieval_ft.config import SyntheticConfig, SyntheticKind
from retrieval_ft.errors import ConfigError
from retrieval_ft.mining.synthetic.answers import encodable, parse
from retrieval_ft.mining.synthetic.cache import Answer, AnswerCache
from retrieval_ft.mining.synthetic.prompts import Messages, messages

Scrub = Callable[[str], str]

TURNS = 2
"""A question is put again once where the answer could not be read."""

_THINKING_TOKENS = 960
_QUERY_TOKENS = 64


@dataclass(frozen=True)
class Question:
    """What is asked about one passage: so many queries of one kind."""

    passage_id: str
    text: str
    """The passage as it is sent: without personal data."""
    kind: SyntheticKind
    number: int
    examples: tuple[str, ...]
    model: str
    temperature: float
    seed: int

    @property
    def answer_cap(self) -> int:
        """Tokens the answer may have: 64 a query, and some hundreds for models that think first."""
        return _THINKING_TOKENS + _QUERY_TOKENS * self.number

    def messages(self, turn: int) -> Messages:
        """The chat messages, worded more strictly after the first turn."""
        return messages(
            self.kind, self.text, number=self.number, examples=self.examples, again=turn > 0
        )

    def key(self, turn: int) -> str:
        """Where the answer lies in the cache: sha256 of all that it depends on, base_url left out."""
        return artifacts.sha256_json(
            [
                *(self.model, self.messages(turn), self.temperature),
                *(self.kind, self.number, self.seed, turn),
            ]
        )

    def known(self, cache: AnswerCache) -> tuple[list[Answer], bool]:
        """The answers in the cache, and whether they settle the question."""
        answers: list[Answer] = []
        for turn in range(TURNS):
            if (answer := cache.get(self.key(turn))) is None:
                return answers, False
            answers.append(answer)
            if parse(answer.text, number=self.number):
                break
        return answers, True


@dataclass(frozen=True)
class Questions:
    """All questions in the order they are put, and the passages that none is put about, by reason."""

    items: tuple[Question, ...]
    passages: int
    skipped: Mapping[str, int]


def ask_about(
    passages: Iterable[tuple[str, str]],
    *,
    config: SyntheticConfig,
    examples: Sequence[str],
    seed: int,
    scrub: Scrub | None = None,
) -> Questions:
    """Choose passages, examples and kinds, and take personal data out of all that will be sent.

    Passages are taken in the order of sha256(seed, text), so that a part of them is a random sample;
    the kinds take turns from one that the text decides. Examples are chosen in the same way.

    Raises:
        ConfigError: the section does not say where to ask, or how to count a budget in money.
    """
    check(config)
    scrub = scrub or default_scrub()
    skipped: Counter[str] = Counter()
    first: dict[str, str] = {}
    for passage_id, text in sorted(passages):
        if not text.strip():
            skipped["empty"] += 1
        elif text in first:
            skipped["same text as another"] += 1
        else:
            first[text] = passage_id
    style = sorted(set(filter(None, map(str.strip, examples))), key=lambda t: _digest(seed, t))
    shown = tuple(encodable(scrub(text)) for text in style[: config.few_shot])
    items: dict[str, list[Question]] = {}
    for text in sorted(first, key=lambda text: _digest(seed, text)):
        if len(items) == config.max_passages:
            skipped["over synthetic.max_passages"] += 1
            continue
        sent = encodable(scrub(text))
        if sent in items:  # they differ in personal data only
            skipped["same text as another"] += 1
            continue
        items[sent] = [
            Question(
                *(first[text], sent, kind, number, shown),
                *(config.model, config.temperature, seed),
            )
            for kind, number in _kinds(config, start=_digest(0, sent)).items()
        ]
    questions = tuple(question for asked in items.values() for question in asked)
    return Questions(questions, len(items), dict(sorted(skipped.items())))


def check(config: SyntheticConfig) -> None:
    """Refuse a section that cannot be worked from.

    Raises:
        ConfigError: no address or no http address, no model, no kinds, money without prices.
    """
    if config.base_url is None:
        raise ConfigError(
            "synthetic.base_url: not set; give the address of an OpenAI-compatible endpoint, such as "
            "http://127.0.0.1:8000/v1"
        )
    if not config.base_url.startswith(("http://", "https://")) or not endpoints.host(
        config.base_url
    ):
        raise ConfigError(
            f"synthetic.base_url: {shown_url(config)!r} is no http or https address; the form is "
            "http://127.0.0.1:8000/v1"
        )
    if not config.model:
        raise ConfigError("synthetic.model: not set; give the name that the endpoint knows it by")
    if not config.kinds:
        raise ConfigError("synthetic.kinds: empty; give at least one kind of query")
    if config.max_cost is not None and not (config.input_price or config.output_price):
        raise ConfigError(
            "synthetic.max_cost: a budget in money needs synthetic.input_price and "
            "synthetic.output_price (of a million tokens); use synthetic.max_tokens without them"
        )


def shown_url(config: SyntheticConfig) -> str:
    """The endpoint's address without a name and password that it may hold."""
    return endpoints.shown_url(config.base_url or "")


def default_scrub() -> Scrub:
    """The scrubber of the house, which replaces personal data by typed marks."""
    from retrieval_ft.dataset.pii import scrub_text

    return scrub_text


def _digest(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).digest()


def _kinds(config: SyntheticConfig, *, start: bytes) -> dict[SyntheticKind, int]:
    """How many queries of each kind are asked about a passage: kinds in turn from a start."""
    kinds = config.kinds
    first = int.from_bytes(start) % len(kinds)
    return Counter(kinds[(first + turn) % len(kinds)] for turn in range(config.per_passage))
