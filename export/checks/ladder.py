"""The ladder of checks: each stage of an export against an earlier one, on the task's rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from finetune.core.errors import GateError

Kind = Literal["reference", "reported", "float", "quantized"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rung: a stage on ``rows`` rows, compared with the stage ``before``.

    A task adds its figures. ``failure`` says which limit was crossed.
    """

    name: str
    kind: Kind
    before: str | None
    rows: int
    failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """One line for the reader."""
        line = f"{self.name:<20} {self.summary()}"
        return f"{line}  FAILED: {self.failure}" if self.failure else line

    def summary(self) -> str:
        """The figures in a few words."""
        raise NotImplementedError


class Checks(Protocol):
    """What a task measures on its check rows; its answers are what its model gives for them."""

    rows: Any

    def measure(
        self,
        name: str,
        kind: Kind,
        answers: Any,
        before: Step | None,
        earlier: Any,
        first: Any,
    ) -> Step:
        """A stage's figures, judged, against the step ``before`` and its answers ``earlier``.

        ``first`` are the answers of the first stage; None where this is it.
        """

    def limits(self) -> str:
        """What stages may change, in one clause."""


@dataclass
class Ladder:
    """The rungs climbed so far; a failed one is kept and told at the end by ``gate``."""

    checks: Checks
    report: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    other_failures: list[tuple[str, str]] = field(default_factory=list)
    _answers: dict[str, Any] = field(default_factory=dict)

    def climb(self, name: str, kind: Kind, answers: Any, before: str | None = None) -> Step:
        """Add a stage with its answers to the first check rows; ``before`` is a stage's name."""
        first = self._answers[self.steps[0].name] if self.steps else None
        rung = None if before is None else self._step(before)
        earlier = None if rung is None else self._answers[before]
        step = self.checks.measure(name, kind, answers, rung, earlier, first)
        self.steps.append(step)
        self._answers[name] = answers
        self.report(step.describe())
        return step

    def fail(self, name: str, failure: str) -> None:
        """Keep a limit crossed outside the steps, such as a file's stability."""
        self.other_failures.append((name, failure))
        self.report(f"{name:<20} FAILED: {failure}")

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(name, which limit) of everything that crossed one."""
        failed = [(step.name, step.failure) for step in self.steps if step.failure]
        return failed + self.other_failures

    def answers(self, name: str) -> Any:
        """The answers of a stage climbed before."""
        return self._answers[name]

    def _step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def gate(self, kept: object) -> None:
        """Raise GateError naming every failed step; ``kept`` is where the files are."""
        if self.failures:
            raise GateError(
                "the export does not agree with the trained model",
                received="\n            ".join(f"{name}: {told}" for name, told in self.failures),
                allowed=self.checks.limits(),
                next_step=f"inspect {kept}/manifest.json; limits are export.* of the recipe",
            )
