"""Batches of a budget of tokens or seconds, planned ahead; the Trainer that takes them in order.

A batch is a function of its number and the seed alone, so that a training that was cut off sees
exactly what it would have seen.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from finetune.core.processes import process_count
from finetune.loop.ledger import BatchShape
from finetune.loop.resumable import ResumableTrainer

Batch = dict[str, torch.Tensor]


def plan_batches(
    lengths: Sequence[float], budget: float, generator: np.random.Generator
) -> list[np.ndarray]:
    """Row numbers of each batch: neighbours in length, rows × longest row within the budget.

    Rows of equal length are shuffled, then the batches; every row comes exactly once, and one
    longer than the budget stands alone. The number of batches depends on the lengths alone.
    """
    values = np.asarray(lengths)
    order = np.lexsort((generator.random(len(values)), values))
    starts = [0]
    for place, length in enumerate(values[order].tolist()):
        if place > starts[-1] and (place - starts[-1] + 1) * length > budget:
            starts.append(place)
    batches = np.split(order, starts[1:])
    return [batches[index] for index in generator.permutation(len(batches))]


class PlannedBatches(ABC):
    """Every micro-batch of a training, in order, as a map-style dataset.

    So many ``batches``, or None: as many as ``epochs`` have. ``starts`` are the numbers of the
    batches with which epochs begin. Each batch may be cut into ``parts``, which follow one
    another: for processes that share it, or where memory ends.
    """

    parts = 1

    def __init__(self, *, epochs: float, batches: int | None) -> None:
        self._epoch, self._plan = -1, []
        self.most_rows = 1
        self.starts, self._marks = [0], [0.0]
        if batches is None:
            for epoch in range(math.ceil(epochs)):
                self._begin_epoch(epoch, min(1.0, epochs - epoch))
        while batches is not None and self.starts[-1] < batches:
            self._begin_epoch(len(self.starts) - 1, 1.0)
        self.batches = batches or self.starts[-1]

    @abstractmethod
    def plan_epoch(self, epoch: int) -> list[Any]:
        """The rows of each batch of an epoch; a function of seed and epoch."""

    @abstractmethod
    def make_batch(self, number: int, rows: Any, part: int) -> Batch:
        """One part of a batch; one without rows carries a row that counts for nothing."""

    def __len__(self) -> int:
        return self.batches * self.parts

    def __getitem__(self, place: int) -> Batch:
        number, part = divmod(place, self.parts)
        epoch = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.make_batch(number, self.plan_of(epoch)[number - self.starts[epoch]], part)

    def plan_of(self, epoch: int) -> list[Any]:
        """An epoch's plan, the last one asked for kept."""
        if epoch != self._epoch:
            self._plan, self._epoch = self.plan_epoch(epoch), epoch
        return self._plan

    def in_parts(self, parts: int) -> PlannedBatches:
        """The same batches, each cut into so many parts."""
        other = copy.copy(self)
        other.parts = parts
        return other

    def shape(self, accumulation: int) -> BatchShape:
        """Whole batches, ``accumulation`` of them a step; rows as the next power of two."""
        return BatchShape(1 << (self.most_rows - 1).bit_length(), accumulation)

    def cut(self, shape: BatchShape, accumulation: int) -> PlannedBatches:
        """The batches as ``shape`` wants them: this start's micro-batch, shared by processes.

        ``accumulation`` is the recipe's: the number of whole batches in a step.
        """
        return self.in_parts(shape.accumulation // accumulation * process_count())

    def epoch_of(self, batches: float) -> float:
        """Epochs gone by after so many batches."""
        return float(np.interp(batches, self.starts, self._marks))

    def last_steps(self, accumulation: int) -> list[int]:
        """The optimizer steps with which epochs end, ``accumulation`` batches each."""
        return [math.ceil(start / accumulation) for start in self.starts[1:]]

    def _begin_epoch(self, epoch: int, share: float) -> None:
        plan = self.plan_of(epoch)
        self.most_rows = max(self.most_rows, *map(len, plan))
        self.starts.append(self.starts[-1] + max(1, round(share * len(plan))))
        self._marks.append(self._marks[-1] + share)


class PlannedTrainer(ResumableTrainer):
    """Trainer over PlannedBatches; a task says how it is measured.

    ``accumulation`` is the recipe's: whole batches in an optimizer step.
    """

    def __init__(self, *, accumulation: int, **rest: Any) -> None:
        super().__init__(data_collator=_only_item, **rest)
        self.accumulation = accumulation

    def measure(self) -> dict[str, float]:
        """Figures of the held-out rows by name."""
        raise NotImplementedError

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The figures, logged under the prefix."""
        figures = self.measure()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's, with the epoch of the plan: to Trainer the whole training is one."""
        self.state.epoch = self.train_dataset.epoch_of(self.state.global_step * self.accumulation)
        super().log(logs, start_time)

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16`` or ``fp16``, as the arguments have it."""
        return "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "fp32"

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)


class EvaluateAtSteps(TrainerCallback):
    """Asks for an evaluation at each of the given steps."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = set(steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask where it is time."""
        if state.global_step in self.steps:
            control.should_evaluate = True


def sum_over_processes(figures: Sequence[float], device: Any) -> list[float]:
    """Each figure summed over all processes, in double precision."""
    if process_count() == 1:
        return list(figures)
    shared = torch.tensor(figures, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(shared)
    return shared.tolist()


def _only_item(items: list[Batch]) -> Batch:
    return items[0]
