"""fp16: a step that the loss scaler skipped is no step of the schedule either.

accelerate finds a skipped step by the optimizer not having been called. A fused optimizer is
called all the same: it takes the scaler's finding with it and leaves the weights alone. What
tells is the scale, which falls after an overflow and at no other time.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class NoticeSkippedSteps(TrainerCallback):
    """Tells accelerate's optimizer of an overflow, by which Trainer holds the schedule back."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the scale."""
        scaler = self.accelerator.scaler
        self._before = None if scaler is None else scaler.get_scale()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Between the optimizer's step and the schedule's: a smaller scale is a skipped step."""
        if self._before is None:
            return
        skipped = self.accelerator.scaler.get_scale() < self._before
        for optimizer in self.accelerator._optimizers:
            optimizer._is_overflow = skipped
