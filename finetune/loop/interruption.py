"""When a training saves, and how it stops in good order when it is asked to."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

SAVE_EVERY_S = 300.0


@dataclass
class StopRequest:
    """Whether someone asked for an end: Ctrl-C, SIGTERM."""

    asked: bool = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second Ctrl-C ends at once."""
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.asked = True

    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread alone
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class SaveAndStop(TrainerCallback):
    """Saves every ``save_steps`` or five minutes, at an epoch's end and when asked to stop.

    A step that an epoch's evaluation follows is saved after it: going on from there must not
    pass the evaluation over.
    """

    def __init__(self, request: StopRequest, save_steps: int | None) -> None:
        self.request = request
        self.save_steps = save_steps
        self.interrupted = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._saved = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start it again."""
        self._saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Decide on saving and stopping, all processes alike."""
        late = self.save_steps is None and time.monotonic() - self._saved > SAVE_EVERY_S
        stop, late = _any_process([self.request.asked, late], args)
        if stop:
            self.interrupted = control.should_training_stop = True
        due = self.save_steps is not None and state.global_step % self.save_steps == 0
        if stop or late or due:
            control.should_save = True
        if args.eval_strategy == "epoch" and _at_evaluation(state):
            control.should_save = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save after an epoch's evaluation; none of both where an epoch was broken off."""
        if args.eval_strategy == "epoch":
            control.should_evaluate = control.should_save = _at_evaluation(state)


def _at_evaluation(state: Any) -> bool:
    return float(state.epoch).is_integer() or state.global_step >= state.max_steps


def _any_process(flags: list[bool], args: Any) -> list[bool]:
    """Each flag, true where any process has it."""
    if args.world_size == 1:
        return flags
    shared = torch.tensor(flags, dtype=torch.int32, device=args.device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return [bool(value) for value in shared.tolist()]
