"""full | lora | qlora: what is trained and what is frozen, through PEFT."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from finetune.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin")


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model; a 4-bit matrix counts each of its weights."""

    total: int
    trainable: int

    @property
    def trainable_share(self) -> float:
        """Trainable over total, 0 to 1."""
        return self.trainable / self.total


def attach_adapter(
    model: PreTrainedModel,
    *,
    method: str,
    rank: int,
    alpha: int,
    dropout: float,
    target_modules: str | Sequence[str],
    gradient_checkpointing: bool = False,
) -> Any:
    """The model to train: itself for ``full``, else wrapped by PEFT with its head trainable.

    The head and every other module without pretrained weights are trained in full and saved
    with the adapter (``modules_to_save``). Raises ModelError for unknown target modules.
    """
    if method == "full":
        return model
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    new_modules = list(model.kotune_new_modules)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=find_target_modules(model, target_modules, new_modules),
        modules_to_save=new_modules,
    )
    if method == "qlora":
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=gradient_checkpointing
        )
    return get_peft_model(model, config)


def find_target_modules(
    model: torch.nn.Module, wanted: str | Sequence[str], excluded: Sequence[str]
) -> list[str]:
    """Full names of the linear layers to adapt, the head and its like excluded.

    ``all-linear`` is every linear layer of the encoder, ``attention`` its query, key and value;
    a list names layers by the end of their name (``query``, ``output.dense``).
    """
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not any(part in excluded for part in name.split("."))
    ]
    if wanted == "all-linear":
        return linear
    names = list(ATTENTION) if wanted == "attention" else list(wanted)
    endings = {ending for name in linear for ending in _endings(name)}
    unknown = [name for name in names if name not in endings]
    if wanted != "attention" and (unknown or not names):
        near = [match for name in unknown for match in difflib.get_close_matches(name, endings)]
        raise ModelError(
            "adapter.target_modules names no linear layer of the encoder",
            received=", ".join(unknown) or "an empty list",
            allowed=", ".join(sorted({ending for name in linear for ending in _endings(name)[:2]})),
            next_step=f"adapter.target_modules=[{', '.join(near)}]"
            if near
            else "adapter.target_modules=all-linear",
        )
    chosen = [name for name in linear if set(_endings(name)) & set(names)]
    if not chosen:
        raise ModelError(
            "this architecture has no query, key and value layers that we know",
            next_step="adapter.target_modules=all-linear",
        )
    return chosen


def _endings(name: str) -> list[str]:
    """``a.b.c`` → c, b.c, a.b.c; layer numbers end the search."""
    parts = name.split(".")
    endings = []
    for start in range(len(parts) - 1, -1, -1):
        if parts[start].isdigit():
            break
        endings.append(".".join(parts[start:]))
    return endings


def count_parameters(model: torch.nn.Module) -> ParameterCount:
    """Total and trainable parameters, as the adapter's user sees them."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
        return ParameterCount(total=total, trainable=trainable)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return ParameterCount(
        total=sum(count for count, _ in counts),
        trainable=sum(count for count, trains in counts if trains),
    )
