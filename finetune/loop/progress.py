"""Progress of a training: loss, metric, samples/s and time left, through rich."""

from __future__ import annotations

import time
from typing import Any

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

from finetune.core.console import console, say
from finetune.loop.ledger import Ledger


class ProgressReport(TrainerCallback):
    """A live bar on a terminal, one line an evaluation everywhere; times every step."""

    def __init__(self, ledger: Ledger, metric: str) -> None:
        self.ledger = ledger
        self.metric = metric
        self._figures = {"loss": "", "metric": ""}
        self._bar: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar."""
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (console.is_terminal and state.is_world_process_zero),
        )
        self._bar.start()
        self._task = self._bar.add_task(
            "", total=state.max_steps, completed=state.global_step, figures=""
        )
        self._counted = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the step's clock."""
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock, move the bar."""
        self.ledger.note_step(time.perf_counter() - self._began)
        self._count_time()
        figures = f"{self._figures['loss']} {self._figures['metric']} {self._rate(20)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, figures=figures.strip())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Take the loss from the Trainer's own log."""
        if logs and "loss" in logs:
            self._figures["loss"] = f"loss {logs['loss']:.4f}"

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """One line an evaluation."""
        self._count_time()
        if torch.cuda.is_available():
            peak = max(self.ledger.peak_vram_bytes or 0, torch.cuda.max_memory_allocated())
            self.ledger.peak_vram_bytes = peak or None
        value = metrics.get(f"eval_{self.metric}")
        if value is None:
            return
        self._figures["metric"] = f"{self.metric} {value:.4f}"
        if state.is_world_process_zero:
            say(
                f"  step {state.global_step}/{state.max_steps}  {self._figures['loss']}  "
                f"validation {self._figures['metric']}  {self._rate(100)}"
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away, also where the training broke off."""
        if self._bar is not None:
            self._bar.stop()

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.ledger.training_time_s += now - self._counted
        self._counted = now

    def _rate(self, steps: int) -> str:
        recent = self.ledger.step_times_s[-steps:]
        rate = self.ledger.shape.effective * len(recent) / sum(recent) if any(recent) else 0.0
        return f"{rate:.1f} samples/s"


class EvaluateLastStep(TrainerCallback):
    """Evaluate and save after the last step too, wherever the evaluation steps fall.

    By epochs Trainer does so by itself.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for both once the schedule is at its end."""
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
