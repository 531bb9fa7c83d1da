"""The search for the fastest file within an accuracy budget, on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.checks.latency import Samples, TimedFile, measure_latency, take_turns
from export.graph.files import model_bytes
from export.quantization.candidates import (
    MIXABLE,
    Candidate,
    build_candidate,
    candidate_layers,
    refusal,
    search_candidates,
)
from export.quantization.workshop import TRIAL, Workshop
from finetune.metrics.classification import paired_difference, wilson_interval

SLOWER_AT_MOST = 1.03  # what int8 embeddings may cost and still be said to cost nothing
ONE_POINT = 0.01
FINALISTS = 6  # the fastest at first sight, timed again beside each other,
FINAL_WITHIN = 2.0  # unless that slow against the fastest: a single look may be off by as much
FINAL_PROCESSES = 3  # of each
FINAL_PASSES = 3  # over the rows, in each


@dataclass(frozen=True)
class Budget:
    """What a search may lose (a share of accuracy), and on how many rows it measures what."""

    max_accuracy_drop: float
    sensitivity_rows: int
    timing_rows: int


@dataclass(eq=False)
class Trial:
    """A candidate that was made; ``rejected`` says why it cannot be chosen."""

    candidate: Candidate
    path: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    correct: np.ndarray | None = None
    flipped: int = 0
    size: int | None = None
    samples: Samples = field(default_factory=Samples)
    rejected: str | None = None
    final: bool = False

    @property
    def accuracy(self) -> float:
        """The share of right labels on the search's rows."""
        return float(self.correct.mean())


