"""NF4 through bitsandbytes: the configuration, and what has to be kept from going wrong."""

from __future__ import annotations

import tempfile
from typing import Any

import torch

from finetune.hardware.gpu import placement


def nf4_config(compute_dtype: torch.dtype, skip: list[str]) -> Any:
    """NF4 with double quantisation (Dettmers et al. 2023), the modules of ``skip`` left alone."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=skip,
    )


def finish_4bit(model: Any) -> Any:
    """Make a freshly quantised model exact on every CPU, and free of its checkpoint."""
    _keep_exact(model)
    _leave_the_file(model)
    return model


def _leave_the_file(model: Any) -> None:
    """Copy what was not quantised: a weight in the mapped file keeps all its pages resident."""
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.is_floating_point():
            parameter.data = parameter.data.clone()


def _keep_exact(model: Any) -> None:
    """Keep bitsandbytes 0.50 from repacking NF4 weights at the first evaluation on a CPU.

    Where the CPU has avx512_bf16 it would compute in bf16 from then on, whatever the compute
    dtype (errors of 1e-2 a layer), and further training of that layer would fail.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def halve_around_4bit(model: Any, dtype: torch.dtype) -> Any:
    """A model on NF4 with all else in ``dtype``: with the compute dtype, inference in half.

    transformers refuses ``model.to(dtype)`` of a quantised model, whose packed bytes are no floats.
    """
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            value.data = value.data.to(dtype)
    return model


def quantize_in_memory(model: Any, compute_dtype: torch.dtype, device: str) -> Any:
    """NF4 for a model that was not loaded from a file: the same path, through a temporary one."""
    from transformers import AutoModelForSequenceClassification

    new = model.kotune_new_modules
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        quantized = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            quantization_config=nf4_config(compute_dtype, new),
            device_map={"": placement(device)},
            use_safetensors=True,
            trust_remote_code=False,
        )
    quantized.kotune_new_modules = new
    return finish_4bit(quantized)
