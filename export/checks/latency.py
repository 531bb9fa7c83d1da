"""How long a file takes, from a row to its answer, in processes that do nothing else."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from finetune.core.errors import ModelError
from finetune.core.worker_process import Message, WorkerFailed, WorkerProcess, serve_commands

BATCH = 8
WARM_UP_CALLS = 8  # at least, and at least as long as
WARM_UP_S = 1.0
LIMIT_S = 60.0  # of one pass: a slow file is told from fewer samples
ANSWER_WITHIN_S = 3600.0  # opening and warming up; a pass is shorter
TURN = 50  # rows of one file before the next one's
REWARM_CALLS = 2  # untimed, at least, and at least as long as
REWARM_S = 0.5  # after waking; in shorter turns a file of few milliseconds took half as long again


@dataclass
class Samples:
    """Milliseconds of each call at batch 1 and at batch 8, over all processes so far."""

    batch1_ms: list[float] = field(default_factory=list)
    batch8_ms: list[float] = field(default_factory=list)
    processes: int = 0

    @property
    def p50_batch1_ms(self) -> float:
        """The median call with one row."""
        return statistics.median(self.batch1_ms)

    @property
    def p50_batch8_ms(self) -> float:
        """The median call with eight rows."""
        return statistics.median(self.batch8_ms)

    def add(self, told: dict[str, list[float]]) -> None:
        """Take what a process told."""
        self.batch1_ms += told["batch1_ms"]
        self.batch8_ms += told["batch8_ms"]


class TimedFile:
    """A fresh process with one file opened and warm, that times rows when asked.

    Rows are texts, or names of files; ``call`` names what takes a list of them in the shipped
    runtime, ``module:Class.method``. Unasked it is asleep. Raises ModelError where it fails,
    with the process's last line.
    """

    def __init__(
        self,
        folder: Path,
        precision: str,
        rows: Sequence[str],
        *,
        call: str,
        provider: str = "cpu",
    ) -> None:
        self._precision = precision
        self._process = WorkerProcess("export.checks.latency", None, ANSWER_WITHIN_S)
        try:
            self._ask(
                "open",
                folder=str(folder),
                precision=precision,
                rows=list(rows),
                call=call,
                provider=provider,
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TimedFile:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def time(self, start: int, stop: int) -> dict[str, list[float]]:
        """Milliseconds of the rows from ``start`` to ``stop``, alone and in batches of eight."""
        return self._ask("time", start=start, stop=stop)

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _ask(self, command: str, **content: Any) -> dict[str, Any]:
        try:
            return self._process.ask(command, **content)
        except WorkerFailed as fault:
            raise ModelError(f"{self._precision} could not be measured", received=fault) from fault


def measure_latency(
    folder: Path,
    precision: str,
    rows: Sequence[str],
    samples: Samples,
    *,
    call: str,
    provider: str = "cpu",
) -> None:
    """Add one fresh process's samples of ``precision``; raises ModelError where it fails."""
    with TimedFile(folder, precision, rows, call=call, provider=provider) as file:
        samples.add(file.time(0, len(rows)))
        samples.processes += 1


def take_turns(
    files: Sequence[TimedFile],
    samples: Sequence[Samples],
    count: int,
    passes: int,
    seed: Sequence[int],
) -> None:
    """Time ``count`` rows ``passes`` times, all files in turns of a few rows, in random order.

    What the machine does meanwhile hits all files alike.
    """
    generator = np.random.default_rng(list(seed))
    for _ in range(passes):
        for start in range(0, count, TURN):
            for index in generator.permutation(len(files)).tolist():
                samples[index].add(files[index].time(start, min(start + TURN, count)))
    for one in samples:
        one.processes += 1


class _Server:
    """The process's end: one file, warmed up, and the rows."""

    def open(self, message: Message) -> Message:
        """Load the file and warm it up."""
        self.rows = message["rows"]
        module, _, name = message["call"].partition(":")
        kind, _, method = name.partition(".")
        runtime = getattr(import_module(module), kind)(
            message["folder"],
            message["precision"],
            provider=message["provider"],
            verify=False,
            allow_failed=True,
        )
        self.answer = getattr(runtime, method)
        for size in (1, BATCH):
            self._warm_up(self._calls(size), WARM_UP_CALLS, WARM_UP_S)
        return {}

    def time(self, message: Message) -> Message:
        """Milliseconds of single rows and of batches of eight."""
        start, stop = message["start"], message["stop"]
        return {
            "batch1_ms": self._time_calls(self._calls(1, start, stop)),
            "batch8_ms": self._time_calls(self._calls(BATCH, start, stop)),
        }

    def _calls(self, size: int, start: int = 0, stop: int | None = None) -> list[list[str]]:
        stop = len(self.rows) if stop is None else stop
        return [
            [self.rows[(first + offset) % len(self.rows)] for offset in range(size)]
            for first in range(start, stop, size)
        ]

    def _warm_up(self, calls: list[list[str]], least: int, seconds: float) -> None:
        began, done = time.perf_counter(), 0
        while done < least or time.perf_counter() - began < seconds:
            list(self.answer(calls[done % len(calls)]))
            done += 1
            if time.perf_counter() - began > LIMIT_S:
                break

    def _time_calls(self, calls: list[list[str]]) -> list[float]:
        self._warm_up(calls, REWARM_CALLS, REWARM_S)
        samples: list[float] = []
        began = time.perf_counter()
        for call in calls:
            start = time.perf_counter_ns()
            list(self.answer(call))
            samples.append(round((time.perf_counter_ns() - start) / 1e6, 4))
            if time.perf_counter() - began > LIMIT_S:
                break
        return samples


if __name__ == "__main__":
    serve_commands(_Server(), {"open": _Server.open, "time": _Server.time})
