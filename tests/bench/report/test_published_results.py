"""Reports kept under docs/results are what kotune makes of the results.json beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from report_folder import report_files

from bench.report.writing import write_report
from bench.training.plan_accuracy import SCHEMA as PLAN
from bench.training.plan_accuracy import plan_markdown
from bench.training.report import training_markdown
from bench.training.training import SCHEMA as TRAINING

RESULTS = Path(__file__).parents[3] / "docs" / "results"
TABLES = {PLAN: plan_markdown, TRAINING: training_markdown}
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/results.json"))


def _schema(folder: Path) -> str:
    return json.loads((folder / "results.json").read_text("utf-8"))["schema"]


KEPT_TABLES = [folder for folder in FOLDERS if _schema(folder) in TABLES]
KEPT = [folder for folder in FOLDERS if folder not in KEPT_TABLES]


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_report_is_made_again_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    """After a change of the report's code: ``kotune report docs/results/NAME``."""
    shutil.copyfile(folder / "results.json", tmp_path / "results.json")
    write_report(tmp_path)
    made = report_files(tmp_path)
    differing = [name for name in made if (folder / name).read_bytes() != made[name]]
    assert differing == []


@pytest.mark.parametrize("folder", KEPT_TABLES, ids=lambda folder: folder.name)
def test_a_kept_table_is_made_again(folder: Path) -> None:
    content = json.loads((folder / "results.json").read_text("utf-8"))
    assert TABLES[content["schema"]](content) == (folder / "report.md").read_text("utf-8")
