"""One training in one fresh process, a few steps at a time, driven by ``bench/driver.py``.

What runs is the product's own: its data, model, Trainer and data loader. The Trainer runs in a
thread that waits between visits; a visit is timed from its first step's begin to its last's end.
"""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.timing import (
    forget_peak_memory,
    peak_memory_bytes,
    resident_memory_bytes,
    round_sample,
)
from bench.worker import Commands, Message, main


class TrainingWorker:
    """The state of the process: one job, its Trainer, and the gate between visits."""

    def __init__(self) -> None:
        self.job: Any = None
        self.trainer: Any = None
        self.gate: Any = None
        self.before_bytes = 0

    def prepare(self, message: Message) -> Message:
        """Import the libraries, read and tokenise the data; no model is built yet."""
        from bench.training_job import prepare

        self.job = prepare(message["recipe"])
        gc.collect()
        forget_peak_memory()
        self.before_bytes = resident_memory_bytes()
        return self.job.facts

    def build(self, message: Message) -> Message:
        """Model, adapter and Trainer, in memory and ready; seconds and parameters."""
        from bench.training_job import build

        began = time.perf_counter()
        self.trainer, facts = build(self.job, Path(message["scratch"]))
        self.loading_bytes = peak_memory_bytes() - self.before_bytes
        forget_peak_memory()
        return {"build_s": round_sample(time.perf_counter() - began), **facts}

    def steps(self, message: Message) -> Message:
        """Train ``count`` optimizer steps on; seconds, rows, tokens and padding of the visit."""
        if self.gate is None:
            self.gate = _Gate(self.trainer)
        return self.gate.run(message["count"])

    def memory(self, message: Message) -> Message:
        """Peak growth since before the model was built, of the process and of the GPU."""
        import torch

        on_gpu = torch.cuda.is_available() and self.job.job.device == "cuda"
        return {
            "loading_bytes": self.loading_bytes,
            "training_bytes": peak_memory_bytes() - self.before_bytes,
            "peak_memory_bytes": peak_memory_bytes(),
            "peak_vram_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        }

    def flops(self, message: Message) -> Message:
        """Operations of a micro-batch's matrix products, and their peak speed here."""
        from bench.matrix_peak import matrix_peak, step_flops

        inputs = self.gate.last_inputs
        flops, products = step_flops(self.trainer, inputs)
        return {
            "flops": flops,
            "places": inputs["attention_mask"].numel(),
            "matrix_peak": matrix_peak(products, message["seconds"]),
        }

    def plan(self, message: Message) -> Message:
        """What the planner says this recipe needs, at the shape of its largest batch."""
        from bench.training_job import plan

        return plan(message["recipe"])

    def finetune(self, message: Message) -> Message:
        """The whole run, to its metrics."""
        from bench.training_job import finetune_whole

        return finetune_whole(message["recipe"])


class _Gate:
    """Lets the Trainer's thread run a number of steps and counts what they saw."""

    def __init__(self, trainer: Any) -> None:
        from transformers import TrainerCallback

        self._orders: queue.Queue[int] = queue.Queue()
        self._answers: queue.Queue[Message] = queue.Queue()
        self._left = 0
        self._synchronize = _synchronizer(trainer)
        self.last_inputs: dict[str, Any] = {}
        gate = self

        class Stop(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                gate.step_begins()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                gate.step_ends()

        trainer.add_callback(Stop())
        trainer.model.register_forward_pre_hook(self._see, with_kwargs=True)
        self._thread = threading.Thread(target=self._train, args=(trainer,), daemon=True)
        self._thread.start()

    def run(self, count: int) -> Message:
        """Order ``count`` steps and wait for them; raises what the Trainer raised."""
        self._orders.put(count)
        answer = self._answers.get()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def step_begins(self) -> None:
        if self._left == 0:
            self._left = self._orders.get()
            self._seen = {"rows": 0, "tokens": 0, "places": 0}
            self._times: list[float] = []
            self._began = time.perf_counter()
        self._step_began = time.perf_counter()

    def step_ends(self) -> None:
        self._synchronize()
        now = time.perf_counter()
        self._times.append(now - self._step_began)
        self._left -= 1
        if self._left == 0:
            step_ms = [round_sample(1000 * value) for value in self._times]
            seconds = round_sample(now - self._began)
            self._answers.put({"seconds": seconds, "step_ms": step_ms, **self._seen})

    def _see(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        mask = kwargs["attention_mask"]
        self._seen["rows"] += mask.shape[0]
        self._seen["places"] += mask.numel()
        self._seen["tokens"] += int(mask.sum())
        self.last_inputs = kwargs

    def _train(self, trainer: Any) -> None:
        try:
            trainer.train()
            self._answers.put({"error": "the training ended before its steps were measured"})
        except Exception as fault:  # told to the driver; this process has nothing else to do
            self._answers.put({"error": f"{type(fault).__name__}: {fault}"})


def _synchronizer(trainer: Any) -> Callable[[], None]:
    """What waits for the device: nothing on a CPU."""
    import torch

    return torch.cuda.synchronize if trainer.args.device.type == "cuda" else lambda: None


COMMANDS: Commands = {
    name: getattr(TrainingWorker, name)
    for name in ("prepare", "build", "steps", "memory", "flops", "plan", "finetune")
}


if __name__ == "__main__":
    main(TrainingWorker(), COMMANDS)
