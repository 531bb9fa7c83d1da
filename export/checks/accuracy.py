"""The ladder of checks: each stage of an export against the one before, on real rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from export.checks.rows import draw_validation
from finetune.core.errors import GateError
from finetune.metrics.classification import classification_metrics, f1_interval, paired_difference
from finetune.run_folder import Run, logits_of

Kind = Literal["reference", "reported", "float", "quantized"]
UNPADDED_ROWS = 256  # single rows cost the most time of all checks; padding errors show in few


@dataclass(frozen=True)
class CheckRows:
    """Validation rows to check on: texts, class ids (n,), stored logits (n, labels)."""

    texts: tuple[str, ...]
    labels: np.ndarray
    stored_logits: np.ndarray


@dataclass(frozen=True)
class Thresholds:
    """What a stage may change; see ExportSection of the recipe."""

    max_logit_difference: float  # float stages
    max_accuracy_drop: float  # quantised stages, a share
    flip_margin: float = 0.1
    max_flipped_above_margin: float = 0.05  # quantised stages, a share of the rows


@dataclass(frozen=True)
class Step:
    """One rung: a stage's figures on ``rows`` rows, compared with the stage ``before``.

    ``flipped_above_margin`` counts the flipped labels whose two best logits were further apart
    than ``flip_margin`` in the stage before. ``mcnemar_p`` tests accuracy against the first
    stage on the same rows: ``gained`` are right only here, ``lost`` only there. ``failure`` says
    which limit was crossed.
    """

    name: str
    kind: Kind
    before: str | None
    rows: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    f1_macro: float | None
    f1_interval: tuple[float, float] | None = None
    largest_logit_difference: float | None = None
    mean_logit_difference: float | None = None
    flipped: int | None = None
    flipped_above_margin: int | None = None
    gained: int | None = None
    lost: int | None = None
    mcnemar_p: float | None = None
    failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """One line for the reader."""
        accuracy = "not finite" if self.accuracy is None else f"accuracy {self.accuracy:.4f}"
        if self.before is None:
            return f"{self.name:<20} {accuracy} on {self.rows} rows"
        drift = self.largest_logit_difference
        largest = "not finite" if drift is None else f"{drift:.1e}"
        line = (
            f"{self.name:<20} {accuracy}, {self.flipped} flipped, "
            f"largest logit difference {largest} against {self.before}"
        )
        return f"{line}  FAILED: {self.failure}" if self.failure else line


@dataclass
class Ladder:
    """The rungs climbed so far; a failed one is kept and told at the end by ``gate``."""

    rows: CheckRows
    thresholds: Thresholds
    report: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    other_failures: list[tuple[str, str]] = field(default_factory=list)
    _logits: dict[str, np.ndarray] = field(default_factory=dict)

    def climb(self, name: str, kind: Kind, logits: np.ndarray, before: str | None = None) -> Step:
        """Add a stage: logits (n, labels) of the first n check rows; ``before`` a stage's name."""
        earlier = None if before is None else self._logits[before][: len(logits)]
        labels = self.rows.labels[: len(logits)]
        step = compare(name, kind, logits, labels, before, earlier, self.thresholds.flip_margin)
        if self.steps:
            step = against_first(step, logits, self._logits[self.steps[0].name], labels)
        accuracy = next((old.accuracy for old in self.steps if old.name == before), None)
        step = replace(step, failure=find_failure(step, accuracy, self.thresholds))
        self.steps.append(step)
        self._logits[name] = logits
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

    def logits(self, name: str) -> np.ndarray:
        """The logits of a stage climbed before."""
        return self._logits[name]

    def gate(self, kept: object) -> None:
        """Raise GateError naming every failed step; ``kept`` is where the files are."""
        if self.failures:
            raise GateError(
                "the export does not agree with the trained model",
                received="\n            ".join(f"{name}: {told}" for name, told in self.failures),
                allowed=f"float stages within {self.thresholds.max_logit_difference:g}, "
                f"quantised ones within {self.thresholds.max_accuracy_drop:g} of accuracy",
                next_step=f"inspect {kept}/manifest.json; limits are export.* of the recipe",
            )


