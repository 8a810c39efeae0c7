"""The model card: what the model is, how it was made, and how each stack must call it."""

from __future__ import annotations

from collections.abc import Mapping

_SEPARATE = """
**This model is for queries alone.** Passages must be embedded with the model in `passages/`, which
was not trained: vectors of a corpus that it made before stay as they are.
"""


def model_card(
    *,
    title: str,
    origin: str,
    query_prompt: str,
    max_length: int,
    facts: Mapping[str, object],
    separate_passages: bool = False,
) -> str:
    """Return README.md of an exported model.

    Args:
        title: heading of the card.
        origin: a sentence that says where the weights come from.
        query_prompt: saved in the model; serving must put it before each query.
        max_length: tokens at which texts are cut.
        facts: how it was made, label to value.
        separate_passages: the model is for queries alone, and `passages/` holds the one for passages.
    """
    passages_model, warning = "model", ""
    if separate_passages:
        passages_model = 'SentenceTransformer("PATH/TO/THIS/FOLDER/passages")'
        warning = _SEPARATE
    rows = "\n".join(f"| {label} | {value} |" for label, value in facts.items())
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, retrieval_ft, feature-extraction]
---
# {title}

A text embedder for retrieval. {origin} Vectors are L2-normalised; texts over {max_length} tokens are
cut. Queries carry the prompt {query_prompt!r}, passages none.
{warning}
```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("PATH/TO/THIS/FOLDER")
queries = model.encode(["a question"], prompt_name="query")
passages = {passages_model}.encode(["a passage"], prompt_name="document")
scores = queries @ passages.T
```

| how it was made | |
|---|---|
{rows}
"""
