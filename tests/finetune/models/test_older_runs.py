"""A run that was trained with transformers 4.57 opens with the installed one, logits equal."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.exporting import export_run
from finetune.models.loading import load_trained
from finetune.models.predicting import predict_logits
from finetune.models.tokenizer import load_tokenizer
from finetune.run_folder import logits_of, open_run, read_predictions, read_rows

OLDER = Path(__file__).parents[2] / "older" / "transformers4"


@pytest.fixture
def older(tmp_path: Path, monkeypatch) -> Path:
    """A copy, opened from the folder its base is named in."""
    folder = shutil.copytree(OLDER, tmp_path / "older")
    monkeypatch.chdir(folder)
    return folder / "lora"


def test_a_run_of_transformers_4_gives_the_same_logits(older: Path) -> None:
    run = open_run(older)
    logits = predict_logits(
        load_trained(run),
        load_tokenizer(run.folder / "model"),
        read_rows(run, "validation")["text"].tolist(),
        preparation=run.preparation,
        max_length=run.max_length,
    )
    np.testing.assert_allclose(logits, logits_of(read_predictions(run, "validation")), atol=1e-5)


def test_a_run_of_transformers_4_is_exported(older: Path) -> None:
    artifact = export_run(older, older.parent / "artifact", overrides=["max_accuracy_drop=0.1"])
    assert artifact.status == "passed" and artifact.manifest.fused_attentions == 2
