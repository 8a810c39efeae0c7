"""What an index is, whatever passages it holds: the part of a manifest that changes never make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from retrieval_ft.errors import DataError
from retrieval_ft.index.ann_choice import AnnSpec
from retrieval_ft.index.fusion import FusionSpec
from retrieval_ft.index.tokens import LexicalSpec
from retrieval_ft.index.vectors import DenseSpec


@dataclass(frozen=True)
class IndexSpec:
    """What an index is, whatever passages it holds.

    Attributes:
        encoder_fingerprint: of the encoder that makes its vectors.
        encoder_path: where that encoder was when the index was built, may be relative to it.
        dimension: width of that encoder's vectors.
        prompts: of that encoder, by role; for the record.
        lexical: how BM25 splits and weighs.
        dense: how vectors are kept.
        ann: when and how dense search is approximate.
        fusion: how the two sides become one ranking.
        tenant_key: metadata key whose value a handle must be opened for (`for_tenant`) before it
            finds anything; None where all passages are for all.
    """

    encoder_fingerprint: str
    encoder_path: str
    dimension: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    lexical: LexicalSpec = field(default_factory=LexicalSpec)
    dense: DenseSpec = field(default_factory=DenseSpec)
    ann: AnnSpec = field(default_factory=AnnSpec)
    fusion: FusionSpec = field(default_factory=FusionSpec)
    tenant_key: str | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> IndexSpec:
        """The spec that `asdict` made a mapping of."""
        parts = {"lexical": LexicalSpec, "dense": DenseSpec, "ann": AnnSpec, "fusion": FusionSpec}
        made = {name: kind(**facts[name]) for name, kind in parts.items()}
        return cls(**{**facts, **made})

    def loses(self, count: int) -> bool:
        """Whether search over so many passages is not exact, so that queries should measure it."""
        width = self.dense.dimension or self.dimension
        return self.dense.loses(self.dimension) or self.ann.choose(count, width).kind != "flat"

    def check_encoder(self, fingerprint: str | None, *, what: str) -> None:
        """Refuse vectors of any encoder but the index's own.

        Raises:
            DataError: the fingerprint is another; both are named, and what to do.
        """
        if fingerprint != self.encoder_fingerprint:
            raise DataError(
                f"the {what} were encoded by model {(fingerprint or 'unknown')[:12]}, the index was "
                f"built with {self.encoder_fingerprint[:12]} ({self.encoder_path}); load that model, "
                "or build the index again with yours (retrieval-ft index rebuild --model)"
            )
