"""What recipes of every task have in common: the smallest types, the base of a recipe, a training.

Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from finetune.core.plugins import plugin_names
from finetune.core.preparation import Preparation
from finetune.recipes.metrics import greater_is_better
from finetune.recipes.schedules import schedule_faults

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
    *plugin_names("kotune.quantizations"),
]


CPU_ONLY = ("int8-dynamic", "int8-static")  # integer operators without CUDA kernels
S = TypeVar("S")


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
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def told_together(section: S, faults: Iterable[str]) -> S:
    """``section``; ValueError with every fault, a line each, where there are some."""
    told = list(faults)
    if told:
        raise ValueError("\n".join(told))
    return section


def precision_faults(precisions: Sequence[str] | None, device: str) -> list[str]:
    """Files of an export that no machine runs on CUDA."""
    if device != "cuda":
        return []
    return [
        f"export.precisions {one} runs on the CPU only, and export.device is cuda: fp16 or fp32"
        for one in precisions or ()
        if one in CPU_ONLY or one.startswith("openvino")
    ]


def _plain_types(annotation: Any) -> set[Any]:
    """The types that an annotation is made of: ``int | None`` is int and None."""
    parts = get_args(annotation)
    return set().union(*map(_plain_types, parts)) if parts else {annotation}


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _tell_numbers_from_switches(cls, value: Any, info: ValidationInfo) -> Any:
        """``answers: true`` is no 1: pydantic takes a boolean for a number."""
        kinds = _plain_types(cls.model_fields[info.field_name].annotation)
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise ValueError("takes a number, not true or false")
        return value

    def was_set(self, name: str) -> bool:
        """Whether the recipe gives the key a value other than its default."""
        field = type(self).model_fields[name]
        default = field.default_factory() if field.default_factory else field.default
        return name in self.model_fields_set and getattr(self, name) != default


class TextSection(Section):
    """What is done to every text before it becomes tokens; ``finetune/core/preparation.py``."""

    unicode: Literal["NFC", "NFKC", "none"] = "NFC"  # macOS writes Hangul as single letters (NFD)
    casing: Literal["keep", "lower"] = "keep"  # keep: as the tokenizer does
    whitespace: Literal["fold", "keep"] = "fold"

    @property
    def of_texts(self) -> Preparation:
        """The same as a function of a text."""
        return Preparation(self.unicode, self.casing, self.whitespace)


class OptimisationSection(Section):
    """The optimisation, in the names of ``transformers.TrainingArguments`` where there is one."""

    epochs: Positive = 3
    max_steps: Count | None = None  # optimizer steps; None: as many as ``epochs`` have
    gradient_accumulation_steps: Count = 1
    gradient_checkpointing: bool = False
    learning_rate: Positive = 2e-4
    weight_decay: NotNegative = 0.01
    max_grad_norm: NotNegative = 1.0
    warmup_steps: Whole = 0
    warmup_ratio: Probability = 0.06
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
    precision: Precision = "auto"
    device: Device = "auto"
    tf32: bool = False  # fp32 products of the steps in TF32, on a GPU of 2020 or later
    dataloader_workers: Whole = 0  # processes that make batches beside the training
    cpu_kernels: Literal["auto", "library"] = "auto"  # attention, dropout, packed frozen weights
    cpu_memory: Literal["auto", "compact", "fast"] = "auto"  # what freed blocks cost: holes or time
    eval_steps: Count | None = None  # None: once an epoch
    save_steps: Count | None = None  # None: every five minutes; at each best evaluation anyway
    logging_steps: Count = 25

    @model_validator(mode="after")
    def _keys_fit_together(self) -> OptimisationSection:
        faults = list(schedule_faults(self.scheduler, self.scheduler_kwargs, self.learning_rate))
        if self.precision == "fp16" and self.device == "cpu":
            faults.append("training.precision=fp16 needs CUDA; on a CPU use bf16 or fp32")
        return told_together(self, faults)


class FinetuningSection(OptimisationSection):
    """What is added where a pretrained model is adapted and the best evaluation is kept."""

    base_precision: Literal["auto", "fp32"] = "auto"  # frozen weights: bf16 where precision is
    early_stopping_patience: Count | None = None
    early_stopping_threshold: NotNegative = 0.0


class SweepSection(Section):
    """How ``kotune sweep`` searches keys of the recipe; ``trials`` may grow from call to call.

    A parameter is a list of values, or text: ``4,8,16``, ``0.0:0.1``, ``1e-4:1e-3:log``.
    """

    trials: Count = 20
    parameters: Annotated[dict[str, list[Any] | str], Field(min_length=1)]
    pruner: Literal["median", "hyperband", "none"] = "median"
    startup_trials: Count = 5  # drawn at random; the median prunes none before so many are done
    output: Folder = "sweeps/{name}"


class Recipe(Section):
    """What every recipe has: its task, its name, what is drawn, where the result goes.

    With ``seeds`` it is one run per seed, and ``seed`` means nothing
    (``finetune/studies/seeds.py``). A task adds its sections, ``training`` among them.
    """

    task: str  # a key of finetune/tasks/registry.py
    name: Annotated[str, Field(pattern=NAME)] = "run"
    seed: Whole = 42
    seeds: Annotated[list[Whole], Field(min_length=1)] | None = None
    output: Folder = "runs/{name}"
    sweep: Annotated[SweepSection | None, Field(exclude=True)] = None  # no part of a run
    if TYPE_CHECKING:
        training: OptimisationSection  # each task's own, at its place among its sections

    @model_validator(mode="after")
    def _seeds_differ(self) -> Recipe:
        if self.seeds and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("`seeds` names a seed twice")
        return self

    @property
    def folder(self) -> str:
        """The folder this recipe writes."""
        return self.output.format(name=self.name)

    @property
    def method(self) -> str:
        """The training method, a key of ``finetune/recipes/methods.py``."""
        return "full"

    @property
    def metric(self) -> str:
        """The figure by which the best evaluation is kept and trials are compared."""
        return "loss"

    @property
    def greater_is_better(self) -> bool:
        """Whether more of ``metric`` is better."""
        return greater_is_better(self.metric)

    @property
    def base_model(self) -> dict[str, Any] | None:
        """The arguments of ``models.source.resolve_base``; None where it begins from nothing."""
        raise NotImplementedError

    @property
    def unused(self) -> list[str]:
        """Keys that were set to something and change nothing, each with the reason."""
        training = self.training
        told = []
        if training.warmup_steps and training.was_set("warmup_ratio"):
            told.append("training.warmup_ratio is not used beside training.warmup_steps")
        if training.tf32 and training.device == "cpu":
            told.append("training.tf32 is not used on a CPU")
        if getattr(training, "early_stopping_patience", 1) is None and training.was_set(
            "early_stopping_threshold"
        ):
            told.append("training.early_stopping_threshold is not used without a patience")
        return told

    def check_processes(self, count: int) -> None:
        """Raise RecipeError where so many processes cannot share a batch."""
