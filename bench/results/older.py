"""results.json as earlier versions wrote it: checked as it was, then taken over into today's.

``kotune.results/1`` is today's without a task, which was text. ``kotune.speech-results/1`` was
speech's own: one process a variant, latency by the length of the audio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bench.results.records import (
    CurvePoint,
    ExportChecks,
    LadderStep,
    Parameters,
    Positive,
    Record,
    Results,
)
from finetune.tasks.registry import SPEECH


class SpeechVariant(Record):
    """One variant; ``latency`` is length in seconds → rounds → milliseconds, from file to text.

    ``group`` is the run's method, or BASE. ``transcripts`` are of the test recordings, and
    empty for random weights.
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


class SpeechRun(Record):
    """The one run that was measured."""

    name: str
    method: str
    parameters: Parameters


class SpeechResults(Record):
    """A whole results.json; ``baselines`` is group → variant, the first group the trained one."""

    name: str
    created: str
    note: str | None = None
    commands: list[str] = Field([])
    environment: dict[str, Any] = Field({})
    settings: dict[str, Any]
    run: SpeechRun
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


def _read_speech(content: dict[str, Any]) -> Results:
    old = SpeechResults.model_validate(content)
    trained, baseline = next(iter(old.baselines.items()))
    facts = ("name", "created", "note", "commands", "environment", "settings", "training")
    parts = old.model_dump(include={*facts, "curves", "ladders", "references"})
    return Results.model_validate(
        {
            **parts,
            "task": SPEECH,
            "baseline": baseline,
            "baselines": {group: name for group, name in old.baselines.items() if group != trained},
            "variants": [_take_over(one, old.run, one.group == trained) for one in old.variants],
        }
    )


def _take_over(one: SpeechVariant, run: SpeechRun, trained: bool) -> dict[str, Any]:
    """A variant in today's terms; all of it was measured in one process."""
    same = ("name", "runtime", "precision", "description", "status", "reason", "size_bytes")
    checks = {"export_checks": one.export_checks} if one.export_checks else {}
    figures = ("load_s", "first_call_ms", "peak_memory_bytes")
    own = {"run": run.name, "parameters": run.parameters} if trained else {"group": one.group}
    return {
        **{name: getattr(one, name) for name in same},
        **own,
        **checks,
        "method": one.group if trained else "full",
        "transcripts": one.transcripts,
        "latency": [
            {"process": 0, "round": number, "length_s": float(length), "samples_ms": samples}
            for length, rounds in one.latency.items()
            for number, samples in enumerate(rounds)
        ],
        **{name: [] if getattr(one, name) is None else [getattr(one, name)] for name in figures},
    }


READERS: dict[str, Callable[[dict[str, Any]], Results]] = {
    "kotune.results/1": Results.model_validate,
    "kotune.speech-results/1": _read_speech,
}
