"""Every method: trained for a few steps, stored, read back on the untouched base, merged."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from export.exporting import export_run
from export.graph.merging import merge_adapter
from finetune.adapters.attach import attach_adapter
from finetune.core.errors import ModelError, RecipeError
from finetune.models.loading import load_base, load_tokenizer, load_trained
from finetune.models.predicting import predict_logits
from finetune.models.source import resolve_base
from finetune.recipes.methods import METHODS
from finetune.recipes.text import AdapterSection, FinetuneRecipe
from finetune.run_folder import Run, logits_of, open_run, read_predictions, read_rows
from finetune.training import finetune

NEW = [name for name in METHODS if name not in ("full", "lora", "qlora")]
STEPS = 6


def recipe_of(method: str, base: Path, reviews: Path, folder: Path, **training) -> FinetuneRecipe:
    adapter = {"method": method, "rank": 8, "alpha": 16}
    return FinetuneRecipe.model_validate(
        {
            "name": "tiny",
            "output": str(folder),
            "model": {"source": str(base), "max_length": 32},
            "data": {"path": str(reviews), "validation_size": 0.2, "test_size": 0.1},
            "adapter": {
                key: adapter[key] for key in ("method", *METHODS[method].keys[:2]) if key in adapter
            },
            "training": {
                "max_steps": STEPS,
                "eval_steps": 3,
                "batch_size": 16,
                "learning_rate": 2e-2,
                "warmup_ratio": 0.0,
                "device": "cpu",
                "precision": "fp32",
                **training,
            },
        }
    )


@pytest.fixture(scope="module")
def train(tmp_path_factory, make_base, reviews) -> Callable[[str], Run]:
    """A function: method → its run on the tiny BERT, which has a pooler beside its head."""
    made: dict[str, Run] = {}

    def make(method: str) -> Run:
        if method not in made:
            folder = tmp_path_factory.mktemp("methods") / "run"
            recipe = recipe_of(method, make_base("bert"), reviews, folder)
            made[method] = open_run(finetune(recipe, report=lambda line: None))
        return made[method]

    return make


def logits_on(model: torch.nn.Module, run: Run) -> np.ndarray:
    texts = read_rows(run, "validation")["text"].tolist()
    tokenizer = load_tokenizer(run.folder / "model")
    return predict_logits(
        model, tokenizer, texts, preparation=run.preparation, max_length=run.max_length
    )


@pytest.mark.parametrize("method", NEW)
def test_a_reload_and_a_merge_give_the_stored_logits(train, method: str) -> None:
    run = train(method)
    stored = logits_of(read_predictions(run, "validation"))
    assert np.ptp(stored) > 0.05, "logits this close to each other would prove nothing"
    np.testing.assert_allclose(logits_on(load_trained(run), run), stored, atol=1e-6)
    merged = merge_adapter(run)
    np.testing.assert_allclose(logits_on(merged, run), stored, atol=1e-4)
    assert not any("lora_" in name or "ia3_" in name for name, _ in merged.named_parameters())


@pytest.mark.parametrize("method", NEW)
def test_what_was_trained_has_moved(train, method: str) -> None:
    run = train(method)
    base = load_base(resolve_base(run.base.source), run.labels).state_dict()
    merged = merge_adapter(run).state_dict()
    moved = {name for name in base if not torch.equal(base[name], merged[name])}
    encoder = {name for name in moved if "classifier" not in name}
    assert any("classifier" in name for name in moved)
    if method == "head":
        assert not encoder
    elif method == "bitfit":
        assert encoder and all(name.endswith("bias") for name in encoder)
    else:
        assert any(name.endswith("query.weight") for name in encoder)


@pytest.mark.parametrize("method", NEW)
def test_only_what_was_trained_is_stored(train, make_run, method: str) -> None:
    folder = train(method).folder / "model"
    weights = [path.name for path in folder.glob("*.safetensors")]
    subset = METHODS[method].family == "subset"
    assert weights == ["trained_weights.safetensors" if subset else "adapter_model.safetensors"]
    with safe_open(folder / weights[0], framework="pt") as stored:
        names = set(stored.keys())
    assert any("classifier" in name for name in names)
    assert not any("word_embeddings" in name for name in names)


def test_pissa_and_olora_are_stored_as_lora_of_twice_the_rank(train) -> None:
    for method in ("pissa", "olora"):
        told = json.loads((train(method).folder / "model" / "adapter_config.json").read_text())
        assert told["init_lora_weights"] is True
        assert (told["r"], told["lora_alpha"]) == (16, 32)


def test_pissa_starts_at_the_base_model(make_base) -> None:
    base = resolve_base(str(make_base("roberta")))
    plain = load_base(base, ["a", "b"], seed=1).eval()
    words = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
    with torch.no_grad():
        before = plain(**words).logits
        for method in ("pissa", "olora"):
            model = load_base(base, ["a", "b"], seed=1)
            frozen = model.roberta.encoder.layer[0].attention.self.query.weight.clone()
            adapted = attach_adapter(
                model, method=method, rank=4, alpha=8, dropout=0.0, target_modules="all-linear"
            ).eval()
            query = adapted.base_model.model.roberta.encoder.layer[0].attention.self.query
            assert not torch.equal(query.base_layer.weight, frozen)
            torch.testing.assert_close(adapted(**words).logits, before, rtol=0, atol=1e-5)


def test_eva_shares_out_ranks_and_starts_at_principal_components(train) -> None:
    told = json.loads((train("eva").folder / "model" / "adapter_config.json").read_text())
    ranks = list(told["rank_pattern"].values())
    assert ranks and max(ranks) > 8 > min(ranks)


def test_adalora_reaches_its_budget(train) -> None:
    run = train("adalora")
    with safe_open(run.folder / "model" / "adapter_model.safetensors", framework="pt") as stored:
        singular = [stored.get_tensor(name) for name in stored.keys() if "lora_E" in name]  # noqa: SIM118
    kept = sum(int((values != 0).sum()) for values in singular)
    assert sum(len(values) for values in singular) == 12 * len(singular)
    assert kept <= 8 * len(singular)


def test_adaloras_term_is_pefts_and_in_training_only(make_base) -> None:
    from finetune.adapters.adalora import OrthogonalityLoss
    from finetune.tasks.text.trainer import RowLoss

    model = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"], dropout=0.0)
    adapted = attach_adapter(
        model, method="adalora", rank=4, alpha=8, dropout=0.0, target_modules="all-linear"
    ).train()
    words, labels = torch.tensor([[5, 6, 7, 8], [8, 7, 6, 5]]), torch.tensor([1, 0])
    with_term = adapted(input_ids=words, labels=labels).loss
    outputs = adapted(input_ids=words)
    loss = OrthogonalityLoss(adapted, RowLoss(0.0))
    torch.testing.assert_close(loss(outputs, labels), with_term)
    halves = [
        loss({"logits": outputs.logits[row : row + 1]}, labels[row : row + 1], 2) for row in (0, 1)
    ]
    torch.testing.assert_close(sum(halves), with_term)
    adapted.eval()
    torch.testing.assert_close(loss(outputs, labels), RowLoss(0.0)(outputs, labels))
    assert with_term > loss(outputs, labels) + 0.5


def test_loraplus_gives_b_and_the_biases_the_higher_rate(make_base, reviews, tmp_path) -> None:
    from finetune.adapters.method_training import fit_trainer_to_method
    from finetune.tasks.text.job import build_model, prepare_job

    job = prepare_job(recipe_of("lora+", make_base("bert"), reviews, tmp_path))
    model, _ = build_model(job)
    from transformers import Trainer, TrainingArguments

    trainer = Trainer(
        model, TrainingArguments(str(tmp_path), learning_rate=1e-3, report_to=[], use_cpu=True)
    )
    adapter = AdapterSection(method="lora+", learning_rate_ratio=4)
    fit_trainer_to_method(trainer, adapter)
    trainer.create_optimizer()
    rates = {
        name: group["lr"]
        for group in trainer.optimizer.param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is one for one in group["params"])
    }
    assert {name for name, value in model.named_parameters() if value.requires_grad} == set(rates)
    assert {rate for name, rate in rates.items() if "lora_B" in name} == {4e-3}
    assert {rate for name, rate in rates.items() if "lora_A" in name} == {1e-3}


@pytest.mark.parametrize("method", ["dora", "pissa", "ia3", "bitfit"])
def test_the_export_is_the_same_for_every_method(train, tmp_path: Path, method: str) -> None:
    artifact = export_run(
        train(method).folder,
        tmp_path / "artifact",
        overrides=["max_accuracy_drop=0.2"],
        report=lambda line: None,
    )
    assert artifact.status == "passed"
    assert set(artifact.precisions) == {"fp32", "int8"}
    assert artifact.method == method


@pytest.mark.parametrize("method", ["pissa", "olora", "eva"])
def test_a_rank_that_no_matrix_has_is_refused(make_base, method: str) -> None:
    model = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"])
    with pytest.raises(ModelError, match="rank is too high"):
        attach_adapter(
            model, method=method, rank=65, alpha=8, dropout=0.0, target_modules="all-linear"
        )


def test_eva_needs_enough_texts(make_base, reviews, tmp_path: Path) -> None:
    recipe = recipe_of("eva", make_base("roberta"), reviews, tmp_path / "run")
    data = recipe.data.model_copy(update={"rows": 40})
    with pytest.raises(ModelError, match="as many training texts"):
        finetune(recipe.model_copy(update={"data": data}), report=lambda line: None)


def test_adalora_needs_two_steps(make_base, reviews, tmp_path: Path) -> None:
    recipe = recipe_of("adalora", make_base("roberta"), reviews, tmp_path / "run", max_steps=1)
    with pytest.raises(RecipeError, match="two steps"):
        finetune(recipe, report=lambda line: None)


def test_weights_of_another_model_are_refused(train, make_base) -> None:
    from finetune.models.trained_weights import attach_trained

    other = load_base(resolve_base(str(make_base("roberta"))), ["a", "b"])
    with pytest.raises(ModelError, match="does not fit"):
        attach_trained(other, "bitfit", train("bitfit").folder / "model")


@pytest.mark.parametrize("method", ["adalora", "pissa", "lora+", "bitfit"])
def test_a_training_that_was_stopped_ends_with_the_same_weights(
    make_base, reviews, tmp_path: Path, method: str
) -> None:
    from transformers import TrainerCallback, set_seed

    from finetune.tasks.task import task_of
    from finetune.training import train_job

    recipe = recipe_of(method, make_base("roberta"), reviews, tmp_path / "run", eval_steps=6)
    task = task_of(recipe)
    job = task.prepare(recipe)

    class StopAtFour(TrainerCallback):
        def on_step_begin(self, args, state, control, **_) -> None:
            if state.global_step == 3:
                signal.raise_signal(signal.SIGINT)

    def train(name: str, *callbacks: TrainerCallback) -> dict[str, torch.Tensor]:
        set_seed(5)
        for part in ("steps", "tensorboard"):
            (tmp_path / name / part).mkdir(parents=True, exist_ok=True)
        built = task.build(job, tmp_path / name, lambda line: None)
        end = train_job(task, job, built, tmp_path / name, lambda line: None, callbacks)
        return load_file(end.folder / "weights.safetensors")

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("stopped", StopAtFour())
    resumed = train("stopped")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    if method == "adalora":
        assert any((value == 0).any() for name, value in whole.items() if "lora_E" in name)
