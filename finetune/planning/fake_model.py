"""The model a recipe trains, every parameter a fake tensor: shapes without memory.

PyTorch's fake tensors run each operator's shape rule instead of the operator, bitsandbytes' own
among them; fake CUDA tensors need a PyTorch with CUDA, so everything is faked on the CPU and
what CUDA does differently is told by ``cuda_rules``.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from finetune.hardware.packed_lora import is_placeholder

BLOCK = 64  # weights to one absmax (Dettmers et al. 2023, section 3)
BLOCK_OF_ABSMAX = 256


def replace_linear_layers(model: Any, compute_dtype: torch.dtype) -> Any:
    """A meta model's encoder matrices as bitsandbytes' NF4 layers, as from_pretrained does it."""
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    from finetune.models.four_bit import nf4_config

    new = model.kotune_new_modules
    quantized = replace_with_bnb_linear(
        model,
        modules_to_not_convert=new,
        quantization_config=nf4_config(compute_dtype, new),
    )
    quantized.is_loaded_in_4bit = True
    quantized.kotune_new_modules = new
    return quantized


def fill_with_fakes(model: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Replace every meta parameter and buffer by a fake CPU tensor, NF4 weights packed.

    A parameter that two modules share stays one.
    """
    from bitsandbytes.nn import Linear4bit

    made: dict[int, torch.nn.Parameter] = {}
    with mode:
        for module in model.modules():
            for name, value in module._parameters.items():
                if value is None:
                    continue
                if id(value) not in made:
                    packed = isinstance(module, Linear4bit) and name == "weight"
                    made[id(value)] = _fake_nf4(value) if packed else _fake(value)
                module._parameters[name] = made[id(value)]
            for name, value in module._buffers.items():
                if value is not None:
                    module._buffers[name] = torch.empty(value.shape, dtype=value.dtype)
    model.kotune_kept_alive = list(made.values())


def storages(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Every tensor that holds weights: parameters, buffers, and NF4's scales."""
    for parameter in model.parameters():
        yield parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code, state.offset)
            yield from (state.state2.absmax, state.state2.code)
    yield from model.buffers()


def _fake(value: torch.Tensor) -> torch.nn.Parameter:
    stored = (1,) if is_placeholder(value) else value.shape
    tensor = torch.empty(stored, dtype=value.dtype).expand(value.shape)
    return torch.nn.Parameter(tensor, requires_grad=value.requires_grad)


def _fake_nf4(value: torch.Tensor) -> torch.nn.Parameter:
    """Half a byte a weight, one byte each block's absmax, four bytes each block of those."""
    from bitsandbytes.functional import QuantState

    blocks = -(-value.numel() // BLOCK)
    state = QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8),
        shape=value.shape,
        code=torch.empty(16),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=torch.float32,
        offset=torch.empty(()),
        state2=QuantState(
            absmax=torch.empty(-(-blocks // BLOCK_OF_ABSMAX)),
            code=torch.empty(256),
            blocksize=BLOCK_OF_ABSMAX,
            dtype=torch.float32,
        ),
    )
    packed = torch.empty((-(-value.numel() // 2), 1), dtype=torch.uint8)
    parameter = torch.nn.Parameter(packed, requires_grad=False)
    parameter.quant_state = state
    return parameter


@contextmanager
def quiet_fakes() -> Iterator[None]:
    """PyTorch's log of what failed on fake tensors kept from the reader, who is told by us."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def plain_functions(model: torch.nn.Module) -> Iterator[None]:
    """Functions that the model's modules compiled with TorchScript (DeBERTa's), as Python again.

    Scripted code runs past fake tensors. ``torch.jit.script`` keeps the original for Dynamo.
    """
    places = {
        (module, name): value
        for module in {sys.modules[type(one).__module__] for one in model.modules()}
        for name, value in vars(module).items()
        if isinstance(value, torch.jit.ScriptFunction)
    }
    try:
        for (module, name), scripted in places.items():
            setattr(module, name, getattr(scripted, "_torchdynamo_inline", scripted))
        yield
    finally:
        for (module, name), scripted in places.items():
            setattr(module, name, scripted)


@contextmanager
def cuda_rules(precision: str) -> Iterator[None]:
    """Where CUDA keeps other tensors than the CPU: what autocast widens, and attention.

    CUDA's autocast computes layer_norm, softmax and the losses in fp32 (PyTorch's *Op-specific
    behavior*); its fused attention drops out inside the kernel and keeps no score matrix; dropout
    keeps a mask of one byte an element, where the CPU keeps one of the tensor's type. The
    functions themselves are replaced: a function mode would not reach checkpointing's recompute.
    """
    functional = torch.nn.functional
    rules = {"scaled_dot_product_attention": _fused, "dropout": _dropout}
    if precision != "fp32":
        rules |= dict.fromkeys(("layer_norm", "softmax", "log_softmax", "cross_entropy"), _in_fp32)
    before = {name: getattr(functional, name) for name in rules}
    try:
        for name, rule in rules.items():
            setattr(functional, name, functools.partial(rule, before[name]))
        yield
    finally:
        for name, function in before.items():
            setattr(functional, name, function)


def _in_fp32(function: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
    return function(
        *(_widen(value) for value in args),
        **{name: _widen(value) for name, value in kwargs.items()},
    )


def _widen(value: Any) -> Any:
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if is_float else value


def _dropout(
    _: Callable, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    """CUDA's own operator: the mask that it keeps for the way back is of bools."""
    if not training or p == 0:
        return input
    return torch.ops.aten.native_dropout(input, p, True)[0]


def _fused(_: Callable, query: Any, key: Any, value: Any, **kwargs: Any) -> Any:
    """The CPU's flash kernel keeps what CUDA's keep: q, k, v, the output and its logsumexp."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    query, key, value = (part.to(dtype) for part in (query, key, value))
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, scale=kwargs.get("scale"))[0]
