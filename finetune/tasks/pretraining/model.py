"""The model of masked-language modelling, and its loss at masked positions only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from finetune.core.processes import process_count, process_rank
from finetune.data import IGNORED
from finetune.loop.ledger import is_out_of_memory
from finetune.loop.planned_batches import Batch, sum_over_processes
from finetune.models.loading import autocast_context, load_checked
from finetune.models.source import BaseModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.recipes.pretraining import ArchitectureSection


def build_roberta(
    architecture: ArchitectureSection,
    tokenizer: PreTrainedTokenizerBase,
    attention: str | None = None,
) -> PreTrainedModel:
    """A RoBERTa with new weights for ``tokenizer``, output tied to the embedding."""
    from transformers import AutoModelForMaskedLM, RobertaConfig

    return AutoModelForMaskedLM.from_config(
        RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=architecture.hidden_size,
            num_hidden_layers=architecture.layers,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.feed_forward,
            max_position_embeddings=architecture.max_positions,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            bos_token_id=tokenizer.cls_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.sep_token_id,
        ),
        attn_implementation=attention,
        trust_remote_code=False,
    )


def load_masked_model(base: BaseModel, attention: str | None = None) -> PreTrainedModel:
    """A pretrained encoder with its masked-language head, new where it has none.

    Raises ModelError.
    """
    from transformers import AutoModelForMaskedLM

    model, _ = load_checked(
        AutoModelForMaskedLM,
        base,
        "an encoder that AutoModelForMaskedLM knows, weights in safetensors",
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        attn_implementation=attention,
    )
    return model


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Every dropout of the model, attention's included; its config stays as it is."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability
        if isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = probability


def masked_logits(
    model: Any, batch: Batch, *, whole: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of the masked positions: float32 (masked, vocabulary), (masked,).

    The vocabulary is wide and the model narrow: logits of every position would be most of the
    work, so hidden states are gathered before the head. ``whole`` asks for the whole forward,
    which is all that a wrapped model offers.
    """
    labels = batch["labels"]
    asked = labels != IGNORED
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    head = None if whole else masked_head(model)
    if head is None:
        return model(**inputs).logits[asked].float(), labels[asked]
    hidden = model.base_model(**inputs).last_hidden_state
    return head(hidden[asked]).float(), labels[asked]


def masked_head(model: PreTrainedModel) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Hidden states → logits, where the architecture is known; None asks for the whole forward."""
    kind = model.config.model_type
    if kind in ("roberta", "xlm-roberta", "camembert"):
        return model.lm_head
    if kind == "bert":
        return model.cls
    if kind == "electra":
        return lambda hidden: model.generator_lm_head(model.generator_predictions(hidden))
    return None


def masked_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the masked positions; 0 where none is masked."""
    logits, labels = masked_logits(model, batch)
    return functional.cross_entropy(logits, labels) if len(labels) else logits.sum()


def evaluate_masked(
    model: PreTrainedModel, batches: Sequence[Batch], device: str, precision: str
) -> dict[str, Any]:
    """Loss and accuracy over every masked position of ``batches``, which processes share."""
    was_training = model.training
    model.eval()
    loss_sum, correct, count = 0.0, 0, 0
    with torch.no_grad(), autocast_context(device, precision):
        for batch in batches[process_rank() :: process_count()]:
            loss, right, masked = _measure_within_memory(model, batch, device)
            loss_sum, correct, count = loss_sum + loss, correct + right, count + masked
    model.train(was_training)
    loss_sum, correct, count = sum_over_processes([loss_sum, correct, count], device)
    return {
        "loss": loss_sum / max(1, count),
        "accuracy": correct / max(1, count),
        "masked_tokens": int(count),
    }


def _measure_within_memory(
    model: PreTrainedModel, batch: Batch, device: str
) -> tuple[float, int, int]:
    """Summed loss, hits and masked positions; out of memory takes one half after the other."""
    try:
        logits, labels = masked_logits(
            model, {name: value.to(device) for name, value in batch.items()}
        )
        loss = float(functional.cross_entropy(logits, labels, reduction="sum"))
        return loss, int((logits.argmax(-1) == labels).sum()), len(labels)
    except (RuntimeError, MemoryError) as fault:
        rows = len(batch["labels"])
        if not is_out_of_memory(fault) or rows == 1:
            raise
    halves = [
        {name: value[part] for name, value in batch.items()}
        for part in (slice(0, rows // 2), slice(rows // 2, None))
    ]
    one, two = (_measure_within_memory(model, half, device) for half in halves)
    return one[0] + two[0], one[1] + two[1], one[2] + two[2]
