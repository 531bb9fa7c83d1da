"""run.json and metrics.json as a finished run holds them, whatever its task."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from finetune.core.documents import Document
from finetune.tasks.registry import TEXT

RUN_SCHEMA = "kotune.run/1"
METRICS_SCHEMA = "kotune.metrics/1"
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class BaseRecord(Document):
    """The base model that a run was trained from; ``source`` is what the recipe said."""

    source: str
    revision: str | None = None
    local_only: bool = True
    random_weights: bool = False
    seed: int = 0
    weights_sha256: str | None = None


class ParameterRecord(Document):
    """How many numbers the model has, and how many of them were trained."""

    total: int
    trainable: int


class SignRecord(Document):
    """What was warned of (finetune/checks/signs.py); a newer kotune may know further codes."""

    code: str
    message: str
    figures: dict[str, Any] = Field({})


class Course(Document):
    """Starts, processes, and what lack of memory changed."""

    starts: int
    processes: int
    micro_batch: int
    gradient_accumulation_steps: int
    out_of_memory: tuple[dict[str, int], ...] = ()


class RunRecord(Document):
    """run.json; what only one kind of task has is None of the others.

    ``files`` is relative name → SHA-256. Of text: ``problem_type``, ``padding_side`` and
    ``preparation``; of speech, whose labels are characters: the rate in Hz, how long files are
    cut, and whether the output layer is new.
    """

    name: str
    task: str = TEXT
    method: str
    base: BaseRecord
    device: str | None = None
    precision: str | None = None
    evaluation_precision: str | None = None
    threads: int | None = None
    data_fingerprint: str
    weights_bytes: int | None = None
    parameters: ParameterRecord
    labels: tuple[str, ...]
    problem_type: str | None = None
    max_length: int | None
    padding_side: str | None = None
    preparation: dict[str, Any] | None = None
    sampling_rate_hz: int | None = None
    chunk_s: Seconds | None = None
    stride_s: Seconds | None = None
    new_head: bool = False
    signs: tuple[SignRecord, ...] = ()
    training_time_s: Seconds
    steps: int
    step_times_s: tuple[Seconds, ...] = ()
    peak_training_memory_bytes: int | None = None
    peak_training_vram_bytes: int | None = None
    training: Course | None = None
    files: dict[str, str]


class SplitMetrics(Document):
    """Figures of one split, those that its task has.

    Text keeps them of ``all`` rows and, where a split knows, of those ``unseen`` in training.
    """

    all: dict[str, Any] | None = None
    unseen: dict[str, Any] | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """Name → figure, over all rows of the split."""
        return self.all if self.all is not None else self.model_extra


class HistoryPoint(Document):
    """One line of the training's log."""

    step: int
    epoch: float | None = None


class RunMetrics(Document):
    """metrics.json; ``before`` is of a pretrained model before its training, where measured."""

    before: dict[str, SplitMetrics] = Field({})
    validation: SplitMetrics
    test: SplitMetrics
    history: tuple[HistoryPoint, ...] = ()
    best: dict[str, int | float | None] = Field({})

    def split(self, name: str) -> dict[str, Any]:
        """Figures of ``validation`` or ``test`` over all of its rows."""
        return getattr(self, name).figures
