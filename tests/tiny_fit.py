"""Calls of `fit` on the tiny model that a test can look into, interrupt and repeat."""

import math
import os
import signal

import torch

from retrieval_ft.config import TrainingConfig
from retrieval_ft.encoder.encoder import load_encoder
from retrieval_ft.training.fit import fit
from retrieval_ft.training.loss import BatchLoss
from retrieval_ft.training.objective import Objective
from retrieval_ft.training.plan import plan_batches

CONFIG = TrainingConfig(
    learning_rate=2e-3, epochs=2, batch_size=8, evaluations=4, patience=9, dropout=0.1
)
STEPS, EVERY = 12, 3


class Loss(BatchLoss):
    """The loss, with something happening at a step (counted from 1 in this process)."""

    def __init__(self, encoder, *, at=None, then=None, graph_tokens=1_000_000):
        super().__init__(
            encoder.model,
            precision=encoder.precision,
            objective=Objective(0.05),
            graph_tokens=graph_tokens,
        )
        self.at, self.then, self.steps = at, then, 0

    def forward(self, batch):
        self.steps += 1
        loss = super().forward(batch)
        return self.then(loss) if self.steps == self.at else loss


class Run:
    """One call of `fit` on a fresh tiny model, and what came of it."""

    def __init__(self, model_folder, folder, pairs, collator_of):
        self.folder = folder
        self.encoder = load_encoder(model_folder, device="cpu", precision="fp32")
        self.model = self.encoder.model
        self.collator = collator_of(self.encoder)
        self.pairs = pairs
        self.seen = []

    def weights(self):
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def chance(self):
        """A dev score as good as random that any changed bit of the weights would change."""
        total = sum(p.double().abs().sum().item() for p in self.model.parameters())
        return {"score": math.sin(1e4 * total)}

    def fit(
        self,
        *,
        config=CONFIG,
        dev=None,
        seed=3,
        resume=False,
        loss=None,
        reports=None,
        **loss_settings,
    ):
        self.loss = loss or Loss(self.encoder, **loss_settings)

        def scored():
            self.seen.append(self.weights())
            return (dev or self.chance)()

        plan = plan_batches(
            self.pairs, epochs=config.epochs or 1, batch_size=8, negatives_per_query=1, seed=13
        )
        self.result = fit(
            self.model,
            plan,
            collator=self.collator,
            loss=self.loss,
            dev=scored,
            config=config,
            learning_rate=config.learning_rate or 1e-3,
            folder=self.folder,
            seed=seed,
            resume=resume,
            reports=reports,
        )
        return self.result


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupt(loss):
    os.kill(os.getpid(), signal.SIGINT)
    return loss


def scores(*values):
    waiting = iter(values)
    return lambda: {"score": next(waiting)}
