"""Outputs of a wav2vec2 and the tokens that name them, in every layout that libraries write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from finetune.tasks.speech.ctc import decode_ids, read_speech_settings

LETTERS = ["|", *"ABC", "[UNK]", "[PAD]"]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]", "pad_token": "[PAD]"}
BEYOND = {"<s>": 6, "</s>": 7}


def write_model(folder: Path, outputs: int, tokenizer: dict, **files: dict) -> Path:
    content = {
        "config.json": {
            "vocab_size": outputs,
            "pad_token_id": 5,
            "feat_extract_norm": "layer",
            "conv_kernel": [10, 8],
            "conv_stride": [10, 8],
        },
        "preprocessor_config.json": {"sampling_rate": 16_000, "do_normalize": True},
        "tokenizer_config.json": {"word_delimiter_token": "|", **tokenizer},
        "vocab.json": {token: index for index, token in enumerate(LETTERS)},
        **{f"{name}.json": values for name, values in files.items()},
    }
    for name, values in content.items():
        (folder / name).write_text(json.dumps(values), encoding="utf-8")
    return folder


def entry(token: str, special: bool) -> dict:
    return {"content": token, "special": special}


LAYOUTS = {
    "added_tokens.json": ({}, {"added_tokens": BEYOND, "special_tokens_map": SPECIAL}),
    "tokenizer_config.json": (
        {"added_tokens_decoder": {str(i): entry(t, False) for t, i in BEYOND.items()}, **SPECIAL},
        {},
    ),
    "marked only": (
        {
            "pad_token": "[PAD]",
            "unk_token": {"content": "[UNK]"},
            "bos_token": None,
            "added_tokens_decoder": {"6": entry("<|a|>", True), "7": entry("<|b|>", True)},
        },
        {},
    ),
    "additional": (
        {**SPECIAL, "additional_special_tokens": ["<x>", {"content": "<y>"}]},
        {"added_tokens": {"<x>": 6, "<y>": 7}},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_added_special_tokens_are_known_and_silent(tmp_path, layout):
    tokenizer, files = LAYOUTS[layout]
    settings = read_speech_settings(write_model(tmp_path, 8, tokenizer, **files))
    assert len(settings.labels) == 8 and settings.silent_ids == {4, 5, 6, 7}
    assert decode_ids(np.array([6, 1, 7, 0, 5, 2, 2, 6, 4, 3]), settings) == "A BC"


def test_an_added_letter_is_text_and_the_delimiter_never_silent(tmp_path):
    added = {"6": entry("Ä", False), "7": entry("<s>", False), "0": entry("|", True)}
    folder = write_model(tmp_path, 8, {**SPECIAL, "added_tokens_decoder": added})
    assert decode_ids(np.array([6, 0, 1]), read_speech_settings(folder)) == "Ä A"


def test_outputs_without_a_token_are_refused_and_tokens_without_an_output_left(tmp_path):
    folder = write_model(tmp_path, 8, SPECIAL)
    with pytest.raises(ValueError, match=r"8 outputs, and its tokens name 6 of them"):
        read_speech_settings(folder)
    folder = write_model(tmp_path, 6, SPECIAL, added_tokens=BEYOND)  # tokens the head lacks
    assert read_speech_settings(folder).labels == tuple(LETTERS)


def test_a_vocabulary_a_language(tmp_path):
    letters = {token: index for index, token in enumerate(LETTERS)}
    several = {"eng": letters, "fra": {**letters, "É": 6}}
    folder = write_model(tmp_path, 6, {**SPECIAL, "target_lang": "eng"}, vocab=several)
    assert read_speech_settings(folder).labels == tuple(LETTERS)
    folder = write_model(tmp_path, 6, SPECIAL, vocab=several)
    with pytest.raises(ValueError, match=r"several languages \(eng, fra"):
        read_speech_settings(folder)


def test_a_file_wider_than_its_tokens_is_refused(tones_artifact, tmp_path):
    from export.runtime.manifest import ArtifactError
    from export.runtime.transcriber import OnnxTranscriber

    folder = shutil.copytree(tones_artifact, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 8}))
    transcriber = OnnxTranscriber(folder, "fp32", verify=False)
    with pytest.raises(ArtifactError, match=r"gives 9 outputs, .* name 8"):
        transcriber.logits([np.zeros(4000, dtype=np.float32)])
