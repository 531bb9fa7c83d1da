"""The run folder: layout, write, read, validate. See docs/ARCHITECTURE.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.core.errors import FolderError
from finetune.core.files import read_json, write_json, write_text
from finetune.core.preparation import DEFAULT, FOLDED, Preparation, read_preparation
from finetune.core.seal import list_files, seal_fault, seal_files
from finetune.models.source import STAGE_FILES
from finetune.recipes.files import check_recipe, dump_recipe, read_yaml
from finetune.recipes.methods import METHODS
from finetune.recipes.speech import SpeechRecipe
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.registry import SPEECH, TEXT, recipe_kind

SCHEMA = "kotune.run/1"
DOCUMENTS = {
    "run.json": SCHEMA,
    "metrics.json": "kotune.metrics/1",
    "data.json": "kotune.data/1",
    "provenance.json": "kotune.provenance/1",
}
CLOSED = ("model", "data", "predictions")  # nothing lies there that is not in run.json's list
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Run:
    """A finished run on disk; ``info`` is the whole of run.json."""

    folder: Path
    name: str
    method: str
    base: dict[str, Any]
    labels: tuple[str, ...]
    max_length: int | None
    recipe: FinetuneRecipe | SpeechRecipe
    info: dict[str, Any]

    @property
    def task(self) -> str:
        """``text-classification`` or ``speech-recognition``, whose labels are characters."""
        return self.info.get("task", TEXT)

    @property
    def preparation(self) -> Preparation:
        """How a text becomes what the tokenizer reads; raises FolderError.

        Runs of before there was the key were trained on texts whose white space the table's
        reader had folded, cut where their tokenizer cuts.
        """
        try:
            if "preparation" in self.info:
                return read_preparation(self.info["preparation"], DEFAULT)
            return replace(FOLDED, **_tokenizer_habits(self.folder / "model"))
        except ValueError as fault:
            raise FolderError(
                f"run.json: {fault}", received=self.folder, next_step="a newer kotune"
            ) from fault

    @property
    def is_speech(self) -> bool:
        """Whether the run transcribes."""
        return self.task == SPEECH


def open_run(folder: Path | str, *, verify: bool = True) -> Run:
    """Read and check a run folder, hashes included; raises FolderError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FolderError("the run folder does not exist", received=folder)
    if not (folder / "run.json").exists():
        kind = next((what for file, what in STAGE_FILES.items() if (folder / file).exists()), None)
        raise FolderError(
            f"not a run folder{f' but {kind}' if kind else ''}: it has no run.json",
            received=folder,
            next_step="kotune finetune RECIPE makes one",
        )
    info = read_json(folder / "run.json", SCHEMA)
    if verify:
        verify_run(folder, info)
    content = read_yaml(folder / "recipe.yaml")
    try:
        return Run(
            folder=folder,
            name=str(info["name"]),
            method=_known_method(info["method"]),
            base=dict(info["base"]),
            labels=tuple(map(str, info["labels"])),
            max_length=info["max_length"],
            recipe=check_recipe(recipe_kind(content), content, str(folder / "recipe.yaml")),
            info=info,
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise FolderError(
            "run.json does not describe a run",
            received=f"{folder}: {type(fault).__name__} {fault}",
            next_step="train it again",
        ) from fault


def _known_method(name: object) -> str:
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r:.40}")
    return str(name)


def _tokenizer_habits(model: Path) -> dict[str, str]:
    """What transformers does with a tokenizer's files beyond tokenizer.json's own steps."""
    config, tokenizer = (
        json.loads((model / name).read_text("utf-8")) if (model / name).is_file() else {}
        for name in ("tokenizer_config.json", "tokenizer.json")
    )
    saved = (tokenizer.get("truncation") or {}).get("direction")
    return {
        "truncation_side": str(config.get("truncation_side") or saved or "right").lower(),
        "special_tokens": "split" if config.get("split_special_tokens") else "parsed",
    }


def verify_run(folder: Path, info: dict[str, Any]) -> None:
    """Hold every file against run.json's list; raises FolderError naming the first that differs."""
    hashes = info.get("files")
    names = {*(hashes if isinstance(hashes, dict) else ()), *list_files(folder, CLOSED)}
    fault = seal_fault(folder, hashes, sorted(names, key=str))
    if fault is None and isinstance(hashes, dict) and "recipe.yaml" not in hashes:
        fault = "recipe.yaml stands without a hash: nobody vouches for it"
    if fault:
        raise FolderError(fault, received=folder / "run.json", next_step="train it again")


def unsealed_files(run: Run) -> list[str]:
    """Files that tell of a run and stand in no seal, as in runs of earlier versions."""
    return [
        name
        for name in list(DOCUMENTS)[1:]
        if (run.folder / name).exists() and name not in run.info["files"]
    ]


def write_rows(folder: Path, split: str, frame: pd.DataFrame) -> None:
    """Store one split's rows as data/<split>.parquet."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "data" / f"{split}.parquet", index=False)


def write_predictions(folder: Path, split: str, frame: pd.DataFrame, logits: np.ndarray) -> None:
    """Store logits (rows, labels) beside row numbers as predictions/<split>.parquet."""
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    table = frame[["row", "label"]].reset_index(drop=True)
    for index in range(logits.shape[1]):
        table[f"logit_{index}"] = logits[:, index].astype(np.float32)
    table.to_parquet(folder / "predictions" / f"{split}.parquet", index=False)


def read_rows(run: Run, split: str) -> pd.DataFrame:
    """Rows of a split: row, text, label; test also seen_in_training. Raises FolderError."""
    return _read_parquet(run, "data", split)


def read_predictions(run: Run, split: str) -> pd.DataFrame:
    """Stored logits of a split: row, label, logit_0 … Raises FolderError."""
    return _read_parquet(run, "predictions", split)


def logits_of(frame: pd.DataFrame) -> np.ndarray:
    """The logit columns as float32 (rows, labels)."""
    columns = sorted(
        (name for name in frame.columns if name.startswith("logit_")),
        key=lambda name: int(name.removeprefix("logit_")),
    )
    return frame[columns].to_numpy(dtype=np.float32)


def read_document(run: Run, name: str) -> dict[str, Any]:
    """A JSON document of the run (metrics.json, data.json, provenance.json); FolderError."""
    return read_json(run.folder / name, DOCUMENTS[name])


def seal_run(folder: Path, recipe: FinetuneRecipe | SpeechRecipe, info: dict[str, Any]) -> None:
    """Write recipe.yaml, then run.json with every file's hash: from then on it is a run."""
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    write_json(folder / "run.json", SCHEMA, {**info, "files": seal_files(folder)})


def _read_parquet(run: Run, part: str, split: str) -> pd.DataFrame:
    path = run.folder / part / f"{split}.parquet"
    if not path.is_file():
        raise FolderError(
            f"the run has no {part} of its {split} split",
            received=run.folder,
            next_step="train it again; data/ may have been removed before it was given away",
        )
    try:
        return pd.read_parquet(path)
    except MemoryError:
        raise
    except Exception as fault:  # of pandas and of Arrow, which know no common one
        raise FolderError(
            f"{path.name} is no readable Parquet file", received=f"{path}: {fault}"
        ) from fault
