"""The ladder of checks for speech: each stage against the one before, on real recordings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from export.checks.rows import draw_validation
from finetune.core.errors import GateError
from finetune.data.audio import read_audio
from finetune.metrics.word_errors import speech_metrics, wer_difference
from finetune.run_folder import Run
from finetune.tasks.speech.ctc import SpeechSettings, decode_ids

Kind = Literal["reference", "reported", "float", "quantized"]


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
class SpeechStep:
    """One rung: a stage's figures, compared with the stage ``before``.

    ``changed`` transcripts are those that differ from the stage before by any character;
    ``wer_increase`` and its interval are paired over recordings.
    """

    name: str
    kind: Kind
    before: str | None
    rows: int
    wer: float
    wer_interval: tuple[float, float]
    cer: float
    largest_logit_difference: float | None = None
    mean_logit_difference: float | None = None
    changed: int | None = None
    wer_increase: float | None = None
    wer_increase_interval: tuple[float, float] | None = None
    failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """One line for the reader."""
        line = f"{self.name:<20} WER {self.wer:.2%}"
        if self.before is None:
            return f"{line} on {self.rows} recordings"
        drift = self.largest_logit_difference
        told = "" if drift is None else f", largest logit difference {drift:.1e}"
        line += f", {self.changed} transcripts changed{told} against {self.before}"
        return f"{line}  FAILED: {self.failure}" if self.failure else line


@dataclass
class SpeechLadder:
    """The rungs climbed so far; a failed one is kept and told at the end by ``gate``."""

    recordings: CheckRecordings
    settings: SpeechSettings
    thresholds: SpeechThresholds
    report: Callable[[str], None]
    steps: list[SpeechStep] = field(default_factory=list)
    _logits: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _texts: dict[str, list[str]] = field(default_factory=dict)

    def start(self) -> SpeechStep:
        """The first rung: the transcripts that training stored."""
        return self._add("training", "reference", list(self.recordings.stored), None, None)

    def climb(
        self, name: str, kind: Kind, logits: list[np.ndarray], before: str | None = None
    ) -> SpeechStep:
        """Add a stage: logits (frames, labels) of every recording; ``before`` a stage's name."""
        texts = [decode_ids(one.argmax(axis=-1), self.settings) for one in logits]
        return self._add(name, kind, texts, logits, before)

    def _add(
        self,
        name: str,
        kind: Kind,
        texts: list[str],
        logits: list[np.ndarray] | None,
        before: str | None,
    ) -> SpeechStep:
        found = speech_metrics(self.recordings.references, texts)
        step = SpeechStep(name, kind, before, found.rows, found.wer, found.wer_interval, found.cer)
        if before is not None:
            step = self._compare(step, texts, logits)
        step = replace(step, failure=find_speech_failure(step, logits, self.thresholds))
        self.steps.append(step)
        self._texts[name] = texts
        if logits is not None:
            self._logits[name] = logits
        self.report(step.describe())
        return step

    def _compare(
        self, step: SpeechStep, texts: list[str], logits: list[np.ndarray] | None
    ) -> SpeechStep:
        gap = wer_difference(self.recordings.references, texts, self._texts[step.before])
        step = replace(
            step,
            changed=gap.changed,
            wer_increase=gap.difference,
            wer_increase_interval=gap.interval,
        )
        earlier = self._logits.get(step.before)
        if earlier is None or logits is None or not all(np.isfinite(one).all() for one in logits):
            return step
        drifts = [np.abs(now - then) for now, then in zip(logits, earlier, strict=True)]
        return replace(
            step,
            largest_logit_difference=float(max(one.max() for one in drifts)),
            mean_logit_difference=float(np.concatenate([one.ravel() for one in drifts]).mean()),
        )

    @property
    def failures(self) -> list[SpeechStep]:
        """The rungs that crossed a limit."""
        return [step for step in self.steps if step.failure]

    def gate(self, kept: object) -> None:
        """Raise GateError naming every failed step; ``kept`` is where the files are."""
        if self.failures:
            raise GateError(
                "the export does not agree with the trained model",
                received="\n            ".join(
                    f"{step.name}: {step.failure}" for step in self.failures
                ),
                allowed=f"float stages within {self.thresholds.max_logit_difference:g}, "
                f"quantised ones within {self.thresholds.max_wer_increase:g} of word error rate",
                next_step=f"inspect {kept}/manifest.json; limits are export.* of the recipe",
            )


def find_speech_failure(
    step: SpeechStep, logits: list[np.ndarray] | None, thresholds: SpeechThresholds
) -> str | None:
    """Which limit the step crosses, with its figure; None where it crosses none."""
    if logits is not None and not all(np.isfinite(one).all() for one in logits):
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
