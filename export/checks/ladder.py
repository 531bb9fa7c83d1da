"""The ladder of checks: each stage of an export against an earlier one, on the task's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from export.checks.edges import Edge, EdgeStep, compare_edges, find_clear_margin, find_edge_failure
from export.checks.loss import Again, Errors, LossJudge, points
from finetune.core.errors import GateError

Kind = Literal["reference", "reported", "float", "quantized"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rung: a stage on ``rows`` rows, compared with the stage ``before``.

    A task adds its figures. ``worse_by`` is what a quantised stage loses, a share, with its
    interval on ``compared_rows`` rows; ``note`` says where these cannot tell whether it is more
    than allowed, ``rows_needed`` how many about would. ``edges`` are the made-up rows.
    ``failure`` says which limit was crossed.
    """

    name: str
    kind: Kind
    before: str | None
    rows: int
    largest_logit_difference: float | None = None
    worse_by: float | None = None
    worse_by_interval: tuple[float, float] | None = None
    compared_rows: int | None = None
    rows_needed: int | None = None
    edges: EdgeStep | None = None
    note: str | None = None
    failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """One line for the reader."""
        line = f"{self.name:<20} {self.summary()}"
        line = f"{line}  {self.note}" if self.note else line
        return f"{line}  FAILED: {self.failure}" if self.failure else line

    def summary(self) -> str:
        """The figures in a few words."""
        raise NotImplementedError


class Checks(Errors, Protocol):
    """What a task measures on its check rows; its answers are what its model gives for them."""

    rows: Sequence[Any]
    edges: Sequence[Edge]
    max_logit_difference: float  # of float stages
    flip_margin: float  # between the two best logits

    def measure(
        self, name: str, kind: Kind, answers: Any, before: str | None, earlier: Any, first: Any
    ) -> Step:
        """A stage's figures against the answers ``earlier`` of the stage ``before``.

        ``first`` are the answers of the first stage; None where this is it.
        """

    def is_finite(self, answers: Any) -> bool:
        """Whether every logit is a finite number."""

    def find_failure(self, step: Step) -> str | None:
        """Which limit of the task the step crosses, with its figure; None where it crosses none.

        What a quantised stage loses is judged elsewhere (``export/checks/loss.py``).
        """

    def split_logits(self, answers: Any) -> list[np.ndarray]:
        """The logits (n, labels) of each row."""

    def tabulate(self, step: Step, answers: Any, reference: Any) -> dict[str, Any]:
        """A candidate's figures for the search's table, its differences against ``reference``."""


@dataclass
class Ladder:
    """The rungs climbed so far; a failed one is kept and told at the end by ``gate``."""

    checks: Checks
    report: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    other_failures: list[tuple[str, str]] = field(default_factory=list)
    _answers: dict[str, Any] = field(default_factory=dict)
    _edges: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.judge = LossJudge(self.checks, self.report)

    def climb(
        self,
        name: str,
        kind: Kind,
        answers: Any,
        before: str | None = None,
        *,
        edges: Any = None,
        again: Again | None = None,
    ) -> Step:
        """Add a stage; the arguments are those of ``weigh``."""
        step = self.weigh(name, kind, answers, before, edges=edges, again=again)
        self.steps.append(step)
        self._answers[name] = answers
        self.report(step.describe())
        return step

    def weigh(
        self,
        name: str,
        kind: Kind,
        answers: Any,
        before: str | None = None,
        *,
        edges: Any = None,
        again: Again | None = None,
    ) -> Step:
        """A stage's step, judged, from its answers to the first check rows.

        ``before`` is the name of an earlier stage. ``edges`` are the answers to the made-up
        rows. ``again`` answers other rows, where more are needed to tell what a stage loses.
        """
        earlier = None if before is None else self._answers[before]
        first = self._answers[self.steps[0].name] if self.steps else None
        step = self.checks.measure(name, kind, answers, before, earlier, first)
        self.judge.keep(name, answers, again)
        if not self.checks.is_finite(answers):
            return replace(step, failure="logits are not finite numbers")
        return self._judge(step, edges, earlier)

    def _judge(self, step: Step, edges: Any, earlier: Any) -> Step:
        """The step with what it loses, its made-up rows and every limit it crosses."""
        failures = []
        if step.kind == "quantized" and step.before is not None:
            found = self.judge.judge(step.name, step.before)
            failures.append(found.failure)
            step = replace(
                step,
                worse_by=found.loss.lost,
                worse_by_interval=found.loss.interval,
                compared_rows=found.loss.rows,
                rows_needed=found.rows_needed,
                note=found.note,
            )
        failures.append(self.checks.find_failure(step))
        if edges is not None:
            step = replace(step, edges=self._compare_edges(step, edges))
            failures.append(self._find_edge_failure(step, earlier))
        return replace(step, failure="; ".join(filter(None, failures)) or None)

    def _compare_edges(self, step: Step, edges: Any) -> EdgeStep:
        logits = self.checks.split_logits(edges)
        self._edges[step.name] = logits
        return compare_edges(self.checks.edges, logits, self._edges.get(step.before))

    def _find_edge_failure(self, step: Step, earlier: Any) -> str | None:
        clear = 0.0
        if step.kind == "quantized":
            moved = step.largest_logit_difference
            clear = find_clear_margin(self.checks.split_logits(earlier), moved)
        return find_edge_failure(
            step.edges,
            step.kind,
            limit=self.checks.max_logit_difference,
            flip_margin=self.checks.flip_margin,
            clear_margin=clear,
        )

    def fail(self, name: str, failure: str) -> None:
        """Keep a limit crossed outside the steps, such as a file's stability."""
        self.other_failures.append((name, failure))
        self.report(f"{name:<20} FAILED: {failure}")

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(name, which limit) of everything that crossed one."""
        failed = [(step.name, step.failure) for step in self.steps if step.failure]
        return failed + self.other_failures

    @property
    def notes(self) -> list[str]:
        """What the reader of a passed export must know of its steps."""
        return [f"{step.name}: {step.note}" for step in self.steps if step.note]

    def answers(self, name: str) -> Any:
        """The answers of a stage climbed before."""
        return self._answers[name]

    def gate(self, kept: object) -> None:
        """Raise GateError naming every failed step; ``kept`` is where the files are."""
        if self.failures:
            limits = self.checks
            raise GateError(
                "the export does not agree with the trained model",
                received="\n            ".join(f"{name}: {told}" for name, told in self.failures),
                allowed=f"float stages within {limits.max_logit_difference:g}, quantised ones "
                f"within {points(limits.allowed_loss)} points of {limits.loss_of}",
                next_step=f"inspect {kept}/manifest.json; limits are export.* of the recipe",
            )
