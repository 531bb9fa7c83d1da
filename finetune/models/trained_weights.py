"""What was trained, on disk and back on its base: an adapter, or some of the model's own weights.

Safetensors only. The whole model of ``full`` is transformers' own business.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finetune.core.errors import ModelError
from finetune.models.checkpoint import check_adapter
from finetune.recipes.methods import METHODS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUBSET_FILE = "trained_weights.safetensors"
ADAPTER_FILE = "adapter_model.safetensors"


def save_trained(model: Any, method: str, folder: Path) -> None:
    """Write what ``method`` trained, head included, so that it fits the base model as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    if METHODS[method].family == "subset":
        _save_subset(model, folder / SUBSET_FILE)
    elif METHODS[method].changes_base:
        _save_difference(model, folder)
    else:
        save_model(model, folder)


def save_model(model: Any, folder: Path) -> None:
    """A whole model, or an adapter with its head, in safetensors.

    Embeddings are never resized here; left to find that out, PEFT asks the hub for the base.
    """
    peft = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(folder, safe_serialization=True, **peft)


def attach_trained(model: PreTrainedModel, method: str, folder: Path) -> Any:
    """``model``, the bare base with any head, with what ``save_trained`` wrote; ModelError."""
    from safetensors.torch import load_file

    if METHODS[method].family != "subset":
        return load_adapter(model, folder)
    stored = load_file(folder / SUBSET_FILE)
    places = dict(model.named_parameters())
    expected = {
        name: value
        for name, value in places.items()
        if set(name.split(".")) & set(model.kotune_new_modules) or name in stored
    }
    check_adapter(expected, stored, SUBSET_FILE)
    model.load_state_dict(stored, strict=False)
    return model


def load_adapter(model: PreTrainedModel, folder: Path) -> Any:
    """``PeftModel.from_pretrained``, which lets keys be missing, with every key; ModelError."""
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import load_file

    if not (folder / ADAPTER_FILE).is_file():  # PEFT would look for a pickle, then on the hub
        raise ModelError(f"{ADAPTER_FILE} is missing", received=folder)
    stored = load_file(folder / ADAPTER_FILE)
    where = str(next(model.parameters()).device)  # PEFT itself would take a GPU wherever one is
    adapted = PeftModel.from_pretrained(model, folder, torch_device=where)
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    check_adapter(expected, stored, ADAPTER_FILE)
    return adapted


def remember_start(model: Any) -> None:
    """Keep the adapter as it starts, which ``save_trained`` takes off again."""
    model.kotune_start = {name: value.clone() for name, value in _factors(model).items()}


def _save_subset(model: torch.nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    trained = {
        name: value.detach().cpu().contiguous()
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    save_file(trained, path, metadata={"format": "pt"})


def _save_difference(model: Any, folder: Path) -> None:
    """The adapter minus its start, as plain LoRA of twice the rank on the untouched base.

    W_res + s·BA = W + s·(BA - B₀A₀) = W + s·[B | -B₀][A ; A₀]: PEFT's own conversion
    (``LoraModel.subtract_mutated_init``), which would leave out the head.
    """
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name, start in model.kotune_start.items():
        rows = ".lora_A." in name
        parts = [state[name], start if rows else -start]
        state[name] = torch.cat(parts, dim=0 if rows else 1)
    config = copy.deepcopy(model.peft_config["default"])
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    config.init_lora_weights, config.inference_mode = True, True
    weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(weights, folder / ADAPTER_FILE, metadata={"format": "pt"})
    config.save_pretrained(folder)


def _factors(model: Any) -> dict[str, torch.Tensor]:
    from peft.utils import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {
        name: value.detach()
        for name, value in state.items()
        if ".lora_A." in name or ".lora_B." in name
    }
