"""The search for the fastest file that loses no more than it may, on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export.checks.ladder import Ladder, Step
from export.checks.latency import Samples, TimedFile, measure_latency, take_turns
from export.graph.embeddings import count_tables
from export.graph.files import model_bytes
from export.quantization.candidates import (
    MIXABLE,
    Candidate,
    build_candidate,
    candidate_layers,
    kind_of,
    refusal,
    search_candidates,
)
from export.quantization.workshop import TRIAL, Workshop

SLOWER_AT_MOST = 1.03  # what int8 embeddings may cost and still be said to cost nothing
REFERENCE = "onnx-fp32"  # the ladder's step of the file that all are compared with
FINALISTS = 6  # the fastest at first sight, timed again beside each other,
FINAL_WITHIN = 2.0  # unless that slow against the fastest: a single look may be off by as much
FINAL_PROCESSES = 3  # of each
FINAL_PASSES = 3  # over the rows, in each


@dataclass(frozen=True)
class Timing:
    """What a search times: rows as strings, and the runtime's call that takes them."""

    rows: Sequence[str]
    call: str


@dataclass(eq=False)
class Trial:
    """A candidate that was made; ``rejected`` says why it cannot be chosen.

    ``record`` are its figures for the table; none where it gave no answers.
    """

    candidate: Candidate
    path: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    lost: float = 0.0
    record: dict[str, Any] | None = None
    size: int | None = None
    samples: Samples = field(default_factory=Samples)
    rejected: str | None = None
    note: str | None = None
    final: bool = False


