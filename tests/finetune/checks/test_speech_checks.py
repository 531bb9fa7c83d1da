"""Speech: a stored run is what was measured, its blank is no character, silence is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tones import tones_recipe

from finetune.core.errors import GateError, ModelError
from finetune.recipes.speech import SpeechRecipe
from finetune.run_folder import open_run
from finetune.run_records import RunMetrics
from finetune.tasks.speech.ctc import run_many
from finetune.tasks.speech.model import TorchFrames, load_trained_speech, run_settings
from finetune.tasks.speech.task import SpeechTask
from finetune.training import finetune


def test_a_stored_run_is_held_against_the_measured_logits(tones_run: Path, tmp_path: Path) -> None:
    run, task, job = open_run(tones_run), SpeechTask(), SimpleNamespace(device="cpu")
    waves = [np.sin(np.arange(8000 + 400 * length) / 9).astype(np.float32) for length in range(3)]
    logits = run_many(waves, run_settings(run), TorchFrames(load_trained_speech(run)))
    task.check_stored(job, tones_run, (waves, logits))
    folder = shutil.copytree(tones_run, tmp_path / "run")
    config = json.loads((folder / "model" / "config.json").read_text())
    config["layer_norm_eps"] *= 1000  # a config that builds another model than was trained
    (folder / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(GateError, match="not the model that was measured"):
        task.check_stored(job, folder, (waves, logits))


def test_a_blank_that_is_a_character_is_refused(tones_run, tones_data, tmp_path: Path) -> None:
    """wav2vec2's config says pad_token_id 0 unless told; many vocabularies begin with a letter."""
    folder = shutil.copytree(tones_run / "model", tmp_path / "base")
    config = json.loads((folder / "config.json").read_text()) | {"pad_token_id": 6}
    (folder / "config.json").write_text(json.dumps(config))
    recipe = tones_recipe(tones_data, tmp_path / "run") | {"model": {"source": str(folder)}}
    with pytest.raises(ModelError, match="takes for its blank, is a character") as fault:
        finetune(SpeechRecipe.model_validate(recipe), report=lambda line: None)
    assert fault.value.next_step == "pad_token_id 0 in the model's config.json"


def test_a_model_that_hears_nothing_is_a_sign() -> None:
    metrics = RunMetrics.model_validate({"validation": {"wer": 0.2}, "test": {"wer": 1.0}})
    (sign,) = SpeechTask().answer_signs(None, metrics)
    assert (sign.code, sign.figures["split"]) == ("nothing-heard", "test")
