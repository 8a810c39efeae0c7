"""The encoder: the one place that knows prompts, pooling, precision, batching and truncation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from retrieval_ft import artifacts
from retrieval_ft.console import note, progress
from retrieval_ft.encoder.batching import Tokens, pad, token_batches, tokenize
from retrieval_ft.encoder.cache import EmbeddingCache, text_key
from retrieval_ft.encoder.packed import packable, packed_vectors
from retrieval_ft.encoder.precision import (
    Precision,
    PrecisionName,
    choose_device,
    choose_precision,
)
from retrieval_ft.encoder.threads import cores, side_by_side
from retrieval_ft.errors import DependencyError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Role = Literal["query", "passage"]
Vectors = npt.NDArray[np.float32]
Alone = Callable[[Sequence[str], Role], Vectors]
Helpers = Callable[[Sequence[str], Role, Alone], Vectors]
"""Encodes texts in several processes, this one's share by the function that it is given."""
PASSAGES = "passages"
"""Folder inside a model folder that holds the model for passages, where they have one of their own."""

_BLOCK = 16_384
"""Texts that are tokenized, encoded and stored in the cache together."""
_CAST = 8
"""Batches for which the weights are cast once."""
_NUMERICS = 3
"""Counts changes of the computation that change the last bits of a vector: old ones are not mixed in."""
_BUDGET = {"cpu": 2_048, "cuda": 131_072}
"""Padded tokens of one batch. On CPU larger batches leave the caches of the processor: bge-small
encoded 9,000 tokens a second at 2,048, 8,200 at 1,024 and at 4,096, 7,400 at 8,192."""


def _silent(amount: int) -> None:
    """Progress that nobody is shown."""


