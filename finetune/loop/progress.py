"""Progress of a training: loss, metric, speed and time left, through rich."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
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
from finetune.loop.ledger import Ledger, peak_vram_bytes


@dataclass(frozen=True)
class Watch:
    """What is told of a training, by which figure it keeps its best, how often it saves, where.

    ``metric`` is an evaluation's, without ``eval_``. ``seen`` gives how many of ``unit`` have
    been trained on after so many optimizer steps; None: the rows of the steps. With
    ``every_log`` each log line is told, not the evaluations alone.
    """

    metric: str
    greater_is_better: bool
    save_steps: int | None
    device: str
    unit: str = "samples"
    seen: Callable[[int], float] | None = None
    every_log: bool = False


class ProgressReport(TrainerCallback):
    """A live bar on a terminal, one line an evaluation everywhere; times every step."""

    def __init__(self, ledger: Ledger, watch: Watch) -> None:
        self.ledger = ledger
        self.watch = watch
        self.metric = watch.metric
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
        self._move_bar(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Take the loss from the Trainer's own log."""
        if not logs or "loss" not in logs:
            return
        self._figures["loss"] = f"loss {logs['loss']:.4f}"
        self._move_bar(state)
        if self.watch.every_log and state.is_world_process_zero:
            recent = self.ledger.step_times_s[-args.logging_steps :]
            left_s = (state.max_steps - state.global_step) * sum(recent) / max(1, len(recent))
            say(
                f"  step {state.global_step}/{state.max_steps}  epoch {logs['epoch']:.2f}  "
                f"{self._figures['loss']}  lr {logs['learning_rate']:.2e}  "
                f"{self._rate(args.logging_steps, state.global_step)}  {left_s / 60:.0f} min left"
            )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """One line an evaluation."""
        self._count_time()
        if torch.cuda.is_available():
            peak = max(self.ledger.peak_vram_bytes or 0, peak_vram_bytes())
            self.ledger.peak_vram_bytes = peak or None
        value = metrics.get(f"eval_{self.metric}")
        if value is None:
            return
        self._figures["metric"] = f"{self.metric} {value:.4f}"
        self._move_bar(state)  # Trainer logs and evaluates after the end of the step
        if state.is_world_process_zero:
            say(
                f"  step {state.global_step}/{state.max_steps}  {self._figures['loss']}  "
                f"validation {self._figures['metric']}  {self._rate(100, state.global_step)}"
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away, also where the training broke off."""
        if self._bar is not None:
            self._bar.stop()

    def _move_bar(self, state: Any) -> None:
        """Show the step and the newest figures."""
        rate = self._rate(20, state.global_step)
        figures = f"{self._figures['loss']} {self._figures['metric']} {rate}"
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, figures=figures.strip())

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.ledger.training_time_s += now - self._counted
        self._counted = now

    def _rate(self, steps: int, now: int) -> str:
        recent = self.ledger.step_times_s[-steps:]
        if self.watch.seen is None:
            seen = float(self.ledger.shape.effective * len(recent))
        else:
            seen = self.watch.seen(now) - self.watch.seen(max(0, now - len(recent)))
        return f"{seen / sum(recent) if any(recent) else 0.0:,.1f} {self.watch.unit}/s"


class EvaluateLastStep(TrainerCallback):
    """Evaluate and save after the last step too, wherever the evaluation steps fall.

    By epochs Trainer does so by itself.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for both once the schedule is at its end."""
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
