"""results.json read at the door and written at the end, whatever version it is of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.results import older
from bench.results.records import SCHEMA, Results
from finetune.core.documents import told_faults
from finetune.core.errors import FolderError
from finetune.core.files import read_json, write_text
from finetune.core.seal import sha256_content

FILE = "results.json"
ANEW = "kotune bench, which writes the file anew"
SEAL = "seal"  # SHA-256 of all else; files of earlier versions have none


def read_results(folder: Path) -> Results:
    """The results of a report folder, or of its results.json; FolderError names every fault.

    A seal that does not fit is one. Files that earlier versions wrote are taken over.
    """
    folder = Path(folder)
    path = folder if folder.is_file() else folder / FILE
    if not folder.exists():
        raise FolderError(
            "not a report folder", received=folder, next_step="kotune bench SUITE_OR_FOLDERS"
        )
    content = read_json(path, (SCHEMA, *older.READERS))
    schema = content["schema"]
    if content.pop(SEAL, None) not in (None, sha256_content(content)):
        raise FolderError(
            f"{path} was changed after it was written: its seal is another",
            next_step=ANEW,
        )
    with told_faults(path, schema, ANEW):
        if schema in older.READERS:
            return older.READERS[schema](content)
        return Results.model_validate(content)


def write_results(folder: Path, content: dict[str, Any]) -> Results:
    """Check ``content`` and write it by rename, samples on one line, since nobody reads them."""
    results = Results.model_validate(content)
    plain = json.loads(json.dumps({"schema": SCHEMA, **content}, allow_nan=False))
    body = {**plain, SEAL: sha256_content(plain)}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    write_text(folder / FILE, text + "\n")
    return results
