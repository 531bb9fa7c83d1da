"""Recordings in, three checked splits out: read, clean, measure, split, fingerprint."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from finetune.core.errors import DataError
from finetune.data.audio import AudioError, read_audio, to_int16
from finetune.data.recording_tables import (
    METADATA,
    NOTES,
    SPLITS,
    check_columns,
    measure_recordings,
    read_hub_recordings,
    read_recordings,
)
from finetune.data.summary import DataSummary, Dropped, SplitSummary
from finetune.recipes.files import expand_path
from finetune.recipes.speech import SpeechDataSection

COLUMNS = ["row", "file", "audio", "text", "speaker", "seconds"]
LISTED = 5
CACHE_BYTES = 2**31  # decoded audio kept in memory; what is beyond is decoded at each use
APOSTROPHES = {"’": "'", "ʼ": "'"}


@dataclass(frozen=True)
class SpeechCorpus:
    """Three DataFrames (row, file, audio, text, speaker, seconds) and their summary."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    summary: DataSummary

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the rows of the three splits."""
        return self.summary.fingerprint

    @property
    def splits(self) -> dict[str, pd.DataFrame]:
        """The three by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def load_speech_corpus(data: SpeechDataSection, seed: int) -> SpeechCorpus:
    """Read, clean and split what ``data`` names; raises DataError.

    Without a test split, ``test_size`` (a fifth by default) is split off the training rows.
    """
    tables = _read_tables(data)
    notes = [note for frame in tables.values() for note in frame.attrs.get(NOTES, ())]
    dropped: dict[str, Dropped] = {}
    for name, frame in tables.items():
        tables[name], dropped[name] = _clean(frame, data, name)
    train = _take(tables["train"], data.rows, seed)
    if "test" in tables:
        test = tables["test"]
        if data.test_size is not None:
            _, test = _split(test, data.test_size, seed, "test_size")
    else:
        train, test = _split(train, data.test_size or 0.2, seed, "test_size")
    train, validation = _split(train, data.validation_size, seed, "validation_size")
    splits = {"train": train, "validation": validation, "test": test}
    return SpeechCorpus(**splits, summary=_summarise(splits, data, dropped, notes))


def clean_transcript(text: object, case: str) -> str:
    """Letters, digits and apostrophes in one case, single spaces between words."""
    if not isinstance(text, str):
        return ""
    text = unicodedata.normalize("NFC", text)
    kept = []
    for character in text:
        character = APOSTROPHES.get(character, character)
        spoken = character == "'" or unicodedata.category(character)[0] in "LMN"
        kept.append(character if spoken else " ")
    joined = " ".join("".join(kept).split())
    return {"upper": joined.upper(), "lower": joined.lower()}.get(case, joined)


class Waves:
    """Recordings of a frame as int16 at one rate, decoded once while ``cache_bytes`` last."""

    def __init__(self, frame: pd.DataFrame, rate_hz: int, cache_bytes: int = CACHE_BYTES) -> None:
        self._audio = frame["audio"].tolist()
        self._names = frame["file"].tolist()
        self._room = cache_bytes
        self._kept: dict[int, np.ndarray] = {}
        self.rate_hz = rate_hz

    def __len__(self) -> int:
        return len(self._audio)

    def __getitem__(self, place: int) -> np.ndarray:
        """Samples (n,) of one recording; raises DataError."""
        if place in self._kept:
            return self._kept[place]
        try:
            wave = to_int16(read_audio(self._audio[place], self.rate_hz))
        except AudioError as fault:
            raise DataError(f"{self._names[place]} cannot be read", received=fault) from fault
        if wave.nbytes <= self._room:
            self._kept[place] = wave
            self._room -= wave.nbytes
        return wave


def _read_tables(data: SpeechDataSection) -> dict[str, pd.DataFrame]:
    """train and, where there is one, test."""
    path = expand_path(data.path, "data.path")
    if path.is_dir() and any((path / name / METADATA).is_file() for name in SPLITS):
        found = [name for name in SPLITS if (path / name / METADATA).is_file()]
        tables = {name: read_recordings(path / name, data.audio_column) for name in found}
    elif path.exists():
        tables = {"train": read_recordings(path, data.audio_column)}
    elif data.path.count("/") == 1 and not data.path.startswith((".", "/", "~", "$")):
        tables = read_hub_recordings(data.path, data.config, data.audio_column, SPLITS)
    else:
        raise DataError(
            "data.path is no folder, CSV file or hub id",
            received=data.path,
            allowed="a folder with metadata.csv, a CSV with paths, owner/name of the hub",
        )
    if data.test_path:
        test = expand_path(data.test_path, "data.test_path")
        tables["test"] = read_recordings(test, data.audio_column)
    if "train" not in tables:
        raise DataError("the data have no train split", received=data.path)
    return tables


