"""Transcripts from a folder or hub id, whatever it holds: an artifact, a run, a plain model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.core.errors import DataError, FolderError, ModelError
from finetune.data.audio import AudioError, AudioSource, describe_audio
from finetune.data.input_texts import read_input_texts
from finetune.data.recording_tables import (
    check_columns,
    is_table,
    read_hub_recordings,
    read_recordings,
)
from finetune.tasks.speech.ctc import CHUNK_S, STRIDE_S, Frames, SpeechSettings
from finetune.tasks.speech.transcription import transcribe_sources

DEFAULT_MODEL = "facebook/wav2vec2-base-960h"
HUB_SPLITS = ("test", "validation", "train")  # the first one there is


@dataclass(frozen=True)
class Transcriber:
    """A model that transcribes, and how it takes audio."""

    frames: Frames
    settings: SpeechSettings
    name: str


@dataclass(frozen=True)
class Recordings:
    """What to transcribe: sources, names for the reader, and references where there are any."""

    sources: list[AudioSource]
    names: list[str]
    references: list[str] | None


def open_transcriber(
    folder: str,
    *,
    precision: str | None = None,
    chunk_s: float | None = None,
    stride_s: float | None = None,
) -> Transcriber:
    """An artifact (no torch), a run, a model folder or a hub id; raises FolderError, ModelError."""
    path = Path(folder)
    if (path / "manifest.json").is_file():
        found = _open_artifact(path, precision)
    elif precision is not None:
        raise FolderError(
            "only an artifact has precisions to choose from",
            received=folder,
            next_step="kotune export RUN",
        )
    elif (path / "run.json").is_file():
        found = _open_run(path)
    else:
        found = _open_model(folder)
    settings = replace(
        found.settings,
        chunk_s=found.settings.chunk_s if chunk_s is None else chunk_s,
        stride_s=found.settings.stride_s if stride_s is None else stride_s,
    )
    if 2 * settings.stride_s >= settings.chunk_s:
        raise DataError(
            "a chunk must be longer than its two strides",
            received=f"chunk {settings.chunk_s:g} s, stride {settings.stride_s:g} s",
        )
    return replace(found, settings=settings)


def find_recordings(
    inputs: Sequence[str],
    reference: str | None,
    *,
    audio_column: str = "file_name",
    config: str | None = None,
    split: str | None = None,
) -> Recordings:
    """Files, or one table of them (audiofolder, CSV, hub id); raises DataError.

    ``reference`` names a table's column; for files it is a text file with one line a file, or
    the transcript itself where there is one file.
    """
    if (len(inputs) == 1 and not Path(inputs[0]).is_file()) or is_table(Path(inputs[0])):
        if len(inputs) > 1:
            raise DataError("one folder, CSV or data set at a time", received=" ".join(inputs))
        return _from_table(inputs[0], reference, audio_column, config, split)
    _check_files(inputs)
    references = None if reference is None else _references(reference, len(inputs))
    return Recordings(list(inputs), list(inputs), references)


def transcribe(transcriber: Transcriber, recordings: Recordings) -> Iterator[str]:
    """Text of each recording, in order; raises DataError at one that is damaged."""
    try:
        yield from transcribe_sources(recordings.sources, transcriber.settings, transcriber.frames)
    except AudioError as fault:
        raise DataError("a recording cannot be read", received=fault) from fault


def _from_table(
    name: str, reference: str | None, audio_column: str, config: str | None, split: str | None
) -> Recordings:
    path = Path(name)
    if path.exists():
        frame = read_recordings(path, audio_column)
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        splits = {one: one for one in ([split] if split else HUB_SPLITS)}
        frame = next(iter(read_hub_recordings(name, config, audio_column, splits).values()))
    else:
        raise DataError(
            "no such file, folder or hub data set",
            received=name,
            allowed="audio files, a folder with metadata.csv, a CSV with paths, owner/name",
        )
    references = None
    if reference is not None:
        check_columns(frame, [reference], name, "--reference COLUMN")
        references = frame[reference].astype(str).tolist()
    sources = frame["audio"].tolist()
    _check_files([one for one in sources if isinstance(one, str)])
    return Recordings(sources, frame["file"].astype(str).tolist(), references)


def _check_files(paths: Sequence[str]) -> None:
    """Open every file once and tell all faults together; raises DataError."""
    faults = []
    for path in paths:
        try:
            describe_audio(path)
        except AudioError as fault:
            faults.append(str(fault))
    if faults:
        more = [f"and {len(faults) - 10} more"] if len(faults) > 10 else []
        raise DataError(
            "these files are no audio we can read",
            received="\n            ".join([*faults[:10], *more]),
            allowed="what libsndfile reads: WAV, FLAC, OGG, MP3 and others",
        )


def _references(given: str, files: int) -> list[str]:
    path = Path(given)
    lines = read_input_texts(path, None)[0] if path.is_file() else [given]
    if len(lines) != files:
        raise DataError(
            "the references do not match the files",
            received=f"{len(lines)} lines for {files} files",
            next_step="--reference FILE with one line a file",
        )
    return lines


def _open_artifact(path: Path, precision: str | None) -> Transcriber:
    from export.runtime.manifest import ArtifactError
    from export.runtime.transcriber import OnnxTranscriber

    try:
        runtime = OnnxTranscriber(path, precision)
    except ArtifactError as fault:
        raise FolderError(str(fault), next_step=f"kotune verify {path}") from fault
    return Transcriber(runtime.frames, runtime.settings, f"{path}, {runtime.precision}")


def _open_run(path: Path) -> Transcriber:
    from finetune.run_folder import open_run

    run = open_run(path)
    if not run.is_speech:
        raise FolderError(
            "this run labels texts", received=path, next_step=f'kotune predict {path} "TEXT"'
        )
    from finetune.tasks.speech.model import TorchFrames, load_trained_speech, run_settings

    return Transcriber(TorchFrames(load_trained_speech(run)), run_settings(run), str(path))


def _open_model(source: str) -> Transcriber:
    """A model folder or hub id; its processor's files are read where they lie."""
    from finetune.models.source import resolve_base

    base = resolve_base(source)
    from finetune.tasks.speech.model import TorchFrames, load_wav2vec2, read_model_settings

    model = load_wav2vec2(base)
    if model.kotune_new_modules:
        raise ModelError(
            "this model has no trained CTC head",
            received=source,
            next_step="kotune finetune with model.source=… first",
        )
    settings = read_model_settings(base, CHUNK_S, STRIDE_S)
    if model.config.vocab_size != len(settings.labels):
        raise ModelError(
            "the model's outputs and its tokens do not match",
            received=f"{source}: {model.config.vocab_size} outputs, {len(settings.labels)} tokens",
        )
    return Transcriber(TorchFrames(model), settings, source)


def score(references: Sequence[str], transcripts: Sequence[str], case: str) -> str:
    """One line with WER and CER, both sides in the same spelling; raises DataError."""
    from finetune.data.recordings import clean_transcript
    from finetune.metrics.word_errors import speech_metrics

    asked = [clean_transcript(text, case) for text in references]
    said = [clean_transcript(text, case) for text in transcripts]
    if not any(asked):
        raise DataError("the references hold no word", next_step="--reference COLUMN")
    return speech_metrics(asked, said).describe()
