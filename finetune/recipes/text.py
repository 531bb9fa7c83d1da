"""The typed recipe: what a fine-tuning or pretraining job is, before anything runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from finetune.core.preparation import Preparation
from finetune.recipes.methods import METHODS

Method = Literal[*METHODS]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]
ExportPrecision = Literal[
    "fp32",
    "int8-dynamic",
    "int8-static",
    "int8-weight",
    "int4",
    "fp16",
    "openvino-fp32",
    "openvino-bf16",
    "openvino-int8",
]


def _fill_in_name(value: str) -> str:
    """Refuse a template that cannot be filled in."""
    try:
        value.format(name="run")
    except (LookupError, ValueError, AttributeError) as fault:
        raise ValueError("only {name} may stand in braces, as in runs/{name}") from fault
    return value


Folder = Annotated[str, AfterValidator(_fill_in_name)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class TextSection(Section):
    """What is done to every text before it becomes tokens; ``finetune/core/preparation.py``."""

    unicode: Literal["NFC", "NFKC", "none"] = "NFC"  # macOS writes Hangul as single letters (NFD)
    casing: Literal["keep", "lower"] = "keep"  # keep: as the tokenizer does
    whitespace: Literal["fold", "keep"] = "fold"

    @property
    def of_texts(self) -> Preparation:
        """The same as a function of a text."""
        return Preparation(self.unicode, self.casing, self.whitespace)


class PreparationSection(TextSection):
    """The same, and where a text is cut that is longer than ``max_length``."""

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
    an int a number of rows.
    """

    source: Literal["nsmc", "sample"] | None = None
    path: str | None = None
    test_path: str | None = None
    text_column: str = "document"
    label_column: str = "label"
    labels: dict[str, str] = {"0": "부정", "1": "긍정"}
    rows: Count | None = None
    take: Literal["random", "first"] = "random"
    validation_size: Share | Count = 0.25
    test_size: Share | Count | None = None
    seed: Annotated[int, Field(ge=0)] | None = None  # of the splits; None: the recipe's seed

    @field_validator("labels", mode="before")
    @classmethod
    def _text_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {str(raw): name for raw, name in value.items()}
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> DataSection:
        if (self.source is None) == (self.path is None):
            raise ValueError("exactly one of `source` (nsmc, sample) and `path` is needed")
        if len(self.labels) < 2:
            raise ValueError("`labels` needs at least two classes")
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError("two classes of `labels` have the same name")
        return self


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
        if self.learning_rate_ratio is not None and self.method != "lora+":
            raise ValueError(f"`learning_rate_ratio` belongs to lora+, not to {self.method}")
        if METHODS[self.method].changes_base and self.dropout > 0:
            raise ValueError(f"`dropout` must be 0 with {self.method}: it would drop base weights")
        return self

    @property
    def unused(self) -> list[str]:
        """Keys that were set to something and mean nothing to the method."""
        told = set(type(self).model_fields) - {"method"} - set(METHODS[self.method].keys)
        return sorted(
            name
            for name in told & self.model_fields_set
            if getattr(self, name) != type(self).model_fields[name].default
        )


class TrainingSection(Section):
    """The optimisation, named as in ``transformers.TrainingArguments`` where that is short."""

    epochs: Annotated[float, Field(gt=0)] = 3
    max_steps: Count | None = None
    batch_size: Count = 32
    gradient_accumulation_steps: Count = 1
    gradient_checkpointing: bool = False
    eval_batch_size: Count = 64
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.06
    scheduler: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = "linear"
    scheduler_kwargs: dict[str, Any] = {}
    optimizer: Literal[
        "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor"
    ] = "adamw_torch_fused"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Precision = "auto"
    device: Device = "auto"
    base_precision: Literal["auto", "fp32"] = "auto"  # frozen weights: bf16 where precision is
    cpu_kernels: Literal["auto", "library"] = "auto"  # attention, dropout, packed frozen weights
    cpu_memory: Literal["auto", "compact", "fast"] = "auto"  # what freed blocks cost: holes or time
    padding: Literal["dynamic", "longest", "max_length"] = "dynamic"
    group_by_length: bool = True
    eval_steps: Count | None = None  # None: once an epoch
    save_steps: Count | None = None  # None: every five minutes; at each best evaluation anyway
    logging_steps: Count = 25
    early_stopping_patience: Count | None = None
    early_stopping_threshold: Annotated[float, Field(ge=0)] = 0.0
    best_metric: Literal["accuracy", "f1_macro", "f1_binary", "loss"] = "accuracy"


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
    max_check_rows: Count = 10_000  # where fewer cannot tell a loss from the allowed one
    opset: Annotated[int, Field(ge=14)] = 17
    license: str | None = None  # of the model card, a hub identifier; None: the base model's own
    language: str | None = None  # of the model card; None: that of the texts' script, if one
    card_example: bool = True  # show a short validation row in the model card


