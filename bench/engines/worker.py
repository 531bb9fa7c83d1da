"""One variant in one fresh process, driven over ``finetune.worker_process``'s pipe.

Nothing is imported but what the variant needs.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.engines.slowdown import slow_down
from bench.engines.text import Engine, import_libraries, load_engine
from bench.instruments.energy import EnergyMeter, rapl_domains
from bench.instruments.grid import batch_of_length, time_batch
from bench.instruments.meters import Gpu, open_gpu
from bench.instruments.scenarios import offline, single_stream
from bench.instruments.server import WallClock, highest_rate, poisson_arrivals, serve_arrivals
from bench.instruments.timing import (
    REWARM_CALLS,
    peak_memory_bytes,
    round_sample,
    take_priority,
    warm_up,
)
from finetune.core.worker_process import Commands, Message, serve_commands


class Worker:
    """The state of the process: one engine and the reviews that are timed."""

    def __init__(self) -> None:
        self.variant: Message = {}
        self.threads = 1
        self.engine: Engine | None = None
        self.latency_texts: list[str] = []
        self.throughput_texts: list[str] = []
        self.gpu: Gpu | None = None
        self.meter = EnergyMeter([])
        self.device_bytes_before = 0
        self.device_bytes_grown: int | None = None

    def prepare(self, message: Message) -> Message:
        """Import the variant's libraries and take the reviews; nothing is loaded yet."""
        self.variant, self.threads = message["variant"], message["threads"]
        self.latency_texts = message["latency_texts"]
        self.throughput_texts = message["throughput_texts"]
        import_libraries(self.variant, self.threads)
        return {}

    def load(self, message: Message) -> Message:
        """Load from disk, then the first review: seconds and milliseconds."""
        self.gpu = open_gpu(self.variant["device"])
        self.meter = EnergyMeter(rapl_domains(), self.gpu)
        self.device_bytes_before = self.gpu.used_bytes() if self.gpu else 0
        began = time.perf_counter()
        self.engine = slow_down(load_engine(self.variant, self.threads), self.variant)
        load_s = time.perf_counter() - began
        first = single_stream(self.engine.classify, self.latency_texts[:1])
        return {
            "load_s": round_sample(load_s),
            "first_call_ms": round_sample(first[0]),
            "facts": {**self.engine.facts, "priority": os.getpriority(os.PRIO_PROCESS, 0)},
        }

    def warm_up(self, message: Message) -> Message:
        """Single reviews until their time is stable."""
        ended = warm_up(self.engine.classify, self.latency_texts, message["limit_s"])
        if self.gpu:
            self.device_bytes_grown = self.gpu.used_bytes() - self.device_bytes_before
        return dataclasses.asdict(ended)

    def latency(self, message: Message) -> Message:
        """Single-stream calls over the latency reviews, or those from ``start`` to ``stop``."""
        texts = self.latency_texts[message.get("start") : message.get("stop")]
        gc.collect()
        for text in texts[:REWARM_CALLS]:
            self.engine.classify(text)
        self.meter.start()
        samples = single_stream(self.engine.classify, texts)
        energy = {name: round_sample(value) for name, value in self.meter.stop().items()}
        told = {"energy_j": energy} if energy else {}
        return {"samples_ms": [round_sample(value) for value in samples], **told}

    def bare(self, message: Message) -> Message:
        """The same reviews in a loop with one clock around it, as nobody disturbs it.

        It goes through them once before, so that caches are as warm as in a running service.
        """
        texts = self.latency_texts[message.get("start") : message.get("stop")]
        for text in texts:
            self.engine.classify(text)
        began = time.perf_counter()
        for text in texts:
            self.engine.classify(text)
        return {"seconds": time.perf_counter() - began}

    def throughput(self, message: Message) -> Message:
        """One offline pass over the throughput reviews."""
        gc.collect()
        seconds, predicted = offline(
            self.engine.classify_many, self.throughput_texts, message["batch_size"]
        )
        return {"rows": len(predicted), "seconds": round_sample(seconds), "predicted": predicted}

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
            texts = batch_of_length(self.engine.count_tokens, self.latency_texts, batch, length)
            if texts is not None:
                samples = time_batch(self.engine.in_one_batch, texts)
                rounded = [round_sample(value) for value in samples]
                cells.append({"batch": batch, "length": length, "samples_ms": rounded})
        return {"cells": cells}

    def server(self, message: Message) -> Message:
        """The highest rate of Poisson arrivals whose p99 holds the bound."""
        texts, max_batch = self.latency_texts, message["max_batch"]

        def answer(queries: list[int]) -> None:
            chosen = [texts[query % len(texts)] for query in queries]
            if len(chosen) == 1:
                self.engine.classify(chosen[0])
            else:
                self.engine.in_one_batch(chosen)

        def try_rate(rate_per_s: float, trial: int) -> np.ndarray:
            arrivals = poisson_arrivals(rate_per_s, message["queries"], (message["seed"], trial))
            return serve_arrivals(arrivals, answer, max_batch, WallClock(), bound_s)

        bound_s = message["bound_ms"] / 1e3
        first = 1e3 / statistics.median(single_stream(self.engine.classify, texts))
        found = highest_rate(try_rate, bound_s, first / 2)
        return {
            "max_batch": max_batch,
            "bound_ms": message["bound_ms"],
            **dataclasses.asdict(found),
        }

    def predict(self, message: Message) -> Message:
        """Class ids of given texts, in bulk.

        A pipeline takes texts as they come; here they come sorted by length, which pads less and
        changes no class in float. Other engines see to that themselves.
        """
        texts = message["texts"]
        order = np.arange(len(texts))
        if self.variant["runtime"] == "pipeline":
            order = np.argsort([len(text) for text in texts], kind="stable")
        seconds, found = offline(
            self.engine.classify_many, [texts[row] for row in order], message["batch_size"]
        )
        predicted = np.empty(len(texts), dtype=int)
        predicted[order] = found
        return {"predicted": predicted.tolist(), "seconds": round_sample(seconds)}

    def modules(self, message: Message) -> Message:
        """Top-level packages this process has imported: the proof of its isolation."""
        return {"modules": sorted({name.split(".")[0] for name in sys.modules})}

    def merge(self, message: Message) -> Message:
        """Write a run's merged checkpoint and tokenizer to a folder."""
        from bench.engines.prepare import write_merged

        return write_merged(Path(message["run"]), Path(message["target"]))

    def half(self, message: Message) -> Message:
        """Write an artifact's graph in float16 to a folder."""
        from bench.engines.half import write_half

        return write_half(Path(message["run"]), Path(message["target"]))

    def fit_tfidf(self, message: Message) -> Message:
        """Fit and write the classical baseline."""
        from bench.engines.prepare import write_tfidf

        return write_tfidf(Path(message["run"]), Path(message["target"]), message["seed"])


COMMANDS: Commands = {
    name: getattr(Worker, name)
    for name in (
        "prepare",
        "load",
        "warm_up",
        "latency",
        "bare",
        "throughput",
        "memory",
        "predict",
        "grid",
        "server",
        "modules",
        "merge",
        "half",
        "fit_tfidf",
    )
}


def main(worker: Any, commands: Commands) -> None:
    """Serve the commands before other programs, where the system allows it."""
    take_priority()
    serve_commands(worker, commands)


if __name__ == "__main__":
    main(Worker(), COMMANDS)