@dataclass
class Search:
    """The state of one search: the rows, the float answers, everything tried so far."""

    workshop: Workshop
    texts: Sequence[str]
    labels: np.ndarray
    reference: np.ndarray
    budget: Budget
    report: Callable[[str], None]
    trials: list[Trial] = field(default_factory=list)

    def run(self, precisions: Sequence[str]) -> list[Trial]:
        """Try everything; the trials to keep, the chosen one first."""
        self._measure(Trial(Candidate("fp32"), self.workshop.plain), self.reference)
        for precision in [one for one in precisions if one != "fp32"]:
            self._try_precision(precision)
        pair = self._try_embeddings()
        self._time_finalists(pair or ())
        if pair:
            self._judge_embeddings(*pair)
        chosen = self.fitting()[0]
        kept = [chosen]
        if chosen.facts.get("runtime") == "openvino":  # for those who have ONNX Runtime only
            kept += [one for one in self.fitting() if "runtime" not in one.facts][:1]
        self.report(f"chosen: {chosen.candidate.name}")
        return kept

    def fitting(self) -> list[Trial]:
        """Trials within the budget: finalists, then others; each the fastest at batch 1 first."""
        fit = [trial for trial in self.trials if trial.rejected is None]
        return sorted(fit, key=lambda trial: (not trial.final, trial.samples.p50_batch1_ms))

    def _try_precision(self, precision: str) -> None:
        reason = refusal(precision, self.workshop.device) or _pointless(
            precision, self.workshop.device
        )
        if reason:
            self.trials.append(Trial(Candidate(precision), rejected=reason))
            self.report(f"{precision}: {reason}")
            return
        made = [self.try_candidate(one) for one in search_candidates(precision, self.workshop)]
        over = [one for one in made if one.rejected and one.correct is not None]
        if precision in MIXABLE and over and all(one.rejected for one in made):
            self._try_mixed(max(over, key=lambda trial: trial.accuracy).candidate)

    def _try_mixed(self, candidate: Candidate) -> None:
        count = self.budget.sensitivity_rows
        ranking = rank_layers(
            candidate, self.workshop, self.texts[:count], self.reference[:count], self.report
        )
        for mixed in mixed_candidates(candidate, ranking):
            if self.try_candidate(mixed).rejected is None:
                return

    def _try_embeddings(self) -> tuple[Trial, Trial] | None:
        """The fastest quantised ONNX file, and it with int8 embeddings where they lose nothing."""
        onnx = [one for one in self.fitting() if "runtime" not in one.facts]
        best = next((one for one in onnx if one.candidate.precision in MIXABLE), None)
        if best is None or best.candidate.int8_embeddings:
            return None
        values = {**vars(best.candidate), "int8_embeddings": True}
        trial = self.try_candidate(Candidate(**values))
        if trial.rejected is not None:
            return None
        if not trial.facts["int8_embeddings"]:
            trial.rejected = "no embedding table to quantise"
        elif trial.accuracy < best.accuracy:
            trial.rejected = f"less accurate than {best.candidate.name}"
        return (best, trial) if trial.rejected is None else None

    def _judge_embeddings(self, best: Trial, trial: Trial) -> None:
        """Of the two one stays."""
        if trial.samples.p50_batch1_ms > SLOWER_AT_MOST * best.samples.p50_batch1_ms:
            trial.rejected = f"slower than {best.candidate.name}"
        else:
            best.rejected = f"{trial.candidate.name} is smaller and loses nothing"

    def _time_finalists(self, pair: Sequence[Trial]) -> None:
        """Time the fastest anew, beside each other in fresh processes; ``pair`` is among them."""
        fit = self.fitting()
        limit = FINAL_WITHIN * fit[0].samples.p50_batch1_ms
        near = [one for one in fit if one.samples.p50_batch1_ms <= limit][:FINALISTS]
        finalists = near + [one for one in pair if one not in near]
        if len(finalists) < 2:
            return
        for one in finalists:
            one.samples, one.final = Samples(), True
        for process in range(FINAL_PROCESSES):
            with ExitStack() as alive:
                files = [alive.enter_context(self._open(one)) for one in finalists]
                samples = [one.samples for one in finalists]
                take_turns(files, samples, self._timed_rows(), FINAL_PASSES, (process,))
        for one in self.fitting()[: len(finalists)]:
            self.report(
                f"{one.candidate.name:<36} beside the others: p50 "
                f"{one.samples.p50_batch1_ms:.2f} ms, batch 8 {one.samples.p50_batch8_ms:.1f} ms"
            )

    def _open(self, trial: Trial) -> TimedFile:
        self.workshop.show(trial.path)
        texts = self.texts[: self._timed_rows()]
        return TimedFile(self.workshop.folder, TRIAL, texts, provider=self.workshop.device)

    def try_candidate(self, candidate: Candidate) -> Trial:
        """Make, measure and judge a candidate; whatever a library raises is the reason told."""
        trial = Trial(candidate)
        suffix = ".xml" if candidate.precision.startswith("openvino") else ".onnx"
        trial.path = self.workshop.scratch(candidate.name) / f"model{suffix}"
        try:
            trial.facts = build_candidate(candidate, self.workshop, trial.path)
            self._measure(trial, self.workshop.answer(trial.path, self.texts))
        except Exception as fault:  # of a quantiser or a runtime: this candidate failed, no other
            trial.rejected = f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
            self.report(f"{candidate.name}: {trial.rejected}")
            if trial not in self.trials:
                self.trials.append(trial)
        if trial.rejected and trial.path.parent.is_dir():
            for part in trial.path.parent.iterdir():
                part.unlink()
        return trial

    def _measure(self, trial: Trial, logits: np.ndarray) -> None:
        answers = logits.argmax(axis=1)
        trial.correct = answers == self.labels
        trial.flipped = int((answers != self.reference.argmax(axis=1)).sum())
        trial.size = model_bytes(trial.path)
        lost = self._reference_accuracy() - trial.accuracy
        if not np.isfinite(logits).all():
            trial.rejected = "logits are not finite numbers"
        elif lost > self.budget.max_accuracy_drop + 1e-9:
            allowed = self.budget.max_accuracy_drop / ONE_POINT
            trial.rejected = f"loses {lost / ONE_POINT:.2f} points, allowed {allowed:.2f}"
        self.trials.append(trial)
        self._time(trial)
        self.report(
            f"{trial.candidate.name:<36} accuracy {trial.accuracy:.4f}, p50 "
            f"{trial.samples.p50_batch1_ms:.2f} ms, {trial.size / 1e6:.1f} MB"
            + (f"  {trial.rejected}" if trial.rejected else "")
        )

    def _time(self, trial: Trial) -> None:
        self.workshop.show(trial.path)
        texts = self.texts[: self.budget.timing_rows]
        folder, device = self.workshop.folder, self.workshop.device
        measure_latency(folder, TRIAL, texts, trial.samples, provider=device)

    def _reference_accuracy(self) -> float:
        return float((self.reference.argmax(axis=1) == self.labels).mean())

    def table(self, chosen: Sequence[Trial]) -> list[dict[str, Any]]:
        """Everything tried, ready for JSON; accuracies as shares, differences against fp32."""
        return [self._record(trial, chosen) for trial in self.trials]

    def _record(self, trial: Trial, chosen: Sequence[Trial]) -> dict[str, Any]:
        name = trial.candidate.name
        verdict = trial.rejected or ("slower than the chosen one" if trial not in chosen else None)
        if trial.correct is None or not trial.samples.batch1_ms:
            return {"name": name, "verdict": trial.rejected}
        right = self.reference.argmax(axis=1) == self.labels
        paired = paired_difference(trial.correct, right)
        low, high = wilson_interval(int(trial.correct.sum()), len(self.labels))
        return {
            "name": name,
            "accuracy": trial.accuracy,
            "accuracy_interval": [low, high],
            "difference": paired.difference,
            "difference_interval": list(paired.interval),
            "mcnemar_p": paired.p_value,
            "flipped": trial.flipped,
            "p50_batch1_ms": round(trial.samples.p50_batch1_ms, 3),
            "p50_batch8_ms": round(trial.samples.p50_batch8_ms, 3),
            "processes": trial.samples.processes,
            "megabytes": round(trial.size / 1e6, 1),
            "float_layers": ", ".join(trial.candidate.float_layers) or None,
            "verdict": verdict or ("chosen" if trial is chosen[0] else "kept beside it"),
        }

    def _timed_rows(self) -> int:
        return min(self.budget.timing_rows, len(self.texts))


