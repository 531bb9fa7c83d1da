"""What a method trains and what it leaves frozen, through PEFT where PEFT has it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from finetune.adapters.eva import redistribution
from finetune.core.errors import ModelError
from finetune.core.plugins import blame
from finetune.models.trained_weights import remember_start
from finetune.recipes.methods import METHODS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin")
ADALORA_START = 1.5  # times the rank that is left: Zhang et al. 2023, section 4


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
    """The model to train: itself for ``full`` and subsets, else wrapped by PEFT.

    The head and every other module without pretrained weights are trained in full and saved
    with the adapter (``modules_to_save``). ``eva`` starts as LoRA does until
    ``initialize_from_activations`` has seen texts. Raises ModelError for unknown target modules
    and a rank that the method cannot have.
    """
    family, new_modules = METHODS[method].family, list(model.kotune_new_modules)
    if family == "full":
        return model
    if family == "subset":
        return freeze_all_but(model, new_modules, biases=method == "bitfit")
    from peft import get_peft_model, prepare_model_for_kbit_training

    targets = find_target_modules(model, target_modules, new_modules)
    layers = {name: model.get_submodule(name) for name in targets}
    if family == "peft":
        with blame("kotune.methods", method):
            make = METHODS[method].configure
            config = make(layers, rank=rank, alpha=alpha, dropout=dropout)
    elif family == "ia3":
        config = _ia3_config(layers)
    else:
        config = _lora_config(method, layers, rank=rank, alpha=alpha, dropout=dropout)
    config.modules_to_save = new_modules
    if METHODS[method].quantised:
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=gradient_checkpointing
        )
    adapted = get_peft_model(model, config)
    if METHODS[method].changes_base:
        remember_start(adapted)
    return adapted


def freeze_all_but(model: PreTrainedModel, modules: Sequence[str], *, biases: bool) -> Any:
    """``model`` with only ``modules`` trainable and, where wanted, every bias term."""
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        chosen = bool(set(parts) & set(modules)) or (biases and parts[-1] == "bias")
        parameter.requires_grad_(chosen)
    return model


def _lora_config(
    method: str, layers: Mapping[str, Any], *, rank: int, alpha: int, dropout: float
) -> Any:
    """PEFT's configuration of LoRA or one of its variants."""
    from peft import AdaLoraConfig, EvaConfig, LoraConfig, TaskType

    options: dict[str, Any] = {
        "task_type": TaskType.SEQ_CLS,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": list(layers),
    }
    narrowest = min(min(layer.in_features, layer.out_features) for layer in layers.values())
    if method == "adalora":  # the schedule comes when the number of steps is known
        start = math.ceil(ADALORA_START * rank)
        return AdaLoraConfig(init_r=start, target_r=rank, total_step=1, **options)
    if METHODS[method].changes_base and rank > narrowest:
        raise ModelError(
            f"adapter.rank is too high for {method} on this model",
            received=rank,
            allowed=f"1 to {narrowest}, the smaller side of the smallest matrix",
        )
    if method in ("pissa", "olora"):
        options["init_lora_weights"] = method
    elif method == "eva":
        options["init_lora_weights"] = "eva"
        options["eva_config"] = EvaConfig(rho=redistribution(rank, narrowest))
    return LoraConfig(r=rank, use_dora=method == "dora", use_rslora=method == "rslora", **options)


def _ia3_config(layers: Mapping[str, Any]) -> Any:
    """One factor per output, but per input where a layer narrows, the feed-forward's second."""
    from peft import IA3Config, TaskType

    narrowing = [name for name, layer in layers.items() if layer.in_features > layer.out_features]
    return IA3Config(
        task_type=TaskType.SEQ_CLS, target_modules=list(layers), feedforward_modules=narrowing
    )


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
    if not linear:
        raise ModelError(
            "this architecture has no linear layers to adapt",
            received=type(model).__name__,
            next_step="adapter.method=full, or another base model",
        )
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
