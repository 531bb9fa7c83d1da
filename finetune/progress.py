"""Progress of a training: loss, metric, samples/s and time left, through rich."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

from finetune.console import console, say


class ProgressReport(TrainerCallback):
    """A live bar on a terminal, one line an evaluation everywhere; times every step."""

    def __init__(self, samples_per_step: int, metric: str) -> None:
        self.samples_per_step = samples_per_step
        self.metric = metric
        self.step_times_s: list[float] = []
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
            disable=not console.is_terminal,
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=state.max_steps, figures="")

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the step's clock."""
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock, move the bar."""
        self.step_times_s.append(time.perf_counter() - self._began)
        recent = self.step_times_s[-20:]
        rate = self.samples_per_step * len(recent) / sum(recent)
        figures = f"{self._figures['loss']} {self._figures['metric']} {rate:.1f} samples/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, figures=figures.strip())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Take the loss from the Trainer's own log."""
        if logs and "loss" in logs:
            self._figures["loss"] = f"loss {logs['loss']:.4f}"

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """One line an evaluation."""
        value = metrics.get(f"eval_{self.metric}")
        if value is None:
            return
        self._figures["metric"] = f"{self.metric} {value:.4f}"
        recent = self.step_times_s[-100:]
        rate = self.samples_per_step * len(recent) / sum(recent) if recent else 0.0
        say(
            f"  step {state.global_step}/{state.max_steps}  {self._figures['loss']}  "
            f"validation {self._figures['metric']}  {rate:.1f} samples/s"
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


class EvaluateLastStep(TrainerCallback):
    """Evaluate and save after the last step too, wherever the evaluation steps fall.

    By epochs Trainer does so by itself.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for both once the schedule is at its end."""
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
