"""Speech exports: the ladder, the torch-free runtime, long files, batches, predict.py."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import RATE_HZ, sing

from export.exporting import export_run
from export.runtime.manifest import ArtifactError
from export.runtime.transcriber import OnnxTranscriber
from export.transcribe import find_recordings, open_transcriber, score, transcribe
from finetune.core.errors import DataError, FolderError, GateError
from finetune.data.audio import AudioError, read_audio, stream_audio
from finetune.run_folder import open_run, read_predictions, read_rows
from finetune.tasks.speech.ctc import run_batch
from finetune.tasks.speech.model import TorchFrames, load_trained_speech
from finetune.tasks.speech.transcription import transcribe_blocks, transcribe_waves

SENTENCE = "AB DA CC ABD B CAD DD BA ACB DAB CB AD BDC A CDA BB"


def letters(text: str) -> str:
    """The text without spaces: so small a model has no ear for where words end."""
    return text.replace(" ", "")


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty seconds of tones at 44.1 kHz in two channels, far more than a chunk."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    wave = np.concatenate([sing(SENTENCE, 44_100, seed=one) for one in range(3)])
    soundfile.write(path, np.stack([wave, wave], axis=1), 44_100)
    return path


def test_the_ladder_stands_in_the_manifest(tones_artifact: Path) -> None:
    manifest = json.loads((tones_artifact / "manifest.json").read_text())
    steps = {step["name"]: step for step in manifest["ladder"]}
    assert list(steps) == [
        "training", "reloaded", "merged", "onnx-fp32", "onnx-fp32-unpadded", "onnx-int8",
    ]  # fmt: skip
    assert steps["training"]["wer"] < 0.2  # it has learnt something to lose
    assert steps["reloaded"]["changed"] == 0 and steps["onnx-fp32"]["changed"] == 0
    assert 0 < steps["onnx-fp32"]["largest_logit_difference"] < 1e-3
    assert 1e-3 < steps["onnx-int8"]["largest_logit_difference"] < 10
    assert not any(step["failure"] for step in steps.values())
    assert manifest["inputs"] == ["input_values", "attention_mask"]
    assert set(manifest["files"]) == {"fp32", "int8"}


def test_convolutions_and_the_head_stay_float(tones_artifact: Path) -> None:
    import onnx

    graph = onnx.load(str(tones_artifact / "onnx" / "model_quantized.onnx")).graph
    kinds = [node.op_type for node in graph.node]
    assert "MatMulInteger" in kinds and "Conv" in kinds and "ConvInteger" not in kinds
    head = [node.op_type for node in graph.node if node.name.startswith("/lm_head")]
    assert "MatMul" in head and "MatMulInteger" not in head


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_runtime_hears_what_training_heard(tones_run, tones_artifact, precision) -> None:
    run = open_run(tones_run)
    rows, stored = read_rows(run, "test"), read_predictions(run, "test")
    texts = list(OnnxTranscriber(tones_artifact, precision).transcribe_many(rows["audio"]))
    same = sum(one == two for one, two in zip(texts, stored["transcript"], strict=True))
    assert same == len(rows) if precision == "fp32" else same >= 0.8 * len(rows)


def test_a_batch_of_unequal_lengths_gives_what_single_runs_give(tones_artifact) -> None:
    transcriber = OnnxTranscriber(tones_artifact, "fp32")
    waves = [sing("ABCD"[: n % 4 + 1] * (n + 1), 16_000, seed=n) for n in range(5)]
    waves.append(np.zeros(100, np.float32))  # shorter than one frame
    many = transcriber.logits(waves)
    for wave, batched in zip(waves, many, strict=True):
        alone = run_batch([wave], transcriber.settings, transcriber.frames)[0]
        assert alone.shape == batched.shape
        np.testing.assert_allclose(batched, alone, atol=1e-4)


def test_group_norm_rows_share_a_batch_only_with_their_equals() -> None:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    from finetune.tasks.speech.ctc import SpeechSettings, run_many

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, conv_dim=(8, 16), conv_kernel=(20, 8), conv_stride=(10, 8),
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        feat_extract_norm="group",
    )  # fmt: skip
    frames = TorchFrames(Wav2Vec2ForCTC(config))
    settings = SpeechSettings(
        16_000, True, False, tuple("abcdefgh"), 0, frozenset({0}), "h", False, (20, 8), (10, 8)
    )
    waves = [sing("AB", 16_000), sing("ABC", 16_000), sing("BA", 16_000)]
    alone = [run_batch([wave], settings, frames)[0] for wave in waves]
    for one, two in zip(run_many(waves, settings, frames), alone, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    padded = run_batch(waves, settings, frames)[0]
    assert np.abs(padded - alone[0]).max() > 1e-3  # what padding would have done


def test_a_long_file_reads_as_its_parts(tones_artifact, long_file: Path) -> None:
    transcriber = OnnxTranscriber(tones_artifact, "fp32")
    assert soundfile.info(long_file).duration > 8 * transcriber.settings.chunk_s
    text = transcriber(long_file)
    parts = [sing(SENTENCE, 16_000, seed=one) for one in range(3)]
    alone = transcribe_waves(parts, transcriber.settings, transcriber.frames)
    assert letters(text) == letters("".join(alone))
    assert abs(len(letters(text)) - 3 * len(letters(SENTENCE))) <= 3
    *_, streamed = transcriber.stream(stream_audio(long_file, 16_000, block_s=0.5))
    assert streamed == text


def test_silence_is_no_text(tones_artifact, tmp_path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(64_000, np.float32), 16_000)
    assert OnnxTranscriber(tones_artifact)(tmp_path / "silence.wav") == ""


def test_damaged_files_are_told(tones_artifact, tmp_path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "letter.wav").write_text("dear reader " * 9)
    with pytest.raises(AudioError, match=r"empty\.wav"):
        OnnxTranscriber(tones_artifact)(tmp_path / "empty.wav")
    with pytest.raises(DataError) as told:
        find_recordings([str(tmp_path / "empty.wav"), str(tmp_path / "letter.wav")], None)
    assert "empty.wav" in str(told.value) and "letter.wav" in str(told.value)


def test_run_model_folder_and_artifact_say_the_same(tones_run, tones_artifact, long_file) -> None:
    texts = [
        next(
            transcribe(
                open_transcriber(str(one), **chunks), find_recordings([str(long_file)], None)
            )
        )
        for one, chunks in [
            (tones_run, {}),
            (tones_run / "model", {"chunk_s": 3.0, "stride_s": 0.6}),
            (tones_artifact, {"precision": "fp32"}),
        ]
    ]
    assert texts[0] == texts[1] == texts[2] != ""


def test_folders_and_tables_with_references(tones_data, tones_artifact, tmp_path) -> None:
    found = find_recordings([str(tones_data / "test")], "transcription")
    transcripts = list(transcribe(open_transcriber(str(tones_artifact)), found))
    assert len(transcripts) == len(found.references) == 24
    assert "WER" in score(found.references, transcripts, "upper")
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "said"])
        writer.writerow([tones_data / "test" / "0.wav", found.references[0]])
    again = find_recordings([str(table)], "said", audio_column="path")
    assert again.references == found.references[:1]
    with pytest.raises(DataError, match="no column said"):
        find_recordings([str(tones_data / "test")], "said")


def test_hub_data_sets_are_read_without_decoding() -> None:
    from datasets import Audio, Dataset

    from finetune.data.recording_tables import frame_of_dataset

    flac = soundfile_bytes(sing("AB"), RATE_HZ)
    rows = {
        "audio": [{"bytes": flac, "path": "one.flac"}],
        "english_transcription": ["ab"],
    }
    table = Dataset.from_dict(rows).cast_column("audio", Audio(decode=False))
    frame = frame_of_dataset(table, "audio")
    assert frame["file"].tolist() == ["one.flac"]
    assert len(read_audio(frame["audio"][0], 16_000)) == 2 * len(sing("AB"))


def soundfile_bytes(wave: np.ndarray, rate_hz: int) -> bytes:
    from finetune.data.audio import encode_flac, to_int16

    return encode_flac(to_int16(wave), rate_hz)


def test_predict_py_runs_alone(tones_artifact, tones_data, tmp_path) -> None:
    folder = shutil.copytree(tones_artifact, tmp_path / "given away")
    files = [str(tones_data / "test" / f"{row}.wav") for row in range(3)]
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['predict.py', *{files!r}, '--precision', 'fp32']\n"
        "try: runpy.run_path('predict.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "ours = {'torch', 'transformers', 'finetune', 'export', 'tokenizers', 'pandas'}\n"
        "assert not ours & set(sys.modules), ours & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder, capture_output=True, text=True, env={"PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    transcriber = OnnxTranscriber(tones_artifact, "fp32")
    wanted = [f"{file}\t{transcriber(file)}" for file in files]
    assert done.stdout.splitlines() == wanted


def test_a_changed_file_and_the_wrong_kind_are_refused(tones_artifact, tmp_path) -> None:
    from export.runtime.classifier import OnnxClassifier

    folder = shutil.copytree(tones_artifact, tmp_path / "copy")
    (folder / "vocab.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"vocab\.json was changed"):
        OnnxTranscriber(folder)
    with pytest.raises(ArtifactError, match="made for speech-recognition"):
        OnnxClassifier(tones_artifact)


def test_a_crossed_gate_keeps_what_was_made(tones_run, tmp_path) -> None:
    with pytest.raises(GateError, match="onnx-fp32"):
        export_run(tones_run, tmp_path / "made", overrides=["max_logit_difference=1e-9"])
    assert (tmp_path / "made.failed" / "onnx" / "model.onnx").is_file()
    with pytest.raises(FolderError):
        open_transcriber(str(tmp_path / "made.failed"))


def test_an_empty_stream_is_no_text(tones_run) -> None:
    from finetune.tasks.speech.model import run_settings

    run = open_run(tones_run)
    frames = TorchFrames(load_trained_speech(run))
    assert transcribe_blocks([], run_settings(run), frames) == ""


@pytest.mark.parametrize("hours", [0.25, pytest.param(3, marks=pytest.mark.slow)])
def test_a_file_of_hours_needs_the_memory_of_a_chunk(tones_artifact, tmp_path, hours) -> None:
    """Held at once, a quarter of an hour would be 58 MB of float32 samples, three hours 691 MB."""
    minutes, path, short = int(hours * 60), tmp_path / "hours.flac", tmp_path / "minute.wav"
    minute = np.zeros(60 * RATE_HZ, dtype=np.float32)
    tones = sing("ABC DA", RATE_HZ)
    minute[: len(tones)] = tones
    soundfile.write(short, minute, RATE_HZ)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, subtype="PCM_16") as file:
        for _ in range(minutes):
            file.write(minute)
    code = (
        "import sys, dataclasses\n"
        "from bench.instruments.timing import peak_memory_bytes\n"
        "from export.runtime.transcriber import OnnxTranscriber\n"
        "transcriber = OnnxTranscriber(sys.argv[1], 'fp32', threads=1)\n"
        "transcriber.settings = dataclasses.replace(transcriber.settings, chunk_s=10)\n"
        "transcriber(sys.argv[2])\n"
        "before = peak_memory_bytes()\n"
        "text = transcriber(sys.argv[3])\n"
        "print(peak_memory_bytes() - before, len(text.replace(' ', '')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tones_artifact, short, path],
        cwd=Path(__file__).parents[3], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown, letters = map(int, done.stdout.split())
    assert grown < 40_000_000
    assert abs(letters - 5 * minutes) <= 0.2 * 5 * minutes