def _clean(
    frame: pd.DataFrame, data: SpeechDataSection, split: str
) -> tuple[pd.DataFrame, Dropped]:
    wanted = [data.text_column, *([data.speaker_column] if data.speaker_column else [])]
    check_columns(frame, wanted, f"data.path={data.path}, {split}", "data.text_column=…")
    speaker = frame[data.speaker_column].astype(str) if data.speaker_column else ""
    text = [clean_transcript(value, data.text_case) for value in frame[data.text_column]]
    frame = frame.assign(text=text, speaker=speaker)
    frame = _choose_speakers(frame, data)
    no_text = frame[frame["text"] == ""]
    frame, unreadable = measure_recordings(frame[frame["text"] != ""])
    too_long = frame[frame["seconds"] > data.max_seconds]
    frame = frame[frame["seconds"] <= data.max_seconds][COLUMNS].reset_index(drop=True)
    if frame.empty:
        raise DataError(
            f"no recording of {split} can be used",
            received=f"{len(no_text)} without text, {len(unreadable)} unreadable, "
            f"{len(too_long)} longer than data.max_seconds={data.max_seconds:g}",
            allowed=unreadable[0].why if unreadable else None,
        )
    return frame, Dropped(
        no_text=len(no_text),
        too_long=len(too_long),
        unreadable=len(unreadable),
        first=tuple(unreadable[:LISTED]),
    )


def _choose_speakers(frame: pd.DataFrame, data: SpeechDataSection) -> pd.DataFrame:
    asked = {*(data.speakers or []), *data.without_speakers}
    unknown = asked - set(frame["speaker"])
    if unknown:
        raise DataError(
            "data.speakers names speakers that the data do not have",
            received=", ".join(sorted(unknown)),
            allowed=", ".join(sorted(set(frame["speaker"]))[:20]),
        )
    if data.speakers:
        frame = frame[frame["speaker"].isin(data.speakers)]
    return frame[~frame["speaker"].isin(data.without_speakers)]


def _take(frame: pd.DataFrame, rows: int | None, seed: int) -> pd.DataFrame:
    if rows is None or rows >= len(frame):
        return frame
    chosen = np.random.default_rng(seed).choice(len(frame), size=rows, replace=False)
    return frame.iloc[np.sort(chosen)].reset_index(drop=True)


def _split(
    frame: pd.DataFrame, size: float | int, seed: int, key: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rest and ``size`` rows or share, drawn by ``seed``; raises DataError."""
    count = size if isinstance(size, int) else round(size * len(frame))
    if not 0 < count < len(frame):
        raise DataError(
            f"data.{key} leaves no rows on one side",
            received=f"{size} of {len(frame)} recordings",
        )
    drawn = np.random.default_rng([seed, len(frame)]).permutation(len(frame))[:count]
    mask = np.zeros(len(frame), dtype=bool)
    mask[drawn] = True
    return frame[~mask].reset_index(drop=True), frame[mask].reset_index(drop=True)


def _summarise(
    splits: dict[str, pd.DataFrame],
    data: SpeechDataSection,
    dropped: dict[str, Dropped],
    notes: Sequence[str],
) -> DataSummary:
    digest = hashlib.sha256()
    for name, frame in splits.items():
        for row in frame[["row", "file", "text", "seconds"]].itertuples(index=False):
            digest.update(
                f"{name}\t{row.row}\t{row.file}\t{row.text}\t{row.seconds:.6f}\n".encode()
            )
    return DataSummary(
        origin=data.path,
        splits={name: _describe(frame) for name, frame in splits.items()},
        dropped=dropped,
        fingerprint=digest.hexdigest(),
        notes=tuple(notes),
    )


def _describe(frame: pd.DataFrame) -> SplitSummary:
    words = sum(len(text.split()) for text in frame["text"])
    return SplitSummary(
        rows=len(frame),
        seconds=round(float(frame["seconds"].sum()), 1),
        longest_s=round(float(frame["seconds"].max()), 2),
        words=words,
        speakers=tuple(sorted(set(frame["speaker"]) - {""})),
    )


def characters_of(texts: Sequence[str]) -> list[str]:
    """Every character of the texts but the space, sorted."""
    return sorted(set("".join(texts)) - {" "})


def unknown_characters(texts: Sequence[str], known: set[str]) -> dict[str, int]:
    """Characters a vocabulary does not have, and how often they occur."""
    counts: dict[str, int] = {}
    for character in "".join(texts):
        if character != " " and character not in known:
            counts[character] = counts.get(character, 0) + 1
    return counts


def without_unknown(text: str, known: set[str]) -> str:
    """The text without characters that the vocabulary does not have."""
    return " ".join("".join(c for c in text if c == " " or c in known).split())
