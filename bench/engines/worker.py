"""One variant in one fresh process, driven over ``finetune.core.worker_process``'s pipe.

Nothing is imported but what the variant needs: its task's engines, and of them one runtime.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import itertools
import os
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bench.engines.engine import Engine, slow_down
from bench.instruments.meters import EnergyMeter, Gpu, open_gpu, rapl_domains
from bench.instruments.scenarios import (
    WallClock,
    batch_of_length,
    highest_rate,
    offline,
    poisson_arrivals,
    serve_arrivals,
    single_stream,
    time_batch,
)
from bench.instruments.timing import (
    REWARM_CALLS,
    peak_memory_bytes,
    round_sample,
    take_priority,
    warm_up,
)
from finetune.core.worker_process import Commands, Message, serve_commands

BULK_WARM_ROWS = 8  # on a CPU, whose kernels do not depend on a batch's shape


class Worker:
    """The state of the process: one engine and the rows that are timed."""

    def __init__(self) -> None:
        self.engines: ModuleType | None = None
        self.variant: Message = {}
        self.threads = 1
        self.engine: Engine | None = None
        self.latency_rows: list[str] = []
        self.throughput_rows: list[str] = []
        self.gpu: Gpu | None = None
        self.meter = EnergyMeter([])
        self.device_bytes_before: int | None = None
        self.device_bytes_grown: int | None = None

    def prepare(self, message: Message) -> Message:
        """Import the variant's libraries and take the rows; nothing is loaded yet."""
        self.engines = importlib.import_module(message["engines"])
        self.variant, self.threads = message["variant"], message["threads"]
        self.latency_rows = message["latency_rows"]
        self.throughput_rows = message["throughput_rows"]
        self.engines.import_libraries(self.variant, self.threads)
        return {}

    def load(self, message: Message) -> Message:
        """Load from disk, then the first answer: seconds and milliseconds."""
        self.gpu = open_gpu(self.variant["device"])
        self.meter = EnergyMeter(rapl_domains(), self.gpu)
        self.device_bytes_before = self.gpu.used_bytes() if self.gpu else None
        began = time.perf_counter()
        engine = self.engines.load_engine(self.variant, self.threads)
        load_s = time.perf_counter() - began
        self.engine = slow_down(engine, self.variant.get("slowdown", 0.0))
        first = single_stream(self.engine.answer, self.latency_rows[:1])
        return {
            "load_s": round_sample(load_s),
            "first_call_ms": round_sample(first[0]),
            "facts": {**self.engine.facts, "priority": os.getpriority(os.PRIO_PROCESS, 0)},
        }

    def warm_up(self, message: Message) -> Message:
        """Single answers until their time is stable; to different rows, as far as there are.

        Then in bulk: a compiled model makes another graph for batches, a GPU's libraries choose
        and load kernels by their shapes. There all rows are answered once, elsewhere a few.
        """
        rows = list(dict.fromkeys(self.latency_rows))
        ended = warm_up(self.engine.answer, rows, message["limit_s"])
        thorough = self.variant["runtime"] == "compiled" or self.variant["device"] != "cpu"
        bulk = self.throughput_rows[: None if thorough else BULK_WARM_ROWS]
        if bulk:
            self.engine.answer_many(bulk, message.get("batch_tokens"))
        now = self.gpu.used_bytes() if self.gpu else None
        if now is not None and self.device_bytes_before is not None:
            self.device_bytes_grown = now - self.device_bytes_before
        return dataclasses.asdict(ended)

    def latency(self, message: Message) -> Message:
        """Single-stream calls over the latency rows, or those from ``start`` to ``stop``."""
        rows = self.latency_rows[message.get("start") : message.get("stop")]
        gc.collect()
        for row in rows[:REWARM_CALLS]:
            self.engine.answer(row)
        samples = single_stream(self.engine.answer, rows)
        return {"samples_ms": [round_sample(value) for value in samples]}

    def energy(self, message: Message) -> Message:
        """Joules a call by source, over passes through the rows that last ``seconds`` at least.

        Counters move every 20 to 100 ms (NVML): over a turn of a few calls they tell nothing.
        Empty where nothing is counted.
        """
        if not self.meter.counts:
            return {"energy_j": {}}
        rows = self.latency_rows[message.get("start") : message.get("stop")]
        calls, began = 0, time.perf_counter()
        self.meter.start()
        while time.perf_counter() - began < message["seconds"]:
            calls += len(single_stream(self.engine.answer, rows))
        joules = self.meter.stop()
        return {"energy_j": {name: value / calls for name, value in joules.items()}}

    def bare(self, message: Message) -> Message:
        """The same rows in a loop with one clock around it, as nobody disturbs it.

        It goes through them once before, so that caches are as warm as in a running service.
        """
        rows = self.latency_rows[message.get("start") : message.get("stop")]
        for row in rows:
            self.engine.answer(row)
        began = time.perf_counter()
        for row in rows:
            self.engine.answer(row)
        return {"seconds": time.perf_counter() - began}

    def throughput(self, message: Message) -> Message:
        """One offline pass over the throughput rows."""
        gc.collect()
        seconds, answers = offline(
            self.engine.answer_many, self.throughput_rows, message.get("batch_tokens")
        )
        return {"rows": len(answers), "seconds": round_sample(seconds), "answers": answers}

    def memory(self, message: Message) -> Message:
        """Peak memory until now: of the process, of PyTorch's allocator, on the device by NVML.

        Where NVML knows this process by another id, what the device had more in use after
        warming up than before loading stands for it.
        """
        own = self.gpu.process_bytes(os.getpid()) if self.gpu else None
        return {
            "peak_memory_bytes": peak_memory_bytes(),
            "peak_vram_bytes": self.engine.peak_vram_bytes(),
            "device_bytes": self.device_bytes_grown if own is None else own,
        }

    def grid(self, message: Message) -> Message:
        """Milliseconds per batch for every batch size and length that this model takes."""
        if self.engine.count_tokens is None:
            return {"cells": []}
        cells = []
        for batch, length in itertools.product(message["batches"], message["lengths"]):
            texts = batch_of_length(self.engine.count_tokens, self.latency_rows, batch, length)
            if texts is not None:
                samples = time_batch(self.engine.in_one_batch, texts)
                rounded = [round_sample(value) for value in samples]
                cells.append({"batch": batch, "length": length, "samples_ms": rounded})
        return {"cells": cells}

    def server(self, message: Message) -> Message:
        """The highest rate of Poisson arrivals whose p99 holds the bound."""
        rows, max_batch = self.latency_rows, message["max_batch"]

        def answer(queries: list[int]) -> None:
            chosen = [rows[query % len(rows)] for query in queries]
            if len(chosen) == 1:
                self.engine.answer(chosen[0])
            else:
                self.engine.in_one_batch(chosen)

        def try_rate(rate_per_s: float, trial: int) -> np.ndarray:
            arrivals = poisson_arrivals(rate_per_s, message["queries"], (message["seed"], trial))
            return serve_arrivals(arrivals, answer, max_batch, WallClock(), bound_s)

        bound_s = message["bound_ms"] / 1e3
        first = 1e3 / statistics.median(single_stream(self.engine.answer, rows))
        found = highest_rate(try_rate, bound_s, first / 2)
        return {
            "max_batch": max_batch,
            "bound_ms": message["bound_ms"],
            **dataclasses.asdict(found),
        }

    def answer(self, message: Message) -> Message:
        """Answers to given rows, in bulk."""
        seconds, answers = offline(
            self.engine.answer_many, message["rows"], message.get("batch_tokens")
        )
        return {"answers": answers, "seconds": round_sample(seconds)}

    def modules(self, message: Message) -> Message:
        """Top-level packages this process has imported: the proof of its isolation."""
        return {"modules": sorted({name.split(".")[0] for name in sys.modules})}

    def make(self, message: Message) -> Message:
        """Make a folder that variants need: a merged checkpoint, a baseline, another precision."""
        makers = importlib.import_module(message["engines"]).MAKERS
        target = Path(message["target"])
        return makers[message["step"]](Path(message["source"]), target, message["options"])


COMMANDS: Commands = {
    name: getattr(Worker, name)
    for name in (
        "prepare",
        "load",
        "warm_up",
        "latency",
        "energy",
        "bare",
        "throughput",
        "memory",
        "answer",
        "grid",
        "server",
        "modules",
        "make",
    )
}


def main(worker: Any, commands: Commands) -> None:
    """Serve the commands before other programs, where the system allows it."""
    take_priority()
    serve_commands(worker, commands)


if __name__ == "__main__":
    main(Worker(), COMMANDS)
