"""Audio files: any rate, channels and container in; mono blocks at one rate out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr

from finetune.data.audio import (
    AudioError,
    describe_audio,
    encode_flac,
    read_audio,
    stream_audio,
    to_float,
    to_int16,
)
from finetune.data.recordings import Waves


def tone(seconds: float, rate_hz: int, pitch_hz: float = 440.0) -> np.ndarray:
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * pitch_hz * times)).astype(np.float32)


def loudest_hz(wave: np.ndarray, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.fft.rfftfreq(len(wave), 1 / rate_hz)[spectrum.argmax()])


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_every_rate_becomes_the_model_s(tmp_path, rate_hz: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(1.5, rate_hz), rate_hz)
    wave = read_audio(path, 16_000)
    assert wave.dtype == np.float32 and abs(len(wave) - 24_000) <= 2
    assert loudest_hz(wave, 16_000) == pytest.approx(440, abs=2)
    assert np.abs(wave[4000:-4000]).max() == pytest.approx(0.5, abs=0.01)


def test_blocks_are_the_file_resampled_as_a_whole(tmp_path) -> None:
    path, wave = tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 30_011)
    soundfile.write(path, wave.astype(np.float32), 8_000, subtype="FLOAT")
    blocks = list(stream_audio(path, 16_000, block_s=0.37))
    assert len(blocks) > 5
    whole = soxr.resample(wave.astype(np.float32), 8_000, 16_000)
    joined = np.concatenate(blocks)
    assert len(joined) == len(whole)
    np.testing.assert_allclose(joined, whole, atol=1.5 / 2**16)  # 16 bits


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_a_loud_file_is_heard_as_training_hears_it(tmp_path, rate_hz: int) -> None:
    """Float samples beyond 1, and more bits than are kept: the same numbers at every door."""
    path = tmp_path / "loud.wav"
    soundfile.write(path, 6 * tone(0.5, rate_hz), rate_hz, subtype="FLOAT")
    frame = pd.DataFrame({"audio": [str(path)], "file": ["loud.wav"]})
    trained = to_float(Waves(frame, 16_000)[0])
    assert np.array_equal(read_audio(path, 16_000), trained)
    assert np.array_equal(np.concatenate(list(stream_audio(path, 16_000, block_s=0.1))), trained)
    assert np.abs(trained).max() == 1


def test_channels_are_averaged(tmp_path) -> None:
    left, right = tone(0.5, 16_000), tone(0.5, 16_000, 1000.0)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right, -right], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path, 16_000), left / 3, atol=1 / 2**16)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_containers(tmp_path, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(1.0, 16_000), 16_000)
    assert loudest_hz(read_audio(path, 16_000), 16_000) == pytest.approx(440, abs=2)
    assert loudest_hz(read_audio(path.read_bytes(), 16_000), 16_000) == pytest.approx(440, abs=2)


def test_the_header_s_rate_counts_not_a_data_set_s(tmp_path) -> None:
    import pandas as pd

    from finetune.data.recording_tables import measure_recordings

    path = tmp_path / "eight.wav"
    soundfile.write(path, tone(1.0, 8_000), 8_000)
    frame = pd.DataFrame({"row": [2], "audio": [str(path)], "sampling_rate": [44_100]})
    measured, faults = measure_recordings(frame)
    assert measured["seconds"].tolist() == [1.0] and not faults
    assert loudest_hz(read_audio(path, 16_000), 16_000) == pytest.approx(440, abs=2)


def test_a_header_with_an_absurd_rate_is_refused(tmp_path) -> None:
    path = tmp_path / "broken.wav"
    soundfile.write(path, tone(0.1, 8_000), 8_000, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[24:28] = (7).to_bytes(4, "little")  # the sampling rate of a RIFF header
    path.write_bytes(content)
    with pytest.raises(AudioError, match="sampling rate of 7 Hz"):
        describe_audio(path)


def test_what_is_no_audio_is_told(tmp_path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "letter.wav").write_text("dear reader " * 50)
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 16_000)
    bad = np.array([0.1, np.nan, 0.1], dtype=np.float32)
    soundfile.write(tmp_path / "nan.wav", bad, 16_000, subtype="FLOAT")
    for name, message in {
        "missing.wav": "no such file",
        "empty.wav": "empty file",
        "letter.wav": "no audio that libsndfile reads",
        "none.wav": "no samples",
        "nan.wav": "not finite",
    }.items():
        with pytest.raises(AudioError, match=message):
            read_audio(tmp_path / name, 16_000)


def test_a_file_cut_short_gives_what_is_there_or_says_so(tmp_path) -> None:
    path = tmp_path / "tone.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 80_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    try:
        assert 0 < len(read_audio(path, 16_000)) < 80_000
    except AudioError as fault:
        assert "tone.flac" in str(fault)


def test_flac_gives_back_the_same_numbers() -> None:
    samples = to_int16(tone(0.3, 16_000) * 3)  # clipped
    assert samples.max() == 32767 and samples.min() == -32768
    np.testing.assert_array_equal(
        read_audio(encode_flac(samples, 16_000), 16_000), to_float(samples)
    )
