"""A cross-encoder as a function from (query, passage) pairs to scores, with a cache on disk.

It reads both texts at once, so it judges a pair better than two vectors can, at a far higher
price: too slow to search with, right for doubting the candidates that mining found. Two back ends: an
ONNX file through onnxruntime, and any sentence-transformers CrossEncoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.console import note, progress
from retrieval_ft.encoder.cache import EmbeddingCache, text_key
from retrieval_ft.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

_BLOCK = 4_096
"""Pairs that are scored and stored in the cache together."""
_LONGEST = 512
"""Tokens of a pair where a model does not say how many it takes."""
_NO_LIMIT = 1e9
"""From here on a tokenizer's maximum length means that it knows none (transformers writes 1e30)."""
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_BUDGET = {"cpu": 2_048, "cuda": 131_072}
"""Padded tokens of one batch of the PyTorch back end, as in the encoder."""

Advance = Callable[[int], None]


class PairModel(Protocol):
    """A back end: raw scores of pairs, float32 [n], in their order."""

    def score(self, pairs: Sequence[tuple[str, str]], advance: Advance) -> npt.NDArray[np.float32]:
        """Score pairs; `advance` is told how many are done."""


class CrossEncoder:
    """A loaded cross-encoder. Scores of two of them compare only if their `fingerprint`s are equal.

    The fingerprint is a sha256 over the files of the model and the maximum length.
    """

    def __init__(self, model: PairModel, *, fingerprint: str, cache: Path | None = None) -> None:
        self.fingerprint = fingerprint
        self._model = model
        self._cache = EmbeddingCache(cache, dimension=1) if cache else None

    def scores(self, queries: Sequence[str], passages: Sequence[str]) -> npt.NDArray[np.float32]:
        """Score each query with the passage that stands beside it.

        A pair that occurs twice is scored once, one that was scored before comes from the cache.

        Returns:
            float32 [n], raw logits, in the order given; `probability` brings them into (0, 1).

        Raises:
            ValueError: there are not as many passages as queries.
        """
        pairs = list(zip(queries, passages, strict=True))
        unique = sorted(set(pairs))
        found = np.empty((len(unique), 1), np.float32)
        keys = [_pair_key(query, passage) for query, passage in unique] if self._cache else []
        missing = self._cache.lookup(keys, found) if self._cache else np.arange(len(unique))
        if len(missing):
            with progress("scoring pairs with the cross-encoder", len(missing)) as bar:
                for start in range(0, len(missing), _BLOCK):
                    block = missing[start : start + _BLOCK]
                    found[block, 0] = self._model.score([unique[i] for i in block], bar.advance)
                    if self._cache:
                        self._cache.add([keys[i] for i in block], found[block])
        row_of = {pair: row for row, pair in enumerate(unique)}
        return found[[row_of[pair] for pair in pairs], 0]


