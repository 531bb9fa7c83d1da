"""results.json as typed, frozen records; whatever does not fit is named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from finetune.core.errors import FolderError
from finetune.core.files import read_json

SCHEMA = "kotune.results/1"
FAULTS_SHOWN = 8
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ExportChecks = Literal["passed", "failed"] | None
R = TypeVar("R", bound=BaseModel)


def _either(*names: str) -> Any:
    """A field that goes by any of ``names`` in the file."""
    return Field(validation_alias=AliasChoices(*names))


class Record(BaseModel):
    """Frozen; keys that a later minor version adds are kept out of the way, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LatencyRound(Record):
    """One round of one process at batch 1; milliseconds per review, tokenisation included."""

    process: int
    round: int
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
    """One <method>-<runtime>-<precision> as measured; ``predicted`` may be empty.

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
    predicted: list[int] = []
    latency: list[LatencyRound] = []
    throughput: list[ThroughputRound] = []
    first_call_ms: list[float] = []
    load_s: list[float] = []
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
    """The reviews everything was measured on."""

    description: str
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
    """A whole results.json; ``truth`` and ``seen_in_training`` may be empty."""

    name: str
    created: str
    commands: list[str] = []
    note: str | None = None
    environment: dict[str, Any] = {}
    labels: list[str]
    data: Data
    truth: list[int] = []
    seen_in_training: list[int] = []
    baseline: str
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


def read_results(folder: Path) -> Results:
    """The results of a report folder, or of its results.json; FolderError names every fault."""
    return read_records(folder, Results, SCHEMA)


def read_records(folder: Path, kind: type[R], schema: str) -> R:
    """A folder's results.json, or the file itself, as records; FolderError names every fault."""
    path = folder if folder.is_file() else folder / "results.json"
    if not folder.exists():
        raise FolderError(
            "not a report folder", received=folder, next_step="kotune bench SUITE_OR_FOLDERS"
        )
    content = read_json(path, schema)
    try:
        return kind.model_validate(content)
    except ValidationError as fault:
        raise FolderError(
            f"{path} does not follow {schema}",
            received=_describe_faults(fault),
            next_step="kotune bench, which writes the file anew",
        ) from fault


def _joint_faults(results: Results) -> list[str]:
    """What the fields say against one another."""
    names = [variant.name for variant in results.variants]
    rows, classes = len(results.truth), range(len(results.labels))
    faults = [
        f"variant {name!r} occurs twice" for name in sorted(set(names)) if names.count(name) > 1
    ]
    if results.baseline not in names:
        faults.append(f"baseline {results.baseline!r} is not among the variants")
    if len(results.seen_in_training) not in (0, rows):
        faults.append(f"{len(results.seen_in_training)} seen_in_training for {rows} truth")
    for name, ids in [("truth", results.truth), *((v.name, v.predicted) for v in results.variants)]:
        if len(ids) not in (0, rows):
            faults.append(f"{name}: {len(ids)} predictions for {rows} rows")
        if ids and not (min(ids) in classes and max(ids) in classes):
            faults.append(f"{name}: class ids must lie in 0 … {len(classes) - 1}")
    return faults


def _describe_faults(fault: ValidationError) -> str:
    lines = [
        " -> ".join(map(str, error["loc"])) + ": " + error["msg"] if error["loc"] else error["msg"]
        for error in fault.errors()
    ]
    more = [f"and {len(lines) - FAULTS_SHOWN} more"] if len(lines) > FAULTS_SHOWN else []
    return "; ".join(lines[:FAULTS_SHOWN] + more)
