"""The model of masked-language modelling, and its loss at masked positions only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from finetune.models.loading import autocast_context, load_checked
from finetune.models.source import BaseModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.recipes.text import ArchitectureSection

Batch = dict[str, torch.Tensor]
POSITION_OFFSET = 2  # RoBERTa counts positions from pad_token_id + 1


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
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        attn_implementation=attention,
    )
    return model


def longest_input(model: PreTrainedModel) -> int:
    """Tokens a text may have, special ones included, by the model's position table."""
    positions = model.config.max_position_embeddings
    embeddings = getattr(model.base_model, "embeddings", None)
    counted = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return positions if counted is None else positions - counted - 1


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Every dropout of the model, attention's included; its config stays as it is."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability
        if isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = probability


def masked_logits(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of the masked positions: float32 (masked, vocabulary), (masked,).

    The vocabulary is wide and the model narrow: logits of every position would be most of the
    work, so hidden states are gathered before the head.
    """
    labels = batch["labels"]
    asked = labels != -100
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    head = masked_head(model)
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
    """Mean cross-entropy over the masked positions."""
    return functional.cross_entropy(*masked_logits(model, batch))


def evaluate_masked(
    model: PreTrainedModel, batches: Iterable[Batch], device: str, precision: str
) -> dict[str, Any]:
    """Loss and accuracy over every masked position of ``batches``."""
    was_training = model.training
    model.eval()
    loss_sum, correct, count = 0.0, 0, 0
    with torch.no_grad(), autocast_context(device, precision):
        for batch in batches:
            logits, labels = masked_logits(
                model, {name: value.to(device) for name, value in batch.items()}
            )
            loss_sum += float(functional.cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(-1) == labels).sum())
            count += len(labels)
    model.train(was_training)
    return {
        "loss": loss_sum / max(1, count),
        "accuracy": correct / max(1, count),
        "masked_tokens": count,
    }
