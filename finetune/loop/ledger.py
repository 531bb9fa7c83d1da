"""What a run keeps of itself across restarts, and how it goes on when memory runs out.

The ledger travels with every checkpoint. Out of memory, the next smaller micro-batch of the same
effective batch follows.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size

from finetune.core.errors import KotuneError

T = TypeVar("T")

LAST_RESORT = (
    "training.gradient_checkpointing=true, a smaller model.max_length, or adapter.method=qlora"
)
MEMORY_MESSAGES = (
    "out of memory",  # CUDA's runtime, its driver, NCCL and PyTorch's allocators, each its own way
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSPARSE, cuSOLVER: their workspaces
    "not enough memory",
    "can't allocate memory",
    "bad allocation",
    "std::bad_alloc",
)


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

    def halved(self, processes: int = 1, last_resort: str = LAST_RESORT) -> BatchShape:
        """Half the micro-batch, twice the accumulation; the nearest that divides where odd.

        Raises KotuneError, ``last_resort`` in it, where a single row is too much already.
        """
        for micro in range(self.micro_batch // 2, 0, -1):
            if self.effective % micro == 0 and micro % processes == 0:
                return BatchShape(micro, self.effective // micro)
        raise KotuneError(
            "out of memory with a micro-batch of one row",
            received=f"micro-batch {self.micro_batch}, {processes} processes",
            next_step=last_resort,
        )


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in the machine."""
    if isinstance(fault, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(fault, RuntimeError):
        return False
    text = str(fault)
    return should_reduce_batch_size(fault) or any(one in text for one in MEMORY_MESSAGES)


def shrink_to_memory(predict: Callable[[int], T], batch_size: int) -> T:
    """What ``predict`` gives for a batch size; out of memory, it begins again with half of it."""
    while True:
        try:
            return predict(batch_size)
        except (RuntimeError, MemoryError) as fault:
            if not is_out_of_memory(fault) or batch_size == 1:
                raise
        batch_size //= 2


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
    schedule: str = ""  # what may change when a run goes on, where a task lets something change

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


_kept = {"memory": 0, "vram": 0, "beyond": 0}  # peaks from before a trial, and one it left


def peak_memory_bytes() -> int:
    """The most resident memory this process has had, trials not counted."""
    peak = _high_water_bytes()
    if peak > _kept["beyond"]:
        return max(peak, _kept["memory"])
    return max(_kept["memory"], psutil.Process().memory_info().rss)


def peak_vram_bytes() -> int:
    """The most of PyTorch's memory on the GPU, trials not counted."""
    return max(_kept["vram"], torch.cuda.max_memory_allocated())


def forget_peaks() -> None:
    """Begin this process's peaks anew: what an earlier run needed is not this one's."""
    _reset_high_water()
    left = _high_water_bytes()
    now = psutil.Process().memory_info().rss
    _kept.update(memory=0, beyond=left if left > now else 0)
    forget_vram_peak()


def forget_vram_peak() -> None:
    """Begin the GPU's peak at what is allocated now, building and loading left behind."""
    _kept["vram"] = 0
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def unrecorded_peak() -> Iterator[None]:
    """What the block needs at its most is no peak of the process afterwards.

    Linux puts its high-water mark back when asked to (proc(5), clear_refs). Elsewhere memory is
    looked at after each step until it passes the mark that the block has left.
    """
    on_gpu = torch.cuda.is_available()
    before = peak_memory_bytes()
    vram = peak_vram_bytes() if on_gpu else 0
    try:
        yield
    finally:
        _reset_high_water()
        left = _high_water_bytes()
        _kept.update(memory=before, vram=vram, beyond=left if left > before else 0)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()


def _reset_high_water() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _high_water_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
