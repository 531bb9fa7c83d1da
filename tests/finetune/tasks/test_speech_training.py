"""Speech runs: what is stored is what was heard; LoRA on a speech model; folders; real digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tones import sing, tones_recipe

from finetune.core.errors import DataError, FolderError, ModelError
from finetune.data.audio import read_audio
from finetune.metrics.word_errors import speech_metrics
from finetune.recipes.speech import SpeechRecipe
from finetune.run_folder import open_run, read_predictions, read_rows
from finetune.tasks.speech.model import TorchFrames, load_trained_speech, run_settings
from finetune.tasks.speech.transcription import transcribe_waves
from finetune.training import finetune


def heard(folder: Path, split: str, *, merge: bool = False) -> list[str]:
    run = open_run(folder)
    waves = [read_audio(one, run.info.sampling_rate_hz) for one in read_rows(run, split)["audio"]]
    frames = TorchFrames(load_trained_speech(run, merge=merge))
    return transcribe_waves(waves, run_settings(run), frames)


def train(tones_data: Path, output: Path, **changes) -> Path:
    content = tones_recipe(tones_data, output)
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value}
    recipe = SpeechRecipe.model_validate(content)
    return finetune(recipe, report=lambda line: None)


@pytest.fixture(scope="module")
def lora_run(tones_run: Path, tones_data: Path, tmp_path_factory) -> Path:
    return train(
        tones_data,
        tmp_path_factory.mktemp("runs") / "lora",
        model={"source": str(tones_run / "model")},
        data={"speakers": ["one"], "rows": 60},
        adapter={"method": "lora", "rank": 4, "alpha": 8},
        training={"max_steps": 6, "eval_steps": 3, "learning_rate": 5e-3},
    )


def test_the_tones_are_learnt_and_the_run_is_whole(tones_run: Path) -> None:
    run = open_run(tones_run)
    assert (run.task, run.method, run.is_speech) == ("speech-recognition", "full", True)
    metrics = json.loads((tones_run / "metrics.json").read_text())
    assert metrics["test"]["wer"] < 0.2
    for split in ("validation", "test"):
        rows, stored = read_rows(run, split), read_predictions(run, split)
        assert rows["row"].tolist() == stored["row"].tolist()
        again = speech_metrics(rows["text"].tolist(), stored["transcript"].tolist(), seed=42)
        assert metrics[split]["wer"] == again.wer
    assert run.labels[:5] == ("<pad>", "<s>", "</s>", "<unk>", "|")
    assert run.info.parameters.total < 5_000_000
    assert "before" not in metrics
    names = [path.name for path in tones_run.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_stored_is_heard_again(tones_run: Path, split: str) -> None:
    stored = read_predictions(open_run(tones_run), split)["transcript"].tolist()
    assert heard(tones_run, split) == stored


def test_lora_trains_the_transformer_alone(lora_run: Path, tones_run: Path) -> None:
    from safetensors import safe_open

    with safe_open(lora_run / "model" / "adapter_model.safetensors", framework="np") as weights:
        names = list(weights.keys())
    assert names and all(".encoder.layers." in name for name in names)
    assert not (lora_run / "model" / "model.safetensors").exists()
    run = open_run(lora_run)
    assert run.info.parameters.trainable < 0.3 * run.info.parameters.total
    metrics = json.loads((lora_run / "metrics.json").read_text())
    assert metrics["before"]["test"]["rows"] == metrics["test"]["rows"] == 12
    assert run.labels == open_run(tones_run).labels


def test_lora_is_heard_again_and_merged_without_loss(lora_run: Path) -> None:
    stored = read_predictions(open_run(lora_run), "test")["transcript"].tolist()
    assert heard(lora_run, "test") == stored == heard(lora_run, "test", merge=True)
    run = open_run(lora_run)
    wave = [sing("ABCD", 16_000)]
    values = np.stack(wave)
    plain, merged = (
        TorchFrames(load_trained_speech(run, merge=merge))(values, np.ones_like(values, np.int64))
        for merge in (False, True)
    )
    np.testing.assert_allclose(plain, merged, atol=1e-4)


def test_full_adaptation_leaves_the_feature_encoder(tones_run, tones_data, tmp_path) -> None:
    from safetensors.numpy import load_file

    folder = train(
        tones_data,
        tmp_path / "full",
        model={"source": str(tones_run / "model")},
        training={"max_steps": 2, "eval_steps": 2},
    )
    before = load_file(tones_run / "model" / "model.safetensors")
    after = load_file(folder / "model" / "model.safetensors")
    moved = {name for name in after if (before[name] != after[name]).any()}
    assert moved and not [name for name in moved if "feature_extractor" in name]


def test_a_vocabulary_without_the_characters_is_told(tones_run, tones_data, tmp_path) -> None:
    with pytest.raises(DataError, match="no character of train"):
        train(
            tones_data,
            tmp_path / "run",
            model={"source": str(tones_run / "model")},
            data={"text_case": "lower"},
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers looks for a processor first
def test_a_text_model_is_no_base(make_base, tones_data, tmp_path) -> None:
    with pytest.raises(ModelError, match="wav2vec2 with a CTC head"):
        train(tones_data, tmp_path / "run", model={"source": str(make_base("roberta"))})


def test_another_base_and_an_existing_run_are_refused(tones_run, lora_run) -> None:
    import dataclasses

    run = open_run(lora_run)
    base = run.base.model_copy(update={"weights_sha256": "0" * 64})
    foreign = dataclasses.replace(run, info=run.info.model_copy(update={"base": base}))
    with pytest.raises(ModelError, match="not the one this run was trained on"):
        load_trained_speech(foreign)
    with pytest.raises(FolderError, match="exists already"):
        finetune(open_run(tones_run).recipe)


def test_the_seed_decides_the_run(tones_data: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    def weights(name: str) -> dict[str, np.ndarray]:
        folder = train(tones_data, tmp_path / name, training={"max_steps": 3, "eval_steps": 3})
        return load_file(folder / "model" / "model.safetensors")

    one, two = weights("one"), weights("two")
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5)


@pytest.mark.slow
def test_masks_are_learnt_for_a_base_that_has_none(tones_run, tones_data, tmp_path) -> None:
    masked = {"mask_time_probability": 0.2, "mask_time_length": 2}
    folder = train(
        tones_data,
        tmp_path / "masked",
        model={"source": str(tones_run / "model")},
        augment=masked,
        training={"max_steps": 2, "eval_steps": 2},
    )
    assert open_run(folder).info.steps == 2


def test_the_real_digits_can_be_trained_on(speech_folder: Path, tmp_path: Path) -> None:
    folder = train(
        speech_folder,
        tmp_path / "run",
        data={"rows": 100, "validation_size": 20, "test_size": 20},
        training={"max_steps": 3, "eval_steps": 3},
    )
    run = open_run(folder)
    assert set("".join(run.labels[5:])) <= set("ZEROONETWOTHREEFOURFIVESIXSEVENEIGHTNINE")
    metrics = json.loads((folder / "metrics.json").read_text())
    losses = [entry["loss"] for entry in metrics["history"] if "loss" in entry]
    assert metrics["test"]["rows"] == 20 and np.isfinite(losses).all()
