"""Frames and text: decoding, normalisation, chunks, batches."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.tasks.speech.ctc import (
    SpeechSettings,
    cut_chunks,
    decode_ids,
    normalize,
    plan_speech_batches,
    read_speech_settings,
)

BASE = {"kernels": (10, 3, 3, 3, 3, 2, 2), "strides": (5, 2, 2, 2, 2, 2, 2)}


def make_settings(**changes) -> SpeechSettings:
    values = {
        "rate_hz": 16_000,
        "normalize": True,
        "masked": True,
        "labels": ("<pad>", "<s>", "|", "A", "B", "C"),
        "blank_id": 0,
        "silent_ids": frozenset({0, 1}),
        "delimiter": "|",
        "lower_case": False,
        **BASE,
    }
    return SpeechSettings(**(values | changes))


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], ""),
        ([0, 0, 0], ""),
        ([3, 3, 0, 3, 4, 4], "AAB"),
        ([2, 2, 3, 2, 0, 2, 4, 2], "A B"),
        ([1, 3, 1], "A"),
        ([5, 1, 5], "CC"),
    ],
)
def test_greedy_decoding(ids, text) -> None:
    assert decode_ids(np.array(ids, dtype=np.int64), make_settings()) == text


def test_decoding_is_that_of_transformers(tmp_path) -> None:
    from transformers import Wav2Vec2CTCTokenizer

    labels = ["<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "'"]
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text(json.dumps({label: place for place, label in enumerate(labels)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary))
    ours = make_settings(labels=tuple(labels), silent_ids=frozenset({0, 1, 2, 3}))
    generator = np.random.default_rng(0)
    for _ in range(50):
        ids = generator.choice([0, 4, 5, 6, 7], size=40)
        theirs = " ".join(tokenizer.decode(ids).split())
        assert decode_ids(ids, ours) == theirs


def test_normalisation_is_that_of_transformers() -> None:
    from transformers import Wav2Vec2FeatureExtractor

    wave = np.random.default_rng(0).normal(0.3, 0.02, 5000).astype(np.float32)
    theirs = Wav2Vec2FeatureExtractor()(wave, sampling_rate=16_000).input_values[0]
    np.testing.assert_allclose(normalize(wave), theirs, atol=1e-4)
    assert not normalize(np.zeros(1000, np.float32)).any()


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(400, 400_000),
    chunk_s=st.floats(0.2, 8),
    stride_s=st.floats(0, 2),
    block=st.integers(100, 50_000),
)
def test_every_frame_counts_once(samples, chunk_s, stride_s, block) -> None:
    ours = make_settings(chunk_s=chunk_s, stride_s=stride_s)
    wave = np.arange(samples, dtype=np.float32)
    blocks = (wave[start : start + block] for start in range(0, samples, block))
    starts = []
    for chunk in cut_chunks(blocks, ours):
        assert chunk.samples[0] % ours.hop == 0
        frames = np.arange(ours.frames_of(len(chunk.samples)))[chunk.first : chunk.last]
        starts += (chunk.samples[0] / ours.hop + frames).astype(int).tolist()
    assert starts == list(range(ours.frames_of(samples)))


def test_frames_are_counted_as_the_convolutions_do() -> None:
    ours = make_settings()
    assert (ours.hop, ours.receptive_field) == (320, 400)
    assert [ours.frames_of(n) for n in (400, 719, 720, 16_000)] == [1, 1, 2, 49]


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = [5, 100, 7, 50, 50, 3]
    padded = list(plan_speech_batches(lengths, 100, padded=True))
    assert sorted(row for rows in padded for row in rows) == list(range(6))
    assert all(len(rows) == 1 or len(rows) * lengths[rows[0]] <= 100 for rows in padded)
    equal = list(plan_speech_batches(lengths, 1000, padded=False))
    assert sorted(map(len, equal)) == [1, 1, 1, 1, 2]


def test_settings_come_from_the_model_s_own_files(tmp_path) -> None:
    files = {
        "config.json": {
            "feat_extract_norm": "group",
            "pad_token_id": 0,
            "conv_kernel": [10, 3],
            "conv_stride": [5, 2],
        },
        "preprocessor_config.json": {"sampling_rate": 8000, "do_normalize": False},
        "tokenizer_config.json": {"pad_token": {"content": "[PAD]"}, "do_lower_case": True},
        "vocab.json": {"|": 1, "[PAD]": 0, "A": 2},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = read_speech_settings(tmp_path)
    assert (found.rate_hz, found.normalize, found.masked) == (8000, False, False)
    assert found.labels == ("[PAD]", "|", "A") and found.hop == 10
    assert decode_ids(np.array([2, 0, 1, 2]), found) == "a a"
