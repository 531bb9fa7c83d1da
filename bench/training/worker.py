"""One training in one fresh process, a few steps at a time, driven over a pipe.

What runs is the product's own: its data, model, Trainer and data loader, in the main thread as
ever (malloc serves other threads from arenas of their own). Between visits the Trainer waits in a
callback, which answers messages; a visit is timed from its first step's begin to its last's end.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.instruments.timing import (
    forget_peak_memory,
    peak_memory_bytes,
    resident_memory_bytes,
    round_sample,
    take_priority,
)
from finetune.core.worker_process import Commands, Message, Pipe, serve_commands


class TrainingWorker:
    """The state of the process: one job, its Trainer, and the gate between visits."""

    def __init__(self) -> None:
        self.job: Any = None
        self.trainer: Any = None
        self.visits: Any = None
        self.before_bytes = 0
        self.pipe: Pipe

    def prepare(self, message: Message) -> Message:
        """Import the libraries, read and tokenise the data; no model is built yet.

        What will be ``timed`` goes before other programs, as far as the system lets it.
        """
        if message["timed"]:
            take_priority()
        from bench.training.job import prepare

        self.job = prepare(message["recipe"])
        gc.collect()
        forget_peak_memory()
        self.before_bytes = resident_memory_bytes()
        return self.job.facts

    def build(self, message: Message) -> Message:
        """Model, adapter and Trainer, in memory and ready; seconds and parameters."""
        from bench.training.job import build
        from finetune.loop.ledger import forget_vram_peak

        began = time.perf_counter()
        self.trainer, facts = build(self.job, Path(message["scratch"]))
        self.loading_bytes = peak_memory_bytes() - self.before_bytes
        forget_peak_memory()
        forget_vram_peak()
        return {"build_s": round_sample(time.perf_counter() - began), **facts}

    def steps(self, message: Message) -> Message:
        """Train on for ``count`` optimizer steps and any ``seconds`` at least; what they saw."""
        self.visits = _Visits(self.trainer, self.pipe, message)
        self.trainer.train()  # answers this message, and those that follow, from within
        raise RuntimeError("the training ended before its steps were measured")

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
        from bench.training.matrix_peak import matrix_peak, step_flops

        inputs = self.visits.last_inputs
        flops, products = step_flops(self.trainer, inputs)
        return {
            "flops": flops,
            "places": inputs["attention_mask"].numel(),
            "matrix_peak": matrix_peak(products, message["seconds"]),
        }

    def plan(self, message: Message) -> Message:
        """What the planner says this recipe needs, at the shape of its largest batch."""
        from bench.training.job import plan

        return plan(message["recipe"])

    def finetune(self, message: Message) -> Message:
        """The whole run, to its metrics."""
        from bench.training.job import finetune_whole

        return finetune_whole(message["recipe"])


class _Visits:
    """Times the Trainer's steps, visit by visit, and counts what they saw.

    Where a visit ends, the pipe is served until the next one is asked for.
    """

    def __init__(self, trainer: Any, pipe: Pipe, asked: Message) -> None:
        from transformers import TrainerCallback

        self._pipe = pipe
        self._synchronize = _synchronizer(trainer)
        self.last_inputs: dict[str, Any] = {}
        visits = self

        class Clock(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                visits.step_begins()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                visits.step_ends()

        trainer.add_callback(Clock())
        trainer.model.register_forward_pre_hook(self._see, with_kwargs=True)
        self._begin(asked)

    def step_begins(self) -> None:
        if self._over:
            self._wait()
        self._step_began = time.perf_counter()
        if not self._times:
            self._began = self._step_began

    def step_ends(self) -> None:
        self._synchronize()
        now = time.perf_counter()
        self._times.append(now - self._step_began)
        seconds = now - self._began
        self._over = len(self._times) >= self._count and seconds >= self._seconds
        if self._over:
            step_ms = [round_sample(1000 * value) for value in self._times]
            self._pipe.answer({"seconds": round_sample(seconds), "step_ms": step_ms, **self._seen})

    def _begin(self, asked: Message) -> None:
        self._count, self._seconds = asked["count"], asked.get("seconds", 0.0)
        self._over = False
        self._seen = {"rows": 0, "tokens": 0, "places": 0}
        self._times: list[float] = []

    def _wait(self) -> None:
        """Serve the pipe until more steps are asked for; end the process where it ends."""
        message = self._pipe.serve(until="steps")
        if message is None:
            raise SystemExit
        self._begin(message)

    def _see(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        mask = kwargs["attention_mask"]
        self._seen["rows"] += mask.shape[0]
        self._seen["places"] += mask.numel()
        self._seen["tokens"] += int(mask.sum())
        self.last_inputs = kwargs


def _synchronizer(trainer: Any) -> Callable[[], None]:
    """What waits for the device: nothing on a CPU."""
    import torch

    return torch.cuda.synchronize if trainer.args.device.type == "cuda" else lambda: None


COMMANDS: Commands = {
    name: getattr(TrainingWorker, name)
    for name in ("prepare", "build", "steps", "memory", "flops", "plan", "finetune")
}


if __name__ == "__main__":
    serve_commands(TrainingWorker(), COMMANDS)
