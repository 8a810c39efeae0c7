"""The parts of the recipe that depend on how much there is to learn from, and on the model's size.

A small set needs more passes and smaller batches to make enough steps; a wide model a smaller
learning rate. Pairs made from the corpus are easy and many; on them a high rate soon ruins the model.
What a config sets itself is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from retrieval_ft.config import TrainingConfig

_RATE, _WIDTH = 2e-4, 384
_MADE_RATE = 5e-5
"""For pairs made from the corpus. On `hpo` (4,000 pairs) dense recall@10 of dev queries went from .805
to .838 at 5e-5; in another split from .711 to .647 at 2e-4."""
_LORA = 5
"""Times the rate of full training: adapters want a higher one (arXiv 2106.09685, app. D)."""
_EPOCHS = ((3_000, 3), (5_000, 2))
_BATCH_SHARE, _SMALLEST, _LARGEST = 24, 16, 64


@dataclass(frozen=True)
class Recipe:
    """How long, how many at once, and how fast."""

    epochs: int
    batch_size: int
    learning_rate: float


def resolve_recipe(
    config: TrainingConfig, *, pairs: int, hidden_size: int, made: int = 0
) -> Recipe:
    """Fill in what the config leaves open.

    Args:
        config: of the run.
        pairs: (query, positive) pairs to train on.
        hidden_size: width of the model; the rate falls with it.
        made: how many of the pairs were made from the corpus; where they are most, one pass is made.
    """
    mostly_made = 2 * made > pairs
    epochs = next((count for limit, count in _EPOCHS if pairs < limit and not mostly_made), 1)
    rate = _MADE_RATE if mostly_made else _RATE
    if config.method == "lora":
        rate *= _LORA
    batch = min(_LARGEST, max(_SMALLEST, pairs // _BATCH_SHARE // 8 * 8))
    return Recipe(
        epochs=config.epochs or epochs,
        batch_size=config.batch_size or batch,
        learning_rate=config.learning_rate or rate * _WIDTH / hidden_size,
    )
