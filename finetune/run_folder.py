"""The run folder: layout, write, read, validate. See docs/ARCHITECTURE.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from finetune.core.errors import FolderError
from finetune.core.files import read_json, sha256_file, write_json, write_text
from finetune.core.preparation import DEFAULT, FOLDED, Preparation, read_preparation
from finetune.models.source import STAGE_FILES
from finetune.recipes.files import check_recipe, dump_recipe
from finetune.recipes.speech import SpeechRecipe
from finetune.recipes.text import FinetuneRecipe
from finetune.tasks.registry import SPEECH, TEXT, recipe_kind

SCHEMA = "kotune.run/1"
HASHED = ("model", "data", "predictions", "recipe.yaml")
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
        verify_files(folder, info["files"])
    content = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    return Run(
        folder=folder,
        name=info["name"],
        method=info["method"],
        base=info["base"],
        labels=tuple(info["labels"]),
        max_length=info["max_length"],
        recipe=check_recipe(recipe_kind(content), content, str(folder / "recipe.yaml")),
        info=info,
    )


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


def verify_files(folder: Path, hashes: dict[str, str]) -> None:
    """Check each file against its SHA-256; raises FolderError naming the first that differs."""
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise FolderError("a file of the folder is missing", received=path)
        found = sha256_file(path)
        if found != expected:
            raise FolderError(
                f"{path} was changed after it was written", received=found, allowed=expected
            )


def hash_files(folder: Path, parts: tuple[str, ...]) -> dict[str, str]:
    """Relative name → SHA-256 of every file under the named parts of a folder."""
    found = [
        path
        for part in parts
        for path in ([folder / part] if (folder / part).is_file() else (folder / part).rglob("*"))
        if path.is_file()
    ]
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(found)}


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
    """A JSON document of the run (metrics.json, data.json, provenance.json)."""
    return json.loads((run.folder / name).read_text("utf-8"))


def seal_run(folder: Path, recipe: FinetuneRecipe | SpeechRecipe, info: dict[str, Any]) -> None:
    """Write recipe.yaml, then run.json with every file's hash: from then on it is a run."""
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    write_json(folder / "run.json", SCHEMA, {**info, "files": hash_files(folder, HASHED)})


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse to replace a finished run unasked, and anything else ever; raises FolderError."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "run.json").is_file():
        raise FolderError(
            "output is in use by something that is not a run", received=folder, next_step="output=…"
        )
    if not overwrite:
        raise FolderError(
            "this run exists already",
            received=folder,
            next_step="--overwrite, or another name=… or output=…",
        )


def _read_parquet(run: Run, part: str, split: str) -> pd.DataFrame:
    path = run.folder / part / f"{split}.parquet"
    if not path.is_file():
        raise FolderError(
            f"the run has no {part} of its {split} split",
            received=run.folder,
            next_step="train it again; data/ may have been removed before it was given away",
        )
    return pd.read_parquet(path)
