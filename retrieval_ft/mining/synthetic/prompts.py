"""What the language model is asked: one prompt for each kind of query.

All of it goes into one user message: some chat templates know no system role, and some want roles to
alternate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retrieval_ft.config import SyntheticKind

Messages = list[dict[str, str]]

KINDS: Mapping[SyntheticKind, str] = {
    "question": (
        "a question of one sentence, as somebody asks it who needs what the passage says and has "
        "not read it"
    ),
    "keywords": (
        "two to six keywords, as somebody types them into a search box: no sentence, no question "
        "mark, the words that matter most"
    ),
    "claim": (
        "a claim of one sentence that the passage confirms, as somebody writes it who looks for "
        "evidence: a statement, in other words than those of the passage"
    ),
    "title": (
        "a title of three to ten words for what the passage is about, as somebody names a document "
        "that they look for: no sentence, and not a heading copied from the passage"
    ),
}

_PROMPT = """\
You write search queries that will train a search engine.

Each query is {kind}.
- The passage below answers it, and hardly any other text does: be specific.
- Use the words of somebody who looks for this, not the wording of the passage.
- Write in the language of the passage.
- Never speak of "the passage", "the text" or "the author".
- Leave out marks that stand for personal data, such as <EMAIL>.
{examples}
<passage>
{text}
</passage>

Write {number} such {queries}. Answer with JSON only, in this form: {{"queries": ["..."]}}"""

_EXAMPLES = """
Queries that people really asked, to show how they write (the topics may be others):
{lines}
"""

_AGAIN = """

Your last answer could not be read. Give nothing but the JSON object: no other words, no code fence."""


def messages(
    kind: SyntheticKind, text: str, *, number: int, examples: Sequence[str], again: bool = False
) -> Messages:
    """The chat messages that ask for `number` queries of a kind for a passage.

    Args:
        kind: What the queries look like.
        text: The passage.
        number: Queries asked for.
        examples: Queries of the user's own that show the style; may be empty.
        again: The answer to the same question could not be read.
    """
    lines = "\n".join(f"- {' '.join(example.split())}" for example in examples)
    prompt = _PROMPT.format(
        kind=KINDS[kind],
        examples=_EXAMPLES.format(lines=lines) if lines else "",
        text=text,
        number=number,
        queries="query" if number == 1 else "queries, each different,",
    )
    return [{"role": "user", "content": prompt + (_AGAIN if again else "")}]
