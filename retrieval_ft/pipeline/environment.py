"""What figures depend on besides their inputs: versions, machine, variables."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

from retrieval_ft import __version__

_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE")
_PACKAGES = ("torch", "sentence-transformers", "transformers", "faiss-cpu", "numpy", "rank-bm25")


def environment() -> dict[str, Any]:
    """What the figures of a run depend on besides its inputs."""
    return {
        "retrieval_ft": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: version(name) for name in _PACKAGES},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
