"""LoRA layers with packed matrices against PEFT's own: values, gradients, and the way back."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

from finetune.hardware.cpu_kernels import quicken_dropout
from finetune.hardware.packed_lora import (
    PackedLoraLinear,
    can_pack,
    is_placeholder,
    pack_lora,
    unpack_lora,
)

pytestmark = pytest.mark.skipif(not can_pack(), reason="this PyTorch packs no weights here")


def two_layers(dropout: float, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 24, bias=False))
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["0", "2"])
    adapted = quicken_dropout(get_peft_model(model, config))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at first: nothing to see
            nn.init.normal_(parameter, std=0.2)
        elif "lora_A" not in name:
            parameter.data = parameter.data.to(dtype)
    for module in adapted.modules():
        if isinstance(module, LoraLinear):
            module.cast_input_dtype_enabled = dtype == torch.float32
    return adapted


def run(model: nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(6)
    rows = torch.randn(3, 7, 24).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = model(rows)
    (out.float() ** 2).sum().backward()
    trained = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return out, {**trained, "input": rows.grad}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_values_and_gradients_are_pefts(dtype: torch.dtype, close: float, dropout: float) -> None:
    if not can_pack(dtype):
        pytest.skip(f"this processor multiplies by no packed {dtype}")
    model = two_layers(dropout, dtype).train()
    expected, wanted = run(model, dtype)
    model.zero_grad()
    pack_lora(model)
    assert sum(type(one) is PackedLoraLinear for one in model.modules()) == 2
    out, found = run(model, dtype)
    assert out.dtype == expected.dtype and set(found) == set(wanted) and len(found) == 5
    for one, other in [(out, expected), *((found[name], wanted[name]) for name in wanted)]:
        assert one.dtype == other.dtype and one.shape == other.shape
        assert (one - other).abs().max() <= close * other.abs().max()


def test_outputs_may_be_changed_in_place() -> None:
    """DeBERTa v1 scales its queries so; a view made by a custom Function would be refused."""
    gradients = []
    for packed in (False, True):
        model = two_layers(0.0, torch.float32)
        if packed:
            pack_lora(model)
        torch.manual_seed(6)
        out = model(torch.randn(3, 7, 24))
        out /= 2.0
        out.add_(1.0)
        (out**2).sum().backward()
        gradients.append([one.grad for one in model.parameters() if one.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_nothing_is_packed_that_this_processor_cannot_multiply_by() -> None:
    """Whatever the processor: bf16 is packed where it can be, and never asked for elsewhere."""
    try:
        torch.ops.mkldnn._reorder_linear_weight(torch.ones(8, 16, dtype=torch.bfloat16), None)
    except RuntimeError:
        assert not can_pack(torch.bfloat16)
    else:
        assert can_pack(torch.bfloat16)


def test_inputs_that_need_no_gradient_get_none() -> None:
    model = two_layers(0.0, torch.float32)
    pack_lora(model)
    rows = torch.randn(2, 24)
    model(rows).sum().backward()
    assert rows.grad is None
    assert all(one.grad is not None for name, one in model.named_parameters() if "lora" in name)


def test_packed_layers_hold_a_placeholder_and_become_pefts_again() -> None:
    model = two_layers(0.0, torch.float32)
    weights = [m.base_layer.weight for m in model.modules() if isinstance(m, LoraLinear)]
    before, parameters = [one.data for one in weights], sum(one.numel() for one in weights)
    assert not any(is_placeholder(one) for one in weights)
    pack_lora(model)
    assert all(is_placeholder(one) for one in weights)
    assert sum(one.numel() for one in weights) == parameters
    assert sum(one.untyped_storage().nbytes() for one in weights) == 8
    unpack_lora(model)
    for one, data in zip(weights, before, strict=True):
        one.data = data
    expected, _ = run(two_layers(0.0, torch.float32), torch.float32)
    assert torch.equal(run(model, torch.float32)[0], expected)


def test_dora_is_left_alone() -> None:
    config = LoraConfig(r=4, use_dora=True, target_modules=["0"])
    adapted = get_peft_model(nn.Sequential(nn.Linear(24, 24)), config)
    pack_lora(adapted)
    assert type(adapted.base_model.model[0]) is LoraLinear
    assert not is_placeholder(adapted.base_model.model[0].base_layer.weight)