def choose_rows(run: Run, count: int) -> CheckRows:
    """``count`` validation rows, seeded by the recipe, with the logits stored in training."""
    rows, predictions, chosen = draw_validation(run, count)
    return CheckRows(
        texts=tuple(rows["text"].iloc[chosen]),
        labels=rows["label"].to_numpy()[chosen],
        stored_logits=logits_of(predictions)[chosen],
    )


def compare(
    name: str,
    kind: Kind,
    logits: np.ndarray,
    labels: np.ndarray,
    before: str | None,
    earlier: np.ndarray | None,
    flip_margin: float,
) -> Step:
    """The figures of one stage, without judging them; arrays are (n, labels) and (n,)."""
    finite = bool(np.isfinite(logits).all())
    metrics = classification_metrics(labels, logits) if finite else None
    step = Step(
        name=name,
        kind=kind,
        before=before,
        rows=len(labels),
        accuracy=metrics and metrics.accuracy,
        accuracy_interval=metrics and metrics.accuracy_interval,
        f1_macro=metrics and metrics.f1_macro,
        f1_interval=metrics and f1_interval(np.array(metrics.confusion)),
    )
    if earlier is None:
        return step
    flips = logits.argmax(axis=1) != earlier.argmax(axis=1)
    best = np.sort(earlier, axis=1)
    margins = best[:, -1] - best[:, -2]
    difference = np.abs(logits - earlier)
    return replace(
        step,
        largest_logit_difference=float(difference.max()) if finite else None,
        mean_logit_difference=float(difference.mean()) if finite else None,
        flipped=int(flips.sum()),
        flipped_above_margin=int((flips & (margins > flip_margin)).sum()),
    )


def against_first(step: Step, logits: np.ndarray, first: np.ndarray, labels: np.ndarray) -> Step:
    """The step with McNemar's test against the first stage on the same rows."""
    if step.accuracy is None:
        return step
    paired = paired_difference(
        logits.argmax(axis=1) == labels, first[: len(labels)].argmax(axis=1) == labels
    )
    return replace(step, gained=paired.gained, lost=paired.lost, mcnemar_p=paired.p_value)


def find_failure(step: Step, accuracy_before: float | None, thresholds: Thresholds) -> str | None:
    """Which limit the step crosses, with its figure; None where it crosses none."""
    if step.accuracy is None:
        return "logits are not finite numbers"
    if step.before is None or step.kind == "reported":
        return None
    if step.kind == "quantized":
        return _find_quantized_failure(step, accuracy_before, thresholds)
    limit, drift = thresholds.max_logit_difference, step.largest_logit_difference
    if drift is None or drift > limit:
        return f"largest logit difference {drift:.3g}, allowed {limit:g}"
    if step.flipped_above_margin:
        margin = thresholds.flip_margin
        return f"{step.flipped_above_margin} labels flipped whose margin was above {margin:g}"
    return None


def _find_quantized_failure(
    step: Step, accuracy_before: float | None, thresholds: Thresholds
) -> str | None:
    if accuracy_before is None:
        return None
    drop = accuracy_before - step.accuracy
    if drop > thresholds.max_accuracy_drop + 1e-9:  # 0.87 - 0.86 is a little over 0.01
        return f"loses {drop:.4f} accuracy, allowed {thresholds.max_accuracy_drop:g}"
    allowed = thresholds.max_flipped_above_margin
    if step.flipped_above_margin > allowed * step.rows:
        return (
            f"{step.flipped_above_margin} of {step.rows} labels flipped whose margin was above "
            f"{thresholds.flip_margin:g}, allowed {allowed:.1%}"
        )
    return None


def unpadded_logits(classify: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str]) -> Any:
    """Logits (n, labels) of the first UNPADDED_ROWS texts, each run alone."""
    return np.concatenate([classify([text]) for text in texts[:UNPADDED_ROWS]])
