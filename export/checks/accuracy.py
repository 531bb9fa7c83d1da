"""What a classifier's stages are measured by: logits, labels and accuracy on validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from export.checks.edges import Edge
from export.checks.ladder import Kind, Step
from export.checks.rows import draw_validation
from finetune.metrics.classification import classification_metrics, f1_interval, paired_difference
from finetune.metrics.paired import ErrorCounts, PairedLoss, label_loss
from finetune.run_folder import Run, logits_of

UNPADDED_ROWS = 256  # single rows cost the most time of all checks; padding errors show in few


@dataclass(frozen=True)
class CheckRows:
    """Validation rows to check on: texts, class ids (n,), stored logits (n, labels).

    ``further`` texts and their labels are asked where the check rows are too few.
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    stored_logits: np.ndarray
    further: tuple[str, ...] = ()
    further_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Thresholds:
    """What a stage may change; see ExportSection of the recipe."""

    max_logit_difference: float  # float stages
    max_accuracy_drop: float  # quantised stages, a share
    flip_margin: float = 0.1
    max_flipped_above_margin: float = 0.05  # quantised stages, a share of the rows


@dataclass(frozen=True, kw_only=True)
class AccuracyStep(Step):
    """A rung of a classifier.

    ``flipped_above_margin`` counts the flipped labels whose two best logits were further apart
    than ``flip_margin`` in the stage before. ``mcnemar_p`` tests accuracy against the first
    stage on the same rows: ``gained`` are right only here, ``lost`` only there.
    """

    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    f1_macro: float | None
    f1_interval: tuple[float, float] | None = None
    mean_logit_difference: float | None = None
    flipped: int | None = None
    flipped_above_margin: int | None = None
    gained: int | None = None
    lost: int | None = None
    mcnemar_p: float | None = None

    def summary(self) -> str:
        """Accuracy, and what changed against the stage before."""
        accuracy = "not finite" if self.accuracy is None else f"accuracy {self.accuracy:.4f}"
        if self.before is None:
            return f"{accuracy} on {self.rows} rows"
        drift = self.largest_logit_difference
        largest = "not finite" if drift is None else f"{drift:.1e}"
        return (
            f"{accuracy}, {self.flipped} flipped, "
            f"largest logit difference {largest} against {self.before}"
        )


@dataclass(frozen=True)
class AccuracyChecks:
    """A classifier's check rows, and what its stages may change; answers are logits (n, labels).

    Fewer answers than rows are those of the first rows.
    """

    chosen: CheckRows
    thresholds: Thresholds
    edges: Sequence[Edge] = ()
    loss_of: ClassVar[str] = "accuracy"
    loss_key: ClassVar[str] = "max_accuracy_drop"

    @property
    def rows(self) -> tuple[str, ...]:
        """The texts."""
        return self.chosen.texts

    @property
    def further(self) -> tuple[str, ...]:
        """The texts beyond them."""
        return self.chosen.further

    @property
    def allowed_loss(self) -> float:
        """The share of accuracy that a quantised stage may lose."""
        return self.thresholds.max_accuracy_drop

    @property
    def max_logit_difference(self) -> float:
        """Of float stages."""
        return self.thresholds.max_logit_difference

    @property
    def flip_margin(self) -> float:
        """Between the two best logits: a label within it may flip."""
        return self.thresholds.flip_margin

    def measure(
        self,
        name: str,
        kind: Kind,
        answers: np.ndarray,
        before: str | None,
        earlier: np.ndarray | None,
        first: np.ndarray | None,
    ) -> AccuracyStep:
        """The figures of one stage, without judging them."""
        count = len(answers)
        labels = self.chosen.labels[:count]
        earlier = None if earlier is None else earlier[:count]
        step = compare(name, kind, answers, labels, before, earlier, self.flip_margin)
        return step if first is None else against_first(step, answers, first, labels)

    def is_finite(self, answers: np.ndarray) -> bool:
        """Whether every logit is a finite number."""
        return bool(np.isfinite(answers).all())

    def find_failure(self, step: AccuracyStep) -> str | None:
        """Which limit the step crosses, with its figure; None where it crosses none."""
        return find_failure(step, self.thresholds)

    def count_errors(self, answers: np.ndarray, start: int) -> ErrorCounts:
        """One unit a row: its label."""
        labels = np.concatenate([self.chosen.labels, self.chosen.further_labels])
        wrong = answers.argmax(axis=1) != labels[start : start + len(answers)]
        return ErrorCounts(wrong.astype(np.int64), np.ones(len(answers), dtype=np.int64))

    def compare_errors(self, counts: ErrorCounts, earlier: ErrorCounts) -> PairedLoss:
        """Accuracy lost, paired over rows."""
        return label_loss(counts, earlier)

    def split_logits(self, answers: np.ndarray) -> list[np.ndarray]:
        """Logits (1, labels) of each row."""
        return [row[None] for row in answers]

    def tabulate(
        self, step: AccuracyStep, answers: np.ndarray, reference: np.ndarray
    ) -> dict[str, Any]:
        """Accuracy, its difference against the reference, flipped labels."""
        labels, best = self.chosen.labels, reference.argmax(axis=1)
        paired = paired_difference(answers.argmax(axis=1) == labels, best == labels)
        return {
            "accuracy": step.accuracy,
            "accuracy_interval": list(step.accuracy_interval),
            "difference": paired.difference,
            "difference_interval": list(paired.interval),
            "mcnemar_p": paired.p_value,
            "flipped": int((answers.argmax(axis=1) != best).sum()),
        }


