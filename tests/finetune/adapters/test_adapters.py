"""What is trained: target modules found by name, the head never among them, always saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finetune.adapters.attach import attach_adapter, count_parameters, find_target_modules
from finetune.core.errors import ModelError
from finetune.models.loading import load_base
from finetune.models.source import resolve_base


@pytest.fixture(params=["roberta", "bert"])
def model(request: pytest.FixtureRequest, make_base) -> torch.nn.Module:
    return load_base(resolve_base(str(make_base(request.param))), ["a", "b"], seed=1)


def test_all_linear_is_the_encoder_without_the_head(model: torch.nn.Module) -> None:
    found = find_target_modules(model, "all-linear", model.kotune_new_modules)
    assert len(found) == 2 * 6 + ("pooler.dense" in str(found))
    assert not any("classifier" in name for name in found)


def test_attention_and_named_layers(model: torch.nn.Module) -> None:
    excluded = model.kotune_new_modules
    assert len(find_target_modules(model, "attention", excluded)) == 2 * 3
    assert len(find_target_modules(model, ["query", "value"], excluded)) == 2 * 2
    dense = find_target_modules(model, ["intermediate.dense"], excluded)
    assert len(dense) == 2 and all(name.endswith("intermediate.dense") for name in dense)


def test_dense_does_not_catch_the_head(model: torch.nn.Module) -> None:
    found = find_target_modules(model, ["dense"], model.kotune_new_modules)
    assert found and not any("classifier" in name for name in found)


@pytest.mark.parametrize("wanted", [["qwery"], [], ["classifier"]])
def test_unknown_target_modules_are_told(model: torch.nn.Module, wanted: list[str]) -> None:
    with pytest.raises(ModelError, match="target_modules") as caught:
        find_target_modules(model, wanted, model.kotune_new_modules)
    assert "query" in str(caught.value)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapter_and_head_are_trained_and_nothing_else(make_base, method: str) -> None:
    base = resolve_base(str(make_base("roberta")))
    model = load_base(base, ["a", "b"], quantize_4bit=method == "qlora", seed=1)
    adapted = attach_adapter(
        model, method=method, rank=4, alpha=8, dropout=0.0, target_modules="all-linear"
    )
    trained = {name for name, value in adapted.named_parameters() if value.requires_grad}
    assert trained
    assert all("lora_" in name or "classifier.modules_to_save" in name for name in trained)
    assert any("classifier.modules_to_save" in name for name in trained)
    assert 0 < count_parameters(adapted).trainable_share < 0.5


def test_the_head_is_not_quantised(make_base) -> None:
    import bitsandbytes

    model = load_base(resolve_base(str(make_base("bert"))), ["a", "b"], quantize_4bit=True)
    linear = {
        name: type(module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert linear["classifier"] is torch.nn.Linear
    encoder = [kind for name, kind in linear.items() if ".encoder." in name]
    assert encoder and all(kind is bitsandbytes.nn.Linear4bit for kind in encoder)


def test_nf4_stays_exact_after_an_evaluation_and_still_trains(make_base) -> None:
    base = resolve_base(str(make_base("roberta")))
    model = load_base(base, ["a", "b"], quantize_4bit=True, seed=1)
    adapted = attach_adapter(
        model, method="qlora", rank=4, alpha=8, dropout=0.0, target_modules="all-linear"
    )
    batch = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "labels": torch.tensor([1])}
    with torch.no_grad():
        before = adapted.eval()(**batch).logits
    adapted.train()(**batch).loss.backward()
    with torch.no_grad():
        after = adapted.eval()(**batch).logits
    assert torch.equal(before, after)
    gradients = [
        parameter.grad for name, parameter in adapted.named_parameters() if "lora_B" in name
    ]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_random_weights_come_back_the_same(make_base) -> None:
    base = resolve_base(str(make_base("roberta")), random_weights=True, seed=5)
    first, second = (load_base(base, ["a", "b"]).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    pretrained = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"]).state_dict()
    name = "roberta.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(first[name], pretrained[name])


def test_klue_large_has_its_published_size() -> None:
    from finetune.models.loading import _config, _skeleton

    base = resolve_base("klue/roberta-large", random_weights=True)
    skeleton = _skeleton(_config(base, ["a", "b"]))
    wide, ffn = 1024, 4096
    embeddings = (32_000 + 514 + 1) * wide + 2 * wide
    attention = 4 * (wide * wide + wide) + 2 * wide
    feed_forward = (wide * ffn + ffn) + (ffn * wide + wide) + 2 * wide
    encoder = sum(value.numel() for value in skeleton.roberta.parameters())
    assert encoder == embeddings + 24 * (attention + feed_forward) == 335_606_784


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no weights"),
        (lambda folder: (folder / "run.json").write_text("{}"), "a run folder"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "an artifact folder"),
        (lambda folder: (folder / "config.json").write_text("not"), "not JSON"),
    ],
)
def test_folders_that_are_no_base_model(tmp_path: Path, make, told: str) -> None:
    make(tmp_path)
    with pytest.raises(ModelError, match=told):
        resolve_base(str(tmp_path))


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="pickle files are never read"):
        resolve_base(str(tmp_path))
