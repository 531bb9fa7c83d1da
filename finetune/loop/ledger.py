"""What a run keeps of itself across restarts: it travels with every checkpoint."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from finetune.loop.out_of_memory import BatchShape


@dataclass
class Ledger:
    """Times, peaks and what running out of memory changed, from the first start on."""

    micro_batch: int
    accumulation: int
    starts: int = 0
    training_time_s: float = 0.0
    step_times_s: list[float] = field(default_factory=list)
    peak_memory_bytes: int = 0
    peak_vram_bytes: int | None = None
    out_of_memory: list[dict[str, int]] = field(default_factory=list)

    @property
    def shape(self) -> BatchShape:
        """The micro-batch to go on with."""
        return BatchShape(self.micro_batch, self.accumulation)

    def record_out_of_memory(self, step: int, smaller: BatchShape) -> None:
        """Note that from the step after ``step`` on the micro-batch is smaller."""
        self.out_of_memory.append(
            {
                "after_step": step,
                "micro_batch": self.micro_batch,
                "gradient_accumulation_steps": self.accumulation,
                "next_micro_batch": smaller.micro_batch,
                "next_gradient_accumulation_steps": smaller.accumulation,
            }
        )
        self.micro_batch, self.accumulation = smaller.micro_batch, smaller.accumulation

    def note_step(self, step_time_s: float) -> None:
        """Add a step's time, and this process's peak so far."""
        self.step_times_s.append(round(step_time_s, 4))
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak_memory_bytes())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; ``Ledger(**...)`` is the way back."""
        return asdict(self)


def peak_memory_bytes() -> int:
    """The most resident memory this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
