"""Speech recipes, data, error rates and batches."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import tones_recipe

from finetune.core.errors import DataError, RecipeError
from finetune.data.recordings import Waves, clean_transcript, load_speech_corpus
from finetune.metrics.word_errors import count_errors, speech_metrics, wer_difference
from finetune.recipes.files import check_recipe, load_recipe, packaged_recipes, read_yaml
from finetune.recipes.speech import AugmentSection, SpeechDataSection, SpeechRecipe
from finetune.tasks.registry import recipe_kind
from finetune.tasks.speech.batches import SpeechBatches, add_noise, change


def test_the_task_chooses_the_recipe() -> None:
    kinds = {name: recipe_kind(read_yaml(path)) for name, path in packaged_recipes().items()}
    speech = [name for name, kind in kinds.items() if kind is SpeechRecipe]
    assert "finetune/wav2vec2-fsdd" in speech
    for name in speech:
        load_recipe(SpeechRecipe, name)
    with pytest.raises(RecipeError, match="task"):
        recipe_kind({"task": "translation"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainning": {}}, "did you mean `training`"),
        ({"adapter": {"method": "qlora"}}, "adapter -> method"),
        ({"adapter": {"method": "lora"}}, "nothing to adapt"),
        ({"export": {"chunk_s": 2, "stride_s": 1}}, "more than two stride_s"),
        ({"data": {"path": "x", "speakers": ["a"]}}, "need speaker_column"),
        ({"architecture": {"conv_dim": [8]}}, "one entry a layer"),
    ],
)
def test_faults_of_a_speech_recipe(tmp_path, change, message) -> None:
    content = tones_recipe(tmp_path, tmp_path / "run") | change
    with pytest.raises(RecipeError, match=message):
        check_recipe(SpeechRecipe, content, "recipe")


@pytest.mark.parametrize(
    ("text", "case", "clean"),
    [
        ("I’d like to pay, please.", "upper", "I'D LIKE TO PAY PLEASE"),
        ("안녕하세요, 여러분!", "keep", "안녕하세요 여러분"),
        ("  3 Äpfel—und  mehr ", "lower", "3 äpfel und mehr"),
        (None, "upper", ""),
    ],
)
def test_transcripts_are_cleaned(text, case, clean) -> None:
    assert clean_transcript(text, case) == clean


def test_the_corpus_is_split_by_seed_and_fingerprinted(tones_data: Path) -> None:
    data = SpeechDataSection(path=str(tones_data), speaker_column="speaker", validation_size=0.1)
    one, two = load_speech_corpus(data, 1), load_speech_corpus(data, 2)
    assert [len(frame) for frame in one.splits.values()] == [216, 24, 24]
    assert one.summary == load_speech_corpus(data, 1).summary
    assert one.summary.fingerprint != two.summary.fingerprint
    assert not set(one.train["row"]) & set(one.validation["row"])
    assert one.train["seconds"].between(0.3, 3).all()


def test_speakers_are_chosen_and_held_out(tones_data: Path) -> None:
    known = {"path": str(tones_data), "speaker_column": "speaker"}
    only = load_speech_corpus(SpeechDataSection(**known, speakers=["one"], rows=50), 0)
    assert set(only.train["speaker"]) == {"one"} == set(only.test["speaker"])
    assert len(only.train) + len(only.validation) == 50
    without = load_speech_corpus(SpeechDataSection(**known, without_speakers=["one"]), 0)
    assert set(without.train["speaker"]) == {"two"} == set(without.test["speaker"])
    with pytest.raises(DataError, match="speakers that the data do not have"):
        load_speech_corpus(SpeechDataSection(**known, speakers=["three"]), 0)


def test_rows_that_cannot_be_used_are_counted(tmp_path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    rows = [(f"{n}.wav", "AB") for n in range(20)] + [("gone.wav", "A"), ("0.wav", "…")]
    for name, _ in rows[:20]:
        soundfile.write(tmp_path / name, noise, 8000)
    soundfile.write(tmp_path / "19.wav", np.tile(noise, 5), 8000)
    with (tmp_path / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file_name", "transcription"), *rows])
    corpus = load_speech_corpus(SpeechDataSection(path=str(tmp_path), max_seconds=2), 0)
    dropped = corpus.summary.dropped["train"]
    assert (dropped.no_text, dropped.unreadable, dropped.too_long) == (1, 1, 1)
    assert dropped.first[0].row == 22 and "gone.wav" in dropped.first[0].why
    assert sum(map(len, corpus.splits.values())) == 19


def test_data_that_are_not_there_are_told(tmp_path) -> None:
    for path, message in {"/nowhere/at/all": "no folder", str(tmp_path): "neither"}.items():
        with pytest.raises(DataError, match=message):
            load_speech_corpus(SpeechDataSection(path=path), 0)
    (tmp_path / "metadata.csv").write_text("file_name,said\na.wav,A\n")
    with pytest.raises(DataError, match="no column transcription"):
        load_speech_corpus(SpeechDataSection(path=str(tmp_path)), 0)


def test_error_rates_count_what_they_should() -> None:
    references = ["ONE TWO THREE", "FOUR", "", "FIVE"]
    transcripts = ["ONE THREE THREE", "FOUR FOUR", "SIX", ""]
    counts = count_errors(references, transcripts)
    assert counts.words.tolist() == [3, 1, 0, 1]
    assert counts.word_errors.tolist() == [1, 1, 1, 1]
    found = speech_metrics(references, transcripts)
    assert (found.wer, found.words, found.word_errors) == (4 / 5, 5, 4)
    assert found.wer_interval[0] <= found.wer <= found.wer_interval[1]
    assert found.exact == 0
    with pytest.raises(ValueError, match="no word"):
        speech_metrics([""], ["A"])


def test_differences_are_paired() -> None:
    references = ["A B C D"] * 50
    worse = ["A B C X"] * 50
    gap = wer_difference(references, worse, references)
    assert gap.difference == 0.25 and gap.interval == (0.25, 0.25) and gap.changed == 50
    same = wer_difference(references, worse, worse)
    assert same.difference == 0 and same.changed == 0


def make_batches(tones_data: Path, **changes) -> SpeechBatches:
    data = SpeechDataSection(path=str(tones_data), rows=60)
    corpus = load_speech_corpus(data, 0)
    values = {
        "augment": AugmentSection(
            joined=3, growing_epochs=2, pause_s=0.1, speed=0.1, gain_db=6, noise_db=20
        ),
        "masked": True,
        "batch_seconds": 8.0,
        "epochs": 4,
        "batches": None,
        "seed": 5,
    }
    return SpeechBatches(
        Waves(corpus.train, 16_000),
        corpus.train["seconds"].tolist(),
        corpus.train["text"].tolist(),
        lambda text: [ord(one) for one in text],
        **(values | changes),
    )


def test_a_batch_is_a_function_of_its_step(tones_data: Path) -> None:
    batches, again = make_batches(tones_data), make_batches(tones_data)
    last = len(batches) - 1
    for step in (last, 0, 3):
        one, two = batches[step], again[step]
        assert all((one[name] == two[name]).all() for name in one)
    other = make_batches(tones_data, seed=6)[0]["input_values"]
    assert other.shape != one["input_values"].shape or (other != one["input_values"]).any()


def test_an_epoch_has_every_recording_once_and_pieces_grow(tones_data: Path) -> None:
    batches = make_batches(tones_data)
    for epoch in range(4):
        sequences = [rows for batch in batches.plan_of(epoch) for rows in batch]
        assert sorted(row for rows in sequences for row in rows) == list(range(54))
        assert max(map(len, sequences)) == [1, 2, 3, 3][epoch]
        for batch in batches.plan_of(epoch):
            longest = max(batches._expected_seconds(rows) for rows in batch)
            assert len(batch) == 1 or len(batch) * longest <= 8.0


def test_a_batch_is_normalised_masked_and_labelled(tones_data: Path) -> None:
    batch = make_batches(tones_data, masked=True)[1]
    values, mask, labels = (
        batch[name].numpy() for name in ("input_values", "attention_mask", "labels")
    )
    for value, one, label in zip(values, mask, labels, strict=True):
        assert one.sum() and not value[one == 0].any()
        assert abs(value[one == 1].mean()) < 1e-3 and abs(value[one == 1].std() - 1) < 1e-2
        assert set(label[label >= 0]) <= set(map(ord, "ABCD "))
    assert "attention_mask" not in make_batches(tones_data, masked=False)[1]


def test_changes_are_of_the_size_asked_for() -> None:
    generator = np.random.default_rng(0)
    wave = np.sin(np.arange(16_000) / 10).astype(np.float32)
    lengths, levels = [], []
    for _ in range(40):
        changed = change(wave, AugmentSection(speed=0.1, gain_db=6), generator)
        lengths.append(len(changed) / len(wave))
        levels.append(20 * np.log10(np.std(changed) / np.std(wave)))
    assert 0.9 < min(lengths) < 0.95 and 1.05 < max(lengths) < 1.12
    assert -6.2 < min(levels) < -3 and 3 < max(levels) < 6.2
    noisy = add_noise(wave, 20, generator)
    below_db = 20 * np.log10(np.std(wave) / np.std(noisy - wave))
    assert 19 < below_db < 41
    assert add_noise(wave, None, generator) is wave


def test_decoded_audio_is_kept_while_there_is_room(tones_data: Path) -> None:
    frame = load_speech_corpus(SpeechDataSection(path=str(tones_data)), 0).test
    first = Waves(frame, 16_000)[0]
    waves = Waves(frame, 16_000, cache_bytes=first.nbytes)
    assert waves[0] is waves[0] and waves[1] is not waves[1]
    assert first.dtype == np.int16
