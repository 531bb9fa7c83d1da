"""Logits of texts from a loaded model, in batches by length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from finetune.core.errors import ModelError
from finetune.core.preparation import Preparation
from finetune.models.encoding import encode_texts, length_batches
from finetune.models.loading import autocast_context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def predict_logits(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    preparation: Preparation,
    max_length: int,
    batch_size: int = 64,
    batch_tokens: int | None = None,
    device: str = "cpu",
    precision: str = "fp32",
) -> np.ndarray:
    """Logits, float32 (texts, labels), in the order of ``texts``; batches are length-sorted.

    ``batch_tokens`` bounds a padded batch instead of ``batch_size``, which counts rows.
    """
    encoded = encode_texts(tokenizer, texts, preparation, max_length=max_length)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    result: np.ndarray | None = None
    with torch.inference_mode(), autocast_context(device, precision):
        for rows in length_batches(lengths, batch_tokens, batch_size):
            batch = tokenizer.pad(
                {key: [encoded[key][row] for row in rows] for key in encoded}, return_tensors="pt"
            ).to(device)
            logits = model(**batch).logits.float().cpu().numpy()
            if result is None:
                result = np.empty((len(texts), logits.shape[1]), dtype=np.float32)
            result[rows] = logits
    if result is None:
        raise ModelError("no text to predict")
    return result
