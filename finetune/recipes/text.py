"""The typed recipe of a text run: what a fine-tuning is, before anything runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from finetune.core.processes import divide_batch
from finetune.recipes.methods import METHODS
from finetune.recipes.metrics import METRICS
from finetune.recipes.sections import (
    Count,
    ExportPrecision,
    FinetuningSection,
    Recipe,
    Section,
    Share,
    TextSection,
    precision_faults,
    told_together,
)

Method = Literal[*METHODS]


class PreparationSection(TextSection):
    """What is done to a text, and where one is cut that is longer than ``max_length``."""

    truncation_side: Literal["right", "left"] | None = None  # None: the tokenizer's own


class ModelSection(Section):
    """The base model: a hub id, a local folder or ``tiny`` (the embedded one)."""

    source: str = "klue/roberta-large"
    revision: str | None = None
    max_length: Annotated[int, Field(ge=4, le=8192)] = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None  # None: as the model says
    random_weights: bool = False  # the exact architecture without pretraining: speed, memory
    preparation: PreparationSection = PreparationSection()


class DataSection(Section):
    """Where the rows come from, which columns are read, how they are split.

    ``validation_size`` and ``test_size`` follow scikit-learn: a float is a share,
    an int a number of rows. ``labels`` are the label column's values and their names; ``auto``
    takes what stands in the training rows' column (``finetune/data/reviews.py``).
    """

    source: Literal["nsmc", "sample"] | None = None
    path: str | None = None
    test_path: str | None = None
    text_column: str = "document"
    label_column: str = "label"
    labels: dict[str, str] | Literal["auto"] = Field({"0": "부정", "1": "긍정"})
    rows: Count | None = None
    take: Literal["random", "first"] = "random"
    validation_size: Share | Count = 0.25
    test_size: Share | Count | None = None
    seed: Annotated[int, Field(ge=0)] | None = None  # of the splits; None: the recipe's seed
    max_unknown_tokens: Annotated[float, Field(ge=0, le=1)] = 0.3  # of the training texts, a share

    @field_validator("labels", mode="before")
    @classmethod
    def _text_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {str(raw): name for raw, name in value.items()}
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> DataSection:
        faults = []
        if (self.source is None) == (self.path is None):
            faults.append("exactly one of `source` (nsmc, sample) and `path` is needed")
        names = list(self.labels.values()) if self.labels != "auto" else ["one", "other"]
        if len(names) < 2:
            faults.append("`labels` needs at least two classes")
        if len(set(names)) < len(names):
            faults.append("two classes of `labels` have the same name")
        return told_together(self, faults)


class AdapterSection(Section):
    """How the model is adapted; ``finetune/recipes/methods.py`` says what each method is."""

    method: Method = "lora"
    rank: Count = 16
    alpha: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear", "attention"] | list[str] = "all-linear"
    learning_rate_ratio: Annotated[float, Field(ge=1)] | None = None  # lora+ only; None: 16

    @model_validator(mode="after")
    def _fits_the_method(self) -> AdapterSection:
        faults, method = [], self.method
        if self.learning_rate_ratio is not None and method != "lora+":
            faults.append(f"`learning_rate_ratio` belongs to `method` lora+, not to {method}")
        if METHODS[method].changes_base and self.dropout > 0:
            faults.append(f"`dropout` must be 0 with `method` {method}: it would drop base weights")
        return told_together(self, faults)

    @property
    def unused(self) -> list[str]:
        """Keys that were set to something and mean nothing to the method."""
        told = set(type(self).model_fields) - {"method"} - set(METHODS[self.method].keys)
        return sorted(
            name
            for name in told & self.model_fields_set
            if getattr(self, name) != type(self).model_fields[name].default
        )


class TrainingSection(FinetuningSection):
    """The optimisation, named as in ``transformers.TrainingArguments`` where that is short."""

    batch_size: Count = 32
    eval_batch_size: Count = 64
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0  # focal: how little easy rows count
    class_weights: dict[str, Annotated[float, Field(gt=0)]] | Literal["balanced"] | None = None
    padding: Literal["dynamic", "longest", "max_length"] = "dynamic"
    group_by_length: bool = True
    best_metric: Literal["accuracy", "f1_macro", "f1_binary", "loss", *METRICS] = "accuracy"


class ExportSection(Section):
    """What ``kotune export`` checks and writes: what each stage may change, the model card."""

    max_logit_difference: Annotated[float, Field(gt=0)] = 1e-3
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.01  # int8, a share: 0.01 = 1 point
    flip_margin: Annotated[float, Field(ge=0)] = 0.1  # of the two best logits
    max_flipped_above_margin: Annotated[float, Field(ge=0, le=1)] = 0.05  # quantised, a share
    max_unstable_labels: Annotated[float, Field(ge=0, le=1)] = 0.1  # by batch and padding, a share
    merge_base: Literal["auto", "dequantized", "original"] = "auto"  # qlora: what is merged into
    precisions: Annotated[list[ExportPrecision], Field(min_length=1)] | None = None  # int8-dynamic
    search: bool = False  # the fastest within max_accuracy_drop, of ``precisions`` (None: of all)
    device: Literal["cpu", "cuda"] = "cpu"  # what the files are made for
    calibration: Literal["minmax", "entropy", "percentile"] = "percentile"  # static int8
    calibration_rows: Count = 128  # of the training split
    smooth_alpha: Annotated[float, Field(ge=0, lt=1)] = 0.5  # SmoothQuant's; 0: no balancing
    int8_embeddings: bool = False
    sensitivity_rows: Count = 256
    stability_rows: Count = 128
    timing_rows: Count = 50
    check_rows: Count = 1000
    answers: Annotated[int, Field(ge=0, le=256)] = 32  # check rows kept with their logits; 0: none
    max_check_rows: Count = 10_000  # where fewer cannot tell a loss from the allowed one
    opset: Annotated[int, Field(ge=14)] = 17
    license: str | None = None  # of the model card, a hub identifier; None: the base model's own
    language: str | None = None  # of the model card; None: that of the texts' script, if one
    card_example: bool = True  # show a short validation row in the model card


class FinetuneRecipe(Recipe):
    """One run: model, data, adapter, training; ``export`` travels with the run."""

    task: Literal["text-classification"] = "text-classification"
    model: ModelSection = ModelSection()
    data: DataSection
    adapter: AdapterSection = AdapterSection()
    training: TrainingSection = TrainingSection()
    export: ExportSection = ExportSection()

    @model_validator(mode="after")
    def _sections_fit_together(self) -> FinetuneRecipe:
        faults = precision_faults(self.export.precisions, self.export.device)
        if self.data.labels != "auto":
            faults += self._label_faults(self.data.labels)
        if self.training.was_set("focal_gamma") and self.training.loss != "focal":
            faults.append("training.focal_gamma belongs to training.loss=focal")
        return told_together(self, faults)

    def _label_faults(self, labels: dict[str, str]) -> list[str]:
        """Keys that do not go together with the classes there are."""
        faults, training = [], self.training
        if training.best_metric == "f1_binary" and len(labels) != 2:
            faults.append(
                f"training.best_metric=f1_binary needs two classes, data.labels has {len(labels)}: "
                "f1_macro, accuracy or loss"
            )
        if isinstance(training.class_weights, dict):
            unknown = sorted(set(training.class_weights) - {*labels, *labels.values()})
            if unknown:
                faults.append(
                    f"training.class_weights names {', '.join(unknown)}; data.labels are "
                    f"{', '.join(labels)} ({', '.join(labels.values())})"
                )
        return faults

    @property
    def method(self) -> str:
        """The training method, a key of ``finetune/recipes/methods.py``."""
        return self.adapter.method

    @property
    def metric(self) -> str:
        """The figure by which the best evaluation is kept and trials are compared."""
        return self.training.best_metric

    @property
    def base_model(self) -> dict[str, Any]:
        """The arguments of ``models.source.resolve_base``."""
        return {
            "source": self.model.source,
            "revision": self.model.revision,
            "random_weights": self.model.random_weights,
            "seed": self.seed,
        }

    @property
    def unused(self) -> list[str]:
        """Keys that were set to something and change nothing, each with the reason."""
        told = super().unused
        told += [
            f"adapter.{key} is not used by {self.adapter.method}" for key in self.adapter.unused
        ]
        if self.training.padding != "dynamic" and self.training.was_set("group_by_length"):
            told.append(
                f"training.group_by_length is not used with padding={self.training.padding}"
            )
        return told

    def check_processes(self, count: int) -> None:
        """Raise RecipeError where the micro-batch does not divide among so many processes."""
        divide_batch(self.training.batch_size, count)
