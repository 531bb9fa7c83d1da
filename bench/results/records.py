"""results.json as typed, frozen records, of whatever task; what does not fit is named at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from finetune.tasks.registry import TEXT

SCHEMA = "kotune.results/2"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ExportChecks = Literal["passed", "failed"] | None


def _either(*names: str) -> Any:
    """A field that goes by any of ``names`` in the file."""
    return Field(validation_alias=AliasChoices(*names))


class Record(BaseModel):
    """Frozen; keys that a later minor version adds are kept out of the way, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LatencyRound(Record):
    """One round of one process at batch 1; milliseconds per row, preparing the input included.

    ``length_s`` is the audio's, in seconds, where lengths are kept apart.
    """

    process: int
    round: int
    length_s: Positive | None = None
    samples_ms: list[Positive]
    energy_j: dict[str, float] = {}


class ThroughputRound(Record):
    """One round of one process in bulk."""

    process: int
    round: int
    rows: Annotated[int, Field(gt=0)]
    seconds: Positive


class GridCell(Record):
    """One batch size and length in tokens; milliseconds per batch."""

    batch: int
    length: int
    samples_ms: Annotated[list[Positive], Field(min_length=1)]


class ServerTrial(Record):
    """One rate tried: queries a second and the p99 latency they had."""

    rate_per_s: float
    p99_ms: float
    queries: int
    holds: bool


class ServerResult(Record):
    """The highest rate whose p99 held the bound; ``max_batch`` 1 is without batching."""

    max_batch: int
    bound_ms: float
    rate_per_s: float
    p99_ms: float | None = None
    trials: list[ServerTrial] = []


class WarmUp(Record):
    """How a process was warmed up: calls, and whether their time had become stable."""

    calls: int
    seconds: float
    stable: bool


class LoadRound(Record):
    """What other programs took while one round ran."""

    process: int
    block: int = 0
    round: int
    foreign_cores: float | None = None
    foreign_gpu_percent: float | None = None
    foreign_gpu_processes: int | None = None


class Parameters(Record):
    """How many numbers the model has, and how many were trained."""

    total: int
    trainable: int


class Variant(Record):
    """One <method>-<runtime>-<precision> as measured.

    ``predicted`` are class ids, ``transcripts`` texts of the test rows; both may be empty.
    ``group`` is that of a model with a baseline of its own, of which no accuracy is claimed.
    ``export_checks`` is the verdict of the artifact it was loaded from; None where none was.
    """

    name: str
    method: str
    runtime: str
    precision: str
    status: Literal["ok", "failed"]
    reason: str | None = None
    run: str | None = None
    device: str = "cpu"
    description: str = ""
    export_checks: ExportChecks = None
    group: str | None = None
    predicted: list[int] = []
    transcripts: list[str] = []
    predicted_from: Literal["run", "worker"] | None = None
    latency: list[LatencyRound] = []
    throughput: list[ThroughputRound] = []
    first_call_ms: list[float] = []
    load_s: list[float] = []
    warm_up: list[WarmUp] = []
    peak_memory_bytes: list[int] = []
    peak_vram_bytes: list[int] = []
    device_bytes: list[int] = []
    grid: list[GridCell] = []
    server: list[ServerResult] = []
    recipe: str | None = None
    seed: int | None = None
    size_bytes: int | None = None
    adapter_bytes: int | None = None
    parameters: Parameters | None = None
    training_time_s: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _checks_were_words(cls, given: Any) -> Any:
        """Files older than the key say in the description that the export's checks failed."""
        if isinstance(given, dict) and "export_checks" not in given:
            return {**given, "export_checks": _told_checks(given.get("description"))}
        return given


class Data(Record):
    """The rows everything was measured on."""

    description: str = ""
    fingerprint: str | None = None
    train_rows: int | None = None
    validation_rows: int | None = None
    test_rows: int | None = None
    latency_rows: int | None = None
    summary: dict[str, Any] = {}


class CurvePoint(Record):
    """One line of a training log."""

    step: int
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    eval_accuracy: float | None = None
    eval_wer: float | None = None


class LadderStep(Record):
    """One stage of an artifact checked against the stage before it, as its manifest has it."""

    step: Annotated[str, _either("step", "name")]
    max_logit_difference: Annotated[
        float | None, _either("max_logit_difference", "largest_logit_difference")
    ] = None
    mean_logit_difference: float | None = None
    flipped: int | None = None
    flipped_over_margin: Annotated[
        int | None, _either("flipped_over_margin", "flipped_above_margin")
    ] = None
    rows: int | None = None
    accuracy: float | None = None
    f1_macro: float | None = None
    wer: float | None = None
    changed: int | None = None
    passed: bool = True
    failure: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _failure_is_not_passed(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("failure"):
            return {"passed": False, **given}
        return given


class Results(Record):
    """A whole results.json.

    ``truth`` (class ids) or ``references`` (texts) of the test rows may be empty, and so may
    ``seen_in_training``. ``baseline`` is what the trained models' variants are compared with,
    ``baselines`` that of each group beside them.
    """

    name: str
    task: str = TEXT
    created: str
    commands: list[str] = []
    note: str | None = None
    environment: dict[str, Any] = {}
    labels: list[str] = []
    data: Data = Data()
    truth: list[int] = []
    references: list[str] = []
    seen_in_training: list[int] = []
    baseline: str
    baselines: dict[str, str] = {}
    settings: dict[str, Any] = {}
    load: list[LoadRound] = []
    variants: Annotated[list[Variant], Field(min_length=1)]
    training: dict[str, dict[str, Any]] = {}
    curves: dict[str, list[CurvePoint]] = {}
    ladders: dict[str, list[LadderStep]] = {}

    @model_validator(mode="after")
    def _check_joints(self) -> Self:
        faults = _joint_faults(self)
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _told_checks(description: Any) -> str | None:
    told = isinstance(description, str) and "its export checks FAILED" in description
    return "failed" if told else None


def _joint_faults(results: Results) -> list[str]:
    """What the fields say against one another."""
    names = [variant.name for variant in results.variants]
    faults = [
        f"variant {name!r} occurs twice" for name in sorted(set(names)) if names.count(name) > 1
    ]
    faults += [
        f"baseline {name!r} is not among the variants"
        for name in (results.baseline, *results.baselines.values())
        if name not in names
    ]
    if results.task == TEXT:
        faults += _text_faults(results)
    faults += [
        f"{one.name}: {len(one.transcripts)} transcripts for {len(results.references)} recordings"
        for one in results.variants
        if len(one.transcripts) not in (0, len(results.references))
    ]
    return faults


def _text_faults(results: Results) -> list[str]:
    rows, classes = len(results.truth), range(len(results.labels))
    faults = [] if results.labels else ["labels: there is no class"]
    if len(results.seen_in_training) not in (0, rows):
        faults.append(f"{len(results.seen_in_training)} seen_in_training for {rows} truth")
    for name, ids in [("truth", results.truth), *((v.name, v.predicted) for v in results.variants)]:
        if len(ids) not in (0, rows):
            faults.append(f"{name}: {len(ids)} predictions for {rows} rows")
        if ids and not (min(ids) in classes and max(ids) in classes):
            faults.append(f"{name}: class ids must lie in 0 … {len(classes) - 1}")
    return faults