class Encoder:
    """A loaded model that turns texts into L2-normalised float32 vectors.

    Vectors of two encoders may be compared only if their `fingerprint`s are equal: sha256 over
    weights, tokenizer, pooling, prompts and maximum length. `dimension` is the length of a vector.

    Where only the query side was trained, `passage_encoder` is the model that passages keep: it
    encodes and tokenizes them, with its own prompt, maximum length and cache.

    `helpers`, where they are set, encode texts that are not in the cache in several processes.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        precision: Precision,
        prompts: dict[Role, str] | None = None,
        max_length: int | None = None,
        cache_root: Path | None = None,
        passage_encoder: Encoder | None = None,
    ) -> None:
        self.model = model
        # What encodes the passages of a pair is its passage side, whatever its own queries need.
        inner = passage_encoder.passage_encoder if passage_encoder else None
        self.passage_encoder: Encoder | None = inner or passage_encoder
        self.precision = precision
        self.device = torch.device(model.device)
        self.prompts = prompts if prompts is not None else saved_prompts(model)
        self.max_length = _maximum_length(model, max_length)
        self.dimension = int(model.get_embedding_dimension())
        self.pad_id = int(model.tokenizer.pad_token_id or 0)
        self.token_budget = _BUDGET.get(self.device.type, _BUDGET["cpu"])
        self._cache_root = cache_root
        self._caches: dict[Role, EmbeddingCache] = {}
        self.helpers: Helpers | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the vectors; computed on first use, while the weights stay as they are."""
        own = fingerprint(self.model, prompts=self.prompts, max_length=self.max_length)
        if self.passage_encoder is None:
            return own
        return artifacts.sha256_json({"query": own, "passage": self.passage_encoder.fingerprint})

    def tokenize(self, texts: Sequence[str], role: Role) -> Tokens:
        """Tokenize texts as `encode` does, prompt and truncation included."""
        if role == "passage" and self.passage_encoder:
            return self.passage_encoder.tokenize(texts, role)
        return tokenize(self.model, texts, prompt=self.prompts[role], max_length=self.max_length)

    def encode(self, texts: Sequence[str], *, role: Role) -> npt.NDArray[np.float32]:
        """Encode texts in their role; a text seen before comes from the cache.

        Returns:
            float32 [n, dimension], L2-normalised, in the order of `texts`.
        """
        if role == "passage" and self.passage_encoder:
            return self.passage_encoder.encode(texts, role=role)
        vectors = np.empty((len(texts), self.dimension), np.float32)
        missing = np.arange(len(texts))
        cache = self._cache(role)
        keys = [text_key(text) for text in texts] if cache else []
        if cache:
            missing = cache.lookup(keys, vectors)
        if len(missing) == 0:
            return vectors
        with progress(f"encoding {role} texts", len(missing)) as bar:
            for start in range(0, len(missing), _BLOCK):
                block = missing[start : start + _BLOCK]
                given = [texts[i] for i in block]
                if self.helpers is None:
                    vectors[block] = self._encode(given, role, advance=bar.advance)
                else:
                    vectors[block] = self.helpers(given, role, self._encode)
                    bar.advance(len(block))
                if cache:
                    cache.add([keys[i] for i in block], vectors[block])
        return vectors

    def uncached(self, *, prompts: dict[Role, str] | None = None) -> Encoder:
        """The same weights in memory without the embedding cache; other prompts where given."""
        return Encoder(
            self.model,
            precision=self.precision,
            prompts=self.prompts if prompts is None else prompts,
            max_length=self.max_length,
            passage_encoder=self.passage_encoder,
        )

    def serving_model(self) -> SentenceTransformer:
        """The model itself, with this encoder's prompts and maximum length written into it."""
        self.model.max_seq_length = self.max_length
        self.model.prompts = {"query": self.prompts["query"], "document": self.prompts["passage"]}
        return self.model

    def truncated_share(self, texts: Sequence[str], role: Role) -> float:
        """Share of texts that are longer than the maximum length and so are cut."""
        return float(self.tokenize(texts, role).truncated.mean()) if texts else 0.0

    def _encode(
        self, texts: Sequence[str], role: Role, *, advance: Callable[[int], None] = _silent
    ) -> Vectors:
        """Encode texts by this model, in this process, whatever the cache holds."""
        return self._embed(self.tokenize(texts, role), advance=advance)

    def _embed(self, tokens: Tokens, *, advance: Callable[[int], None]) -> npt.NDArray[np.float32]:
        out = np.empty((len(tokens.ids), self.dimension), np.float32)
        pending = token_batches(tokens.lengths, budget=self.token_budget)[::-1]
        with _inference(self.model):
            if cores(self.device) > 1:
                for rows, found in self._on_cores(tokens, pending[::-1]):
                    out[rows] = found
                    advance(len(rows))
                return out
            # One autocast around all batches: the weights are cast once, not once a batch.
            with self.precision.autocast(self.device):
                while pending:
                    rows = pending.pop()
                    vectors = self._forward([tokens.ids[i] for i in rows])
                    if vectors is None:
                        pending = self._smaller(tokens.lengths, rows, pending)
                        continue
                    out[rows] = vectors
                    advance(len(rows))
        return out

    def _on_cores(
        self, tokens: Tokens, batches: list[npt.NDArray[np.int64]]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Rows and vectors of several batches at a time, each core with its own."""
        at_once = cores(self.device)
        size = max(1, min(_CAST, len(batches) // at_once))
        items = [batches[start : start + size] for start in range(0, len(batches), size)]

        def work(item: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
            parts = [pad([tokens.ids[i] for i in rows], pad_id=self.pad_id) for rows in item]
            with torch.inference_mode():
                return torch.cat(embed(self.model, parts, self.precision)).numpy()

        for item, vectors in zip(items, side_by_side(work, items, at_once=at_once), strict=True):
            yield np.concatenate(item), vectors

    def _forward(self, rows: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.float32] | None:
        """Embed one batch; None where it does not fit in memory and can be made smaller."""
        features = pad(rows, pad_id=self.pad_id)
        try:
            return embed(self.model, [features], self.precision)[0].cpu().numpy()
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        # Outside the handler: there the traceback would still hold the tensors.
        torch.cuda.empty_cache()
        return None

    def _smaller(
        self,
        lengths: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        pending: list[npt.NDArray[np.int64]],
    ) -> list[npt.NDArray[np.int64]]:
        """Halve the budget for good, and cut what is left to do anew under it."""
        tokens = len(rows) * int(lengths[rows].max())
        self.token_budget = max(1, min(self.token_budget, tokens) // 2)
        note(f"out of memory: batches are now at most {self.token_budget:,} tokens")
        left = np.concatenate([rows, *pending[::-1]])
        return token_batches(lengths, budget=self.token_budget, order=left)[::-1]

    def _cache(self, role: Role) -> EmbeddingCache | None:
        if self._cache_root is None:
            return None
        if role not in self._caches:
            name = f"{self.fingerprint[:32]}-{role}-{self.precision.name}-{_NUMERICS}"
            self._caches[role] = EmbeddingCache(self._cache_root / name, dimension=self.dimension)
        return self._caches[role]


def load_model(path: Path, *, device: str = "auto") -> SentenceTransformer:
    """Load a sentence-transformers folder, never running code that it brings.

    Raises:
        DependencyError: the folder cannot be read as a sentence-transformers model.
    """
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model = SentenceTransformer(
            str(path),
            device=str(choose_device(device)),
            trust_remote_code=False,
            local_files_only=True,
            # Whatever it was saved in: bfloat16 weights would lose the small steps of training.
            model_kwargs={"dtype": torch.float32},
        )
        # Without its files transformers makes a tokenizer to which every word is unknown.
        if len(model.tokenizer) <= len(model.tokenizer.all_special_ids):
            raise ValueError("its tokenizer has no vocabulary")
        return model
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise DependencyError(
            f"{path}: cannot be loaded as an embedding model ({' '.join(str(error).split())}); a "
            "sentence-transformers folder with safetensors weights and a tokenizer is needed"
        ) from error


def load_encoder(
    path: Path,
    *,
    device: str = "auto",
    precision: PrecisionName = "auto",
    max_length: int | None = None,
    query_prompt: str | None = None,
    passage_prompt: str | None = None,
    cache_root: Path | None = None,
    passage_encoder: Encoder | None = None,
) -> Encoder:
    """Load a model folder as an encoder; prompts not given are the ones saved in it.

    Passages are encoded by `passage_encoder` where one is given, else by the model in the folder's
    `passages/` where there is one (see `export.model`), else by the model itself.

    Raises:
        DependencyError: a folder cannot be read, or the two models' vectors differ in length.
    """
    if passage_encoder is None and (path / PASSAGES / "modules.json").is_file():
        passage_encoder = load_encoder(
            path / PASSAGES,
            device=device,
            precision=precision,
            max_length=max_length,
            query_prompt=query_prompt,
            passage_prompt=passage_prompt,
            cache_root=cache_root,
        )
    model = load_model(path, device=device)
    saved = saved_prompts(model)
    encoder = Encoder(
        model,
        precision=choose_precision(precision, torch.device(model.device)),
        prompts={
            "query": saved["query"] if query_prompt is None else query_prompt,
            "passage": saved["passage"] if passage_prompt is None else passage_prompt,
        },
        max_length=max_length,
        cache_root=cache_root,
        passage_encoder=passage_encoder,
    )
    if passage_encoder and passage_encoder.dimension != encoder.dimension:
        raise DependencyError(
            f"{path}: gives queries {encoder.dimension} dimensions, and its passages are given "
            f"{passage_encoder.dimension}; the two models do not belong together"
        )
    return encoder


def saved_prompts(model: SentenceTransformer) -> dict[Role, str]:
    """The prompts a model was saved with: "query", and "document" or "passage"."""
    prompts = model.prompts
    return {
        "query": prompts.get("query") or "",
        "passage": prompts.get("document") or prompts.get("passage") or "",
    }


def embed(
    model: SentenceTransformer, parts: Sequence[dict[str, torch.Tensor]], precision: Precision
) -> list[torch.Tensor]:
    """Forward passes: padded micro-batches to L2-normalised float32 vectors [rows, dimension] each.

    Weights are cast once for all of them. BERT goes without padding; other models as they are.
    """
    device = torch.device(model.device)
    moved = [{k: v.to(device, non_blocking=True) for k, v in part.items()} for part in parts]
    with precision.autocast(device):
        packed = packable(model, bf16=precision.name == "bf16")
        vectors = [
            packed_vectors(model, part) if packed else model(part)["sentence_embedding"]
            for part in moved
        ]
    return [torch.nn.functional.normalize(found.float(), dim=-1) for found in vectors]


def fingerprint(model: SentenceTransformer, *, prompts: dict[Role, str], max_length: int) -> str:
    """sha256 over weights, tokenizer, pooling, prompts and maximum length."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    modules = [
        [type(module).__name__, str(getattr(module, "pooling_mode", ""))] for module in model
    ]
    facts = [_tokenizer_state(model.tokenizer), modules, prompts, max_length]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()


def _tokenizer_state(tokenizer: Any) -> Any:
    """What decides its token ids, without what the last call left behind."""
    if not tokenizer.is_fast:  # all that a tokenizer written in Python lets us see
        return [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: value for key, value in state.items() if key not in ("truncation", "padding")}


def _maximum_length(model: SentenceTransformer, requested: int | None) -> int:
    own = int(model.max_seq_length or 512)
    return own if requested is None else min(requested, own)


@contextmanager
def _inference(model: SentenceTransformer) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
