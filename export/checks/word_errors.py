"""What a recogniser's stages are measured by: logits and word errors on validation recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from export.checks.edges import Edge
from export.checks.ladder import Kind, Step
from export.checks.rows import draw_validation
from finetune.data.audio import AudioSource, read_audio
from finetune.metrics.paired import ErrorCounts, PairedLoss, rate_loss
from finetune.metrics.word_errors import count_errors, speech_metrics, wer_difference
from finetune.run_folder import Run


class Recordings(Sequence[np.ndarray]):
    """Encoded recordings as samples at one rate, each read when it is asked for."""

    def __init__(self, audio: Sequence[AudioSource], rate_hz: int) -> None:
        self._audio, self._rate_hz = audio, rate_hz

    def __len__(self) -> int:
        return len(self._audio)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Recordings(self._audio[place], self._rate_hz)
        return read_audio(self._audio[place], self._rate_hz)


@dataclass(frozen=True)
class CheckRecordings:
    """Validation recordings at the model's rate, what was said, what training heard.

    ``further`` recordings and their references are asked where the check rows are too few.
    """

    waves: tuple[np.ndarray, ...]
    references: tuple[str, ...]
    stored: tuple[str, ...]
    further: Sequence[np.ndarray] = ()
    further_references: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpeechThresholds:
    """What a stage may change; see SpeechExportSection of the recipe."""

    max_logit_difference: float
    max_wer_increase: float
    flip_margin: float = 0.1


@dataclass(frozen=True)
class Heard:
    """A stage's answers: a transcript of each recording, and its logits (frames, labels).

    Training stored transcripts only.
    """

    texts: list[str]
    logits: list[np.ndarray] | None = None


@dataclass(frozen=True, kw_only=True)
class SpeechStep(Step):
    """A rung of a speech recogniser.

    ``changed`` transcripts are those that differ from the stage before by any character;
    ``wer_increase`` and its interval are paired over recordings.
    """

    wer: float
    wer_interval: tuple[float, float]
    cer: float
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
    edges: Sequence[Edge] = ()
    loss_of: ClassVar[str] = "word error rate"
    loss_key: ClassVar[str] = "max_wer_increase"

    @property
    def rows(self) -> tuple[np.ndarray, ...]:
        """The recordings."""
        return self.chosen.waves

    @property
    def further(self) -> Sequence[np.ndarray]:
        """The recordings beyond them."""
        return self.chosen.further

    @property
    def allowed_loss(self) -> float:
        """The share of word errors that a quantised stage may add."""
        return self.thresholds.max_wer_increase

    @property
    def max_logit_difference(self) -> float:
        """Of float stages."""
        return self.thresholds.max_logit_difference

    @property
    def flip_margin(self) -> float:
        """Between the two best logits of a frame: a label within it may flip."""
        return self.thresholds.flip_margin

    def measure(
        self,
        name: str,
        kind: Kind,
        answers: Heard,
        before: str | None,
        earlier: Heard | None,
        first: Heard | None,
    ) -> SpeechStep:
        """The figures of one stage, without judging them."""
        found = speech_metrics(self.chosen.references, answers.texts)
        step = SpeechStep(
            name=name,
            kind=kind,
            before=before,
            rows=found.rows,
            wer=found.wer,
            wer_interval=found.wer_interval,
            cer=found.cer,
        )
        return step if earlier is None else self._compare(step, answers, earlier)

    def is_finite(self, answers: Heard) -> bool:
        """Whether every logit there is is a finite number."""
        return all(np.isfinite(one).all() for one in answers.logits or ())

    def find_failure(self, step: SpeechStep) -> str | None:
        """Which limit a float step crosses, with its figure; None where it crosses none."""
        if step.before is None or step.kind != "float":
            return None
        limit, drift = self.max_logit_difference, step.largest_logit_difference
        if drift is None:  # against training, whose transcripts alone are stored
            return f"{step.changed} transcripts are not those of training" if step.changed else None
        if drift <= limit:
            return None
        return f"largest logit difference {drift:.3g}, allowed {limit:g}"

    def count_errors(self, answers: Heard, start: int) -> ErrorCounts:
        """A unit for each word of the reference."""
        references = (*self.chosen.references, *self.chosen.further_references)
        counts = count_errors(references[start : start + len(answers.texts)], answers.texts)
        return ErrorCounts(counts.word_errors, counts.words)

    def compare_errors(self, counts: ErrorCounts, earlier: ErrorCounts) -> PairedLoss:
        """Word error rate added, paired over recordings."""
        return rate_loss(counts, earlier)

    def split_logits(self, answers: Heard) -> list[np.ndarray]:
        """Logits (frames, labels) of each recording."""
        return list(answers.logits)

    def tabulate(self, step: SpeechStep, answers: Heard, reference: Heard) -> dict[str, Any]:
        """Word error rate, its difference against the reference, changed transcripts."""
        gap = wer_difference(self.chosen.references, answers.texts, reference.texts)
        return {
            "wer": step.wer,
            "wer_interval": list(step.wer_interval),
            "difference": gap.difference,
            "difference_interval": list(gap.interval),
            "changed": gap.changed,
        }

    def _compare(self, step: SpeechStep, answers: Heard, earlier: Heard) -> SpeechStep:
        gap = wer_difference(self.chosen.references, answers.texts, earlier.texts)
        step = replace(
            step,
            changed=gap.changed,
            wer_increase=gap.difference,
            wer_increase_interval=gap.interval,
        )
        if earlier.logits is None or answers.logits is None or not self.is_finite(answers):
            return step
        pairs = zip(answers.logits, earlier.logits, strict=True)
        drifts = [np.abs(now - then) for now, then in pairs]
        return replace(
            step,
            largest_logit_difference=float(max(one.max() for one in drifts)),
            mean_logit_difference=float(np.concatenate([one.ravel() for one in drifts]).mean()),
        )


def choose_recordings(run: Run, count: int, at_most: int | None = None) -> CheckRecordings:
    """``count`` validation recordings, seeded by the recipe, with training's transcripts.

    Of all others so many are kept as further rows that there are ``at_most`` together.
    """
    rows, predictions, chosen, further = draw_validation(run, count, at_most or count)
    chosen = np.sort(chosen)
    rate_hz = run.info.sampling_rate_hz
    return CheckRecordings(
        waves=tuple(Recordings(rows["audio"].iloc[chosen].tolist(), rate_hz)),
        references=tuple(rows["text"].iloc[chosen]),
        stored=tuple(predictions["transcript"].iloc[chosen]),
        further=Recordings(rows["audio"].iloc[further].tolist(), rate_hz),
        further_references=tuple(rows["text"].iloc[further]),
    )
