"""Batches of a token budget over sorted lengths, masked anew at every step.

A batch is a function of its step and the seed alone, so that a run that was interrupted sees
exactly what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Batch = dict[str, torch.Tensor]


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> list[np.ndarray]:
    """Token ids of each text, special tokens included, truncated to ``max_length``."""
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]


def plan_batches(
    lengths: np.ndarray, tokens_per_batch: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Row numbers of each batch: neighbours in length, rows × longest row ≤ the budget.

    Rows of equal length are shuffled, then the batches; every row comes exactly once. The
    number of batches depends on the lengths alone.
    """
    order = np.lexsort((generator.random(len(lengths)), lengths))
    starts = [0]
    for place, length in enumerate(lengths[order].tolist()):
        if place > starts[-1] and (place - starts[-1] + 1) * length > tokens_per_batch:
            starts.append(place)
    batches = np.split(order, starts[1:])
    return [batches[index] for index in generator.permutation(len(batches))]


class Masker:
    """Rows of token ids → one padded, masked batch (BERT's 80/10/10; Devlin et al. 2019)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, probability: float) -> None:
        self.pad_id = tokenizer.pad_token_id
        self.special_ids = torch.tensor(sorted(tokenizer.all_special_ids))
        self._collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=probability)

    def mask_rows(self, rows: Sequence[np.ndarray], seed: int) -> Batch:
        """input_ids, attention_mask and labels (-100 where nothing is asked), (rows, longest)."""
        ids = np.full((len(rows), max(map(len, rows))), self.pad_id, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        input_ids = torch.from_numpy(ids)
        attention_mask = (input_ids != self.pad_id).long()
        self._collator.generator = torch.Generator().manual_seed(seed)
        masked, labels = self._collator.torch_mask_tokens(
            input_ids, special_tokens_mask=torch.isin(input_ids, self.special_ids)
        )
        return {"input_ids": masked, "attention_mask": attention_mask, "labels": labels}


class TrainBatches:
    """All steps of a training as a map-style dataset: step → masked batch."""

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        masker: Masker,
        *,
        tokens_per_batch: int,
        seed: int,
        steps: int | None = None,
        epochs: float = 1,
    ) -> None:
        self.rows = rows
        self.masker = masker
        self.seed = seed
        self.tokens_per_batch = tokens_per_batch
        self.lengths = np.array([len(row) for row in rows])
        self._epoch = -1
        self._plan: list[np.ndarray] = []
        self.per_epoch = len(self._epoch_plan(0))
        self.steps = steps or max(1, round(epochs * self.per_epoch))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.per_epoch)
        numbers = self._epoch_plan(epoch)[place]
        mask_seed = self.seed * 1_000_003 + step
        return self.masker.mask_rows([self.rows[number] for number in numbers], mask_seed)

    def tokens_before(self, step: int) -> int:
        """Tokens seen, padding not counted, before ``step``."""
        epoch, place = divmod(step, self.per_epoch)
        seen = epoch * int(self.lengths.sum())
        return seen + sum(int(self.lengths[rows].sum()) for rows in self._epoch_plan(epoch)[:place])

    def _epoch_plan(self, epoch: int) -> list[np.ndarray]:
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, epoch])
            self._plan = plan_batches(self.lengths, self.tokens_per_batch, generator)
            self._epoch = epoch
        return self._plan


def held_out_batches(
    rows: Sequence[np.ndarray], masker: Masker, *, tokens_per_batch: int, seed: int
) -> list[Batch]:
    """Batches of the held-out rows, their masks fixed by ``seed``."""
    lengths = np.array([len(row) for row in rows])
    plan = plan_batches(lengths, tokens_per_batch, np.random.default_rng(seed))
    return [
        masker.mask_rows([rows[number] for number in numbers], seed + place)
        for place, numbers in enumerate(plan)
    ]