def choose_rows(run: Run, count: int, at_most: int | None = None) -> CheckRows:
    """``count`` validation rows, seeded by the recipe, with the logits stored in training.

    Of all others so many are kept as further rows that there are ``at_most`` together.
    """
    rows, predictions, chosen, further = draw_validation(run, count, at_most or count)
    texts, labels = rows["text"], rows["label"].to_numpy()
    return CheckRows(
        texts=tuple(texts.iloc[chosen]),
        labels=labels[chosen],
        stored_logits=logits_of(predictions)[chosen],
        further=tuple(texts.iloc[further]),
        further_labels=labels[further],
    )


def compare(
    name: str,
    kind: Kind,
    logits: np.ndarray,
    labels: np.ndarray,
    before: str | None,
    earlier: np.ndarray | None,
    flip_margin: float,
) -> AccuracyStep:
    """The figures of one stage, without judging them; arrays are (n, labels) and (n,)."""
    finite = bool(np.isfinite(logits).all())
    metrics = classification_metrics(labels, logits) if finite else None
    step = AccuracyStep(
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


def against_first(
    step: AccuracyStep, logits: np.ndarray, first: np.ndarray, labels: np.ndarray
) -> AccuracyStep:
    """The step with McNemar's test against the first stage on the same rows."""
    if step.accuracy is None:
        return step
    paired = paired_difference(
        logits.argmax(axis=1) == labels, first[: len(labels)].argmax(axis=1) == labels
    )
    return replace(step, gained=paired.gained, lost=paired.lost, mcnemar_p=paired.p_value)


def find_failure(step: AccuracyStep, thresholds: Thresholds) -> str | None:
    """Which limit the step crosses, with its figure; None where it crosses none."""
    if step.before is None or step.kind == "reported":
        return None
    margin = thresholds.flip_margin
    if step.kind == "quantized":
        allowed = thresholds.max_flipped_above_margin
        if step.flipped_above_margin > allowed * step.rows:
            return (
                f"{step.flipped_above_margin} of {step.rows} labels flipped whose margin was "
                f"above {margin:g}, allowed {allowed:.1%}"
            )
        return None
    limit, drift = thresholds.max_logit_difference, step.largest_logit_difference
    if not drift <= limit:  # no number at all, where the stage before was none
        return f"largest logit difference {drift:.3g}, allowed {limit:g}"
    if step.flipped_above_margin:
        return f"{step.flipped_above_margin} labels flipped whose margin was above {margin:g}"
    return None