def rank_layers(
    candidate: Candidate,
    workshop: Workshop,
    texts: Sequence[str],
    reference: np.ndarray,
    report: Callable[[str], None],
) -> list[tuple[str, float]]:
    """(layer, mean logit difference) with that layer alone quantised, the most sensitive first.

    ``reference`` are the float logits (n, labels) of ``texts``. For OpenVINO, whose calibration
    takes far longer, the layers are ranked in ONNX Runtime's static int8.
    """
    if candidate.precision == "openvino-int8":
        candidate = Candidate("int8-static", calibration="minmax", balanced=workshop.balances)
    layers = list(candidate_layers(candidate, workshop))
    path = workshop.scratch("sensitivity") / "model.onnx"
    found = []
    for layer in layers:
        others = tuple(name for name in layers if name != layer)
        build_candidate(replace(candidate, float_layers=others), workshop, path)
        difference = float(np.abs(workshop.answer(path, texts) - reference).mean())
        found.append((layer, difference))
        for part in path.parent.iterdir():
            part.unlink()
    found.sort(key=lambda entry: -entry[1])
    told = ", ".join(f"{layer} ({difference:.2g})" for layer, difference in found[:5])
    report(f"{candidate.name}: most sensitive layers {told}")
    return found


def mixed_candidates(
    candidate: Candidate, ranking: Sequence[tuple[str, float]]
) -> Iterator[Candidate]:
    """The candidate with ever more layers in float, the most sensitive first, all but one."""
    count = 1
    while count < len(ranking):
        kept = tuple(layer for layer, _ in ranking[:count])
        yield replace(candidate, float_layers=kept)
        count += max(1, count // 2)


def _pointless(precision: str, device: str) -> str | None:
    """Why a search need not try what could be made."""
    if precision == "fp16" and device == "cpu":
        return "fp16 has no CPU kernels in ONNX Runtime: every product would be cast to fp32"
    return None
