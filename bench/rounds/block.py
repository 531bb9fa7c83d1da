"""Variants that are alive together: started, loaded, warmed up, visited in rounds, ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.instruments.disturbance import CpuWatch, gpu_disturbance
from bench.instruments.meters import open_gpu
from bench.instruments.timing import round_orders, round_sample
from bench.rounds.checkpoint import Checkpoint, Progress
from bench.rounds.schedule import Schedule
from bench.settings import BenchSettings
from bench.variants.contenders import Variant
from finetune.core.worker_process import WorkerFailed, WorkerProcess

if TYPE_CHECKING:
    from bench.tasks.task import Rows, Task

Report = Callable[[str], None]
ENERGY_WINDOW_S = 2.0  # NVML's counter moves every 20 to 100 ms
AGREEMENT = 0.995  # of answers, for those that a run has stored to stand for a variant's


@dataclass(frozen=True)
class Plan:
    """What all workers share. ``stored`` are answers that a run gave itself, by variant."""

    task: Task
    settings: BenchSettings
    threads: int
    rows: Rows
    sizes: dict[str, int]
    stored: dict[str, list[Any]]
    checkpoint: Checkpoint
    report: Report
    baseline: str


@dataclass
class Pass:
    """One pass of a variant over the latency rows of one length, as its turns come in."""

    process: int
    round: int
    length_s: float | None
    samples_ms: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # from and to, of each turn
    call_j: dict[str, float] = field(default_factory=dict)  # a call, by source

    def add(self, told: dict[str, Any], start: int, stop: int) -> None:
        """Take what a worker told of one turn."""
        self.samples_ms += told["samples_ms"]
        self.rows += [start, stop]

    def as_entry(self) -> dict[str, Any]:
        """An entry of a variant's ``latency`` in results.json."""
        entry: dict[str, Any] = {"process": self.process, "round": self.round}
        if self.length_s is not None:
            entry["length_s"] = self.length_s
        entry["samples_ms"] = self.samples_ms
        if self.call_j:
            count = len(self.samples_ms)
            entry["energy_j"] = {name: value * count for name, value in self.call_j.items()}
        return entry


