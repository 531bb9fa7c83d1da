"""Tables of recordings: audiofolder, CSV with paths, hub data sets; audio stays undecoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from finetune.core.errors import DataError
from finetune.core.hub import hub_answers
from finetune.data.audio import AudioError, describe_audio
from finetune.data.records import plain_name
from finetune.data.summary import DroppedRow
from finetune.data.table_files import read_records
from finetune.data.tables import is_missing

METADATA = "metadata.csv"
NOTES = "notes"  # of a frame's attributes: how its file was read
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".au")
SPLITS = {"train": "train", "test": "test"}


def is_table(path: Path) -> bool:
    """Whether a path is a folder of recordings or a CSV of them, not a recording itself."""
    return path.is_dir() or path.suffix.lower() in (".csv", ".tsv")


def read_recordings(path: Path, audio_column: str) -> pd.DataFrame:
    """One local table: row (line of its file), file, audio (absolute path) and its own columns.

    A folder is read as ``datasets``' audiofolder: metadata.csv with ``file_name``; without one,
    every audio file in it. Raises DataError.
    """
    if path.is_dir():
        if not (path / METADATA).is_file():
            return _list_folder(path)
        path = path / METADATA
        audio_column = "file_name"
    key = (audio_column, lambda value, known: Path(value).suffix.lower() in SUFFIXES)
    records = read_records(path, [audio_column], key=key, every=True, fix="data.audio_column=…")
    names = records.columns[plain_name(audio_column)]
    whole = list(zip(*records.columns.values(), strict=True))
    kept = [at for at, values in enumerate(whole) if any(one is not None for one in values)]
    for index in kept:
        if not isinstance(names[index], str) or not names[index].strip():
            raise DataError(
                f"{path}: {records.place(index)} names no file in {audio_column}",
                received=names[index],
            )
    columns = {
        name: pd.Series(["" if is_missing(values[at]) else values[at] for at in kept], dtype=object)
        for name, values in records.columns.items()
    }
    files = [names[at] for at in kept]
    frame = pd.DataFrame(columns).assign(row=[records.rows[at] for at in kept], file=files)
    audio = pd.Series([str(path.parent / name) for name in files], dtype=object)
    frame = frame.assign(audio=audio)
    frame.attrs[NOTES] = records.notes
    return frame


def read_hub_recordings(
    repo_id: str, config: str | None, audio_column: str, splits: dict[str, str]
) -> dict[str, pd.DataFrame]:
    """Tables of a hub data set by split, its audio as stored (bytes or a cached path).

    ``Audio(decode=False)``: decoding is soundfile's work here, torchcodec is not needed.
    Raises DataError.
    """
    if not hub_answers():
        raise DataError(
            f"{repo_id} is not a local path, and the hub does not answer",
            received=repo_id,
            next_step="a folder with metadata.csv, or a CSV with paths",
        )
    from datasets import Audio, load_dataset

    try:
        found = load_dataset(repo_id, config)
        tables = {
            name: found[split].cast_column(audio_column, Audio(decode=False))
            for name, split in splits.items()
            if split in found
        }
    except Exception as fault:  # datasets raises many kinds; all mean the same to the reader
        raise DataError(
            f"the hub data set could not be read ({type(fault).__name__})",
            received=f"{repo_id}, config {config}, column {audio_column}: {str(fault)[:200]}",
        ) from fault
    if not tables:
        raise DataError(
            "the hub data set has none of these splits",
            received=", ".join(splits.values()),
            allowed=", ".join(found),
        )
    return {name: frame_of_dataset(table, audio_column) for name, table in tables.items()}


def frame_of_dataset(table: Any, audio_column: str) -> pd.DataFrame:
    """A ``datasets.Dataset`` with undecoded audio in the shape of ``read_recordings``."""
    frame = table.to_pandas()
    stored = frame[audio_column]
    audio = [one["bytes"] if one.get("bytes") else one["path"] for one in stored]
    names = [one.get("path") or f"{row}" for row, one in enumerate(stored)]
    rest = frame.drop(columns=[audio_column])
    rest = rest.assign(row=range(len(frame)), file=names)
    rest["audio"] = pd.Series(audio, dtype=object, index=rest.index)
    return rest


def check_columns(frame: pd.DataFrame, wanted: list[str], origin: object, fix: str) -> None:
    """Raise DataError naming the columns that are missing and those there are."""
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise DataError(
            f"{origin} has no column {' and '.join(missing)}",
            received=f"columns {', '.join(map(str, frame.columns[:12]))}",
            next_step=fix,
        )


def measure_recordings(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[DroppedRow]]:
    """The readable rows with their ``seconds``, and the others with the reason."""
    seconds, faults = [], []
    for row, audio in zip(frame["row"], frame["audio"], strict=True):
        try:
            length = describe_audio(audio).seconds
            if length <= 0:
                raise AudioError("no samples")
            seconds.append(length)
        except AudioError as fault:
            seconds.append(float("nan"))
            faults.append(DroppedRow(row=int(row), why=str(fault)))
    measured = frame.assign(seconds=seconds)
    return measured[measured["seconds"].notna()].reset_index(drop=True), faults


def _list_folder(path: Path) -> pd.DataFrame:
    files = sorted(one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(
            "the folder has neither metadata.csv nor audio files",
            received=path,
            allowed=", ".join(SUFFIXES),
        )
    return pd.DataFrame(
        {
            "row": range(1, len(files) + 1),
            "file": [str(one.relative_to(path)) for one in files],
            "audio": pd.Series([str(one) for one in files], dtype=object),
        }
    )