def probability(logits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The logistic function of raw scores, float32 of the same shape, in [0, 1].

    It is what a cross-encoder with one label is trained through (binary cross-entropy).
    """
    # 1 / (1 + exp(-x)), without overflow.
    return np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64))).astype(np.float32)


def load_cross_encoder(
    path: Path, *, device: str = "auto", max_length: int = 512, cache_root: Path | None = None
) -> CrossEncoder:
    """Load a model folder as a cross-encoder; no code that it brings is ever run.

    A folder with a `model.onnx` (and a `tokenizer.json`) runs through onnxruntime, any other must be
    one that sentence-transformers' CrossEncoder reads, with safetensors weights.

    On the CPU an ONNX model is given one pair at a time, as many at once as torch has threads: an
    int8 model takes its scale from all that is in a batch, padding included, so that in a batch the
    score of a pair depends on its neighbours (the MS MARCO MiniLM on 96 pairs of `cwe`, batches of
    16: by 0.16 on average, 0.6 at most), and alone it has one score. It is no slower: one core
    scored 67 pairs of 128 tokens a second one by one, 61 in batches of 16, 57 in batches of 32. The
    PyTorch back end pads batches of a similar length; there neighbours move a score by rounding only.

    Args:
        path: the folder.
        device: "auto", "cpu", "cuda" or "cuda:N".
        max_length: tokens of a pair, the longer text is cut first; never more than the model's own.
        cache_root: where scores are kept from one run to the next; by default they are not.

    Raises:
        DependencyError: the folder cannot be read as a cross-encoder, or onnxruntime is missing.
        ConfigError: the model gives more than one score for a pair.
    """
    from retrieval_ft.encoder.precision import choose_device

    chosen = choose_device(device)
    load = _load_onnx if (path / "model.onnx").is_file() else _load_torch
    model, length = load(path, chosen, max_length)
    files = {
        file.relative_to(path).as_posix(): artifacts.sha256_file(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != artifacts.MANIFEST
    }
    identity = artifacts.sha256_json({"files": files, "max_length": length})
    cache = cache_root / f"{identity[:32]}-pair-{chosen.type}" if cache_root else None
    return CrossEncoder(model, fingerprint=identity, cache=cache)


def _pair_key(query: str, passage: str) -> bytes:
    return text_key(f"{len(query)} {query}{passage}")  # the length says where the query ends


def _batches(lengths: Sequence[int], *, budget: int) -> list[npt.NDArray[np.int64]]:
    from retrieval_ft.encoder.batching import token_batches

    return token_batches(np.array(lengths, np.int64), budget=budget)


def _unreadable(path: Path, why: object) -> DependencyError:
    return DependencyError(
        f"{path}: cannot be loaded as a cross-encoder ({' '.join(str(why).split())}); a folder with "
        "model.onnx and tokenizer.json, or a sentence-transformers CrossEncoder with safetensors "
        "weights, is needed"
    )


def _check_labels(path: Path, labels: int) -> None:
    if labels != 1:
        raise ConfigError(
            f"{path}: this model gives {labels} scores for a pair; a cross-encoder that gives one "
            "(num_labels 1) is needed"
        )


class _OnnxModel:
    """Pairs through onnxruntime: `workers` runs at once, each within `budget` padded tokens."""

    def __init__(self, session: Any, tokenizer: Tokenizer, *, budget: int, workers: int) -> None:
        self._session, self._tokenizer = session, tokenizer
        self._inputs = [each.name for each in session.get_inputs()]
        self._budget, self._workers = budget, workers

    def score(self, pairs: Sequence[tuple[str, str]], advance: Advance) -> npt.NDArray[np.float32]:
        encodings = self._tokenizer.encode_batch(list(pairs))
        batches = _batches([len(encoding.ids) for encoding in encodings], budget=self._budget)
        out = np.empty(len(pairs), np.float32)
        with ThreadPoolExecutor(self._workers) as pool:
            results = pool.map(lambda rows: self.run([encodings[i] for i in rows]), batches)
            for rows, logits in zip(batches, results, strict=True):
                out[rows] = logits
                advance(len(rows))
        return out

    def run(self, encodings: list[Any]) -> npt.NDArray[np.float32]:
        """One batch of tokenized pairs to what the model gives for it, flat."""
        columns = {
            "input_ids": [encoding.ids for encoding in encodings],
            "attention_mask": [encoding.attention_mask for encoding in encodings],
            "token_type_ids": [encoding.type_ids for encoding in encodings],
        }
        width = max(len(encoding.ids) for encoding in encodings)
        feed = {name: np.zeros((len(encodings), width), np.int64) for name in self._inputs}
        for name, array in feed.items():
            for row, values in enumerate(columns[name]):
                array[row, : len(values)] = values
        logits = self._session.run(None, feed)[0]
        return np.asarray(logits, np.float32).reshape(-1)


def _load_onnx(path: Path, device: torch.device, max_length: int) -> tuple[PairModel, int]:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"{path}: an ONNX model needs onnxruntime; install it: pip install 'retrieval-ft[onnx]'"
        ) from error
    from onnxruntime.capi import onnxruntime_pybind11_state as failure

    on_gpu = device.type == "cuda"
    if on_gpu and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        note(
            "this onnxruntime has no CUDA (onnxruntime-gpu has): the cross-encoder runs on the CPU"
        )
        on_gpu = False
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    gpu = ("CUDAExecutionProvider", {"device_id": device.index or 0})
    try:
        session = onnxruntime.InferenceSession(
            str(path / "model.onnx"),
            options,
            providers=[gpu, "CPUExecutionProvider"] if on_gpu else ["CPUExecutionProvider"],
        )
    except (failure.Fail, failure.InvalidGraph, failure.InvalidProtobuf) as error:
        raise _unreadable(path, error) from error
    unknown = {each.name for each in session.get_inputs()} - _INPUTS
    if unknown:
        raise _unreadable(path, f"model.onnx asks for {', '.join(sorted(unknown))}")
    tokenizer, length = _tokenizer(path, max_length)
    budget, workers = (_BUDGET["cuda"], 1) if on_gpu else (1, _threads())
    model = _OnnxModel(session, tokenizer, budget=budget, workers=workers)
    _check_labels(path, model.run([tokenizer.encode("a", "b")]).size)
    return model, length


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _tokenizer(path: Path, max_length: int) -> tuple[Tokenizer, int]:
    """The tokenizer of an ONNX folder and the tokens that it cuts a pair to."""
    from tokenizers import Tokenizer

    state = _settings(path / "tokenizer.json")
    if not isinstance(state.get("model"), dict):  # `tokenizers` would raise a bare Exception
        raise _unreadable(path, f"tokenizer.json {'holds no model' if state else 'is missing'}")
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    own = _settings(path / "tokenizer_config.json").get("model_max_length") or _LONGEST
    length = min(max_length, int(own if own < _NO_LIMIT else _LONGEST))
    tokenizer.enable_truncation(length)
    tokenizer.no_padding()
    return tokenizer, length


class _TorchModel:
    """Pairs through a sentence-transformers CrossEncoder, in float32."""

    def __init__(self, model: Any, *, budget: int) -> None:
        self._model, self._budget = model, budget

    def score(self, pairs: Sequence[tuple[str, str]], advance: Advance) -> npt.NDArray[np.float32]:
        import torch

        out = np.empty(len(pairs), np.float32)
        tokens = self._model.tokenizer(
            [query for query, _ in pairs],
            [passage for _, passage in pairs],
            truncation=True,
            max_length=self._model.max_seq_length,
        )["input_ids"]
        for rows in _batches([len(ids) for ids in tokens], budget=self._budget):
            out[rows] = self._model.predict(
                [pairs[i] for i in rows],
                batch_size=len(rows),
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
            )
            advance(len(rows))
        return out


def _load_torch(path: Path, device: torch.device, max_length: int) -> tuple[PairModel, int]:
    from safetensors import SafetensorError
    from sentence_transformers import CrossEncoder as Reader
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    _check_head(path)
    try:
        model = Reader(
            str(path),
            device=str(device),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    _check_labels(path, int(model.num_labels))
    model.max_seq_length = min(max_length, int(model.max_seq_length or _LONGEST))
    budget = _BUDGET.get(device.type, _BUDGET["cpu"])
    return _TorchModel(model, budget=budget), int(model.max_seq_length)


def _check_head(path: Path) -> None:
    """Refuse a model without a head: the library would give it a random one and only warn."""
    config = _settings(path / "config.json")
    if not config:
        raise _unreadable(path, "it has neither model.onnx nor config.json")
    if _settings(path / "config_sentence_transformers.json").get("model_type") == "CrossEncoder":
        return
    architecture = (config.get("architectures") or ["no architecture"])[0]
    if not architecture.endswith(("ForSequenceClassification", "ForCausalLM")):
        raise _unreadable(path, f"{architecture} gives vectors, not a score for a pair")


def _settings(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; empty where there is no such file."""
    found = artifacts.read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise _unreadable(path.parent, f"{path.name} is no JSON object")
    return found
