"""What the stages share, loaded on first use: a run whose stages are all done loads no model."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_ft import artifacts
from retrieval_ft.config import Config, LexicalConfig, ModelConfig
from retrieval_ft.console import note
from retrieval_ft.dataset import Corpus, Dataset, Queries, Ranking, Split
from retrieval_ft.index import (
    DenseIndex,
    LexicalIndex,
    LexicalSpec,
    RankBm25,
    rank_dense,
    rank_lexical,
)
from retrieval_ft.models import resolve
from retrieval_ft.packages import home
from retrieval_ft.pipeline.workers import Source, shared

if TYPE_CHECKING:
    from retrieval_ft.encoder.encoder import Encoder
    from retrieval_ft.encoder.protocol import TextEncoder


class Workbench:
    """A dataset, the base model and the indexes over them."""

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.config = config
        self.dataset = dataset

    @cached_property
    def base_path(self) -> Path:
        """The verified folder of the base model."""
        return resolve(self.config.model.base).path

    @cached_property
    def base_digest(self) -> str:
        """Identity of the base model's files and of how the config runs it."""
        return model_digest(self.base_path, self.config.model)

    @cached_property
    def base(self) -> Encoder:
        """The base model as an encoder, with the embedding cache."""
        encoder = encoder_of(self.base_path, self.config.model)
        note(f"model {self.config.model.base} on {encoder.device}, {encoder.precision.reason}")
        return encoder

    @cached_property
    def base_index(self) -> DenseIndex:
        """The base model's vectors of the whole corpus."""
        return dense_index(self.base, self.dataset.corpus)

    @cached_property
    def lexical(self) -> LexicalIndex:
        """BM25 over the whole corpus."""
        return self._lexical_over(self.dataset.corpus)

    def corpus_of(self, split: Split) -> Corpus:
        """The passages that a split's queries are ranked against.

        That is the corpus; a passage that a query of the split was taken from stands there as that
        query's view, since the words of the query would give the whole passage away.
        """
        dataset = self.dataset
        queries = dataset.qrels[split].query_ids if dataset.views else ()
        views = {p: text for q in queries for p, text in dataset.views.get(q, {}).items()}
        if not views:
            return dataset.corpus
        corpus = dataset.corpus
        rows = zip(corpus.ids, corpus.titles, corpus.texts, strict=True)
        shown = [("", views[p]) if p in views else (title, text) for p, title, text in rows]
        titles, texts = zip(*shown, strict=True)
        return replace(corpus, titles=titles, texts=texts)

    def lexical_ranking(self, split: Split, *, k: int) -> Ranking:
        """BM25 ranking of a split's queries."""
        corpus = self.corpus_of(split)
        index = self.lexical if corpus is self.dataset.corpus else self._lexical_over(corpus)
        return rank_lexical(index, self.dataset.queries_of(split), k=k)

    def _lexical_over(self, corpus: Corpus) -> LexicalIndex:
        spec = lexical_spec(self.config.lexical)
        kind = RankBm25 if self.config.lexical.engine == "rank_bm25" else LexicalIndex
        return kind.build(corpus.ids, corpus.passages, spec=spec)


def dense_index(encoder: TextEncoder, corpus: Corpus) -> DenseIndex:
    """A Flat index over a corpus under an encoder."""
    return DenseIndex.build(corpus.ids, encoder.encode(corpus.passages, role="passage"))


def dense_ranking(encoder: TextEncoder, index: DenseIndex, queries: Queries, *, k: int) -> Ranking:
    """Dense ranking of queries under the encoder that the index was built with."""
    return rank_dense(index, queries, encoder.encode(queries.texts, role="query"), k=k)


def encoder_of(
    path: Path,
    config: ModelConfig,
    *,
    cached: bool = True,
    passage_encoder: Encoder | None = None,
) -> Encoder:
    """Load a model folder as the config asks; passages may be left to another encoder.

    With the embedding cache it is for a model that stays as it is, and other processes may help it.
    """
    source = source_of(path, config)
    cache = embedding_cache() if cached else None
    encoder = source.load(cache_root=cache, passage_encoder=passage_encoder)
    return shared(encoder, source) if cached and passage_encoder is None else encoder


def source_of(path: Path, config: ModelConfig) -> Source:
    """A model folder under the settings of a config."""
    return Source(
        path,
        {
            "device": config.device,
            "precision": config.precision,
            "max_length": config.max_length,
            "query_prompt": config.query_prompt,
            "passage_prompt": config.passage_prompt,
        },
    )


def serving_encoder(path: Path, config: ModelConfig) -> Encoder:
    """Load a model folder as a search will: the prompts and the length are the ones saved in it."""
    source = Source(path, {"device": config.device, "precision": config.precision})
    return shared(source.load(cache_root=embedding_cache()), source)


def embedding_cache() -> Path:
    """Where vectors are kept between runs."""
    return home() / "embeddings"


def base_tokenizer(config: ModelConfig) -> Any:
    """The base model's tokenizer alone: no weights are loaded for it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(resolve(config.base).path), local_files_only=True)


def lexical_spec(config: LexicalConfig) -> LexicalSpec:
    """BM25 as the config asks."""
    return LexicalSpec(**config.model_dump(exclude={"engine"}))


def model_digest(path: Path, config: ModelConfig) -> str:
    """sha256 over a model's files (not its card) and the settings it runs under."""
    files = {
        file.relative_to(path).as_posix(): artifacts.sha256_file(file)
        for suffix in ("safetensors", "json", "txt")
        for file in sorted(path.rglob(f"*.{suffix}"))
        if file.name != artifacts.MANIFEST
    }
    settings: dict[str, Any] = config.model_dump(mode="json", exclude={"base"})
    return artifacts.sha256_json({"files": files, "settings": settings})
