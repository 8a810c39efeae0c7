"""Which device and which number format the model runs in, and why, in words.

bf16 autocast pays only where the hardware multiplies bf16: elsewhere it is emulated and slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from retrieval_ft.errors import ConfigError

PrecisionName = Literal["auto", "bf16", "fp32"]


@dataclass(frozen=True)
class Precision:
    """A number format for the matrix products. Weights, optimizer and results stay float32."""

    name: Literal["bf16", "fp32"]
    reason: str

    def autocast(self, device: torch.device) -> torch.autocast:
        """A context that runs matrix products in this format."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.name == "bf16")


def choose_device(requested: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: a GPU is asked for and none can be used.
    """
    if requested == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(requested)
    if device.type == "cuda" and (device.index or 0) >= (seen := torch.cuda.device_count()):
        raise ConfigError(
            f"model.device: {requested!r} was asked for, but torch {torch.__version__} sees "
            f"{seen or 'no'} GPU; use auto or cpu"
        )
    return device


def choose_precision(requested: PrecisionName, device: torch.device) -> Precision:
    """Return the precision for a device, with the reason to print at the start of a run."""
    if requested != "auto":
        return Precision(requested, f"{requested}: asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", f"bf16: {torch.cuda.get_device_name(device)} multiplies it")
        return Precision("fp32", "fp32: this GPU has no bf16")
    flags = torch.cpu.get_capabilities()
    for flag in ("amx_bf16", "avx512_bf16"):
        if flags.get(flag):
            return Precision("bf16", f"bf16: this CPU has {flag}")
    return Precision("fp32", "fp32: this CPU has neither avx512_bf16 nor amx_bf16")
