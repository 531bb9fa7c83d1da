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

from finetune.data import IGNORED
from finetune.loop.planned_batches import Batch, PlannedBatches, plan_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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


class TrainBatches(PlannedBatches):
    """All micro-batches of a training: texts of a token budget, masked anew each time."""

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        masker: Masker,
        *,
        tokens_per_batch: int,
        seed: int,
        batches: int | None = None,
        epochs: float = 1,
    ) -> None:
        self.rows = rows
        self.masker = masker
        self.seed = seed
        self.tokens_per_batch = tokens_per_batch
        self.lengths = np.array([len(row) for row in rows])
        super().__init__(epochs=epochs, batches=batches)

    def plan_epoch(self, epoch: int) -> list[np.ndarray]:
        """Batches of row numbers; every row comes once an epoch."""
        generator = np.random.default_rng([self.seed, epoch])
        return plan_batches(self.lengths, self.tokens_per_batch, generator)

    def make_batch(self, number: int, rows: np.ndarray, part: int) -> Batch:
        """A masked batch; a part has the masks that its rows have in the whole."""
        mask_seed = self.seed * 1_000_003 + number
        batch = self.masker.mask_rows([self.rows[row] for row in rows], mask_seed)
        if self.parts == 1:
            return batch
        own = slice(part, None, self.parts) if part < len(rows) else slice(0, 1)
        width = int(self.lengths[rows[own]].max())
        cut = {name: value[own, :width] for name, value in batch.items()}
        if part >= len(rows):
            cut["labels"] = torch.full_like(cut["labels"], IGNORED)
        return cut

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.plan_of(0))

    def tokens_before(self, number: int) -> int:
        """Tokens seen, padding not counted, before a batch."""
        epoch, place = divmod(number, self.per_epoch)
        seen = epoch * int(self.lengths.sum())
        return seen + sum(int(self.lengths[rows].sum()) for rows in self.plan_of(epoch)[:place])


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
