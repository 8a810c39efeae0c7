"""Our models as mteb 2 takes them, and a BEIR folder as a task of it: what `bench_mteb.py` runs.

Written to be read: whoever wants our folders in a suite of mteb's may copy from here. Import it
after `common.PEERS` is on the path.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset as Rows
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType

from retrieval_ft.dataset import Corpus
from retrieval_ft.index import FusionSpec, HybridIndex
from retrieval_ft.pipeline.index import index_spec


def task_of(dataset: Any, *, depth: int) -> AbsTaskRetrieval:
    """A retrieval task of the test split of a dataset in memory; nothing is asked of the hub.

    `depth` is how deep mteb asks and so how deep its MAP looks; its own tasks ask for 1,000.
    """

    class Local(AbsTaskRetrieval):
        k_values = (1, 5, 10, depth)
        metadata = TaskMetadata(
            name=f"Local{''.join(c for c in dataset.name if c.isalnum()).title()}",
            description="A data set of this machine",
            type="Retrieval",
            category="t2t",
            dataset={"path": dataset.name, "revision": "local"},
            eval_langs=["eng-Latn"],
            eval_splits=["test"],
            main_score="ndcg_at_10",
        )

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:
            corpus, queries = dataset.corpus, dataset.queries_of("test")
            columns = zip(corpus.ids, corpus.titles, corpus.texts, strict=True)
            rows = [{"id": name, "title": title, "text": text} for name, title, text in columns]
            asked = zip(queries.ids, queries.texts, strict=True)
            grades = dataset.qrels["test"].grades
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Rows.from_list(rows),
                        "queries": Rows.from_list([{"id": q, "text": text} for q, text in asked]),
                        "relevant_docs": {q: dict(row) for q, row in grades.items()},
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return Local()


class EncoderModel:
    """One of our encoders under mteb's EncoderProtocol: mteb searches, exactly."""

    def __init__(self, encoder: Any, name: str) -> None:
        self.encoder = encoder
        self.mteb_model_meta = ModelMeta.create_empty({"name": f"retrieval-ft/{name}"})

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> Any:
        """Vectors float32 [n, d], L2-normalised, under the prompt that the folder was saved with."""
        texts = [text for batch in inputs for text in batch["text"]]
        role = "query" if prompt_type == PromptType.query else "passage"
        return self.encoder.encode(texts, role=role)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines, a tensor [n, m]: vectors are normalised."""
        import torch

        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine of each pair, a tensor [n]."""
        import torch

        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(dim=1)


class HybridModel:
    """Our hybrid index under mteb's SearchProtocol: it searches, mteb scores."""

    def __init__(self, encoder: Any, fusion: FusionSpec, config: Any, name: str) -> None:
        self.encoder = encoder
        self.spec = index_spec(config, encoder, place="", fusion=fusion)
        self.index_: HybridIndex | None = None
        self.mteb_model_meta = ModelMeta.create_empty({"name": f"retrieval-ft/{name}-hybrid"})

    def index(self, corpus: Any, **_: Any) -> None:
        """Index what mteb hands over: a table of id, title and text."""
        titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
        rows = Corpus(tuple(corpus["id"]), tuple(corpus["text"]), tuple(titles))
        vectors = self.encoder.encode(rows.passages, role="passage")
        self.index_ = HybridIndex.build(rows, vectors, spec=self.spec)

    def search(self, queries: Any, *, top_k: int, **_: Any) -> dict[str, dict[str, float]]:
        """Scores by query and passage id.

        mteb sorts by score and breaks ties by falling id, where our order is by rising id: so that
        it sees our order, what is given is the place, counted from the end.
        """
        if self.index_ is None:
            raise RuntimeError("index() comes before search()")
        texts = list(queries["text"])
        found = self.index_.search(
            texts,
            np.asarray(self.encoder.encode(texts, role="query")),
            encoder_fingerprint=self.encoder.fingerprint,
            k=top_k,
        )
        return {
            query_id: {hit.id: float(top_k - place) for place, hit in enumerate(hits)}
            for query_id, hits in zip(queries["id"], found, strict=True)
        }
