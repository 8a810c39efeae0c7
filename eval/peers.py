"""The peers' trainers, as their documentation sets them up, behind one form of settings.

sentence-transformers: `SentenceTransformerTrainer` with `CachedMultipleNegativesRankingLoss`.
FlagEmbedding 1.4.2: `finetune.embedder.encoder_only.base`, its runner called in this process (what
its `torchrun --nproc_per_node 1` starts). `make peers` fetches it.

A setting that is None stays as the peer ships it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import PEERS


@dataclass(frozen=True)
class Settings:
    """What both sides are told."""

    steps: int
    batch_size: int
    max_length: int
    learning_rate: float
    warmup_steps: int
    seed: int
    bf16: bool
    """bf16 autocast; else float32, as both ship."""
    in_order: bool = False
    """Rows are taken as they stand, not shuffled."""
    temperature: float | None = None
    dropout: float | None = None
    weight_decay: float | None = None


def train_sentence_transformers(
    path: Path, rows: Mapping[str, Sequence[str]], *, prompt: str, settings: Settings
) -> Any:
    """Train on columns of texts: anchor, positive, negatives; return the SentenceTransformer.

    mini_batch_size, AdamW and all else are the library's own; batches hold no text twice, as its
    documentation advises for this loss, unless they are in order.
    """
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.sampler import BatchSamplers, DefaultBatchSampler
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
    )
    from torch.utils.data import SequentialSampler

    def as_they_stand(dataset: Any, **options: Any) -> Any:
        return DefaultBatchSampler(SequentialSampler(dataset), **options)

    model = SentenceTransformer(str(path), local_files_only=True)
    longest, model.max_seq_length = model.max_seq_length, settings.max_length
    _set_dropout(model, settings.dropout)
    scale = {} if settings.temperature is None else {"scale": 1 / settings.temperature}
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                **_arguments(settings, folder),
                prompts={"anchor": prompt},
                batch_sampler=as_they_stand if settings.in_order else BatchSamplers.NO_DUPLICATES,
            ),
            train_dataset=Dataset.from_dict(dict(rows)),
            loss=CachedMultipleNegativesRankingLoss(model, **scale),
        )
        trainer.train()
    model.max_seq_length = longest
    return model.eval()


def train_flag_embedding(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    prompt: str,
    group: int,
    settings: Settings,
    **more: Any,
) -> Any:
    """Train on rows of query, pos and neg; return the base SentenceTransformer with the new weights.

    FlagEmbedding saves a bare transformer: CLS pooling and normalisation are put back so. `group`
    passages stand beside a query, one of them positive; `more` are further training arguments.
    """
    from sentence_transformers import SentenceTransformer

    if settings.in_order:
        more["train_sampling_strategy"] = "sequential"
    if settings.temperature is not None:
        more["temperature"] = settings.temperature
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "train.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        given = {
            "train_data": [str(data)],
            "cache_path": f"{folder}/cache",
            "train_group_size": group,
            "query_max_len": settings.max_length,
            "passage_max_len": settings.max_length,
            "pad_to_multiple_of": 8,
            "query_instruction_for_retrieval": prompt,
        }
        arguments = {
            **_arguments(settings, f"{folder}/out"),
            "sentence_pooling_method": "cls",
            "normalize_embeddings": True,
            **more,
        }
        runner = _flag_runner(path, given, arguments)
        _set_dropout(runner.model, settings.dropout)
        runner.trainer.train()
    model = SentenceTransformer(str(path), local_files_only=True)
    model[0].auto_model.load_state_dict(runner.model.model.state_dict())
    return model.eval()


def _flag_runner(path: Path, data: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    sys.path.insert(0, str(PEERS))
    from FlagEmbedding.finetune.embedder.encoder_only.base import (
        EncoderOnlyEmbedderDataArguments,
        EncoderOnlyEmbedderModelArguments,
        EncoderOnlyEmbedderRunner,
        EncoderOnlyEmbedderTrainingArguments,
    )

    return EncoderOnlyEmbedderRunner(
        model_args=EncoderOnlyEmbedderModelArguments(model_name_or_path=str(path)),
        data_args=EncoderOnlyEmbedderDataArguments(**data),
        training_args=EncoderOnlyEmbedderTrainingArguments(**arguments),
    )


def _arguments(settings: Settings, folder: str) -> dict[str, Any]:
    """Arguments of transformers' Trainer; nothing is saved, evaluated or sent on the way."""
    import torch

    found: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_steps,
        "seed": settings.seed,
        "bf16": settings.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_drop_last": True,
        "save_strategy": "no",
        "logging_steps": 5,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if settings.weight_decay is not None:
        found["weight_decay"] = settings.weight_decay
    return found


def _set_dropout(model: Any, probability: float | None) -> None:
    from torch import nn

    for module in model.modules() if probability is not None else ():
        if isinstance(module, nn.Dropout):
            module.p = probability
