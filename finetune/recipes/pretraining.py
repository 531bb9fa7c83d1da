"""The typed recipe of a pretraining: masked-language modelling on plain text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from finetune.recipes.sections import (
    NAME,
    Count,
    OptimisationSection,
    Positive,
    Probability,
    Recipe,
    Section,
    Share,
    TextSection,
    Whole,
    told_together,
)


class PretrainCorpus(Section):
    """Plain text: files of one text a line, or a table's text column."""

    path: str
    text_column: str | None = None
    held_out_size: Share | Count = 2000
    split_seed: int | None = None  # the recipe's seed; a further stage names the first one's
    preparation: TextSection = TextSection()


class TokenizerSection(Section):
    """WordPiece trained on the corpus, KLUE's conventions."""

    vocabulary_size: Annotated[int, Field(ge=100)] = 8000
    min_frequency: Count = 2


class ArchitectureSection(Section):
    """A RoBERTa from scratch."""

    hidden_size: Count = 256
    layers: Count = 4
    heads: Count = 4
    feed_forward: Count = 1024
    max_positions: Count = 130


class PretrainSchedule(OptimisationSection):
    """Masked-language modelling by token budget."""

    epochs: Positive = 10
    tokens_per_batch: Count = 8192
    max_length: Annotated[int, Field(ge=8)] = 128
    mask_probability: Share = 0.15
    learning_rate: Positive = 1e-3
    dropout: Probability | None = None  # None: the model's own
    warmup_steps: Whole = 200
    warmup_ratio: Probability = 0.0
    scheduler: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "warmup_stable_decay",
    ] = "linear"
    decay_ratio: Share = 0.2  # warmup_stable_decay: the share of all steps that cools down
    logging_steps: Count = 50
    save_steps: Count = 200
    eval_steps: Count = 400


class PretrainRecipe(Recipe):
    """Domain pretraining: from scratch (``model: null``) or continued from a model."""

    task: Literal["pretraining"] = "pretraining"
    name: Annotated[str, Field(pattern=NAME)] = "pretrain"
    corpus: PretrainCorpus
    model: str | None = None
    revision: str | None = None
    tokenizer: TokenizerSection = TokenizerSection()
    architecture: ArchitectureSection = ArchitectureSection()
    training: PretrainSchedule = PretrainSchedule()

    @model_validator(mode="after")
    def _fits_together(self) -> PretrainRecipe:
        size, training = self.architecture, self.training
        faults = []
        if size.hidden_size % size.heads:
            faults.append("architecture.hidden_size must be a multiple of architecture.heads")
        if self.model is None and training.max_length > size.max_positions - 2:
            faults.append("training.max_length is at most architecture.max_positions - 2")
        if training.max_length > training.tokens_per_batch:
            faults.append("training.tokens_per_batch must hold one text of training.max_length")
        return told_together(self, faults)

    @property
    def base_model(self) -> dict[str, Any] | None:
        """The arguments of ``models.source.resolve_base``; None from scratch."""
        return {"source": self.model, "revision": self.revision} if self.model else None

    @property
    def unused(self) -> list[str]:
        """Keys that were set to something and change nothing, each with the reason."""
        told = super().unused
        if self.model is None and self.was_set("revision"):
            told.append("revision is not used: there is no model")
        for section in ("tokenizer", "architecture"):
            if self.model is not None and self.was_set(section):
                told.append(f"{section} is not used: {self.model} has its own")
        if self.training.scheduler != "warmup_stable_decay" and self.training.was_set(
            "decay_ratio"
        ):
            told.append(f"training.decay_ratio is not used by {self.training.scheduler}")
        return told
