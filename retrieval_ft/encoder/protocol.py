"""What ranking needs of an encoder, wherever its model runs; importing this loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Role = Literal["query", "passage"]
Vectors = npt.NDArray[np.float32]


class TextEncoder(Protocol):
    """A model as a function from texts to vectors: `Encoder` here, `EndpointEncoder` elsewhere."""

    prompts: dict[Role, str]
    """What is put before the texts of each role."""

    def encode(self, texts: Sequence[str], *, role: Role) -> Vectors:
        """Encode texts: float32 [n, dimension], L2-normalised, in the order of `texts`."""
