"""Search of a hybrid index with the models that it takes: for the command line and for servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import HybridIndex, IndexSpec, rerank
from retrieval_ft.index.filters import Filter
from retrieval_ft.index.hybrid import Hit, Mode
from retrieval_ft.index.rank_bm25 import Engine
from retrieval_ft.index.snippets import Snippet, snippet
from retrieval_ft.index.store import POINTER
from retrieval_ft.models import resolve
from retrieval_ft.pipeline.index import FOLDER
from retrieval_ft.pipeline.workbench import embedding_cache

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from retrieval_ft.encoder.cross_encoder import CrossEncoder
    from retrieval_ft.encoder.encoder import Encoder

_MODES: tuple[Mode, ...] = get_args(Mode)
_SNIPPET = 300
RERANKER = "ms-marco-MiniLM-L-12-v2-int8"


@dataclass(frozen=True)
class Asking:
    """What is asked of every query.

    Attributes:
        k: passages a query.
        mode: hybrid, dense or bm25.
        where: a filter on metadata.
        depth: hits of each side that are fused; max(100, 4 k) where None.
        rerank: first hits that a cross-encoder puts in order; 0 for none.
        explain: whether hits say which terms match, and where.
        engine: of BM25; "rank_bm25" is that package itself, slow.
    """

    k: int = 10
    mode: Mode = "hybrid"
    where: Filter | None = None
    depth: int | None = None
    rerank: int = 0
    explain: bool = False
    engine: Engine = "impacts"

    def __post_init__(self) -> None:
        for option, allowed in (("mode", _MODES), ("engine", get_args(Engine))):
            if (given := getattr(self, option)) not in allowed:
                raise ConfigError(f"--{option} {given!r}: choose one of {', '.join(allowed)}")


class Searcher:
    """An index and its models, loaded once for many queries.

    Args:
        folder: of the index; that of the newest run where None.
        model: embedder instead of the one the index names; its fingerprint must be the same.
        asking: what is asked of every query.
        tenant: of an index that keeps tenants apart.
        cross_encoder: a name or a folder, for `asking.rerank`.

    Raises:
        DataError: no index, a damaged one, or one built with another model.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        model: str | None = None,
        asking: Asking,
        tenant: str | None = None,
        cross_encoder: str = RERANKER,
    ) -> None:
        self.folder = folder or newest_index()
        self.asking = asking
        index = HybridIndex.load(self.folder)
        index = index if tenant is None else index.for_tenant(tenant)
        if asking.depth is not None:
            index = index.with_fusion(replace(index.spec.fusion, depth=asking.depth))
        self.index = index.with_rank_bm25() if asking.engine == "rank_bm25" else index
        self._encoder: Encoder | None = None
        if asking.mode != "bm25":
            self._encoder = index_encoder(self.folder, index.spec, model=model)
        self._cross_encoder: CrossEncoder | None = None
        if asking.rerank:
            from retrieval_ft.encoder.cross_encoder import load_cross_encoder

            self._cross_encoder = load_cross_encoder(
                resolve(cross_encoder, kind="cross-encoder").path
            )

    def search(self, texts: Sequence[str]) -> list[list[Hit]]:
        """The hits of some queries, best first."""
        asking, vectors, fingerprint = self.asking, None, None
        if self._encoder is not None:
            vectors = self._encoder.encode(texts, role="query")
            fingerprint = self._encoder.fingerprint
        found = self.index.search(
            texts,
            vectors,
            encoder_fingerprint=fingerprint,
            k=max(asking.k, asking.rerank),
            mode=asking.mode,
            where=asking.where,
        )
        if self._cross_encoder is not None:
            scores = self._cross_encoder.scores
            found = rerank(texts, found, scores=scores, first=asking.rerank)
        return [hits[: asking.k] for hits in found]

    def explained(self, text: str, hit: Hit) -> Snippet:
        """What of a query matches a hit, and where it says so."""
        spec = self.index.spec.lexical
        body = f"{hit.title}: {hit.text}" if hit.title else hit.text
        return snippet(body, spec.tokenize([text])[0], spec=spec, length=_SNIPPET)

    def document(self, text: str) -> dict[str, Any]:
        """The answer to a query as the command line prints it with `--json`."""
        hits = []
        for rank, hit in enumerate(self.search([text])[0], start=1):
            why = {"explain": asdict(self.explained(text, hit))} if self.asking.explain else {}
            hits.append({"rank": rank, **asdict(hit), **why})
        return {
            "schema_version": 1,
            "query": text,
            "index": str(self.folder),
            "generation": self.index.generation,
            "mode": self.asking.mode,
            "hits": hits,
        }


def index_encoder(
    folder: Path, spec: IndexSpec, *, model: str | None = None, cached: bool = False
) -> Encoder:
    """The encoder that an index was built with, from where the index says it is, or from `model`.

    With the embedding cache, encoding of many passages goes on where it was interrupted.

    Raises:
        DataError: it is another one.
    """
    from retrieval_ft.encoder.encoder import load_encoder

    # The index says where its model is, relative to itself where they are in one run.
    path = resolve(model or str((folder / spec.encoder_path).resolve())).path
    encoder = load_encoder(path, cache_root=embedding_cache() if cached else None)
    spec.check_encoder(encoder.fingerprint, what="queries")
    return encoder


def newest_index() -> Path:
    """The index of the run that was indexed last.

    Raises:
        DataError: there is none.
    """
    found = sorted(Path("runs").glob(f"*/{FOLDER}/{POINTER}"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise DataError(
            "runs/*/index: no index here; run the main job, or name one with --index FOLDER"
        )
    return found[-1].parent


def hits_table(document: dict[str, Any]) -> Table:
    """The hits of a document as a table."""
    from rich.table import Table
    from rich.text import Text

    reranked = any(hit["rerank_score"] is not None for hit in document["hits"])
    table = Table(box=None, pad_edge=False)
    for heading in ("#", "score", "BM25", "dense", *(["rerank"] if reranked else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("passage")
    for hit in document["hits"]:
        cells = [hit["rank"], f"{hit['score']:.4f}", hit["bm25_rank"] or "-"]
        cells += [hit["dense_rank"] or "-"]
        if reranked:
            score = hit["rerank_score"]
            cells.append("-" if score is None else f"{score:.2f}")
        texts = [Text(str(cell)) for cell in [*cells, hit["id"]]]
        table.add_row(*texts, _shown(hit))
    return table


def _shown(hit: dict[str, Any]) -> Text:
    """The passage of a hit, its matches in bold where they were asked for."""
    from rich.text import Text

    if "explain" not in hit:
        body = f"{hit['title']}: {hit['text']}" if hit["title"] else hit["text"]
        return Text(body[:_SNIPPET])
    shown = Text(hit["explain"]["text"])
    for begin, end in hit["explain"]["spans"]:
        shown.stylize("bold", begin, end)
    return shown
