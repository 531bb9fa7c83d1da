"""What a model hears of a fixed recording is kept, and held against what it hears later."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finetune.core.errors import FolderError, ModelError
from finetune.tasks.speech.ctc import SpeechSettings
from finetune.tasks.speech.features import (
    EVERY,
    FEATURES,
    check_features,
    hold_features,
    take_features,
)

SETTINGS = SpeechSettings(
    rate_hz=16_000,
    normalize=True,
    masked=True,
    labels=("", "a"),
    blank_id=0,
    silent_ids=frozenset({0}),
    delimiter="|",
    lower_case=False,
    kernels=(10, 3),
    strides=(5, 2),
)


def change(folder: Path, **values: object) -> None:
    content = json.loads((folder / FEATURES).read_text())
    (folder / FEATURES).write_text(json.dumps(content | values))


def test_the_features_are_those_of_half_a_second_at_the_models_rate(tmp_path: Path) -> None:
    values = take_features(SETTINGS)
    assert len(values) == 8_000 and abs(values.std() - 1) < 0.01
    hold_features(SETTINGS, tmp_path)
    hold_features(SETTINGS, tmp_path)
    kept = json.loads((tmp_path / FEATURES).read_text())
    assert kept["libraries"]["soxr"] and len(kept["values"].split()) == len(values[::EVERY])


def test_a_folder_of_before_has_none(tmp_path: Path) -> None:
    check_features(SETTINGS, tmp_path)


def test_another_loudness_or_length_is_told_with_the_libraries(tmp_path: Path) -> None:
    hold_features(SETTINGS, tmp_path)
    values = take_features(SETTINGS)[::EVERY]
    louder = " ".join(f"{value:.5f}" for value in np.where(values > 1, values * 1.01, values))
    change(tmp_path, libraries={"soxr": "0.5.0"}, values=louder)
    with pytest.raises(ModelError, match=r"differ by up to(?s:.*)soxr 0\.5\.0(?s:.*)soxr==0\.5\.0"):
        check_features(SETTINGS, tmp_path)
    change(tmp_path, samples=8_001)
    with pytest.raises(ModelError, match="8000 samples instead of 8001"):
        hold_features(SETTINGS, tmp_path)


def test_damaged_features_are_one_message(tmp_path: Path) -> None:
    for damage in ({"values": None}, {"values": "loud"}, {"libraries": 3}):
        (tmp_path / FEATURES).unlink(missing_ok=True)
        hold_features(SETTINGS, tmp_path)
        change(tmp_path, **damage)
        with pytest.raises(FolderError, match="damaged features"):
            check_features(SETTINGS, tmp_path)