class SweepSection(Section):
    """How ``kotune sweep`` searches keys of the recipe; ``trials`` may grow from call to call.

    A parameter is a list of values, or text: ``4,8,16``, ``0.0:0.1``, ``1e-4:1e-3:log``.
    """

    trials: Count = 20
    parameters: Annotated[dict[str, list[Any] | str], Field(min_length=1)]
    pruner: Literal["median", "hyperband", "none"] = "median"
    startup_trials: Count = 5  # drawn at random; the median prunes none before so many are done
    output: Folder = "sweeps/{name}"


class FinetuneRecipe(Section):
    """One run: model, data, adapter, training; ``export`` travels with the run.

    With ``seeds`` it is one run per seed, and ``seed`` means nothing
    (``finetune/studies/seeds.py``).
    """

    task: Literal["text-classification"] = "text-classification"  # see finetune/recipes/kinds.py
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    seed: Annotated[int, Field(ge=0)] = 42
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    output: Folder = "runs/{name}"
    model: ModelSection = ModelSection()
    data: DataSection
    adapter: AdapterSection = AdapterSection()
    training: TrainingSection = TrainingSection()
    export: ExportSection = ExportSection()
    sweep: Annotated[SweepSection | None, Field(exclude=True)] = None  # no part of a run

    @model_validator(mode="after")
    def _fits_together(self) -> FinetuneRecipe:
        if self.training.precision == "fp16" and self.training.device == "cpu":
            raise ValueError("training.precision=fp16 needs CUDA; on a CPU use bf16 or fp32")
        if self.seeds and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("`seeds` names a seed twice")
        return self

    @property
    def folder(self) -> str:
        """The run folder this recipe writes."""
        return self.output.format(name=self.name)


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


class PretrainSchedule(Section):
    """Masked-language modelling by token budget."""

    epochs: Annotated[float, Field(gt=0)] = 10
    max_steps: Count | None = None
    tokens_per_batch: Count = 8192
    max_length: Annotated[int, Field(ge=8)] = 128
    mask_probability: Share = 0.15
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None  # None: the model's own
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    scheduler: Literal["linear", "cosine", "constant_with_warmup", "warmup_stable_decay"] = "linear"
    decay_ratio: Share = 0.2  # warmup_stable_decay: the share of all steps that cools down
    precision: Precision = "auto"
    device: Device = "auto"
    logging_steps: Count = 50
    save_steps: Count = 200
    eval_steps: Count = 400


class PretrainRecipe(Section):
    """Domain pretraining: from scratch (``model: null``) or continued from a model."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "pretrain"
    seed: Annotated[int, Field(ge=0)] = 42
    output: Folder = "runs/{name}"
    corpus: PretrainCorpus
    model: str | None = None
    revision: str | None = None
    tokenizer: TokenizerSection = TokenizerSection()
    architecture: ArchitectureSection = ArchitectureSection()
    training: PretrainSchedule = PretrainSchedule()

    @model_validator(mode="after")
    def _fits_together(self) -> PretrainRecipe:
        size, training = self.architecture, self.training
        if size.hidden_size % size.heads:
            raise ValueError("architecture.hidden_size must be a multiple of architecture.heads")
        if self.model is None and training.max_length > size.max_positions - 2:
            raise ValueError("training.max_length is at most architecture.max_positions - 2")
        if training.max_length > training.tokens_per_batch:
            raise ValueError("training.tokens_per_batch must hold one text of training.max_length")
        return self

    @property
    def folder(self) -> str:
        """The model folder this recipe writes."""
        return self.output.format(name=self.name)