@dataclass
class Search:
    """The state of one search: the ladder whose checks a file must pass, everything tried so far.

    All are compared with the fp32 file, the step REFERENCE.
    """

    workshop: Workshop
    ladder: Ladder
    timing: Timing
    sensitivity_rows: int
    trials: list[Trial] = field(default_factory=list)

    @property
    def report(self) -> Callable[[str], None]:
        """Tells a line to the reader."""
        return self.ladder.report

    def run(self, precisions: Sequence[str]) -> list[Trial]:
        """Try everything; the trials to keep, the chosen one first."""
        float_file = Trial(Candidate("fp32"), self.workshop.plain)
        rung = next(step for step in self.ladder.steps if step.name == REFERENCE)
        self._measure(float_file, rung, self.ladder.answers(REFERENCE))
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
        over = [one for one in made if one.rejected and one.record is not None]
        if precision in MIXABLE and over and all(one.rejected for one in made):
            self._try_mixed(min(over, key=lambda trial: trial.lost).candidate)

    def _try_mixed(self, candidate: Candidate) -> None:
        ranking = rank_layers(candidate, self.workshop, self.ladder, self.sensitivity_rows)
        for mixed in mixed_candidates(candidate, ranking):
            if self.try_candidate(mixed).rejected is None:
                return

    def _try_embeddings(self) -> tuple[Trial, Trial] | None:
        """The fastest quantised ONNX file, and it with int8 embeddings where they lose nothing."""
        onnx = [one for one in self.fitting() if "runtime" not in one.facts]
        best = next((one for one in onnx if one.candidate.precision in MIXABLE), None)
        if best is None or best.candidate.int8_embeddings or not count_tables(self.workshop.plain):
            return None
        values = {**vars(best.candidate), "int8_embeddings": True}
        trial = self.try_candidate(Candidate(**values))
        if trial.rejected is not None:
            return None
        if not trial.facts["int8_embeddings"]:
            trial.rejected = "no embedding table to quantise"
        elif trial.lost > best.lost:
            trial.rejected = f"loses more than {best.candidate.name}"
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
                take_turns(files, samples, len(self.timing.rows), FINAL_PASSES, (process,))
        for one in self.fitting()[: len(finalists)]:
            self.report(
                f"{one.candidate.name:<36} beside the others: p50 "
                f"{one.samples.p50_batch1_ms:.2f} ms, batch 8 {one.samples.p50_batch8_ms:.1f} ms"
            )

    def _open(self, trial: Trial) -> TimedFile:
        self.workshop.show(trial.path)
        rows, call, device = self.timing.rows, self.timing.call, self.workshop.device
        return TimedFile(self.workshop.folder, TRIAL, rows, call=call, provider=device)

    def try_candidate(self, candidate: Candidate) -> Trial:
        """Make, measure and judge a candidate; whatever a library raises is the reason told."""
        trial = Trial(candidate)
        suffix = ".xml" if candidate.precision.startswith("openvino") else ".onnx"
        trial.path = self.workshop.scratch(candidate.name) / f"model{suffix}"
        try:
            trial.facts = build_candidate(candidate, self.workshop, trial.path)
            self._weigh(trial)
        except Exception as fault:  # of a quantiser or a runtime: this candidate failed, no other
            trial.rejected = f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
            self.report(f"{candidate.name}: {trial.rejected}")
            if trial not in self.trials:
                self.trials.append(trial)
        if trial.rejected and trial.path.parent.is_dir():
            for part in trial.path.parent.iterdir():
                part.unlink()
        return trial

    def _weigh(self, trial: Trial) -> None:
        """Answer the check rows and the made-up ones; further ones where these cannot tell."""
        checks, kind = self.ladder.checks, kind_of(trial.candidate.precision)
        again = partial(self.workshop.answer, trial.path)
        answers = again(checks.rows)
        edges = again([edge.row for edge in checks.edges], alone=True)
        name = f"trial {trial.candidate.name}"
        step = self.ladder.weigh(name, kind, answers, REFERENCE, edges=edges, again=again)
        self._measure(trial, step, answers)

    def _measure(self, trial: Trial, step: Step, answers: Any) -> None:
        """Keep figures, verdict, size and time; an undecided loss is for other files to beat."""
        checks = self.ladder.checks
        trial.size, trial.lost = model_bytes(trial.path), step.worse_by or 0.0
        trial.rejected, trial.note = step.failure, step.note
        if step.note and trial.lost > checks.allowed_loss + 1e-9:
            trial.rejected = step.note
        if checks.is_finite(answers):
            trial.record = checks.tabulate(step, answers, self.ladder.answers(REFERENCE))
        self.trials.append(trial)
        self._time(trial)
        self.report(
            f"{trial.candidate.name:<36} {step.summary()}, p50 "
            f"{trial.samples.p50_batch1_ms:.2f} ms, {trial.size / 1e6:.1f} MB"
            + (f"  {trial.rejected}" if trial.rejected else "")
        )

    def _time(self, trial: Trial) -> None:
        self.workshop.show(trial.path)
        rows, call, device = self.timing.rows, self.timing.call, self.workshop.device
        folder, samples = self.workshop.folder, trial.samples
        measure_latency(folder, TRIAL, rows, samples, call=call, provider=device)

    def table(self, chosen: Sequence[Trial]) -> list[dict[str, Any]]:
        """Everything tried, ready for JSON; accuracies as shares, differences against fp32."""
        return [self._record(trial, chosen) for trial in self.trials]

    def _record(self, trial: Trial, chosen: Sequence[Trial]) -> dict[str, Any]:
        name = trial.candidate.name
        verdict = trial.rejected or ("slower than the chosen one" if trial not in chosen else None)
        if trial.record is None or not trial.samples.batch1_ms:
            return {"name": name, "verdict": trial.rejected}
        return {
            "name": name,
            **trial.record,
            "p50_batch1_ms": round(trial.samples.p50_batch1_ms, 3),
            "p50_batch8_ms": round(trial.samples.p50_batch8_ms, 3),
            "processes": trial.samples.processes,
            "megabytes": round(trial.size / 1e6, 1),
            "float_layers": ", ".join(trial.candidate.float_layers) or None,
            "note": trial.note,
            "verdict": verdict or ("chosen" if trial is chosen[0] else "kept beside it"),
        }


def rank_layers(
    candidate: Candidate, workshop: Workshop, ladder: Ladder, rows: int
) -> list[tuple[str, float]]:
    """(layer, mean logit difference) with that layer alone quantised, the most sensitive first.

    Of the first ``rows`` check rows, against the fp32 file. For OpenVINO, whose calibration
    takes far longer, the layers are ranked in ONNX Runtime's static int8.
    """
    if candidate.precision == "openvino-int8":
        candidate = Candidate("int8-static", calibration="minmax", balanced=workshop.balances)
    checks = ladder.checks
    reference = checks.split_logits(ladder.answers(REFERENCE))[:rows]
    layers = list(candidate_layers(candidate, workshop))
    path = workshop.scratch("sensitivity") / "model.onnx"
    found = []
    for layer in layers:
        others = tuple(name for name in layers if name != layer)
        build_candidate(replace(candidate, float_layers=others), workshop, path)
        logits = checks.split_logits(workshop.answer(path, checks.rows[:rows]))
        pairs = zip(logits, reference, strict=True)
        found.append((layer, float(np.mean([np.abs(now - then).mean() for now, then in pairs]))))
        for part in path.parent.iterdir():
            part.unlink()
    found.sort(key=lambda entry: -entry[1])
    told = ", ".join(f"{layer} ({difference:.2g})" for layer, difference in found[:5])
    ladder.report(f"{candidate.name}: most sensitive layers {told}")
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
