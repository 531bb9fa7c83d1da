"""What a recogniser's stages are measured by: logits and word errors on validation recordings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from export.checks.ladder import Kind, Step
from export.checks.rows import draw_validation
from finetune.data.audio import read_audio
from finetune.metrics.word_errors import speech_metrics, wer_difference
from finetune.run_folder import Run


@dataclass(frozen=True)
class CheckRecordings:
    """Validation recordings at the model's rate, what was said, what training heard."""

    waves: tuple[np.ndarray, ...]
    references: tuple[str, ...]
    stored: tuple[str, ...]


@dataclass(frozen=True)
class SpeechThresholds:
    """What a stage may change; see SpeechExportSection of the recipe."""

    max_logit_difference: float
    max_wer_increase: float


@dataclass(frozen=True)
class Heard:
    """A stage's answers: a transcript of each recording, and its logits (frames, labels).

    Training stored transcripts only.
    """

    texts: list[str]
    logits: list[np.ndarray] | None = None

    @property
    def finite(self) -> bool:
        """Whether every logit there is is a finite number."""
        return self.logits is None or all(np.isfinite(one).all() for one in self.logits)


@dataclass(frozen=True, kw_only=True)
class SpeechStep(Step):
    """A rung of a speech recogniser.

    ``changed`` transcripts are those that differ from the stage before by any character;
    ``wer_increase`` and its interval are paired over recordings.
    """

    wer: float
    wer_interval: tuple[float, float]
    cer: float
    largest_logit_difference: float | None = None
    mean_logit_difference: float | None = None
    changed: int | None = None
    wer_increase: float | None = None
    wer_increase_interval: tuple[float, float] | None = None

    def summary(self) -> str:
        """Word error rate, and what changed against the stage before."""
        text = f"WER {self.wer:.2%}"
        if self.before is None:
            return f"{text} on {self.rows} recordings"
        drift = self.largest_logit_difference
        told = "" if drift is None else f", largest logit difference {drift:.1e}"
        return f"{text}, {self.changed} transcripts changed{told} against {self.before}"


@dataclass(frozen=True)
class SpeechChecks:
    """A recogniser's check recordings, and what its stages may change."""

    chosen: CheckRecordings
    thresholds: SpeechThresholds

    @property
    def rows(self) -> tuple[np.ndarray, ...]:
        """The recordings."""
        return self.chosen.waves

    def measure(
        self,
        name: str,
        kind: Kind,
        answers: Heard,
        before: SpeechStep | None,
        earlier: Heard | None,
        first: Heard | None,
    ) -> SpeechStep:
        """The figures of one stage, judged."""
        found = speech_metrics(self.chosen.references, answers.texts)
        step = SpeechStep(
            name=name,
            kind=kind,
            before=before and before.name,
            rows=found.rows,
            wer=found.wer,
            wer_interval=found.wer_interval,
            cer=found.cer,
        )
        if earlier is not None:
            step = self._compare(step, answers, earlier)
        return replace(step, failure=find_speech_failure(step, answers, self.thresholds))

    def _compare(self, step: SpeechStep, answers: Heard, earlier: Heard) -> SpeechStep:
        gap = wer_difference(self.chosen.references, answers.texts, earlier.texts)
        step = replace(
            step,
            changed=gap.changed,
            wer_increase=gap.difference,
            wer_increase_interval=gap.interval,
        )
        if earlier.logits is None or answers.logits is None or not answers.finite:
            return step
        pairs = zip(answers.logits, earlier.logits, strict=True)
        drifts = [np.abs(now - then) for now, then in pairs]
        return replace(
            step,
            largest_logit_difference=float(max(one.max() for one in drifts)),
            mean_logit_difference=float(np.concatenate([one.ravel() for one in drifts]).mean()),
        )

    def limits(self) -> str:
        """What stages may change, in one clause."""
        return (
            f"float stages within {self.thresholds.max_logit_difference:g}, "
            f"quantised ones within {self.thresholds.max_wer_increase:g} of word error rate"
        )


def find_speech_failure(
    step: SpeechStep, answers: Heard, thresholds: SpeechThresholds
) -> str | None:
    """Which limit the step crosses, with its figure; None where it crosses none."""
    if not answers.finite:
        return "logits are not finite numbers"
    if step.before is None or step.kind == "reported":
        return None
    if step.kind == "quantized":
        if step.wer_increase > thresholds.max_wer_increase + 1e-9:
            return (
                f"adds {step.wer_increase:.4f} word error rate, "
                f"allowed {thresholds.max_wer_increase:g}"
            )
        return None
    drift = step.largest_logit_difference
    if drift is None:  # against training, whose transcripts alone are stored
        return f"{step.changed} transcripts are not those of training" if step.changed else None
    if drift > thresholds.max_logit_difference:
        return f"largest logit difference {drift:.3g}, allowed {thresholds.max_logit_difference:g}"
    return None


def choose_recordings(run: Run, count: int) -> CheckRecordings:
    """``count`` validation recordings, seeded by the recipe, with training's transcripts."""
    rows, predictions, chosen = draw_validation(run, count)
    chosen = np.sort(chosen)
    rate_hz = run.info["sampling_rate_hz"]
    return CheckRecordings(
        waves=tuple(read_audio(audio, rate_hz) for audio in rows["audio"].iloc[chosen]),
        references=tuple(rows["text"].iloc[chosen]),
        stored=tuple(predictions["transcript"].iloc[chosen]),
    )
