"""What a classifier's stages are measured by: logits, labels and accuracy on validation rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from export.checks.ladder import Kind, Step
from export.checks.rows import draw_validation
from finetune.metrics.classification import classification_metrics, f1_interval, paired_difference
from finetune.run_folder import Run, logits_of

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
    largest_logit_difference: float | None = None
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

    @property
    def rows(self) -> tuple[str, ...]:
        """The texts."""
        return self.chosen.texts

    def measure(
        self,
        name: str,
        kind: Kind,
        answers: np.ndarray,
        before: AccuracyStep | None,
        earlier: np.ndarray | None,
        first: np.ndarray | None,
    ) -> AccuracyStep:
        """The figures of one stage, judged."""
        count, told = len(answers), before and before.name
        labels = self.chosen.labels[:count]
        earlier = None if earlier is None else earlier[:count]
        step = compare(name, kind, answers, labels, told, earlier, self.thresholds.flip_margin)
        step = step if first is None else against_first(step, answers, first, labels)
        failure = find_failure(step, before and before.accuracy, self.thresholds)
        return replace(step, failure=failure)

    def limits(self) -> str:
        """What stages may change, in one clause."""
        return (
            f"float stages within {self.thresholds.max_logit_difference:g}, "
            f"quantised ones within {self.thresholds.max_accuracy_drop:g} of accuracy"
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


def find_failure(
    step: AccuracyStep, accuracy_before: float | None, thresholds: Thresholds
) -> str | None:
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
    step: AccuracyStep, accuracy_before: float | None, thresholds: Thresholds
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
