"""A training whose numbers are no numbers any more stops at that step, and says what to try."""

from __future__ import annotations

from pathlib import Path

import pytest
from tones import tones_recipe

from finetune.core.errors import TrainingError
from finetune.loop.ledger import Ledger
from finetune.loop.progress import ProgressReport, Watch
from finetune.recipes.speech import SpeechRecipe
from finetune.recipes.text import FinetuneRecipe
from finetune.run_folder import open_run
from finetune.tasks.pretraining.model import masked_loss
from finetune.training import finetune


@pytest.mark.parametrize("max_grad_norm", [0, 1])
def test_a_text_run_that_diverges_names_the_step(make_run, tmp_path: Path, max_grad_norm) -> None:
    recipe = open_run(make_run("full", "roberta")).recipe.model_dump()
    recipe["training"] |= {
        "learning_rate": 1e30,
        "warmup_ratio": 0.0,
        "scheduler": "constant",
        "max_grad_norm": max_grad_norm,
    }
    recipe["output"] = str(tmp_path / "run")
    with pytest.raises(TrainingError) as fault:
        finetune(FinetuneRecipe.model_validate(recipe), report=lambda line: None)
    assert "diverged in step" in str(fault.value) and "of 40" in str(fault.value)
    assert "training.learning_rate=1e+29" in fault.value.next_step
    assert ("max_grad_norm" in fault.value.next_step) == (max_grad_norm == 0)
    assert fault.value.exit_code == 1 and not (tmp_path / "run").exists()


def test_a_speech_run_that_diverges_says_so_too(tones_data, tmp_path: Path) -> None:
    """CTC calls an infinite loss zero; Trainer logs none that is no number."""
    recipe = tones_recipe(tones_data, tmp_path / "run")
    recipe["training"] |= {"learning_rate": 1e30, "warmup_ratio": 0.0, "max_steps": 20}
    with pytest.raises(TrainingError, match="diverged"):
        finetune(SpeechRecipe.model_validate(recipe), report=lambda line: None)


def test_a_batch_without_a_masked_token_is_no_divergence(make_base) -> None:
    import torch
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(make_base("roberta"))
    ids = torch.tensor([[5, 6, 7]])
    batch = {"input_ids": ids, "attention_mask": ids * 0 + 1, "labels": ids * 0 - 100}
    loss = masked_loss(model, batch)
    assert loss.item() == 0
    loss.backward()


def test_the_bar_shows_the_newest_evaluation() -> None:
    """Trainer logs and evaluates after the end of a step, where the bar moved already."""
    from transformers import TrainerState, TrainingArguments

    ledger = Ledger(micro_batch=4, accumulation=1)
    report = ProgressReport(ledger, Watch("accuracy", True, None, "cpu"))
    arguments = TrainingArguments(output_dir="unused", report_to=[], use_cpu=True)
    state = TrainerState(max_steps=2)
    report.on_train_begin(arguments, state, None)
    shown = lambda: report._bar.tasks[0].fields["figures"]  # noqa: E731
    for step, accuracy in ((1, 0.25), (2, 0.75)):
        report.on_step_begin(arguments, state, None)
        state.global_step = step
        report.on_step_end(arguments, state, None)
        report.on_log(arguments, state, None, logs={"loss": step / 8})
        assert f"loss {step / 8:.4f}" in shown()
        report.on_evaluate(arguments, state, None, metrics={"eval_accuracy": accuracy})
        assert f"accuracy {accuracy:.4f}" in shown()
    report.close()
