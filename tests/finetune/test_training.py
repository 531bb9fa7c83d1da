"""Runs: the head survives, what is stored is what was measured, best checkpoint, folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.core.errors import FolderError, ModelError
from finetune.data.reviews import load_corpus
from finetune.metrics.classification import classification_metrics
from finetune.models.loading import load_tokenizer, load_trained
from finetune.models.predicting import predict_logits
from finetune.run_folder import logits_of, open_run, read_predictions, read_rows
from finetune.training import finetune

METHODS = ("full", "lora", "qlora")


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("method", METHODS)
def test_the_head_survives_save_and_reload(make_run, method: str, kind: str) -> None:
    run = open_run(make_run(method, kind))
    rows = read_rows(run, "validation")
    logits = predict_logits(
        load_trained(run),
        load_tokenizer(run.folder / "model"),
        rows["text"].tolist(),
        preparation=run.preparation,
        max_length=run.max_length,
    )
    stored = logits_of(read_predictions(run, "validation"))
    np.testing.assert_allclose(logits, stored, atol=1e-5)
    assert np.ptp(stored) > 0.01  # a head that says the same of everything would pass too


@pytest.mark.parametrize("method", METHODS)
def test_what_is_stored_is_fp32_after_training_in_bf16(make_run, tmp_path: Path, method) -> None:
    recipe = open_run(make_run(method, "roberta")).recipe
    training = recipe.training.model_copy(update={"precision": "bf16", "max_steps": 3})
    recipe = recipe.model_copy(update={"training": training, "output": str(tmp_path / "run")})
    run = open_run(finetune(recipe, report=lambda line: None))
    assert (run.info.precision, run.info.evaluation_precision) == ("bf16", "fp32")
    rows = read_rows(run, "validation")
    logits = predict_logits(
        load_trained(run),
        load_tokenizer(run.folder / "model"),
        rows["text"].tolist(),
        preparation=run.preparation,
        max_length=run.max_length,
    )
    np.testing.assert_allclose(logits, logits_of(read_predictions(run, "validation")), atol=1e-5)


def test_a_training_does_not_take_the_precision_of_the_one_before(make_run, tmp_path) -> None:
    """transformers leaves mixed precision in the environment of the process."""
    recipe = open_run(make_run("full", "roberta")).recipe
    curves = []
    for name, precision in enumerate(("fp32", "bf16", "fp32")):
        training = recipe.training.model_copy(update={"precision": precision, "max_steps": 3})
        changed = recipe.model_copy(
            update={"training": training, "output": str(tmp_path / str(name))}
        )
        run = open_run(finetune(changed, report=lambda line: None))
        curves.append(logits_of(read_predictions(run, "validation")))
    assert np.array_equal(curves[0], curves[2])
    assert not np.array_equal(curves[0], curves[1])


def test_a_lost_head_would_be_noticed(make_run) -> None:
    run = open_run(make_run("lora", "roberta"))
    model = load_trained(run)
    torch.nn.init.normal_(
        model.base_model.model.classifier.modules_to_save["default"].out_proj.weight
    )
    rows = read_rows(run, "validation")
    logits = predict_logits(
        model,
        load_tokenizer(run.folder / "model"),
        rows["text"].tolist(),
        preparation=run.preparation,
        max_length=32,
    )
    assert np.abs(logits - logits_of(read_predictions(run, "validation"))).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_the_run_folder_is_whole(make_run, method: str) -> None:
    run = open_run(make_run(method, "roberta"))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    for split in ("validation", "test"):
        predictions = read_predictions(run, split)
        rows = read_rows(run, split)
        assert predictions["row"].tolist() == rows["row"].tolist()
        again = classification_metrics(rows["label"].to_numpy(), logits_of(predictions))
        assert metrics[split]["all"]["accuracy"] == again.accuracy
    summary = json.loads((run.folder / "data.json").read_text())
    assert summary["token_lengths"]["p100"] <= run.max_length
    assert summary["fingerprint"] == load_corpus(run.recipe.data, run.recipe.seed).fingerprint
    steps = run.recipe.training.max_steps
    assert run.info.steps == len(run.info.step_times_s) == steps
    assert json.loads((run.folder / "provenance.json").read_text())["packages"]["torch"]
    assert list((run.folder / "tensorboard").iterdir())
    names = [path.name for path in run.folder.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


def test_only_the_adapter_is_stored(make_run) -> None:
    full, lora = (make_run(method, "roberta") / "model" for method in ("full", "lora"))
    assert (full / "model.safetensors").is_file()
    assert not (lora / "model.safetensors").exists()
    adapter = lora / "adapter_model.safetensors"
    assert adapter.stat().st_size < (full / "model.safetensors").stat().st_size


def test_the_best_checkpoint_is_kept(make_run, tmp_path: Path) -> None:
    recipe = open_run(make_run("lora", "roberta")).recipe
    training = {
        "max_steps": 30,
        "eval_steps": 4,
        "learning_rate": 2e-2,
        "early_stopping_patience": 3,
        "batch_size": 8,
        "precision": "fp32",
        "device": "cpu",
    }
    recipe = type(recipe).model_validate(
        {**recipe.model_dump(), "training": training, "output": str(tmp_path / "run")}
    )
    run = open_run(finetune(recipe, report=lambda line: None))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    curve = [entry for entry in metrics["history"] if "eval_accuracy" in entry]
    best = max(entry["eval_accuracy"] for entry in curve)
    assert metrics["best"]["accuracy"] == best == metrics["validation"]["all"]["accuracy"]
    assert metrics["best"]["step"] == next(
        entry["step"] for entry in curve if entry["eval_accuracy"] == best
    )
    assert curve[-1]["step"] == run.info.steps
    stopped_early = run.info.steps < 30
    since_best = [entry for entry in curve if entry["step"] > metrics["best"]["step"]]
    assert stopped_early == (len(since_best) == 3) or not stopped_early


def test_an_existing_run_is_not_replaced_unasked(make_run) -> None:
    run = open_run(make_run("full", "roberta"))
    with pytest.raises(FolderError, match="exists already"):
        finetune(run.recipe)


def test_a_folder_of_something_else_is_never_replaced(make_run, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("precious")
    recipe = open_run(make_run("full", "roberta")).recipe.model_copy(
        update={"output": str(tmp_path)}
    )
    with pytest.raises(FolderError, match="not a run"):
        finetune(recipe, overwrite=True)
    assert (tmp_path / "letter.txt").read_text() == "precious"


def test_a_changed_byte_is_noticed(make_run, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(make_run("full", "roberta"), tmp_path / "run")
    with (folder / "model" / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)
        stream.seek(-1, 2)
        stream.write(bytes([last[0] ^ 1]))
    with pytest.raises(FolderError, match="was changed"):
        open_run(folder)


def test_another_base_than_the_trained_one_is_refused(make_run, tmp_path: Path) -> None:
    import dataclasses

    run = open_run(make_run("lora", "roberta"))
    base = run.base.model_copy(update={"weights_sha256": "0" * 64})
    foreign = dataclasses.replace(run, info=run.info.model_copy(update={"base": base}))
    with pytest.raises(ModelError, match="not the one this run was trained on"):
        load_trained(foreign)


def test_the_seed_decides_the_run(make_run, tmp_path: Path) -> None:
    recipe = open_run(make_run("lora", "roberta")).recipe
    training = recipe.training.model_copy(update={"max_steps": 4})  # before rounding errors grow

    def logits(name: str, seed: int) -> np.ndarray:
        changes = {"training": training, "output": str(tmp_path / name), "seed": seed}
        folder = finetune(recipe.model_copy(update=changes), report=lambda line: None)
        return logits_of(read_predictions(open_run(folder), "test"))

    first, again, other = logits("first", 1), logits("again", 1), logits("other", 2)
    np.testing.assert_allclose(first, again, atol=1e-3)
    assert np.abs(first - other).max() > 1e-2


@pytest.mark.slow
def test_the_real_encoder_learns(e5_folder: Path, nsmc_folder: Path, tmp_path: Path) -> None:
    from finetune.recipes.text import FinetuneRecipe

    recipe = FinetuneRecipe.model_validate(
        {
            "output": str(tmp_path / "run"),
            "model": {"source": str(e5_folder), "max_length": 48},
            "data": {
                "path": str(nsmc_folder),
                "rows": 1700,
                "validation_size": 100,
                "test_size": 400,
            },
            "adapter": {"method": "full"},
            "training": {"epochs": 1, "learning_rate": 1e-4, "batch_size": 16},
        }
    )
    metrics = json.loads((finetune(recipe) / "metrics.json").read_text())
    assert metrics["test"]["all"]["accuracy"] > 0.6
