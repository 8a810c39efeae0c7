"""What of a model is trained: all of it, its last layers, or LoRA adapters that are merged at the end.

A checkpoint holds what is trained and nothing else: sentence-transformers saves a model with adapters
as its adapters and a name of the base, and loads that name anew, from wherever it then is.

Source: LoRA, https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from retrieval_ft.config import TrainingConfig
from retrieval_ft.errors import ConfigError, DataError, DependencyError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

WEIGHTS = "model.safetensors"


def set_trainable(model: SentenceTransformer, config: TrainingConfig, *, seed: int) -> int:
    """Make ready what `method`, `lora_rank`, `lora_alpha` and `freeze_layers` say, in place.

    LoRA puts an adapter beside every linear layer that is not frozen (all of them: QLoRA, arXiv
    2305.14314, section 4), without dropout and without changing what the model computes. What the
    model holds before its first trained layer (embeddings, earlier layers) is frozen.

    Args:
        model: a Transformer and what follows it.
        config: of the run.
        seed: of the adapters' first weights.

    Returns:
        How many numbers are trained.

    Raises:
        ConfigError: `freeze_layers` leaves no layer to train, or the layers cannot be told apart.
        DependencyError: LoRA was asked for and peft is not installed.
    """
    backbone: Any = model[0].auto_model
    if config.freeze_layers:
        _freeze_before(_layer(backbone, config.freeze_layers), backbone)
    if config.method == "lora":
        _add_adapters(backbone, config, seed=seed)
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def make_plain(model: SentenceTransformer) -> None:
    """Merge adapters into the weights and thaw what was frozen, in place.

    The model then has the modules, the keys and the plain classes that it had before
    `set_trainable`; a model without adapters keeps its weights to the bit.
    """
    backbone: Any = model[0].auto_model
    if hasattr(backbone, "peft_config"):
        from peft.tuners.tuners_utils import BaseTunerLayer

        for parent in list(backbone.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, BaseTunerLayer):
                    child.merge()
                    setattr(parent, name, child.get_base_layer())
        del backbone.peft_config
    model.requires_grad_(requires_grad=True)


def save_trained(model: SentenceTransformer, folder: Path) -> None:
    """Write every trained weight to `folder`, as `model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_trained(model), folder / WEIGHTS, metadata={"format": "pt"})


def load_trained(model: SentenceTransformer, folder: Path) -> None:
    """Put what `save_trained` wrote back into the model, to the bit.

    Args:
        model: made ready by `set_trainable` with the same settings.
        folder: a checkpoint.

    Raises:
        DataError: the file is missing, damaged, or of a model made ready in another way.
    """
    path = folder / WEIGHTS
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); remove this checkpoint and resume from the one before"
        ) from error
    here = _trained(model)
    if {name: weight.shape for name, weight in saved.items()} != {
        name: weight.shape for name, weight in here.items()
    }:
        raise DataError(
            f"{path}: holds other weights than this run trains ({len(saved)} tensors, here "
            f"{len(here)}); start anew without --resume"
        )
    for name, weight in here.items():
        weight.copy_(saved[name])


def _trained(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    return {name: w.detach() for name, w in model.named_parameters() if w.requires_grad}


def _layer(backbone: Any, number: int) -> nn.Module:
    """The layer of this number, counted from 0, however the architecture calls its list of layers."""
    count = int(backbone.config.num_hidden_layers)
    if number >= count:
        raise ConfigError(
            f"training.freeze_layers: {number} of the model's {count} layers leaves none to train; "
            f"at most {count - 1} can be frozen"
        )
    for module in backbone.modules():  # outer modules come first
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module[number]
    raise ConfigError(
        f"training.freeze_layers: {type(backbone).__name__} has no list of {count} layers (some "
        "architectures share one); set it to 0"
    )


def _freeze_before(layer: nn.Module, backbone: nn.Module) -> None:
    """Freeze what stands before a layer; a model holds its parts in the order it runs them."""
    first = next(layer.parameters())
    for weight in backbone.parameters():
        if weight is first:
            return
        weight.requires_grad = False


def _add_adapters(backbone: Any, config: TrainingConfig, *, seed: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise DependencyError(
            "training.method=lora needs peft: pip install 'retrieval-ft[lora]', or set "
            "training.method=full"
        ) from error
    targets = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module.weight.requires_grad
        and "pooler" not in name  # the head of the pretraining task; no embedding comes from it
    ]
    if not targets:
        raise ConfigError(
            f"training.method: {type(backbone).__name__} has no linear layers for LoRA; set it to full"
        )
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        target_modules=targets,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, backbone)
