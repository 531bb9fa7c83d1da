"""Many variants, each in processes of its own, visited in rounds of random order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.checkpoint import Checkpoint, Measurement, Progress
from bench.driver import WorkerFailed, WorkerProcess
from bench.rows import TestRows
from bench.settings import BenchSection
from bench.timing import free_memory_bytes, plan_blocks, round_orders
from bench.variants import Variant

Report = Callable[[str], None]
LIBRARY_BYTES = {"onnx": 200_000_000, "sklearn": 350_000_000}  # resident once imported
TORCH_BYTES = 800_000_000
WEIGHT_COPIES = 2.5  # at the peak of loading, with activations
AGREEMENT = 0.995  # of predicted classes, for a run's stored predictions to stand for a variant's


@dataclass(frozen=True)
class Plan:
    """What all workers share. ``stored`` are class ids a run predicted itself, by variant."""

    settings: BenchSection
    threads: int
    rows: TestRows
    sizes: dict[str, int]
    stored: dict[str, list[int]]
    checkpoint: Checkpoint
    report: Report


def measure_variants(variants: Sequence[Variant], plan: Plan) -> Progress:
    """Measure every variant, or go on after the last process that was finished.

    A variant whose worker raises, dies or falls silent gets a ``reason``; the others go on.
    """
    by_name = {variant.name: variant for variant in variants}
    progress = plan.checkpoint.load(list(by_name))
    if progress.blocks:
        plan.report(f"going on after process {len(progress.blocks)}, measured before")
    for process in range(len(progress.blocks), plan.settings.processes):
        alive = [name for name in by_name if progress.variants[name].reason is None]
        order = next(round_orders(alive, 1, (plan.settings.seed, process)))
        needs = {name: memory_need(by_name[name], plan.sizes.get(name) or 0) for name in alive}
        room = int(free_memory_bytes() * plan.settings.memory_share)
        blocks = plan_blocks(order, needs, room) if order else []
        for index, block in enumerate(blocks):
            where = f"process {process + 1}/{plan.settings.processes}"
            where += f", block {index + 1}/{len(blocks)}" if len(blocks) > 1 else ""
            share = _budget_share(plan.settings, len(blocks))
            chosen = [by_name[name] for name in block]
            _Block(process, index, chosen, progress.variants, plan, where, share).run()
        progress.blocks.append(blocks)
        plan.checkpoint.save(progress)
    return progress


def memory_need(variant: Variant, size_bytes: int) -> int:
    """A cautious guess of a worker's peak resident memory."""
    libraries = LIBRARY_BYTES.get(variant.runtime, TORCH_BYTES)
    return libraries + int(WEIGHT_COPIES * size_bytes)


def _budget_share(settings: BenchSection, blocks: int) -> float:
    if settings.time_budget_s is None:
        return float("inf")
    return settings.time_budget_s / settings.processes / blocks


class _Block:
    """The variants that are alive together, from start to end of their processes."""

    def __init__(
        self,
        process: int,
        index: int,
        variants: Sequence[Variant],
        results: dict[str, Measurement],
        plan: Plan,
        where: str,
        budget_s: float,
    ) -> None:
        self.process, self.index = process, index
        self.variants = {variant.name: variant for variant in variants}
        self.results, self.plan = results, plan
        self.where, self.budget_s = where, budget_s
        self.workers: dict[str, WorkerProcess] = {}

    def run(self) -> None:
        """Start, load, warm up, rounds, memory, accuracy; the processes end whatever happens."""
        try:
            self._start()
            for name in list(self.workers):
                self._attempt(name, self._load)
            self._rounds()
            for name in list(self.workers):
                self._attempt(name, self._finish)
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
            "threads": self.plan.threads,
            "latency_texts": rows.texts_at(rows.latency),
            "throughput_texts": rows.texts_at(rows.throughput),
        }
        waiting = []
        for name, variant in self.variants.items():
            self.workers[name] = WorkerProcess(self.plan.threads, settings.call_timeout_s)
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
        warm = worker.ask("warm_up", limit_s=self.plan.settings.warmup_s)
        result.warm_up.append(warm)
        self.plan.report(
            f"  {name}: loaded in {loaded['load_s']:.2f} s, first review "
            f"{loaded['first_call_ms']:.1f} ms, warm after {warm['calls']} calls"
            + ("" if warm["stable"] else " (not yet stable)")
        )

    def _rounds(self) -> None:
        """Visit every worker once a round; stop after the round in which the budget ended."""
        settings = self.plan.settings
        seed = (settings.seed, self.process, self.index, 1)
        began = time.monotonic()
        for number, order in enumerate(
            round_orders(list(self.workers), settings.rounds, seed), start=1
        ):
            for name in order:
                if name in self.workers:
                    self._attempt(name, lambda one, n=number: self._visit(one, n - 1))
            elapsed = time.monotonic() - began
            self.plan.report(f"{self.where}: round {number}/{settings.rounds}, {elapsed:.0f} s")
            if elapsed >= self.budget_s:
                self.plan.report("  the time budget has ended")
                return

    def _visit(self, name: str, number: int) -> None:
        worker, result, settings = self.workers[name], self.results[name], self.plan.settings
        key = {"process": self.process, "round": number}
        result.latency.append({**key, **worker.ask("latency")})
        if number < settings.throughput_rounds and len(self.plan.rows.throughput):
            bulk = worker.ask("throughput", batch_size=settings.throughput_batch_size)
            result.facts["bulk_predicted"] = bulk.pop("predicted")
            result.throughput.append({**key, **bulk})

    def _finish(self, name: str) -> None:
        """Peak memory of load, latency and throughput; then, once, the accuracy pass."""
        worker, result = self.workers[name], self.results[name]
        peak = worker.ask("memory")
        result.peak_memory_bytes.append(peak["peak_memory_bytes"])
        if peak["peak_vram_bytes"] is not None:
            result.peak_vram_bytes.append(peak["peak_vram_bytes"])
        if self.plan.rows.accuracy and not result.predicted:
            self._predict(name)
        worker.close()

    def _predict(self, name: str) -> None:
        """Class ids of all test rows: the run's own where they prove to be this variant's."""
        result, rows = self.results[name], self.plan.rows
        stored = self.plan.stored.get(name)
        bulk = result.facts.get("bulk_predicted")
        if stored is not None and bulk and agreement(stored, rows.throughput, bulk) >= AGREEMENT:
            result.predicted, result.predicted_from = stored, "run"
            return
        answer = self.workers[name].ask(
            "predict", texts=rows.texts, batch_size=self.plan.settings.throughput_batch_size
        )
        result.predicted, result.predicted_from = answer["predicted"], "worker"
        self.plan.report(f"  {name}: {len(rows.texts):,} test rows in {answer['seconds']:.1f} s")


def agreement(stored: Sequence[int], positions: np.ndarray, predicted: Sequence[int]) -> float:
    """The share of rows at ``positions`` whose stored class a worker predicts as well."""
    return float(np.mean(np.asarray(stored)[positions] == np.asarray(predicted)))
