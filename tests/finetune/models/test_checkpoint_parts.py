"""Checkpoints that are not the model's: refused before a step, with the keys and the cause."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.core.errors import ModelError
from finetune.models.loading import load_base
from finetune.models.source import resolve_base
from finetune.models.trained_weights import load_adapter
from finetune.tasks.pretraining.model import load_masked_model

Weights = dict[str, torch.Tensor]
EMBEDDING = "embeddings.word_embeddings.weight"
LAST_LAYER = "encoder.layer.1."


@pytest.fixture
def edit(make_base, tmp_path: Path) -> Callable[..., Path]:
    """A function: change of the weights, of config.json → a copy of the tiny RoBERTa so changed."""

    def make(change: Callable[[Weights], Weights] = dict, kind="roberta", **config) -> Path:
        folder = tmp_path / "base"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(make_base(kind), folder)
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})
        settings = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(settings))
        return folder

    return make


def refusal(folder: Path, **options) -> str:
    with pytest.raises(ModelError) as fault:
        load_base(resolve_base(str(folder)), ["a", "b"], **options)
    return str(fault.value)


@pytest.mark.parametrize("quantize_4bit", [False, True])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.roberta."])
def test_a_wrappers_prefix_is_named(edit, prefix: str, quantize_4bit: bool) -> None:
    folder = edit(lambda old: {prefix + key: value for key, value in old.items()})
    told = refusal(folder, quantize_4bit=quantize_4bit)
    assert "0.0% of the encoder's" in told
    assert "missing roberta.embeddings.LayerNorm.bias and " in told
    assert f"unexpected {prefix}embeddings.LayerNorm.bias and " in told
    assert f"`{prefix.removesuffix('roberta.')}`" in told


def test_another_architecture_is_named(edit) -> None:
    folder = edit(lambda old: {f"bert.{key}": value for key, value in old.items()})
    told = refusal(folder)
    assert "begin with `bert.`, config.json says roberta" in told


@pytest.mark.parametrize(
    "change",
    [
        lambda old: {key: value for key, value in old.items() if LAST_LAYER not in key},
        lambda old: {key: value for key, value in old.items() if key != EMBEDDING},
        lambda old: {key: value for key, value in old.items() if "attention.self" not in key},
    ],
    ids=["half of the layers", "no embedding", "holes"],
)
def test_what_is_not_whole_is_refused(edit, change) -> None:
    told = refusal(edit(change))
    assert "missing roberta." in told and "the file is not whole" in told
    assert 0 < float(told.split(": ")[1].split("%")[0]) < 100


def test_more_layers_than_config_says_are_refused(edit) -> None:
    told = refusal(edit(num_hidden_layers=1))
    assert "unexpected encoder.layer.1." in told and "config.json describes a smaller" in told


def test_a_shape_that_does_not_fit_is_told_with_both(edit) -> None:
    told = refusal(edit(lambda old: old | {EMBEDDING: old[EMBEDDING][:-7].clone()}))
    assert "embeddings.word_embeddings.weight of shape (146, 64)" in told and "(153, 64)" in told


@pytest.mark.parametrize("quantize_4bit", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(edit, value: float, quantize_4bit: bool) -> None:
    def spoil(old: Weights) -> Weights:
        old[f"{LAST_LAYER}output.dense.weight"][3, 5] = value
        return old

    told = refusal(edit(spoil), quantize_4bit=quantize_4bit)
    assert "not finite" in told and "1 of 8,192 values" in told and "output.dense.weight" in told


def test_another_head_and_no_pooler_are_no_reason(edit) -> None:
    """Masked-language models and classifiers of other classes are what bases are made of."""

    def dress(old: Weights) -> Weights:
        kept = {f"bert.{key}": value for key, value in old.items() if "pooler" not in key}
        head = {"classifier.weight": torch.zeros(5, 64), "classifier.bias": torch.zeros(5)}
        return kept | head | {"cls.predictions.bias": torch.zeros(153)}

    model = load_base(resolve_base(str(edit(dress, "bert"))), ["a", "b"])
    assert model.kotune_loaded.new_modules == ("classifier", "pooler")
    assert model.kotune_loaded.unused == ("cls.predictions.bias",)
    assert model.kotune_new_modules == ["classifier", "pooler"]
    encoder = sum(
        one.numel() for name, one in model.bert.named_parameters() if "pooler" not in name
    )
    assert model.kotune_loaded.encoder_parameters == encoder
    assert "not used: cls.predictions" in model.kotune_loaded.describe()


def test_tied_weights_may_be_absent(edit, tmp_path: Path) -> None:
    model = load_masked_model(resolve_base(str(edit())))
    model.save_pretrained(tmp_path / "masked")
    (tmp_path / "masked" / "tokenizer.json").write_text("{}")
    stored = load_file(tmp_path / "masked" / "model.safetensors")
    assert "lm_head.decoder.weight" not in stored
    again = load_masked_model(resolve_base(str(tmp_path / "masked")))
    assert again.kotune_loaded.new_modules == ()


def test_pretraining_goes_on_from_whole_models_only(edit) -> None:
    folder = edit(lambda old: {key: value for key, value in old.items() if LAST_LAYER not in key})
    with pytest.raises(ModelError, match="do not belong"):
        load_masked_model(resolve_base(str(folder)))


def pointer(path: Path) -> None:
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 498796983\n"
    )


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def cut_off_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def another_format(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html><body>Not found</body></html>")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (pointer, "git lfs pull"),
        (cut_off, "the weights are cut off"),
        (cut_off_in_the_header, "no safetensors file, or cut off within its header"),
        (emptied, "no safetensors file, or cut off within its header"),
        (grown, "longer than their header says"),
        (another_format, "no safetensors file, or cut off within its header"),
    ],
)
def test_files_that_are_not_the_weights_are_refused(edit, spoil, told: str) -> None:
    folder = edit()
    spoil(folder / "model.safetensors")
    with pytest.raises(ModelError, match=told):
        resolve_base(str(folder))


def test_absent_shards_are_named(edit) -> None:
    folder = edit()
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = {"metadata": {}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"1 of 2 files .* absent"):
        resolve_base(str(folder))


def test_an_adapter_is_no_base(edit, make_run) -> None:
    """transformers would load the adapter's own base, and what stands here for its weights."""
    with pytest.raises(ModelError, match="holds an adapter"):
        resolve_base(str(make_run("lora", "roberta") / "model"))
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor"):
        folder = edit()
        (folder / "model.safetensors").rename(folder / "trained_weights.safetensors")
        resolve_base(str(folder))


def test_an_adapter_has_to_be_whole(make_base, make_run, tmp_path: Path) -> None:
    folder = shutil.copytree(make_run("lora", "roberta") / "model", tmp_path / "model")
    path = folder / "adapter_model.safetensors"
    stored = load_file(path)
    first = next(key for key in stored if "lora_B" in key)
    save_file({key: value for key, value in stored.items() if key != first}, path)
    base = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"])
    with pytest.raises(ModelError) as fault:
        load_adapter(base, folder)
    assert f"missing {first}" in str(fault.value)
