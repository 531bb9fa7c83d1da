"""fp32 is computed in fp32, and ``auto`` takes no precision that the model cannot."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import DebertaConfig, DebertaModel

from finetune.checks.trial import take_step
from finetune.core.errors import RecipeError
from finetune.core.processes import package_environment
from finetune.hardware.precision import exact_fp32
from finetune.models.loading import autocast_context, load_tokenizer
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.text.job import prepare_job
from finetune.tasks.text.ready import _batch, _loss, ready_model
from finetune.tasks.text.trainer import tokenize_rows

SINGLE = hasattr(torch.backends, "fp32_precision")  # PyTorch's switches since 2.9
PRODUCTS = (
    "import torch, sys\n"
    "from finetune.models.loading import autocast_context\n"
    "torch.set_float32_matmul_precision('medium')\n"
    "with autocast_context('cpu', 'fp32'), torch.inference_mode():\n"
    "    torch.nn.Conv1d(16, 16, 3)(torch.randn(4, 16, 100))\n"
    "    torch.nn.Linear(64, 64)(torch.randn(32, 64))\n"
)


def switches() -> dict[str, object]:
    """How PyTorch computes fp32, as each of its switches says."""
    backends = torch.backends
    found: dict[str, object] = {"cudnn": backends.cudnn.allow_tf32}
    if not SINGLE:
        return {**found, "matmul": torch.get_float32_matmul_precision()}
    parts = {"": backends, "cudnn": backends.cudnn, "mkldnn": backends.mkldnn}
    for kind in ("cudnn", "mkldnn"):
        for name in ("conv", "rnn"):
            parts[f"{kind}.{name}"] = getattr(getattr(backends, kind), name)
    parts |= {"cuda.matmul": backends.cuda.matmul, "mkldnn.matmul": backends.mkldnn.matmul}
    return found | {name: part.fp32_precision for name, part in parts.items()}


def allow_bf16() -> None:
    torch.set_float32_matmul_precision("medium")


def allow_tf32_everywhere() -> None:
    torch.backends.fp32_precision = "tf32"


def allow_bf16_convolutions() -> None:
    torch.backends.mkldnn.conv.fp32_precision = "bf16"


SETTINGS = [allow_bf16, *([allow_tf32_everywhere, allow_bf16_convolutions] if SINGLE else [])]


@pytest.mark.parametrize("allow", SETTINGS)
def test_what_a_caller_allows_does_not_hold_inside(allow) -> None:
    with exact_fp32():  # puts everything back at its end
        allow()
        before = switches()
        with exact_fp32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
            inside = [value for name, value in switches().items() if name not in ("cudnn",)]
            assert not SINGLE or set(inside[1:]) == {"ieee"}
            with torch.backends.cudnn.flags(enabled=False):  # as transformers does around CTC
                pass
        assert switches() == before


def test_evaluation_in_fp32_is_exact_and_tf32_is_not_touched() -> None:
    with exact_fp32():
        torch.set_float32_matmul_precision("high")
        with autocast_context("cpu", "tf32"):
            assert torch.get_float32_matmul_precision() == "high"
        with autocast_context("cpu", "fp32"):
            assert torch.get_float32_matmul_precision() == "highest"


def products_of(environment: dict[str, str]) -> list[str]:
    """oneDNN's own record of what it computed in a child process, evaluating in fp32."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS],
        env={**os.environ, **environment, "ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
    )
    told = done.stdout.splitlines()
    return [line for line in told if ",exec,cpu,convolution" in line] or [done.stderr]


def test_children_are_told_to_keep_fp32_exact(monkeypatch) -> None:
    """Images for arm64 servers set the variable; oneDNN then takes bf16 where it can."""
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    (line,) = products_of(package_environment())
    assert "convolution" in line and "fpmath" not in line


def test_an_environment_that_was_read_already_is_refused() -> None:
    (line,) = products_of({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"})
    assert "unset ONEDNN_DEFAULT_FPMATH_MODE before importing torch" in line


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory, make_base) -> Path:
    """A tiny DeBERTa of the first version: under autocast its mask's value leaves bf16."""
    folder = tmp_path_factory.mktemp("base") / "deberta"
    tokenizer = load_tokenizer(make_base("bert"))
    config = DebertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        pad_token_id=tokenizer.pad_token_id,
    )
    DebertaModel(config).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def prepared(base: Path, reviews: Path, method: str, precision: str):
    """(job, training rows) as on a machine where ``precision`` auto is bf16."""
    import dataclasses

    recipe = FinetuneRecipe.model_validate(
        {
            "model": {"source": str(base), "max_length": 32},
            "data": {"path": str(reviews), "validation_size": 0.4, "test_size": 0.1},
            "adapter": {"method": method},
            "training": {"device": "cpu", "precision": precision},
        }
    )
    job = dataclasses.replace(prepare_job(recipe), precision="bf16")
    rows = tokenize_rows(
        job.corpus.train, job.tokenizer, 32, "dynamic", preparation=job.preparation
    )
    return job, rows


def test_auto_falls_back_to_fp32_where_bf16_fails(deberta, reviews) -> None:
    job, rows = prepared(deberta, reviews, "full", "auto")
    told: list[str] = []
    ready = ready_model(job, rows, told.append)
    assert ready.job.precision == "fp32"
    assert "a trial step failed (RuntimeError: value cannot be converted" in told[0]
    assert "trained with training.precision=fp32" in told[0]
    assert ready.job.signs[-1].code == "fallback"
    assert ready.job.recipe == job.recipe  # what was asked, not what it came to
    batch = {"input_ids": torch.ones(2, 4, dtype=torch.long), "labels": torch.tensor([0, 1])}
    with autocast_context("cpu", "fp32"):
        assert torch.isfinite(ready.model(**batch).loss)


def test_bf16_by_name_is_refused_before_training(deberta, reviews) -> None:
    job, rows = prepared(deberta, reviews, "full", "bf16")
    with pytest.raises(RecipeError, match=r"training\.precision=bf16 does not work"):
        ready_model(job, rows, print)


def test_a_model_that_can_keeps_bf16_and_loses_nothing_to_the_trial(make_base, reviews) -> None:
    job, rows = prepared(make_base("roberta"), reviews, "full", "auto")
    ready = ready_model(job, rows, pytest.fail)
    assert ready.job.precision == "bf16"
    before = {name: one.clone() for name, one in ready.model.state_dict().items()}
    state = torch.get_rng_state()
    python = random.getstate()
    take_step(ready.model, _batch(job, rows), _loss, device="cpu", precision="bf16")
    assert random.getstate() == python and not ready.model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(one.grad is None for one in ready.model.parameters())
    for name, one in ready.model.state_dict().items():
        assert torch.equal(one, before[name])
