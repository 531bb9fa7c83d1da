"""Frozen weights in half while adapters train in fp32, packed on a CPU; their originals afterwards.

Under autocast a frozen fp32 matrix is converted at every use, its copy is kept for the backward
pass, and the residual stream stays fp32, converted in front of every matrix. Held in autocast's own
type (bf16; fp16 on a GPU that lacks it) none of that happens. What is stored of a run is measured
in fp32 with the original weights: they wait in a file meanwhile, so that methods which change the
base when they begin get back what they made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch

from finetune.core.processes import process_count
from finetune.hardware.host_memory import give_back_free_memory, wants_compact_memory
from finetune.hardware.packed_lora import can_pack, pack_lora, unpack_lora
from finetune.recipes.methods import METHODS
from finetune.recipes.sections import Recipe

PACKED_METHODS = ("lora", "rslora", "lora+")  # those of PEFT's plain LoRA layer
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
HELD_METHODS = (*PACKED_METHODS, "qlora")  # others compute with the base's weights


class Originals:
    """Frozen fp32 parameters in an unnamed file, in the order of the model."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._names: list[str] = []

    def take(self, model: torch.nn.Module) -> None:
        """Write every frozen fp32 parameter of the model."""
        for name, parameter in frozen_parameters(model):
            parameter.data.cpu().numpy().tofile(self._file)
            self._names.append(name)
        self._file.flush()

    def give_back(self, model: torch.nn.Module) -> None:
        """Put them back, bit for bit, in fp32 and on the parameter's device; once."""
        unpack_lora(model)
        parameters = dict(model.named_parameters())
        self._file.seek(0)
        for name in self._names:
            parameter = parameters[name]
            values = np.fromfile(self._file, dtype=np.float32, count=parameter.numel())
            original = torch.from_numpy(values).view(parameter.shape)
            parameter.data = original.to(parameter.device)
        self._file.close()


def frozen_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Frozen parameters in fp32 with their names; NF4's packed bytes are none."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter.dtype == torch.float32:
            yield name, parameter


def hold_base(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Convert the frozen parameters, and let adapters take their input as it comes.

    PEFT converts an adapter's input to the adapter's fp32; autocast would convert it back.
    """
    for _, parameter in list(frozen_parameters(model)):
        parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def held_dtype(recipe: Recipe, precision: str) -> torch.dtype | None:
    """The half precision that frozen weights are held in: for adapters beside whole frozen layers.

    None: fp32. Trainable parameters stay fp32, which fp16's loss scaler asks for.
    """
    if recipe.method not in HELD_METHODS or recipe.training.base_precision != "auto":
        return None
    return HALVES.get(precision)


def wants_packed(recipe: Recipe, precision: str, device: str) -> bool:
    """Whether frozen matrices are packed: beside LoRA on a CPU, where memory is given for time.

    Packed both ways they take twice the memory. Processes that train together send each other
    the plain weights.
    """
    held = held_dtype(recipe, precision)
    return (
        device == "cpu"
        and recipe.training.cpu_kernels == "auto"
        and recipe.method in PACKED_METHODS
        and (precision == "fp32" or held == torch.bfloat16)
        and not wants_compact_memory(recipe)
        and process_count() == 1
        and can_pack(held or torch.float32)
    )


def place_model(
    model: torch.nn.Module, recipe: Recipe, precision: str, device: str, folder: Path | None = None
) -> Originals | None:
    """Hold the base as the recipe asks, then move the model to where it trains.

    In this order, since a GPU that has room for the halves need not have it for fp32.
    """
    held = hold_frozen(model, recipe, precision, folder, device=device)
    model.to(device)
    return held


def hold_frozen(
    model: torch.nn.Module,
    recipe: Recipe,
    precision: str,
    folder: Path | None = None,
    *,
    device: str | None = None,
) -> Originals | None:
    """Hold the base as the recipe asks; what to give back before anything is stored.

    bitsandbytes converts the biases of NF4 layers to the compute dtype by itself, so QLoRA's
    originals are kept for every half precision. ``folder`` takes the originals' unnamed file;
    ``device`` is where it will train (None: where it is).
    """
    give_back_free_memory()  # of loading, quantisation above all
    held = held_dtype(recipe, precision)
    packed = wants_packed(recipe, precision, device or next(model.parameters()).device.type)
    by_others = METHODS[recipe.method].quantised and precision != "fp32"
    if not (held or packed or by_others):
        return None
    originals = Originals(folder)
    originals.take(model)
    if held:
        hold_base(model, held)
    if packed:
        pack_lora(model)
    give_back_free_memory()
    return originals
