"""Save a trained SentenceTransformer in the portable layout, whole or not at all.

sentence-transformers 5.4 and later save in a newer schema that older versions and
text-embeddings-inference cannot read; see `retrieval_ft.portable`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from retrieval_ft import artifacts
from retrieval_ft.encoder.encoder import PASSAGES
from retrieval_ft.errors import ConfigError
from retrieval_ft.portable import (
    POOLINGS,
    Pooling,
    has_place_for,
    write_bert_tokenizer,
    write_portable,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from retrieval_ft.encoder.encoder import Encoder


def export_encoder(encoder: Encoder, folder: Path, *, card: str) -> None:
    """Save an encoder as `load_encoder` reads it: its model and, where it has one, its passages'.

    See `export_model`; prompts and maximum length are the encoder's.
    """
    other = encoder.passage_encoder
    export_model(
        encoder.serving_model(),
        folder,
        card=card,
        passages=None if other is None else other.serving_model(),
    )


def export_model(
    model: SentenceTransformer,
    folder: Path,
    *,
    card: str,
    passages: SentenceTransformer | None = None,
) -> None:
    """Save weights (float32 safetensors), tokenizer, module files, prompts and a model card.

    `SentenceTransformer(folder)` then gives the same embeddings. A model that stands at `folder`
    stays whole until the new one takes its place.

    Args:
        model: Transformer, then pooling, then optionally normalisation.
        folder: Where the model goes.
        card: Text of README.md.
        passages: the model that passages keep where `model` is for queries alone; it goes into
            `passages/`, in the same layout.

    Raises:
        ConfigError: the model has other modules or a pooling that the portable layout lacks, or
            carries unmerged adapters.
    """
    for each in (model,) if passages is None else (model, passages):
        check_exportable(each)
    with artifacts.atomic_folder(folder) as fresh:
        _write(model, fresh)
        if passages is not None:
            (fresh / PASSAGES).mkdir()
            _write(passages, fresh / PASSAGES)
        artifacts.write_text(fresh / "README.md", card)


def check_exportable(model: SentenceTransformer) -> Pooling:
    """Return the pooling of a model that `export_model` can save.

    Raises:
        ConfigError: the portable layout has no place for the model's modules or pooling, or the
            model carries unmerged adapters.
    """
    kinds = [type(module).__name__ for module in model]
    if not has_place_for(kinds):
        raise ConfigError(
            f"a model of {' + '.join(kinds)} cannot be exported; Transformer + Pooling, with or "
            "without Normalize, can"
        )
    mode = model[1].pooling_mode
    if mode not in POOLINGS or not model[1].include_prompt:
        raise ConfigError(
            f"pooling {mode!r} (include_prompt={model[1].include_prompt}) cannot be exported; "
            f"{', '.join(POOLINGS)} over the whole input can"
        )
    if hasattr(model[0].model, "peft_config"):
        raise ConfigError("the model carries adapters; merge them into a plain model to export it")
    return cast(Pooling, mode)


def _write(model: SentenceTransformer, folder: Path) -> None:
    transformer: Any = model[0].model
    weights = {name: tensor.detach().to("cpu") for name, tensor in transformer.state_dict().items()}
    weights = {n: t.to(torch.float32) if t.is_floating_point() else t for n, t in weights.items()}
    transformer.save_pretrained(folder, state_dict=weights)
    _declare_float32(folder / "config.json")
    _save_tokenizer(model.tokenizer, folder)
    if type(model.tokenizer).__name__ == "BertTokenizer":
        write_bert_tokenizer(folder, model_max_length=model.tokenizer.model_max_length)
    write_portable(
        folder,
        pooling=check_exportable(model),
        dimension=model[1].embedding_dimension,
        max_seq_length=model.max_seq_length,
        prompts=model.prompts,
        normalize=len(model) == 3,
    )


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer without the truncation and padding that its last call left behind."""
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        backend.no_truncation()
        backend.no_padding()
    tokenizer.save_pretrained(folder)


def _declare_float32(config: Path) -> None:
    """Say in config.json, under the name that every transformers version reads, what was saved."""
    values = artifacts.read_json(config)
    values.pop("dtype", None)
    artifacts.write_json(config, {**values, "torch_dtype": "float32"})
