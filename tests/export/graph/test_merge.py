"""The merged model is the trained one: same logits, head included, for every method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.graph.merging import (
    check_finite,
    chosen_base,
    load_dequantized_base,
    merge_adapter,
    merge_best,
)
from finetune.core.errors import ModelError
from finetune.models.loading import (
    load_base,
    load_tokenizer,
    load_trained,
    run_base,
)
from finetune.models.predicting import predict_logits
from finetune.run_folder import logits_of, open_run, read_predictions, read_rows


def logits_on_validation(model, run) -> np.ndarray:
    texts = read_rows(run, "validation")["text"].tolist()
    tokenizer = load_tokenizer(run.folder / "model")
    return predict_logits(
        model, tokenizer, texts, preparation=run.preparation, max_length=run.max_length
    )


@pytest.mark.parametrize(
    ("method", "kind"),
    [("full", "bert"), ("lora", "roberta"), ("lora", "bert"), ("qlora", "roberta")],
)
def test_merged_equals_unmerged_and_the_logits_of_training(make_run, method, kind):
    run = open_run(make_run(method, kind))
    merged = logits_on_validation(merge_adapter(run), run)
    unmerged = logits_on_validation(load_trained(run), run)
    stored = logits_of(read_predictions(run, "validation"))
    assert np.ptp(stored) > 0.5, "logits this close to each other would prove nothing"
    np.testing.assert_allclose(merged, unmerged, atol=1e-4)
    np.testing.assert_allclose(merged, stored, atol=1e-4)


def test_the_adapter_changes_the_base(make_run):
    run = open_run(make_run("lora", "roberta"))
    base = load_file(f"{run.base.source}/model.safetensors")
    merged = merge_adapter(run).roberta.state_dict()
    name = "encoder.layer.0.attention.self.query.weight"
    stored = base.get(name, base.get(f"roberta.{name}"))
    assert not torch.allclose(merged[name], stored)


def test_the_head_is_the_trained_one(make_run):
    run = open_run(make_run("lora", "roberta"))
    adapter = load_file(run.folder / "model" / "adapter_model.safetensors")
    trained = {
        name.split("classifier.", 1)[1]: value
        for name, value in adapter.items()
        if "classifier." in name
    }
    head = merge_adapter(run).classifier.state_dict()
    assert head.keys() == trained.keys()
    for name, value in head.items():
        torch.testing.assert_close(value, trained[name], rtol=0, atol=0)


def test_merging_twice_is_harmless(make_run):
    run = open_run(make_run("lora", "roberta"))
    first, second = merge_adapter(run).state_dict(), merge_adapter(run).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    open_run(run.folder)  # no file of the run was touched


def test_qlora_merges_to_a_plain_model_on_the_dequantised_base(make_run):
    run = open_run(make_run("qlora", "roberta"))
    model = merge_adapter(run)
    assert {type(module).__name__ for module in model.modules()}.isdisjoint({"Linear4bit"})
    assert not hasattr(model.config, "quantization_config")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert list(model.config.id2label.values()) == list(run.labels)


def test_both_qlora_bases_are_measured_and_the_better_one_is_kept(make_run):
    run = open_run(make_run("qlora", "roberta"))
    labels = read_rows(run, "validation")["label"].to_numpy()
    merged = merge_best(run, "auto", lambda model: logits_on_validation(model, run), labels)
    assert set(merged.measured) == {"dequantized", "original"}
    order = {
        base: (figures["accuracy"], -figures["loss"]) for base, figures in merged.measured.items()
    }
    assert order[merged.base] == max(order.values())
    assert [base for base, one in merged.measured.items() if one["exported"]] == [merged.base]
    np.testing.assert_array_equal(logits_on_validation(merged.model, run), merged.logits)
    assert merged.measured["dequantized"]["loss"] != merged.measured["original"]["loss"]


def test_the_original_base_gets_the_same_adapter(make_run):
    run = open_run(make_run("qlora", "roberta"))
    name = "roberta.encoder.layer.0.attention.self.query.weight"
    original = load_base(run_base(run), run.labels).state_dict()[name]
    dequantized = load_dequantized_base(run).state_dict()[name]
    assert not torch.equal(original, dequantized)
    onto_original = merge_adapter(run, "original").state_dict()[name] - original
    onto_dequantized = merge_adapter(run, "dequantized").state_dict()[name] - dequantized
    torch.testing.assert_close(onto_original, onto_dequantized, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("method", "wanted"), [("lora", "auto"), ("qlora", "original")])
def test_a_fixed_base_is_the_only_one_measured(make_run, method, wanted):
    run = open_run(make_run(method, "roberta"))
    labels = read_rows(run, "validation")["label"].to_numpy()
    merged = merge_best(run, wanted, lambda model: logits_on_validation(model, run), labels)
    assert list(merged.measured) == ([] if method == "lora" else ["original"])


def test_another_base_is_refused(make_run):
    run = open_run(make_run("lora", "roberta"))
    base = run.base.model_copy(update={"weights_sha256": "0" * 64})
    other = replace(run, info=run.info.model_copy(update={"base": base}))
    with pytest.raises(ModelError, match="not the one this run was trained on"):
        merge_adapter(other)


def test_weights_that_are_not_finite_are_refused(make_run):
    model = merge_adapter(open_run(make_run("lora", "roberta")))
    with torch.no_grad():
        model.classifier.out_proj.weight[0, 0] = float("inf")
    with pytest.raises(ModelError, match=r"not finite(.|\n)*classifier.out_proj.weight"):
        check_finite(model)


@pytest.mark.parametrize(
    ("exported", "wanted", "base"),
    [
        ("original", "auto", "original"),
        ("dequantized", "original", "dequantized"),
        (None, "original", "original"),
        (None, "auto", "dequantized"),
    ],
)
def test_the_base_is_the_one_that_the_export_chose(exported, wanted, base):
    assert chosen_base(exported, wanted) == base
