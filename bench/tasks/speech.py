"""The story of a speech benchmark: a run and its artifact in, a report folder out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bench.benchmark import check_target, warn_if_busy
from bench.instruments.timing import round_orders
from bench.report.pages.speech import write_speech_report
from bench.results.speech_records import BASE, SCHEMA
from bench.rounds.compose import (
    artifact_ladders,
    commands_of,
    plain_command,
    training_curves,
    training_facts,
)
from bench.speech_settings import SpeechBenchSection
from bench.variants.speech import (
    SpeechVariant,
    base_variants,
    conv_variants,
    open_speech_pair,
    trained_variants,
)
from bench.variants.text import Contender
from export.artifact.folder import MANIFEST
from export.runtime.processor import available_cores
from finetune.core.errors import GateError
from finetune.core.files import write_json
from finetune.core.provenance import collect_provenance
from finetune.core.worker_process import WorkerFailed, WorkerProcess
from finetune.data.audio import read_audio
from finetune.recipes.files import apply_overrides, check_recipe
from finetune.run_folder import Run, read_rows
from finetune.tasks.registry import SPEECH

Report = Callable[[str], None]


@dataclass
class Measured:
    """What was measured of one variant; ``latency`` by length in seconds, a list a round."""

    load_s: float | None = None
    first_call_ms: float | None = None
    peak_memory_bytes: int | None = None
    latency: dict[str, list[list[float]]] = field(default_factory=dict)
    transcripts: list[str] = field(default_factory=list)
    reason: str | None = None


def is_speech(folders: Sequence[str]) -> bool:
    """Whether any of the folders is a run or artifact that transcribes."""
    for folder in folders:
        for name in ("run.json", MANIFEST):
            path = Path(folder) / name
            if path.is_file() and json.loads(path.read_text("utf-8")).get("task") == SPEECH:
                return True
    return False


def run_speech_benchmark(
    folders: Sequence[str],
    overrides: Sequence[str],
    output: Path | None,
    *,
    report: Report = print,
) -> Path:
    """Measure every variant; write ``output``/results.json and its report; the report's path.

    Raises FolderError or RecipeError before anything is measured.
    """
    plain = [override.removeprefix("bench.") for override in overrides]
    settings = check_recipe(SpeechBenchSection, apply_overrides({}, plain), "bench")
    run, artifact = open_speech_pair([Path(folder) for folder in folders])
    output = output or Path("reports") / run.name
    check_target(output)
    warn_if_busy(report)
    threads = settings.threads or available_cores()
    with tempfile.TemporaryDirectory(prefix="kotune-bench-") as name:
        scratch = Path(name)
        variants = trained_variants(run, artifact)
        baselines = {run.method: variants[0].name}
        if settings.base_size:
            report("making base-960h's architecture with random weights")
            base = base_variants(run, artifact, scratch)
            baselines[BASE] = base[0].name
            variants += base
        if settings.conv_ablation:
            variants += conv_variants(variants, scratch)
        recordings = write_recordings(run, settings, scratch)
        measured = measure_speech(variants, recordings, settings, threads, report)
    pair, environment = [Contender(run, artifact)], collect_provenance(settings.seed)
    content = {
        "name": output.name,
        "created": environment["created"],
        "commands": commands_of(pair, environment["command"]),
        "environment": {**environment, "command": plain_command(environment["command"])},
        "settings": {**settings.model_dump(mode="json"), "threads": threads},
        "run": {"name": run.name, "method": run.method, "parameters": run.info["parameters"]},
        "training": training_facts(pair),
        "curves": training_curves(pair),
        "ladders": artifact_ladders(pair),
        "baselines": baselines,
        "references": recordings.references,
        "variants": [describe(one, measured[one.name]) for one in variants],
    }
    write_json(output / "results.json", SCHEMA, content)
    if all(one.reason for one in measured.values()):
        raise GateError("no variant could be measured", next_step=str(output / "results.json"))
    return write_speech_report(output)


@dataclass(frozen=True)
class BenchRecordings:
    """Files that all workers read: timed ones by length, test ones with their references."""

    timed: dict[str, str]
    test: list[str]
    references: list[str]


def write_recordings(run: Run, settings: SpeechBenchSection, scratch: Path) -> BenchRecordings:
    """The run's test recordings as files, and joined to the lengths that are timed."""
    rows = read_rows(run, "test")
    if settings.test_rows is not None:
        rows = rows.iloc[: settings.test_rows]
    rate_hz = run.info["sampling_rate_hz"]
    waves = [read_audio(audio, rate_hz) for audio in rows["audio"]]
    test = []
    for place, audio in enumerate(rows["audio"]):
        path = scratch / f"test-{place}.flac"
        path.write_bytes(audio)
        test.append(str(path))
    joined = np.concatenate(waves)
    timed = {}
    for seconds in settings.lengths_s:
        path = scratch / f"timed-{seconds:g}.wav"
        soundfile.write(path, np.resize(joined, int(seconds * rate_hz)), rate_hz, subtype="PCM_16")
        timed[f"{seconds:g}"] = str(path)
    return BenchRecordings(timed, test, rows["text"].tolist())


