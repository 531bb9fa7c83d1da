"""What trains faster on a CPU does what it replaces: dropout's masks, the choice of attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finetune.hardware.cpu_kernels import QuickDropout, attention_for, quicken_dropout
from finetune.models.loading import load_base
from finetune.models.source import resolve_base


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_masks_keep_what_dropout_keeps(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    rows = torch.ones(501, 401, dtype=dtype, requires_grad=True)  # not a multiple of four
    out = QuickDropout(p)(rows)
    assert out.dtype == dtype and out.shape == rows.shape
    dropped = (out == 0).float()
    count = rows.numel()
    assert dropped.mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / count) ** 0.5)
    assert out.unique().numel() == 2
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=5e-3)
    out.sum().backward()
    assert torch.equal(rows.grad, out)  # the same mask, the same scale
    columns = torch.corrcoef(dropped[:, :8].T) - torch.eye(8)  # four share a random word
    assert columns.abs().max() < 0.2


def test_seeds_repeat_it_and_the_ends_are_exact() -> None:
    rows = torch.randn(7, 9)
    masks = []
    for _ in range(2):
        torch.manual_seed(3)
        masks.append(QuickDropout(0.3)(rows))
    assert torch.equal(*masks)
    assert torch.equal(QuickDropout(0.0)(rows), rows)
    assert torch.equal(QuickDropout(1.0)(rows), torch.zeros_like(rows))
    assert torch.equal(QuickDropout(0.3).eval()(rows), rows)


def test_every_dropout_of_a_model_is_replaced(make_base) -> None:
    model = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"], attention="eager")
    before = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    quicken_dropout(model)
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Dropout)}
    after = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert kinds == {QuickDropout} and after == before and any(before)


@pytest.mark.parametrize(
    ("device", "precision", "length", "dropout", "chosen"),
    [
        ("cpu", "bf16", 128, 0.0, "eager"),
        ("cpu", "bf16", 256, 0.0, None),
        ("cpu", "bf16", 256, None, "eager"),
        ("cpu", "fp32", 64, 0.0, None),
        ("cpu", "fp32", 64, 0.1, "eager"),
        ("cuda", "bf16", 64, 0.1, None),
    ],
)
def test_the_attention(device, precision, length, dropout, chosen) -> None:
    assert attention_for(device, precision, length, dropout) == chosen


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_both_attentions_answer_alike(make_base, kind: str) -> None:
    base = resolve_base(str(make_base(kind)))
    batch = {"input_ids": torch.randint(5, 60, (3, 9)), "attention_mask": torch.ones(3, 9).long()}
    batch["attention_mask"][0, 5:] = 0
    models = [load_base(base, ["a", "b"], attention=name).eval() for name in (None, "eager")]
    with torch.no_grad():
        own, eager = (model(**batch).logits for model in models)
    assert models[1].config._attn_implementation == "eager"
    assert torch.allclose(own, eager, atol=1e-5)
    assert "attn" not in models[1].config.to_json_string()
