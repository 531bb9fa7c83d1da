"""Which rows make which step: a function of seed and epoch alone, not of what ran before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from finetune.data import IGNORED

MEGA_BATCHES = 400  # batches sorted together; transformers' 50 leave over 5 % padding at batch 32


class EpochOrder(Sampler[int]):
    """Row numbers of an epoch: shuffled, or grouped by length within mega-batches.

    ``effective_batch`` rows are neighbours in length, however many micro-batches or processes
    share them. Where processes do, the last step is filled up with ``blank_row``.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        effective_batch: int,
        micro_batch: int,
        seed: int,
        group_by_length: bool,
        blank_row: int | None = None,
    ) -> None:
        self.lengths = list(lengths)
        self.effective_batch = effective_batch
        self.seed = seed
        self.group_by_length = group_by_length
        missing = -len(self.lengths) % micro_batch if blank_row is not None else 0
        self.blanks = [blank_row] * missing
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the data loader calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + len(self.blanks)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.group_by_length:
            order = get_length_grouped_indices(
                self.lengths,
                self.effective_batch,
                mega_batch_mult=max(
                    1, min(len(self.lengths) // (4 * self.effective_batch), MEGA_BATCHES)
                ),
                generator=generator,
            )
            order = self._shuffle_batches(order, generator)
        else:
            order = torch.randperm(len(self.lengths), generator=generator).tolist()
        return iter([*order, *self.blanks])

    def _shuffle_batches(self, order: list[int], generator: torch.Generator) -> list[int]:
        """The same batches, not falling in length; the longest stays first, for its memory."""
        size = self.effective_batch
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        middle = batches[1:-1]
        shuffled = [middle[i] for i in torch.randperm(len(middle), generator=generator).tolist()]
        return [row for batch in [batches[0], *shuffled, *batches[1:][-1:]] for row in batch]


class LongestFirst(Sampler[int]):
    """All rows by falling length: little padding, and the same order in every process."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.order = sorted(range(len(lengths)), key=lambda row: -lengths[row])

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)


def add_blank_row(rows: Dataset) -> Dataset:
    """The rows and, behind them, one that counts for nothing: the shortest, without a label."""
    shortest = min(range(len(rows)), key=rows["length"].__getitem__)
    blank = {**rows[shortest], "labels": IGNORED}
    single = Dataset.from_dict({name: [value] for name, value in blank.items()}, rows.features)
    return concatenate_datasets([rows, single])