def measure_speech(
    variants: Sequence[SpeechVariant],
    recordings: BenchRecordings,
    settings: SpeechBenchSection,
    threads: int,
    report: Report,
) -> dict[str, Measured]:
    """Each variant in a process of its own, visited in rounds of random order, all others asleep.

    A variant whose worker raises, dies or falls silent gets a ``reason``; the others go on.
    """
    bench = _Bench(recordings, settings, threads, report)
    names = [one.name for one in variants]
    try:
        for one in variants:
            bench.attempt(one.name, lambda one=one: bench.load(one))
        orders = islice(round_orders(names, (settings.seed,)), settings.rounds)
        for number, order in enumerate(orders, start=1):
            for name in order:
                bench.attempt(name, lambda name=name: bench.visit(name))
            report(f"round {number}/{settings.rounds}")
        for one in variants:
            bench.attempt(one.name, lambda one=one: bench.finish(one))
    finally:
        for worker in bench.workers.values():
            worker.close()
    return bench.results


@dataclass
class _Bench:
    """The variants that are alive, and what was measured of all."""

    recordings: BenchRecordings
    settings: SpeechBenchSection
    threads: int
    report: Report
    workers: dict[str, WorkerProcess] = field(default_factory=dict)
    results: dict[str, Measured] = field(default_factory=dict)

    def attempt(self, name: str, action: Callable[[], None]) -> None:
        """Do something with one worker; where that fails, the variant has failed."""
        if self.results.setdefault(name, Measured()).reason:
            return
        try:
            action()
        except WorkerFailed as fault:
            self.results[name].reason = str(fault)
            self.workers.pop(name).close()
            self.report(f"  {name} failed: {fault}")

    def load(self, one: SpeechVariant) -> None:
        """Start the process and load the model in it."""
        worker = WorkerProcess("bench.engines.speech", self.threads, self.settings.call_timeout_s)
        self.workers[one.name] = worker
        told = worker.ask(
            "load", variant=one.as_job(), threads=self.threads, file=self.recordings.test[0]
        )
        result = self.results[one.name]
        result.load_s, result.first_call_ms = told["load_s"], told["first_call_ms"]
        self.report(f"  {one.name}: loaded in {told['load_s']:.2f} s")

    def visit(self, name: str) -> None:
        """One round: every length of audio."""
        for seconds, file in self.recordings.timed.items():
            told = self.workers[name].ask("latency", file=file, calls=self.settings.calls)
            self.results[name].latency.setdefault(seconds, []).append(told["samples_ms"])

    def finish(self, one: SpeechVariant) -> None:
        """Peak memory, then the test recordings; random weights say nothing worth reading."""
        worker, result = self.workers[one.name], self.results[one.name]
        result.peak_memory_bytes = worker.ask("memory")["peak_memory_bytes"]
        if one.group != BASE:
            result.transcripts = worker.ask("transcribe", files=self.recordings.test)["transcripts"]


def describe(variant: SpeechVariant, measured: Measured) -> dict[str, Any]:
    """A variant's entry of results.json."""
    return {
        "name": variant.name,
        "group": variant.group,
        "runtime": variant.runtime,
        "precision": variant.precision,
        "description": variant.description,
        "export_checks": variant.export_checks,
        "size_bytes": variant.size_bytes,
        "status": "failed" if measured.reason else "ok",
        **vars(measured),
    }
