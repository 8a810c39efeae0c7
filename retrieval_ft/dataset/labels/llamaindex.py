"""LlamaIndex's EmbeddingQAFinetuneDataset: queries, corpus and relevant_docs in one JSON object."""

from __future__ import annotations

from typing import Any

from retrieval_ft.dataset.labels.gather import Gather
from retrieval_ft.dataset.labels.tables import Source, read_whole_json
from retrieval_ft.errors import DataError

KEYS = ("queries", "corpus", "relevant_docs")


def read_llamaindex(source: Source, gather: Gather) -> None:
    """Read the JSON that `EmbeddingQAFinetuneDataset.save_json` writes.

    All of its passages are kept, relevant or not, under their node ids where the corpus has no
    equal text. A message names the key, as the rows of this format have no lines.

    Raises:
        DataError: a part is missing or of another shape, or an id is unknown.
    """
    path = source.path
    document = read_whole_json(path)
    for key in KEYS:
        if not isinstance(document.get(key), dict):
            raise DataError(
                f'{path}: "{key}" must be an object; this format has {", ".join(KEYS)} '
                f"(keys found: {', '.join(document) or 'none'})"
            )
    queries, nodes, relevant = (document[key] for key in KEYS)
    passages = {
        node: gather.passage(text, f"{path}: corpus[{node!r}]", given=node)
        for node, text in nodes.items()
    }
    ids = {
        query_id: gather.query(text, f"{path}: queries[{query_id!r}]", given=query_id)
        for query_id, text in queries.items()
    }
    for query_id, found in relevant.items():
        where = f"{path}: relevant_docs[{query_id!r}]"
        gather.account["rows"] += 1
        if query_id not in ids:
            raise DataError(f"{where}: query id {query_id!r} is not in queries")
        for node in _list(found, where):
            passage_id = passages[node] if node in passages else gather.known_passage(node, where)
            gather.judge(source.split, ids[query_id], passage_id, 1, where)


def _list(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(node, str) for node in value):
        raise DataError(f"{where}: a list of passage ids is needed, found {value!r:.60}")
    return value
