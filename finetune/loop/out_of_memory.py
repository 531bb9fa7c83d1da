"""Out of memory: recognised, and the next smaller micro-batch of the same effective batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate.utils.memory import should_reduce_batch_size

from finetune.core.errors import KotuneError

CPU_MESSAGES = ("not enough memory", "can't allocate memory", "bad allocation", "std::bad_alloc")


class MicroBatchTooLarge(Exception):
    """Memory ran out within a micro-batch: weights and optimizer are those of the last step."""


@dataclass(frozen=True)
class BatchShape:
    """Rows that pass through the model at once, and how many such batches make a step."""

    micro_batch: int
    accumulation: int

    @property
    def effective(self) -> int:
        """Rows of one optimizer step."""
        return self.micro_batch * self.accumulation

    def halved(self, processes: int = 1) -> BatchShape:
        """Half the micro-batch, twice the accumulation; the nearest that divides where odd.

        Raises KotuneError where a single row is too much already.
        """
        for micro in range(self.micro_batch // 2, 0, -1):
            if self.effective % micro == 0 and micro % processes == 0:
                return BatchShape(micro, self.effective // micro)
        raise KotuneError(
            "out of memory with a micro-batch of one row",
            received=f"micro-batch {self.micro_batch}, {processes} processes",
            next_step="training.gradient_checkpointing=true, a smaller model.max_length, "
            "or adapter.method=qlora",
        )


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in the machine."""
    if isinstance(fault, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(fault, RuntimeError):
        return False
    text = str(fault)
    return should_reduce_batch_size(fault) or any(message in text for message in CPU_MESSAGES)
