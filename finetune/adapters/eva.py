"""EVA: LoRA's A from the principal components of each layer's inputs, ranks by their variance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetune.core.errors import ModelError
from finetune.core.preparation import Preparation
from finetune.models.encoding import encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REDISTRIBUTION = 2.0  # a layer may get this many times the rank (rho of Paischer et al. 2024)
OVERSAMPLING = 2  # PEFT's incremental PCA wants this many times the components in rows and columns
PASSES = 1000  # of batches; far more than components need to stand still


def initialize_from_activations(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    preparation: Preparation,
    texts: Sequence[str],
    *,
    max_length: int,
    batch_size: int,
    device: str,
    seed: int,
) -> None:
    """Run PEFT's EVA over batches of training texts until every layer's components stand still.

    Raises ModelError where there are too few texts for the rank.
    """
    from peft import initialize_lora_eva_weights

    config = model.peft_config["default"]
    least = OVERSAMPLING * round(config.r * config.eva_config.rho)
    size = max(batch_size, least)  # smaller batches are skipped for ever
    if len(texts) < size:
        raise ModelError(
            "eva needs a batch of as many training texts as components",
            received=f"{len(texts)} texts",
            allowed=f"at least {size}",
            next_step="a smaller adapter.rank",
        )
    order = np.random.default_rng(seed).permutation(len(texts))
    batches = []
    for start in range(0, len(order) - size + 1, size):
        chosen = [texts[row] for row in order[start : start + size]]
        encoded = encode_texts(
            tokenizer,
            chosen,
            preparation,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
        batches.append(encoded.to(device))
    model.to(device)
    initialize_lora_eva_weights(
        model,
        [dict(batch) for batch in batches],
        forward_fn=_forward_at_most(PASSES),
        gather_distributed_inputs=False,  # every process sees the same texts
        prepare_layer_inputs_fn=_tokens_of,
        show_progress_bar=False,
    )
    config = model.peft_config["default"]
    config.init_lora_weights, config.eva_config = True, None  # done; a reload has nothing to do


def redistribution(rank: int, narrowest: int) -> float:
    """rho for layers of at least ``narrowest`` inputs; raises ModelError where none fits."""
    rho = min(REDISTRIBUTION, narrowest / (OVERSAMPLING * rank))
    if rho < 1:
        raise ModelError(
            "adapter.rank is too high for eva on this model",
            received=rank,
            allowed=f"1 to {narrowest // OVERSAMPLING}",
        )
    return rho


def _forward_at_most(limit: int) -> Callable[[Any, Any], Any]:
    """The forward pass, refused after ``limit`` calls: PEFT itself never gives up."""
    calls = itertools.count(1)

    def forward(model: Any, batch: Any) -> Any:
        if next(calls) > limit:
            raise ModelError(
                f"eva's components have not settled after {limit} batches",
                next_step="adapter.method=lora, or a smaller adapter.rank",
            )
        return model(**batch)

    return forward


def _tokens_of(layer_input: Any, places: torch.Tensor, name: str) -> torch.Tensor:
    """The inputs (tokens, features) at the places (tokens, 2) that are not padding.

    A pooler sees one vector a text, (texts, features): all of them.
    """
    states = layer_input[0] if isinstance(layer_input, tuple | list) else layer_input
    return states.contiguous() if states.ndim == 2 else states[places.T.unbind()]
