"""The Trainer of classified rows: their order, their loss, the best weights, memory."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import Sampler

from finetune.loop.out_of_memory import MicroBatchTooLarge, is_out_of_memory
from finetune.loop.resumable import ResumableTrainer
from finetune.loop.row_order import IGNORED, LongestFirst


class RowsTrainer(ResumableTrainer):
    """Rows in the order of ``train_order``; evaluation in smaller batches where memory ends."""

    def __init__(self, *args: Any, train_order: Sampler[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.train_order = train_order

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As it is; out of memory becomes MicroBatchTooLarge, which holds no tensors."""
        try:
            return super().training_step(*args, **kwargs)
        except (RuntimeError, MemoryError) as fault:
            if not is_out_of_memory(fault):
                raise
        raise MicroBatchTooLarge

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As it is; out of memory halves the evaluation batch and begins again."""
        while True:
            try:
                return super().evaluate(*args, **kwargs)
            except (RuntimeError, MemoryError) as fault:
                smallest = self.args.per_device_eval_batch_size == 1
                if not is_out_of_memory(fault) or smallest or self.args.world_size > 1:
                    raise
            self.args.per_device_eval_batch_size //= 2

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.train_order

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return LongestFirst(self.eval_dataset["length"])  # eval_dataset has lost this column


class RowLoss:
    """Mean cross-entropy over the rows of a whole step, whichever micro-batch they are in."""

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (rows, classes) and labels (rows,), IGNORED where a row does not count."""
        loss = functional.cross_entropy(
            outputs["logits"].float(),
            labels,
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="mean" if num_items_in_batch is None else "sum",
        )
        return loss if num_items_in_batch is None else loss / num_items_in_batch
