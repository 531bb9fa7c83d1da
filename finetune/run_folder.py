"""The run folder: layout, write, read, validate. See docs/ARCHITECTURE.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.core.documents import read_document, write_document
from finetune.core.errors import FolderError
from finetune.core.files import write_text
from finetune.core.preparation import DEFAULT, FOLDED, Preparation, read_preparation
from finetune.core.provenance import PROVENANCE_SCHEMA, Provenance
from finetune.core.seal import list_files, seal_fault, seal_files
from finetune.data.summary import DATA_SCHEMA, DataSummary
from finetune.models.source import STAGE_FILES
from finetune.recipes.files import check_recipe, dump_recipe, read_yaml
from finetune.recipes.methods import METHODS
from finetune.recipes.speech import SpeechRecipe
from finetune.recipes.text import FinetuneRecipe
from finetune.run_records import METRICS_SCHEMA, RUN_SCHEMA, BaseRecord, RunMetrics, RunRecord
from finetune.tasks.registry import SPEECH, recipe_kind

DOCUMENTS = ("run.json", "metrics.json", "data.json", "provenance.json")
CLOSED = ("model", "data", "predictions")  # nothing lies there that is not in run.json's list
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Run:
    """A finished run on disk; ``info`` is the whole of run.json."""

    folder: Path
    recipe: FinetuneRecipe | SpeechRecipe
    info: RunRecord

    @property
    def name(self) -> str:
        """What the recipe calls the run."""
        return self.info.name

    @property
    def method(self) -> str:
        """What was trained: full, lora, …"""
        return self.info.method

    @property
    def base(self) -> BaseRecord:
        """The base model, as it was found when the run was trained."""
        return self.info.base

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, or the characters of a transcript; index = class id."""
        return self.info.labels

    @property
    def max_length(self) -> int | None:
        """Tokens of a text at most; None of speech."""
        return self.info.max_length

    @property
    def task(self) -> str:
        """``text-classification`` or ``speech-recognition``, whose labels are characters."""
        return self.info.task

    @property
    def preparation(self) -> Preparation:
        """How a text becomes what the tokenizer reads; raises FolderError.

        Runs of before there was the key were trained on texts whose white space the table's
        reader had folded, cut where their tokenizer cuts.
        """
        try:
            if "preparation" in self.info.model_fields_set:
                return read_preparation(self.info.preparation, DEFAULT)
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
    info = read_document(folder / "run.json", RunRecord, RUN_SCHEMA)
    if verify:
        verify_run(folder, info.files)
    if info.method not in METHODS:
        raise FolderError(
            "run.json names a method that this kotune does not have",
            received=f"method: {info.method!r:.40}",
            allowed=", ".join(METHODS),
            next_step="the kotune or the plugin that trained it",
        )
    content = read_yaml(folder / "recipe.yaml")
    recipe = check_recipe(recipe_kind(content), content, str(folder / "recipe.yaml"))
    return Run(folder, recipe, info)


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


def verify_run(folder: Path, hashes: dict[str, str]) -> None:
    """Hold every file against run.json's list; raises FolderError naming the first that differs."""
    names = {*hashes, *list_files(folder, CLOSED)}
    fault = seal_fault(folder, hashes, names)
    if fault is None and "recipe.yaml" not in hashes:
        fault = "recipe.yaml stands without a hash: nobody vouches for it"
    if fault:
        raise FolderError(fault, received=folder / "run.json", next_step="train it again")


def unsealed_files(run: Run) -> list[str]:
    """Files that tell of a run and stand in no seal, as in runs of earlier versions."""
    return [
        name
        for name in DOCUMENTS[1:]
        if (run.folder / name).exists() and name not in run.info.files
    ]


def foreign_files(run: Run) -> list[str]:
    """Files of the folder that no run writes there, or that this one does not list."""
    found = set(list_files(run.folder)) - set(run.info.files) - set(DOCUMENTS)
    sealed = not unsealed_files(run)  # runs of before did not list TensorBoard's files
    return sorted(name for name in found if sealed or not name.startswith("tensorboard/"))


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


def read_metrics(run: Run) -> RunMetrics:
    """The run's metrics.json; raises FolderError."""
    return read_document(run.folder / "metrics.json", RunMetrics, METRICS_SCHEMA)


def read_data(run: Run) -> DataSummary:
    """The run's data.json; raises FolderError."""
    return read_document(run.folder / "data.json", DataSummary, DATA_SCHEMA)


def read_provenance(run: Run) -> Provenance:
    """The run's provenance.json; raises FolderError."""
    return read_document(run.folder / "provenance.json", Provenance, PROVENANCE_SCHEMA)


def seal_run(folder: Path, recipe: FinetuneRecipe | SpeechRecipe, info: Mapping[str, Any]) -> None:
    """Write recipe.yaml, then run.json with every file's hash: from then on it is a run.

    ``info`` is what RunRecord has but the hashes.
    """
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    record = RunRecord.model_validate({**info, "files": seal_files(folder)})
    write_document(folder / "run.json", RUN_SCHEMA, record)


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