class Block:
    """The variants that are alive together, from start to end of their processes."""

    def __init__(
        self,
        process: int,
        index: int,
        variants: Sequence[Variant],
        progress: Progress,
        plan: Plan,
        schedule: Schedule,
        where: str,
        deadline: float,
    ) -> None:
        self.process, self.index = process, index
        self.variants = {variant.name: variant for variant in variants}
        self.results, self.load, self.plan = progress.variants, progress.load, plan
        self.schedule, self.where, self.deadline = schedule, where, deadline
        self.workers: dict[str, WorkerProcess] = {}

    def run(self) -> None:
        """Start, load, warm up, rounds, memory, accuracy; the processes end whatever happens."""
        try:
            self._start()
            for name in list(self.workers):
                self._attempt(name, self._load)
            self._rounds()
            with self.schedule.outside():
                for step in (self._memory, self._once, self._finish):
                    for name in list(self.workers):
                        self._attempt(name, step)
        finally:
            for worker in self.workers.values():
                worker.close()

    def _attempt(self, name: str, action: Callable[[str], None]) -> None:
        """Do something with one worker; where that fails, the variant has failed."""
        try:
            action(name)
        except WorkerFailed as fault:
            self.results[name].reason = str(fault)
            self.workers.pop(name).close()
            self.plan.report(f"  {name} failed: {fault}")

    def _start(self) -> None:
        """Start all processes and import their libraries, as many at a time as there are cores."""
        settings, rows = self.plan.settings, self.plan.rows
        self.plan.report(f"{self.where}: starting {len(self.variants)} workers")
        content = {
            "engines": self.plan.task.engines,
            "threads": self.plan.threads,
            "latency_rows": rows.latency,
            "throughput_rows": rows.throughput,
        }
        waiting = []
        for name, variant in self.variants.items():
            self.workers[name] = WorkerProcess(
                "bench.engines.worker", self.plan.threads, settings.call_timeout_s
            )
            waiting.append(name)
            message = {"variant": variant.as_job(), **content}
            self._attempt(name, lambda one, m=message: self.workers[one].send("prepare", **m))
            if len(waiting) >= self.plan.threads:
                self._attempt_ready(waiting.pop(0))
        for name in waiting:
            self._attempt_ready(name)

    def _attempt_ready(self, name: str) -> None:
        def ready(one: str) -> None:
            self.workers[one].receive()
            self.workers[one].sleep()

        if name in self.workers:
            self._attempt(name, ready)

    def _load(self, name: str) -> None:
        """Load and warm up while all others sleep."""
        worker, result = self.workers[name], self.results[name]
        loaded = worker.ask("load")
        result.load_s.append(loaded["load_s"])
        result.first_call_ms.append(loaded["first_call_ms"])
        result.facts.update(loaded["facts"])
        tokens = self.plan.rows.batch_tokens
        warm = worker.ask("warm_up", limit_s=self.plan.settings.warmup_s, batch_tokens=tokens)
        result.warm_up.append(warm)
        self.plan.report(
            f"  {name}: loaded in {loaded['load_s']:.2f} s, first {self.plan.task.unit} "
            f"{loaded['first_call_ms']:.1f} ms, warm after {warm['calls']} calls"
            + ("" if warm["stable"] else " (not yet stable)")
        )

    def _rounds(self) -> None:
        """Visit every worker once a round, in a random order, as often as the schedule wants."""
        seed = (self.plan.settings.seed, self.process, self.index, 1)
        orders = round_orders(list(self.workers), seed)
        watch, began, number = CpuWatch(), time.monotonic(), 0
        idle = gpu_disturbance(open_gpu(self.plan.settings.device), self._pids())
        while self.schedule.wants_round(number, self.process, self.deadline, self.results):
            watch.start(self._pids())
            self._latency(number, orders)
            if number < self.plan.rows.throughput_rounds and self.plan.rows.throughput:
                self._in_order(next(orders), lambda one, n=number: self._throughput(one, n))
            where = {"process": self.process, "block": self.index, "round": number}
            self.load.append({**where, "foreign_cores": watch.stop(), **idle})
            number += 1
            elapsed = time.monotonic() - began
            self.plan.report(f"{self.where}: round {number}, {elapsed:.0f} s")

    def _pids(self) -> list[int]:
        return [worker.pid for worker in self.workers.values()]

    def _in_order(self, order: list[str], visit: Callable[[str], None]) -> None:
        for name in order:
            self._attempt_if_alive(name, visit)

    def _attempt_if_alive(self, name: str, visit: Callable[[str], None]) -> None:
        if name in self.workers:
            self._attempt(name, visit)

    def _latency(self, number: int, orders: Iterator[list[str]]) -> None:
        """One pass of every variant over the latency rows; they take turns, a few at a time."""
        passes: dict[tuple[str, float | None], Pass] = {}

        def take_turn(name: str, start: int, stop: int) -> None:
            told = self.workers[name].ask("latency", start=start, stop=stop)
            length_s = self.plan.rows.length_s(start)
            one = passes.setdefault((name, length_s), Pass(self.process, number, length_s))
            one.add(told, start, stop)

        for start, stop in self.plan.rows.turns():
            self._in_order(next(orders), lambda one, a=start, b=stop: take_turn(one, a, b))
        for (name, _), one in passes.items():
            if number == 0:  # once a process: each takes a while
                self._attempt_if_alive(name, lambda alive, one=one: self._energy(alive, one))
            self.results[name].latency.append(one.as_entry())

    def _energy(self, name: str, taken: Pass) -> None:
        """What a call of this pass's rows draws, over a window that the counters can tell."""
        window = {"start": min(taken.rows), "stop": max(taken.rows), "seconds": ENERGY_WINDOW_S}
        told = self.workers[name].ask("energy", **window)["energy_j"]
        taken.call_j = {source: round_sample(value) for source, value in told.items()}

    def _throughput(self, name: str, number: int) -> None:
        result, tokens = self.results[name], self.plan.rows.batch_tokens
        bulk = self.workers[name].ask("throughput", batch_tokens=tokens)
        result.facts["bulk_answers"] = bulk.pop("answers")
        result.throughput.append({"process": self.process, "round": number, **bulk})

    def _memory(self, name: str) -> None:
        """Peak memory of load, latency and throughput."""
        peak, result = self.workers[name].ask("memory"), self.results[name]
        for kind in ("peak_memory_bytes", "peak_vram_bytes", "device_bytes"):
            if peak[kind] is not None:
                getattr(result, kind).append(peak[kind])

    def _once(self, name: str) -> None:
        """What the task wants of each worker beside the rounds, in the first process."""
        if self.process or self.variants[name].is_noise_pair:
            return
        for ask in self.plan.task.once(self.plan.settings):
            for told in ask(self.workers[name], self.results[name]):
                self.plan.report(f"  {name}: {told}")

    def _finish(self, name: str) -> None:
        """Once per variant, the accuracy pass; then the process ends."""
        variant, result = self.variants[name], self.results[name]
        wanted = self.plan.rows.accuracy and not variant.is_noise_pair and variant.group is None
        if wanted and not result.answers:
            self._answer(name)
        self.workers[name].close()

    def _answer(self, name: str) -> None:
        """Answers to all test rows: the run's own where they prove to be this variant's."""
        result, rows = self.results[name], self.plan.rows
        stored = self.plan.stored.get(name)
        bulk = result.facts.get("bulk_answers")
        if stored is not None and bulk and agreement(stored, rows.bulk, bulk) >= AGREEMENT:
            result.answers, result.answers_from = stored, "run"
            return
        told = self.workers[name].ask("answer", rows=rows.test, batch_tokens=rows.batch_tokens)
        result.answers, result.answers_from = told["answers"], "worker"
        self.plan.report(f"  {name}: {len(rows.test):,} test rows in {told['seconds']:.1f} s")


def agreement(stored: Sequence[Any], positions: Sequence[int], answers: Sequence[Any]) -> float:
    """The share of rows at ``positions`` whose stored answer a worker gives as well."""
    same = [stored[row] == answer for row, answer in zip(positions, answers, strict=True)]
    return sum(same) / len(same)
