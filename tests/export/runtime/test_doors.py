"""What is no text or no recording is refused in one message, by whatever door it comes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from export.predict import predict_texts
from export.runtime.classifier import OnnxClassifier
from export.runtime.manifest import ArtifactError, TextError
from finetune.core.errors import DataError
from finetune.data.audio import AudioError, describe_audio, encode_flac

ROOT = Path(__file__).parents[3]
TEXT = "최고 감동 영화"


@pytest.fixture(scope="module")
def classify(make_artifact):
    return OnnxClassifier(make_artifact("lora", "roberta"), "fp32", threads=1)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ([TEXT, None], "text 2 is no string but NoneType"),
        ([None], "text 1 .* NoneType"),
        ([TEXT, 3.5], "text 2 .* float: 3.5"),
        ([TEXT, TEXT.encode()], "text 2 .* bytes"),
        ([[TEXT]], "text 1 .* list"),
        (pd.Series([TEXT, float("nan")]), "text 2 .* float: nan"),
        (TEXT.encode(), "not bytes"),
        ({"text": TEXT}, "not dict"),
        (None, "not NoneType"),
        (5, "not int"),
    ],
)
def test_python_values_that_are_no_texts_are_named(classify, make_run, texts, told):
    with pytest.raises(TextError, match=told):
        classify(texts)
    assert issubclass(TextError, ArtifactError)  # what predict.py turns into exit code 2
    for folder in (classify.folder, make_run("lora", "roberta")):
        with pytest.raises(DataError, match=told):
            predict_texts(folder, texts)


@pytest.mark.parametrize("name", ["predict", "logits", "stream", "stream_logits"])
def test_one_string_is_not_taken_for_many_characters(classify, name):
    with pytest.raises(TextError, match="a list or an iterator of strings, not str"):
        list(getattr(classify, name)(TEXT))


def test_all_kinds_of_sequences_answer_alike(classify):
    expected = classify([TEXT, "별로"])
    for texts in (
        (TEXT, "별로"),
        np.array([TEXT, "별로"]),
        pd.Series([TEXT, "별로"], index=[8, 9]),
    ):
        assert classify(texts) == expected
    assert classify(pd.Series([TEXT], index=[8])) == classify(TEXT)


def test_a_stream_answers_what_came_before_the_row_that_it_names(classify):
    answers, found = classify.stream(iter([TEXT] * 4100 + [None, TEXT])), 0
    with pytest.raises(TextError, match="text 4101 is no string"):
        for _ in answers:
            found += 1
    assert found == 4100


@pytest.mark.skipif(sys.platform != "linux", reason="names of files that are no UTF-8")
def test_bytes_that_are_no_utf8_end_in_an_answer_or_one_message(classify, tones_artifact, tmp_path):
    odd = tmp_path.joinpath("tone\udcff.flac")
    odd.write_bytes(encode_flac(np.zeros(8000, dtype=np.int16), 16_000))
    kotune = [sys.executable, ROOT / "kotune.py"]
    commands = [
        ([*kotune, "predict", classify.folder, "--json", b"\xff"], 0),
        ([sys.executable, classify.folder / "predict.py", "--json", b"\xff"], 0),
        ([*kotune, "predict", b"none\xff", TEXT], 2),
        ([*kotune, "transcribe", tones_artifact, "--json", odd], 0),
        ([sys.executable, tones_artifact / "predict.py", "--json", odd], 0),
        ([sys.executable, tones_artifact / "predict.py", b"none\xff.wav"], 2),
    ]
    for command, code in commands:
        done = subprocess.run(command, capture_output=True, cwd=tmp_path)
        told = (done.stdout + done.stderr).decode()
        assert done.returncode == code and "Traceback" not in told, told
        assert code or json.loads(done.stdout)


@pytest.mark.parametrize("source", [None, 5, ["a.wav"], np.zeros(4)])
def test_values_that_are_no_recordings_are_named(source):
    with pytest.raises(AudioError, match="a path or the bytes of a file, not "):
        describe_audio(source)
