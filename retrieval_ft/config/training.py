"""Settings of training: how long, which loss, what is trained.

Defaults are the recipe that won on the dev sets of more than one corpus.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from retrieval_ft.config.section import Section


class TrainingConfig(Section):
    """The contrastive run."""

    epochs: int | None = Field(None, ge=1)
    """Passes over the pairs; by default more for fewer pairs (see `training/recipe.py`)."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps at most, whatever the epochs; the schedule ends there."""
    batch_size: int | None = Field(None, ge=2)
    """Queries of a batch, whose passages are each other's negatives; by default from the pairs."""
    negatives_per_query: int = Field(1, ge=0)
    """Mined negatives of each query in a batch; others take their turn in later epochs."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak of the schedule; by default from the width of the model."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    temperature: float = Field(0.02, gt=0)
    """Divides the cosines in every loss (FlagEmbedding's value for BGE)."""
    loss: Literal["infonce", "listwise", "margin_mse"] = "infonce"
    """infonce, or a teacher's scores learnt as well: listwise is KL over a query's passages,
    margin_mse the squared error of score differences, each + `info_nce_weight` x InfoNCE."""
    teacher: Literal["cross-encoder", "bm25"] = "cross-encoder"
    """Whose scores listwise and margin_mse learn: those that mining.cross_encoder gave to positives
    and negatives, or BM25's of every passage in the batch."""
    teacher_temperature: float = Field(1.0, gt=0)
    """listwise: divides the teacher's scores before its softmax."""
    info_nce_weight: float = Field(0.1, ge=0)
    """Of InfoNCE beside a teacher (CADET, arXiv 2505.19274)."""
    bidirectional: bool = False
    """InfoNCE of passages among queries too, the mean of both (GTE, arXiv 2308.03281)."""
    self_score_margin: float | None = Field(None, ge=0)
    """A passage of the batch that scores this much above a query's positive is taken for an
    unlabelled positive and masked (ms-swift takes 0.1); null masks none."""
    matryoshka: tuple[int, ...] = ()
    """Shorter dimensions that the loss is taken at as well (arXiv 2205.13147), the mean of all."""
    prompt_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of train queries that are encoded without the prompt, for stacks that forget it."""
    batches: Literal["mixed", "source", "topic"] = "mixed"
    """Which pairs meet in a batch: any, those of one source (what a pair was made from, or the
    query's `source`), or those about one topic (k-means of the base model's vectors)."""
    method: Literal["full", "lora"] = "full"
    """What is trained: all weights, or LoRA adapters that are merged at the end (arXiv 2106.09685)."""
    lora_rank: int = Field(16, ge=1)
    lora_alpha: float = Field(32, gt=0)
    freeze_layers: int = Field(0, ge=0)
    """The embeddings and this many first layers stay as they are; 0 trains everything."""
    freeze_docs: bool = False
    """Train the query side only: passages keep the base model's vectors, no corpus is encoded anew."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout while training."""
    max_length: int = Field(128, ge=16)
    """Tokens of a text while training; never more than model.max_length. On `cwe` (a third of the
    passages are longer than 128) 256 took 1.5 times as long and was no better on dev."""
    graph_tokens: int | None = Field(None, ge=1)
    """Padded tokens of a batch whose activations are kept; a larger batch goes through GradCache.
    By default from the free memory."""
    evaluations: int = Field(4, ge=1)
    """Dev evaluations (and checkpoints) over the run; the best one is kept."""
    dev_passages: int = Field(4_000, ge=100)
    """Passages that dev queries are scored against while training: the whole corpus up to this size,
    else the relevant ones, the base model's and BM25's candidates, and random ones."""
    patience: int = Field(2, ge=1)
    """Dev evaluations without a new best after which training stops."""
    soup_alphas: tuple[float, ...] = (1.0, 0.8, 0.6, 0.5, 0.4)
    """Shares of tuned weights to try on dev, from 1 down until one is worse (LM-Cocktail, arXiv
    2311.13534)."""

    max_forgetting: float = Field(0.02, ge=0, le=1)
    """Recall@10 that the soup may lose on the general sets (`evaluation.general`, their dev): an
    alpha that loses more is not chosen while another does not."""
    report_to: tuple[str, ...] = ()
    """Trackers to send the log to as well, as transformers names them: wandb, tensorboard, mlflow."""

    @model_validator(mode="after")
    def _agree(self) -> TrainingConfig:
        if self.freeze_docs and self.matryoshka:
            raise ValueError(
                "training.freeze_docs keeps the passages' vectors, so training.matryoshka cannot "
                "shorten them; set one of the two"
            )
        if self.bidirectional and self.loss != "infonce":
            raise ValueError("training.bidirectional is for training.loss=infonce")
        if self.loss == "margin_mse" and self.teacher == "bm25":
            raise ValueError(
                "training.loss=margin_mse compares score differences, and BM25's have no fixed "
                "scale; use training.loss=listwise with training.teacher=bm25"
            )
        return self

    @field_validator("soup_alphas")
    @classmethod
    def _tuned_is_a_choice(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if 1.0 not in alphas or not all(0 < alpha <= 1 for alpha in alphas):
            raise ValueError("alphas lie in (0, 1] and 1 must be among them")
        return alphas
