"""Report folders for tests: write results.json, read what was made of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

Results = dict[str, Any]


def write_results(folder: Path, content: Results) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    return folder


def report_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "results.json"
    }


def csv_rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8", newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}
