"""results.json of a speech benchmark as typed, frozen records; what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bench.results.records import (
    CurvePoint,
    ExportChecks,
    LadderStep,
    Positive,
    Record,
    read_records,
)

SCHEMA = "kotune.speech-results/1"
BASE = "base"  # the group of the base size with random weights


class SpeechVariant(Record):
    """One variant; ``latency`` is length in seconds → rounds → milliseconds, from file to text.

    ``group`` is the run's method, or BASE. ``transcripts`` are of the test recordings, and
    empty for random weights. ``export_checks`` is the verdict of the artifact it was loaded from.
    """

    name: str
    group: str
    runtime: str
    precision: str
    description: str = ""
    export_checks: ExportChecks = None
    status: Literal["ok", "failed"]
    reason: str | None = None
    size_bytes: Annotated[int, Field(gt=0)]
    load_s: float | None = None
    first_call_ms: float | None = None
    peak_memory_bytes: int | None = None
    latency: dict[str, list[list[Positive]]] = Field({})
    transcripts: list[str] = Field([])


class SpeechResults(Record):
    """A whole results.json; ``baselines`` is group → variant, the first group the trained one."""

    name: str
    created: str
    note: str | None = None
    commands: list[str] = Field([])
    environment: dict[str, Any] = Field({})
    settings: dict[str, Any]
    run: dict[str, Any]
    baselines: Annotated[dict[str, str], Field(min_length=1)]
    references: list[str]
    variants: Annotated[list[SpeechVariant], Field(min_length=1)]
    training: dict[str, dict[str, Any]]
    curves: dict[str, list[CurvePoint]]
    ladders: dict[str, list[LadderStep]]

    @model_validator(mode="after")
    def _check_joints(self) -> Self:
        names = [one.name for one in self.variants]
        faults = [f"variant {one!r} occurs twice" for one in set(names) if names.count(one) > 1]
        faults += [
            f"baseline {one!r} is not among the variants"
            for one in self.baselines.values()
            if one not in names
        ]
        faults += [
            f"{one.name}: {len(one.transcripts)} transcripts for {len(self.references)} recordings"
            for one in self.variants
            if len(one.transcripts) not in (0, len(self.references))
        ]
        if faults:
            raise ValueError("; ".join(sorted(faults)))
        return self


def read_speech_results(folder: Path) -> SpeechResults:
    """The results of a speech report's folder; FolderError names every fault."""
    return read_records(folder, SpeechResults, SCHEMA)
