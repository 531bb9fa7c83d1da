"""Every way of training in processes of its own, a few steps at a time, in rounds."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.instruments.timing import round_orders
from bench.training.suite import TrainingSuite
from finetune.core.worker_process import WorkerFailed, WorkerProcess
from finetune.recipes.text import FinetuneRecipe

Report = Callable[[str], None]
WORKER = "bench.training.worker"


@dataclass
class TrainingRecord:
    """What was measured of one way with one method; ``visits`` of all processes."""

    way: str
    method: str
    recipe: FinetuneRecipe
    facts: dict[str, Any] = field(default_factory=dict)
    visits: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    whole_run: dict[str, Any] | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        """``<method>-<way>``."""
        return f"{self.method}-{self.way}"


def measure_training(
    records: list[TrainingRecord], suite: TrainingSuite, threads: int, report: Report
) -> None:
    """Fill the records: ``processes`` times all of them together, interleaved over the rounds.

    A case whose worker raises, dies or falls silent gets a ``reason``; the others go on.
    """
    for process in range(suite.processes):
        alive = [one for one in records if one.reason is None]
        report(f"process {process + 1}/{suite.processes}: building {len(alive)} cases")
        with worker_pool(suite, threads) as start:
            _measure_group(alive, suite, process, start, report)


@contextmanager
def worker_pool(suite: Any, threads: int) -> Iterator[Callable[[], WorkerProcess]]:
    """A function that starts workers; all are ended when the block is."""
    started: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        started.append(WorkerProcess(WORKER, threads, suite.call_timeout_s))
        return started[-1]

    try:
        yield start
    finally:
        for worker in started:
            worker.close()


def _measure_group(
    group: list[TrainingRecord],
    suite: TrainingSuite,
    process: int,
    start: Callable[[], WorkerProcess],
    report: Report,
) -> None:
    workers: dict[str, WorkerProcess] = {}
    with tempfile.TemporaryDirectory(prefix="kotune-training-") as scratch:
        for record in group:
            workers[record.name] = start()
            with _failing(record, report):
                _start(record, workers[record.name], suite, Path(scratch) / record.name)
        alive = {one.name: one for one in group}
        seed = (suite.seed, process)
        orders = itertools.islice(round_orders(list(alive), seed), suite.rounds)
        for number, order in enumerate(orders):
            for name in order:
                if alive[name].reason is None:
                    with _failing(alive[name], report):
                        visit = workers[name].ask("steps", count=suite.steps, seconds=suite.visit_s)
                        alive[name].visits.append({"process": process, "round": number, **visit})
            report(f"  round {number + 1}/{suite.rounds}: {_round_line(group)}")
        for record in group:
            if record.reason is None:
                with _failing(record, report):
                    _finish(record, workers[record.name], suite)


def _start(
    record: TrainingRecord, worker: WorkerProcess, suite: TrainingSuite, scratch: Path
) -> None:
    scratch.mkdir()
    recipe = record.recipe.model_dump(mode="json")
    record.facts |= worker.ask("prepare", recipe=recipe, timed=True)
    record.facts |= worker.ask("build", scratch=str(scratch))
    worker.ask("steps", count=suite.warmup_steps)


def _finish(record: TrainingRecord, worker: WorkerProcess, suite: TrainingSuite) -> None:
    """Peak memory; then, once and where asked, the matrix products of its step."""
    record.memory.append(worker.ask("memory"))
    if suite.matrix_peak_s and "matrix" not in record.facts:
        record.facts["matrix"] = worker.ask("flops", seconds=suite.matrix_peak_s)


def run_whole(
    records: list[TrainingRecord], suite: TrainingSuite, threads: int, report: Report
) -> None:
    """Train each record's recipe to its end in a process of its own, for its accuracy.

    ``whole_runs_at_once`` share the threads.
    """
    at_once = min(suite.whole_runs_at_once, threads)
    trainings = ThreadPoolExecutor(at_once)
    with worker_pool(suite, threads // at_once) as start:
        try:
            waiting = [
                trainings.submit(_run_whole, record, start, report)
                for record in records
                if record.reason is None
            ]
            for one in waiting:
                one.result()
        finally:  # after Ctrl-C none begins any more, and the end of the block ends the workers
            trainings.shutdown(wait=False, cancel_futures=True)


def _run_whole(record: TrainingRecord, start: Callable[[], WorkerProcess], report: Report) -> None:
    worker = start()
    with (
        closing(worker),
        tempfile.TemporaryDirectory(prefix="kotune-training-") as folder,
        _failing(record, report),
    ):
        changed = record.recipe.model_copy(update={"output": f"{folder}/run"})
        record.whole_run = worker.ask("finetune", recipe=changed.model_dump(mode="json"))
        right = record.whole_run["right"]["validation"]
        accuracy = right.count("1") / len(right)
        report(f"  {record.name}: whole run, validation accuracy {accuracy:.2%}")


@contextmanager
def _failing(record: TrainingRecord, report: Report) -> Iterator[None]:
    """Where a worker fails, its record says why."""
    try:
        yield
    except WorkerFailed as fault:
        record.reason = str(fault)
        report(f"  {record.name} failed: {fault}")


def _round_line(group: list[TrainingRecord]) -> str:
    parts = [
        f"{one.name} {one.visits[-1]['rows'] / one.visits[-1]['seconds']:.2f} samples/s"
        for one in group
        if one.visits and one.reason is None
    ]
    return ", ".join(parts)
