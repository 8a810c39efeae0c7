import pytest
import tiny
from tiny_fit import Run

from retrieval_ft.dataset import Negative, Pair, Pairs


@pytest.fixture(scope="session")
def data():
    return tiny.dataset()


@pytest.fixture(scope="session")
def pairs(data):
    """Every train pair with the three irrelevant passages that follow its positive."""
    ids, qrels = data.corpus.ids, data.qrels["train"]
    items = []
    for query_id in qrels.query_ids:
        relevant = qrels.relevant(query_id)
        for positive in sorted(relevant):
            row = data.corpus.index_of[positive]
            others = [p for p in (*ids[row + 1 :], *ids[: row + 1]) if p not in relevant][:3]
            negatives = tuple(Negative(p, 0.1, None, rank) for rank, p in enumerate(others, 1))
            items.append(Pair(query_id, positive, 0.5, negatives))
    return Pairs(tuple(items))


@pytest.fixture(scope="session")
def collator_of(data):
    """A collator over the tiny dataset for an encoder."""

    def build(encoder, *, token_budget=4_096):
        from retrieval_ft.training.collate import Collator

        queries, corpus = data.queries_of("train"), data.corpus
        tokens = encoder.tokenize(queries.texts, "query").ids
        passages = encoder.tokenize(corpus.passages, "passage").ids
        return Collator(
            query_tokens=dict(zip(queries.ids, tokens, strict=True)),
            passage_tokens=dict(zip(corpus.ids, passages, strict=True)),
            qrels=data.qrels["train"],
            pad_id=encoder.pad_id,
            token_budget=token_budget,
        )

    return build


@pytest.fixture
def run(model_folder, tmp_path, pairs, collator_of):
    def build(name="run"):
        return Run(model_folder, tmp_path / name, pairs, collator_of)

    return build


@pytest.fixture(scope="session")
def whole(model_folder, tmp_path_factory, pairs, collator_of):
    """A run that nothing disturbed."""
    job = Run(model_folder, tmp_path_factory.mktemp("whole"), pairs, collator_of)
    job.fit()
    return job
